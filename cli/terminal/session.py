"""The one harness of every view that redraws: keys, frames, resizes, suspension, and the terminal given back."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import NoReturn, Protocol, Self

from rich.segment import Segment

from tokenglass.cli.terminal.keys import Keyboard
from tokenglass.cli.terminal.signals import Action, Signals

POLL = 0.1  # seconds between looks at a resize or an interrupt while waiting for a key


@dataclass(frozen=True, slots=True)
class Key:
    name: str  # one character, or a key's name, always longer


@dataclass(frozen=True, slots=True)
class Resize:
    """The terminal has another size, or shows nothing of the view any more: draw anew."""


class Surface(Protocol):
    """What is drawn on: a Region below the text, or a Screen beside it."""

    def leave(self, text: Sequence[Segment] = ()) -> None:
        """Take away what is redrawn, and leave the text; the terminal may be gone."""


class Session:
    """One view on one terminal, in a `with` block: its loop asks for events, and draws in a `frame`.

    Whatever ends the block, `end` draws the last frame and the terminal is as it was. Ctrl-Z gives it back meanwhile.
    """

    def __init__(self, surface: Surface, *, reads: bool, needed: bool = True):
        """With `reads`, keys come as events, also where they are not `needed`; otherwise they wait for the shell."""
        self._surface = surface
        self._keyboard = Keyboard(reads=reads, needed=needed)
        self._signals = Signals()
        self._needs_frame = False

    def __enter__(self) -> Self:
        """Raises ParameterError where keys are needed and there is no terminal."""
        actions: dict[int, Action] = {
            signal.SIGTERM: self._on_terminate,
            signal.SIGTSTP: self._on_stop,
            signal.SIGWINCH: self._on_resize,
        }
        with ExitStack() as stack:
            stack.enter_context(self._keyboard)
            stack.enter_context(self._signals.handle(actions))
            stack.callback(self.end)
            self._leaving = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._leaving.__exit__(kind, error, at)

    def next_event(self, seconds: float) -> Key | Resize | None:
        """The next key or resize within that time, else None: a tick.

        Raises ParameterError for a terminal that is gone.
        """
        key = None if self._needs_frame else self._keyboard.key(seconds)
        if key is not None:
            return Key(key)
        if self._needs_frame:
            self._needs_frame = False
            return Resize()
        return None

    @contextmanager
    def frame(self) -> Iterator[None]:
        """Something is written in here, and signals wait until it is."""
        with self._signals.hold():
            yield

    def redraw(self) -> None:
        """Called where the size has changed or the program goes on, maybe in the midst of a pass.

        A view whose frames can be drawn at any time draws one; for others the event is enough.
        """

    def text_to_leave(self) -> Sequence[Segment]:
        """What a suspension writes where the view was, once."""
        return ()

    def end(self) -> None:
        """The last frame, or what stands in its place."""
        with self.frame():
            self._surface.leave(self.text_to_leave())

    def _on_resize(self) -> None:
        self._needs_frame = True
        self.redraw()

    def _on_stop(self) -> None:
        """Give the terminal back, stop, and go on below what the shell wrote meanwhile."""
        self._surface.leave(self.text_to_leave())
        self._keyboard.restore()
        os.kill(os.getpid(), signal.SIGSTOP)
        self._keyboard.quiet()
        self._on_resize()

    def _on_terminate(self) -> NoReturn:
        raise SystemExit(128 + signal.SIGTERM)
