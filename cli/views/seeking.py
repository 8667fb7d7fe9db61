"""Where keys lead in a run: to a token by its number or its text, to the next surprise or near-tie."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from rich.segment import Segment

from tokenglass.cli.widgets.panel import Progress
from tokenglass.cli.widgets.widget import BOLD, DIM, Glyphs, Row, Widget, crop, one_line
from tokenglass.model.records.steps import Choice, Step
from tokenglass.model.records.surprise import is_near_tie, is_surprise

KEPT = 4096  # steps to go back to, where they cannot be read again
EVERY = 256  # steps from one that is kept to the next, where the others can be read again


@dataclass(frozen=True, slots=True)
class Moment:
    """What a goal may ask about: the newest choices, the number of the last token, and that of the step."""

    choices: Sequence[Choice]
    token: int
    step: int


@dataclass(frozen=True, slots=True)
class Goal:
    """A place to go to; `words` is what is said where there is none."""

    is_met: Callable[[Moment], bool]
    words: str
    is_next: bool = True  # behind what is looked at; otherwise the first of all, and it is met from there on


SURPRISE = Goal(lambda moment: any(map(is_surprise, moment.choices)), "no further surprise")
NEAR_TIE = Goal(lambda moment: any(map(is_near_tie, moment.choices)), "no further near-tie")


def token_number(number: int) -> Goal:
    return Goal(lambda moment: moment.token >= number, f"there is no token {number:,}", is_next=False)


def step_number(number: int) -> Goal:
    """The first step shown when all before it came at once."""
    return Goal(lambda moment: moment.step >= number, f"there is no step {number:,}", is_next=False)


def text_of_token(text: str) -> Goal:
    """The next token that contains this text; capitals count where there are any in it."""
    fold = str.lower if text == text.lower() else str

    def is_met(moment: Moment) -> bool:
        return any(text in fold(choice.piece.decode("utf-8", "replace")) for choice in moment.choices)

    return Goal(is_met, f"no further {text}")


@dataclass(frozen=True, slots=True)
class Entry(Widget):
    """What is being typed on the row of the keys: a text to find, or the number of a token."""

    key: str  # that began it
    text: str = ""

    @property
    def goal(self) -> Goal | None:
        if self.key == "/":
            return text_of_token(self.text) if self.text else None
        return token_number(int(self.text)) if self.text else None

    def press(self, key: str) -> Entry | None:
        """The entry after one more key; None where it was given up."""
        if key == "escape" or (key == "backspace" and not self.text):
            return None
        if key == "backspace":
            return Entry(self.key, self.text[:-1])
        fits = len(key) == 1 and (self.key == "/" or (key in "0123456789" and len(self.text) < 12))
        return Entry(self.key, self.text + key) if fits else self

    def rows(self, width: int, glyphs: Glyphs) -> list[Row]:
        label = "find" if self.key == "/" else "token"
        row = [Segment(f" {label:<6} ", DIM), Segment(one_line(self.text, glyphs), BOLD), Segment("_", DIM)]
        return [crop([*row, Segment("  enter", BOLD), Segment(" go", DIM)], width, glyphs)]


class Past:
    """The steps that were shown, the oldest first, as far as they are kept."""

    def __init__(self) -> None:
        self._kept: list[Progress] = []

    def __len__(self) -> int:
        return len(self._kept)

    def append(self, progress: Progress) -> None:
        self._kept.append(progress)
        if len(self._kept) > 2 * KEPT:
            del self._kept[:KEPT]

    def __getitem__(self, index: int) -> Progress:
        return self._kept[index]

    def since(self, index: int) -> Iterator[Progress]:
        return islice(self._kept, index, None)


class RereadPast(Past):
    """The same of a run that is kept in a trace: nearly all is read again, so that memory does not grow with it.

    `read` gives the step after so many others.
    """

    def __init__(self, read: Callable[[int], Step | None]):
        super().__init__()
        self._read = read
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def append(self, progress: Progress) -> None:
        if self._count % EVERY == 0:
            self._kept.append(progress)
        self._count += 1

    def __getitem__(self, index: int) -> Progress:
        return next(self.since(index))

    def since(self, index: int) -> Iterator[Progress]:
        place = index - index % EVERY
        if index >= self._count:
            return
        progress = self._kept[place // EVERY]
        while place < self._count:
            if place >= index:
                yield progress
            step = self._read(progress.totals.forwards)
            if step is None:
                return
            progress, place = progress.plus(step), place + 1
