"""Many tokens in one pass: a block of masks is filled in a few passes, certain places before uncertain ones.

A pass computes a block of inputs that see each other and everything before them: the last settled token, then masks
and tokens already revealed. Its logits are those of as many tokens after the settled one (weights/recipe/joint.py has
the indices). What it leaves in the cache is the work of guesses and is cut off again. When no mask is left the tokens
are settled; the first pass over the next block computes them once more in front of it, as clean text, which commits
them to the cache: a commit is no pass of its own, but its positions are counted.

A token that is revealed stays. The last place of a block is no input of it, so no other place can agree with it: it is
revealed after the others, or with the last of them. Every place has one uniform number, whichever pass reveals it, and
the order depends on how certain the model is of a place, not on the token drawn there: that would favour likely tokens
twice. With blocks of one token this is autoregressive decoding.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from tokenglass.model.decoding.job import Job
from tokenglass.model.decoding.recorder import Recorder, record
from tokenglass.model.decoding.request import Request
from tokenglass.model.decoding.reveal import ParallelParameters
from tokenglass.model.decoding.sequence import Sequence
from tokenglass.model.decoding.sequences import Sequences
from tokenglass.model.engine.cache import KVCache
from tokenglass.model.engine.engine import Engine, Logits
from tokenglass.model.errors import NothingPossible, ParameterError
from tokenglass.model.records.steps import Block, Choice, Phase, Record, Step
from tokenglass.model.sampling.sampler import choose_each


def decode_parallel(job: Job, parameters: ParallelParameters) -> Iterator[Record]:
    """Prefill all of the prompt but its last token, then fill block after block; the last one is as long as is left.

    One Step per forward pass and a Finish at the end. A step with phase "denoise" has one choice for each place that
    was masked before it, now revealed or still masked; the text of a block comes with the pass that fills it. An end
    token cuts its block. Raises PromptError and ParameterError; an error in a later pass comes behind a Finish with
    reason "error".
    """
    mask_id = checked_mask(job.request, job.mask_id)
    sequence, job = job.new_sequence(), job.with_cache()
    engine, request, cache, planned_length = job.engine, job.request, job.cache, job.planned_length
    block: OpenBlock | None = None

    def decode_once(recorder: Recorder) -> Iterator[Step]:
        nonlocal block
        rewound_to = sequence.pop_rewind()
        place: Block | None = None
        choices: tuple[Choice, ...] = ()
        text = ""
        inputs, phase = next_clean(sequence, request, cache)
        if phase == "prefill":
            engine.forward([inputs], cache, planned_length=planned_length)
        else:
            length = len(sequence.token_ids)
            if block is None:
                block = OpenBlock(length, [None] * min(parameters.block_size, planned_length - length))
            place = Block(block.start, len(block.choices))
            inputs += block.token_ids(mask_id)[:-1]
            size = place.length
            logits = engine.forward([inputs], cache, last=size, planned_length=planned_length, block=size)
            if cache is not None:
                cache.truncate(0, length - 1)
            try:
                choices = block.reveal(sequence, logits[0], engine, parameters, request, mask_id)
            except NothingPossible:
                sequence.reason = "constraint"
                return
            if not block.masked_places:
                text, block = append_block(sequence, block), None
        usage = None if cache is None else cache.usage()
        yield recorder.step(phase, len(inputs), usage, choices, text, rewound_to=rewound_to, block=place)

    return record(Sequences([sequence]), decode_once, request, job.interrupt)


def checked_mask(request: Request, mask_id: int | None) -> int:
    """The mask token, if there is one and the request can be met without knowing the text before every place."""
    if mask_id is None:
        raise ParameterError(
            "this checkpoint has no mask token (mask_token_id in its config.json): it was not trained to fill in "
            "blocks; use --mode autoregressive, or another model such as tale"
        )
    for name, value in (("a constraint", request.constraint), ("healing", request.healed)):
        if value:
            raise ParameterError(f"{name} needs the text before each token, which a block does not have; leave one out")
    if request.negative_ids:
        raise ParameterError("a negative prompt does not work on blocks; leave out one of the two")
    return mask_id


def next_clean(sequence: Sequence, request: Request, cache: KVCache | None) -> tuple[list[int], Phase]:
    """The settled ids to compute next, the last of them included unless they are a chunk of the prompt."""
    if cache is None:
        return sequence.token_ids[:], "denoise"
    done, known = cache.keep_prefix(0, sequence.token_ids[:-1]), len(request.prompt_ids) - 1
    if done < known:
        return sequence.token_ids[done : min(done + request.prefill_chunk, known)], "prefill"
    return sequence.token_ids[done:], "denoise"


@dataclass(slots=True)
class OpenBlock:
    """A block being filled: a choice, or None for a mask, for each place from position `start` on."""

    start: int
    choices: list[Choice | None]
    passes: int = 0

    @property
    def masked_places(self) -> list[int]:
        """The places that are still masked."""
        return [place for place, choice in enumerate(self.choices) if choice is None]

    def token_ids(self, mask_id: int) -> list[int]:
        return [mask_id if choice is None or choice.token_id is None else choice.token_id for choice in self.choices]

    def reveal(
        self,
        sequence: Sequence,
        logits: Logits,
        engine: Engine,
        parameters: ParallelParameters,
        request: Request,
        mask_id: int,
    ) -> tuple[Choice, ...]:
        """Reveal some places by their logits (places, vocab); a choice for each that was hidden.

        An end token ends the block at its place. Raises EngineError, NothingPossible.
        """
        hidden = self.masked_places
        rows = logits[hidden]
        certainty = engine.measure_rows(rows, rows.argmax(1))
        peaks, entropies = [0.0] * len(logits), [0.0] * len(logits)  # of places that are revealed nobody asks
        numbers = zip(hidden, np.exp(certainty.logprobs).tolist(), certainty.entropies.tolist(), strict=True)
        for place, peak, entropy in numbers:
            peaks[place], entropies[place] = peak, entropy
        picked = parameters.pick(hidden, peaks, entropies, self.passes)
        self.passes += 1
        drawn = self._draw(sequence, logits, picked, engine, mask_id)
        choices = []
        for place in hidden:
            choice = masked_choice(self.start + place, entropies[place])
            if place in picked:
                chosen = drawn.get(place) or sequence.choose(logits[place], ahead=self.token_ids(mask_id)[:place])
                choice = self.choices[place] = replace(chosen, status="revealed")
            choices.append(choice)
            if choice.token_id in request.eos_token_ids:
                del self.choices[place + 1 :]
                break
        return tuple(choices)

    def _draw(
        self, sequence: Sequence, logits: Logits, places: list[int], engine: Engine, mask_id: int
    ) -> dict[int, Choice]:
        """The choices of places that do not depend on each other's tokens, all in one step."""
        token_ids = self.token_ids(mask_id)
        contexts = [(place, sequence.free_context(token_ids[:place])) for place in places]
        free = {place: (sequence.sampler, logits[place], context) for place, context in contexts if context is not None}
        return choose_each(free, engine.draw_each)


def append_block(sequence: Sequence, block: OpenBlock) -> str:
    """Append the block's tokens up to where the text ends or is taken back; the text that may be printed now."""
    text = ""
    for choice in block.choices:
        assert choice is not None
        assert choice.token_id is not None
        text += sequence.append(choice.token_id)
        if sequence.reason is not None or sequence.rewound_to is not None:
            break
    return text


def masked_choice(position: int, entropy: float) -> Choice:
    """A place that no pass has revealed."""
    return Choice(position, None, b"", None, None, None, entropy, None, status="masked")
