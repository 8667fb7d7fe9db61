"""What the matrices of a model multiply, measured on a text: int4 is fitted to that.

The text is the model's own, unless there is another: what it writes from nothing, drawn from its own probabilities (as
in Liu et al. 2023, arXiv 2305.17888). So nothing is needed beside the model, and the same model gives the same numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from tokenglass.model.checkpoint.grids import Squares
from tokenglass.model.decoding.job import Job
from tokenglass.model.decoding.request import Request
from tokenglass.model.decoding.samples import decode_samples
from tokenglass.model.loaded_model import LoadedModel
from tokenglass.model.records.steps import Step
from tokenglass.model.sampling.parameters import SamplingParameters

WINDOW = 256  # positions read at once, each window without what was before it
SIDE_BY_SIDE = 16  # texts that are written at once

Text = Sequence[int]


@dataclass(frozen=True, slots=True)
class InputSquares:
    """The squares of each matrix's inputs (in,), by its name, summed over `tokens` positions."""

    tokens: int = 0
    by_name: dict[str, Squares] = field(default_factory=dict)

    def plus(self, tokens: int, more: dict[str, Squares]) -> InputSquares:
        sums = {name: self.by_name.get(name, 0) + squares for name, squares in more.items()}
        return InputSquares(self.tokens + tokens, sums)


def write_texts(loaded: LoadedModel, tokens: int) -> Iterator[list[Text]]:
    """Texts of a window each that the model writes, as far as they are after each pass; at last `tokens` in all."""
    window = min(WINDOW, loaded.engine.limit)
    start = loaded.tokenizer.start_ids or loaded.checkpoint.eos_token_ids[:1] or (0,)
    sampling = SamplingParameters(temperature=1.0)
    request = Request(start, seed=0, sampling=sampling, max_new_tokens=window - len(start), ignore_eos=True, top=0)
    counts = [min(window, tokens - first) for first in range(0, tokens, window)]
    texts = [list(start) for _ in counts]
    for first in range(0, len(counts), SIDE_BY_SIDE):
        some = texts[first : first + SIDE_BY_SIDE]
        for record in decode_samples(Job.of(loaded, replace(request, seed=first)), len(some)):
            if isinstance(record, Step):
                some[record.sequence] += [choice.token_id for choice in record.settled if choice.token_id is not None]
                yield [text[:count] for text, count in zip(texts, counts, strict=True)]


def windows_of(token_ids: Text, limit: int) -> list[Text]:
    """A text in windows, for a model whose context holds `limit` positions."""
    window = min(WINDOW, limit)
    return [token_ids[start : start + window] for start in range(0, len(token_ids), window)]


def sum_input_squares(loaded: LoadedModel, texts: Sequence[Text]) -> Iterator[InputSquares]:
    """The sums so far, after each of the texts."""
    sums = InputSquares()
    for text in texts:
        sums = sums.plus(len(text), loaded.engine.sum_squares([text]))
        yield sums
