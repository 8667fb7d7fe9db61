"""How fast choices are shown: a speed, or a default that can be followed at first and then becomes faster."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Self

from tokenglass.cli.options.view import ViewOptions
from tokenglass.model.errors import ParameterError
from tokenglass.model.records.steps import Finish, Record

FIRST = 12.0  # choices a second, at first
MOST = 8.0  # seconds that the default adds to a run at most
FAST = 1000.0  # choices a second
CHANGE = 1.5  # by which a key press makes it faster or slower
LONGEST = 60.0  # seconds that a recorded step may make anybody wait


def due(index: float) -> float:
    """Seconds from the first choice to choice `index`, counted from 0, at the default pace.

    It begins with FIRST choices a second, every choice comes sooner than the one before, and none after MOST seconds.
    """
    return -MOST * math.expm1(-index / (FIRST * MOST))


@dataclass(frozen=True, slots=True)
class Pace:
    """Choices a second, or None for the default; `factor` is what the user made of it since."""

    rate: float | None = None
    factor: float = 1.0
    is_recorded: bool = False  # the rate is then how many times the recorded speed

    @classmethod
    def parse(cls, text: str) -> Self:
        """A number of choices a second, `max`, or `default`. Raises ParameterError."""
        if text == "default":
            return cls()
        try:
            rate = math.inf if text == "max" else float(text)
        except ValueError:
            rate = math.nan
        if not rate >= 0:
            raise ParameterError(f"--speed is {text!r}; expected tokens a second such as 5, max, or default")
        return cls(rate)

    @classmethod
    def of(cls, options: ViewOptions) -> Self:
        """What `--speed` and `--pause` ask for. Raises ParameterError."""
        pace = cls() if options.speed is None else cls.parse(options.speed)
        return cls(0.0) if options.pause else pace

    @property
    def is_default(self) -> bool:
        return self.rate is None

    @property
    def is_stepwise(self) -> bool:
        """Whether each choice waits for a key."""
        return self.rate == 0

    @property
    def waits(self) -> bool:
        return self.rate != math.inf

    def seconds(self, shown: int, count: int = 1) -> float:
        """How long `count` choices behind the first `shown` stay before the next may come."""
        if self.is_recorded:
            return 0.0  # what follows says how long it takes
        if self.rate is None:
            return (due(shown + count) - due(shown)) / self.factor
        return count / (self.rate * self.factor) if self.rate else math.inf

    def faster(self) -> Pace:
        return Pace(1.0) if self.is_stepwise else replace(self, factor=self.factor * CHANGE)

    def slower(self) -> Pace:
        return replace(self, factor=self.factor / CHANGE) if self.waits else Pace(FIRST)


MAX = Pace(math.inf)  # never waits


@dataclass(slots=True)
class Schedule:
    """When each step may be shown; what comes later than that delays those behind it, and nothing is caught up."""

    pace: Pace
    shown: int = 0  # choices
    _count: int = 0  # of them in the newest step
    _since: float = 0.0  # when the newest step was shown, or should have been

    @property
    def turn(self) -> float:
        """When the next step may be shown."""
        if not self._count:
            return self._since
        return self._since + self.pace.seconds(self.shown - self._count, self._count)

    def left_before(self, record: Record, now: float) -> float:
        """Seconds until this record, the next, may be shown; an end may at once."""
        if isinstance(record, Finish):
            return 0.0
        turn, pace = self.turn, self.pace
        if pace.is_recorded and pace.rate is not None and record.seconds > 0:
            turn += min(record.seconds / (pace.rate * pace.factor), LONGEST)
        return max(0.0, turn - now)

    @property
    def rate(self) -> float | None:
        """Choices a second by now; None for more than anybody could follow."""
        seconds = self.pace.seconds(self.shown)
        return 1 / seconds if seconds > 1 / FAST else None

    def show(self, now: float, count: int, *, held: bool = False) -> None:
        """A step of so many choices is shown now; it may be late, or `held` by hand."""
        self._since = now if held else max(now, self.turn)
        self.shown += count
        self._count = count
