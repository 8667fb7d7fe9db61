"""The texts of a trace, token by token, as every format of an export reads them."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from tokenglass.cli.run.summary import computed_on, description, in_words
from tokenglass.cli.terminal.terminal import visible
from tokenglass.model.records.steps import Choice, Finish, Record, Step
from tokenglass.model.runs.playback import Texts
from tokenglass.model.runs.run import Run

Runs = Iterable[tuple[Run, Iterable[Record]]]


@dataclass(frozen=True, slots=True)
class KeptToken:
    """A token that stands, the step that it came in, and what it adds to the text.

    A character that several tokens make stands with the last of them.
    """

    choice: Choice
    step: Step
    text: str


@dataclass(frozen=True, slots=True)
class KeptText:
    """One text of a run; `finish` is None where the run was cut off."""

    run: Run
    title: str
    tokens: tuple[KeptToken, ...]
    finish: Finish | None

    @property
    def text(self) -> str:
        return "".join(token.text for token in self.tokens)

    @property
    def about(self) -> str:
        """The model, of a text that was drawn the settings and the seed, and why it ended."""
        is_drawn = any(token.choice.status != "given" for token in self.tokens)
        parts = [*(description if is_drawn else computed_on)(self.run)]
        if self.finish is not None:
            parts.append(in_words(self.finish))
        return visible(", ".join(parts))


def kept_texts(runs: Runs) -> Iterator[KeptText]:
    """Every text of every run; of a run in which some finished, those alone."""
    for number, (run, records) in enumerate(runs, start=1):
        texts, finishes, steps = Texts(), dict[int, Finish](), dict[int, Step]()
        for record in records:
            if isinstance(record, Finish):
                finishes[record.sequence] = record
                continue
            texts.add(record)
            steps.update((id(choice), record) for choice in record.choices)  # a step keeps its choices alive
        for sequence in list(finishes) or list(texts.choices):
            choices = texts.choices.get(sequence, [])
            tokens = tuple(kept_tokens(choices, steps))
            yield KeptText(run, f"run {number}, text {sequence}", tokens, finishes.get(sequence))


def kept_tokens(choices: list[Choice], steps: dict[int, Step]) -> Iterator[KeptToken]:
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    for number, choice in enumerate(choices, start=1):
        yield KeptToken(choice, steps[id(choice)], decoder.decode(choice.piece, number == len(choices)))
