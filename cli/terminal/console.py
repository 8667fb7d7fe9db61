"""Rich's consoles, on which whatever is printed becomes visible text."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from io import TextIOWrapper
from typing import IO, Any, Literal

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from tokenglass.cli.terminal.terminal import is_ascii, plain_stream, visible

ColorWhen = Literal["auto", "always", "never"]


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

    What the stream's encoding cannot say is written as an escape, never an error.
    """
    environ = os.environ if environ is None else environ
    stream = plain_stream(stream)
    if isinstance(stream, TextIOWrapper):
        is_limited = stream.isatty() and is_ascii(stream, environ)
        stream.reconfigure(encoding="ascii" if is_limited else None, errors="backslashreplace")
    forced = color == "always" or (color == "auto" and bool(environ.get("FORCE_COLOR")))
    plain = color == "never" or (color == "auto" and bool(environ.get("NO_COLOR")))
    console = VisibleConsole(
        file=stream,
        force_terminal=True if forced else None,
        no_color=plain,
        highlight=False,
        markup=False,
        emoji=False,
        _environ={name: value for name, value in environ.items() if name not in ("COLUMNS", "LINES")},
    )
    if color == "always" and console.color_system is None:
        return VisibleConsole(
            file=stream, force_terminal=True, color_system="standard", highlight=False, markup=False, emoji=False
        )
    return console


def size(console: Console) -> tuple[int, int]:
    """Columns and lines as they are now; COLUMNS and LINES of the environment may be old."""
    try:
        width, height = os.get_terminal_size(console.file.fileno())
    except (OSError, ValueError, AttributeError):
        return console.size.width, console.size.height
    return (width or 80), (height or 24)
