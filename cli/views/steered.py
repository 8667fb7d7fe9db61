"""A run that is shown no faster than a pace, and steered with keys: pause, speed, steps back, places to go to."""

from __future__ import annotations

import threading
import time
from abc import abstractmethod
from bisect import bisect_left
from collections.abc import Iterator

from tokenglass.cli.terminal.session import POLL, Key, Session, Surface
from tokenglass.cli.views.pace import MAX, Pace, Schedule
from tokenglass.cli.views.seeking import NEAR_TIE, SURPRISE, Entry, Goal, Moment
from tokenglass.cli.views.unfolding import Unfolding
from tokenglass.cli.widgets.lines import Keys
from tokenglass.cli.widgets.widget import Widget
from tokenglass.model.records.steps import Choice, Finish, Record

MEANING = {"h": "left", "l": "right", "k": "up", "j": "down", "=": "+", "end": "f"}


class SteeredSession(Session):
    """Which step is looked at, and when the next may come.

    While a step stays on the screen the next one is computed, and that one waits for its turn: decoding is at most one
    step ahead, and a run that is slower than the pace is not held up.
    """

    def __init__(
        self,
        surface: Surface,
        pace: Pace,
        interrupt: threading.Event | None,
        unfolding: Unfolding,
        start: Goal | None,
    ):
        """`q` sets `interrupt`; what comes before `start` is shown at once."""
        self._schedule = Schedule(pace)
        self._reads = pace.waits
        super().__init__(surface, reads=self._reads, needed=pace.is_stepwise)
        self._interrupt = interrupt
        self._unfolding = unfolding
        self._behind = 0  # steps between what is looked at and the newest
        self._paused = pace.is_stepwise
        self._released = False  # the next step was asked for
        self._highlighted: int | None = None
        self._entry: Entry | None = None
        self._goal = start  # the last one, also once it is reached
        self._seeks = start is not None  # steps are shown at once until the goal is reached
        self._stays = self._paused  # there
        self._words = ""  # about a goal that was not reached

    @property
    @abstractmethod
    def _can_wait(self) -> bool:
        """Whether there is anything to look at."""

    @property
    @abstractmethod
    def _num_past(self) -> int:
        """How many steps behind the newest can be looked at."""

    @property
    @abstractmethod
    def _choice(self) -> Choice | None:
        """The choice that is looked at; None where several texts have one each."""

    @abstractmethod
    def _moments(self, first: int) -> Iterator[Moment]:
        """What was shown from the past on, up to the newest."""

    @abstractmethod
    def _draw(self, *, explain: bool = True) -> None:
        """A frame."""

    def _show_now(self, count: int) -> None:
        """A step of so many choices is on the screen, or will be at the next frame."""
        self._schedule.show(time.perf_counter(), count, held=self._paused)

    def _await_turn(self, record: Record) -> None:
        """Until the record may be shown; keys are obeyed meanwhile."""
        interrupt = self._interrupt
        if self._seeks and self._goal is not None:
            is_met = self._can_wait and self._goal.is_met(next(self._moments(self._num_past)))
            if is_met or isinstance(record, Finish):
                self._stop_seeking(is_met=is_met)
                self._draw(explain=False)
        self._released = not self._reads
        while not self._released and not (interrupt is not None and interrupt.is_set()):
            holds = self._paused and self._can_wait and not self._seeks
            left = (
                0.0
                if isinstance(record, Finish) or self._seeks
                else self._schedule.left_before(record, time.perf_counter())
            )
            event = self.next_event(POLL if holds else min(left, POLL))
            if isinstance(event, Key):
                self._type(event.name)
                if self._seeks and isinstance(record, Finish):
                    self._stop_seeking(is_met=False)
                self._draw(explain=False)
            elif left == 0 and not holds:
                break
        self._behind, self._highlighted, self._words = 0, None, ""

    def _type(self, key: str) -> None:
        """A key: an end to seeking, part of what is being typed, or something to obey."""
        if self._seeks:
            self._seeks, self._paused = False, True
        elif self._entry is None:
            self._words = ""
            self._obey(MEANING.get(key, key))
        elif key == "enter":
            goal, self._entry = self._entry.goal, None
            if goal is not None:
                self._seek(goal)
        else:
            self._entry = self._entry.press(key)

    def _obey(self, key: str) -> None:
        schedule = self._schedule
        stepwise = schedule.pace.is_stepwise
        if key == "q":
            if self._interrupt is None:
                raise KeyboardInterrupt
            self._interrupt.set()
        elif key == "f" or (key == "enter" and not stepwise):
            schedule.pace, self._paused = MAX, False
        elif key == "+":
            schedule.pace, self._paused = schedule.pace.faster(), self._paused and not stepwise
        elif key == "-":
            schedule.pace = schedule.pace.slower()
        elif key == " " and not stepwise:
            self._paused = not self._paused
            self._behind = 0
        elif key in (" ", "enter") or (key == "right" and self._behind == 0):
            self._paused = self._released = True
        elif key in ("u", "d"):
            self._unfolding.obey(key, self._choice)
            self._paused = self._paused or (key == "d" and self._unfolding.log is not None)
        elif key in ("left", "right"):
            self._paused, self._highlighted = True, None
            self._behind = min(max(0, self._behind + (1 if key == "left" else -1)), self._num_past)
        elif key in ("up", "down") and (choice := self._choice) is not None and choice.candidates:
            places, step = choice.possible_first, 1 if key == "down" else -1
            start = min(step, 0) if self._highlighted is None else places.index(self._highlighted) + step
            self._paused, self._highlighted = True, places[start % len(places)]
        elif key in ("/", "g"):
            self._paused, self._entry = True, Entry(key)
        elif key in ("s", "t") or (key == "n" and self._goal is not None):
            self._seek({"s": SURPRISE, "t": NEAR_TIE}.get(key, self._goal))

    def _seek(self, goal: Goal | None) -> None:
        """Look at the first place that meets the goal among those that were shown, or show steps until there is one."""
        assert goal is not None
        self._goal, self._highlighted = goal, None
        newest = self._num_past
        if goal.is_next:
            first = newest - self._behind + 1
            places = (first + number for number, moment in enumerate(self._moments(first)) if goal.is_met(moment))
            place = next(places, newest + 1)
        else:
            place = bisect_left(range(newest + 1), True, key=lambda place: goal.is_met(next(self._moments(place))))
        self._paused = self._stays = True
        self._seeks = place > newest
        self._behind = max(0, newest - place)

    def _stop_seeking(self, *, is_met: bool) -> None:
        assert self._goal is not None
        self._seeks, self._paused = False, self._stays
        self._words = "" if is_met else self._goal.words

    def _keys(self) -> Widget:
        schedule, unfold = self._schedule, self._unfolding.word(self._choice)
        if self._entry is not None:
            return self._entry
        if self._paused:
            return Keys("next" if schedule.pace.is_stepwise else "go on", unfold=unfold, words=self._words)
        speed = "speed" if schedule.rate is None else f"{schedule.rate:.{schedule.rate < 2:d}f} a second"
        return Keys("pause", speed, unfold)
