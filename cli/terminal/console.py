"""Rich's consoles, on which whatever is printed becomes visible text."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Mapping
from io import TextIOWrapper
from typing import IO, Any, Literal

from rich.console import Console, ConsoleDimensions, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from tokenglass.cli.terminal.terminal import is_ascii, plain_stream, visible

ColorWhen = Literal["auto", "always", "never"]
ENDLESS = 100_000  # columns, where no terminal folds or cuts a line
USUAL = 80, 24  # columns and lines of what is drawn to fill a width, where there is no terminal


class VisibleConsole(Console):
    """A console on which all text is visible, whatever it is made of; only the console's own codes are codes."""

    def render_str(self, text: str, **options: Any) -> Text:
        """Before anything is measured."""
        return super().render_str(visible(text, ascii_only=self._is_ascii), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            text, style, control = segment
            yield segment if control else Segment(visible(text, ascii_only=self._is_ascii), style)

    @property
    def _is_ascii(self) -> bool:
        return not self.encoding.startswith("utf")


def make_console(stream: IO[str], *, color: ColorWhen, environ: Mapping[str, str] | None = None) -> Console:
    """A console on `stream` that honours NO_COLOR, FORCE_COLOR, TERM and an ASCII-only locale.

    What the stream's encoding cannot say is written as an escape, never an error. Where the stream is no terminal,
    lines are as long as their content.
    """
    environ = os.environ if environ is None else environ
    stream = plain_stream(stream)
    if isinstance(stream, TextIOWrapper):
        is_limited = stream.isatty() and is_ascii(stream, environ)
        stream.reconfigure(encoding="ascii" if is_limited else None, errors="backslashreplace")
    forced = color == "always" or (color == "auto" and bool(environ.get("FORCE_COLOR")))
    plain = color == "never" or (color == "auto" and bool(environ.get("NO_COLOR")))
    new_console = functools.partial(VisibleConsole, file=stream, highlight=False, markup=False, emoji=False)
    console = new_console(
        force_terminal=True if forced else None,
        no_color=plain,
        _environ={name: value for name, value in environ.items() if name not in ("COLUMNS", "LINES")},
    )
    if color == "always" and console.color_system is None:
        console = new_console(force_terminal=True, color_system="standard")
    if not stream.isatty():
        console.size = ConsoleDimensions(ENDLESS, USUAL[1])
    elif console.is_dumb_terminal:  # rich takes each for one of 80 columns
        console.size = ConsoleDimensions(*size(console))
    return console


def size(console: Console) -> tuple[int, int]:
    """Columns and lines as they are now; COLUMNS and LINES of the environment may be old."""
    try:
        width, height = os.get_terminal_size(console.file.fileno())
    except (OSError, ValueError, AttributeError):
        return drawn_width(console.width), console.height
    return (width or USUAL[0]), (height or USUAL[1])


def drawn_width(width: int) -> int:
    """The columns of what fills a width: not all of an endless line."""
    return width if width < ENDLESS else USUAL[0]
