"""What a terminal can do, and the one place where untrusted text becomes safe to show on it."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Mapping
from io import TextIOWrapper
from typing import IO, Literal, TextIO

from rich.console import Console

ColorWhen = Literal["auto", "always", "never"]

MIN_WIDTH, MIN_HEIGHT = 20, 6  # below this a panel says nothing

BIDI = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
MARKS = {" ": "·", "\n": "↵", "\t": "⇥"}
RESERVED = frozenset("·↵⇥‹›◌")  # a token that holds one of our own marks is spelt out


def make_console(stream: IO[str], *, color: ColorWhen, environ: Mapping[str, str] | None = None) -> Console:
    """A console on `stream` that honours NO_COLOR, FORCE_COLOR, TERM and an ASCII-only locale.

    What the stream's encoding cannot say is written as an escape, never an error.
    """
    environ = os.environ if environ is None else environ
    if isinstance(stream, TextIOWrapper):
        stream.reconfigure(encoding="ascii" if is_ascii(stream, environ) else None, errors="backslashreplace")
    forced = color == "always" or (color == "auto" and bool(environ.get("FORCE_COLOR")))
    plain = color == "never" or (color == "auto" and bool(environ.get("NO_COLOR")))
    console = Console(
        file=stream,
        force_terminal=True if forced else None,
        no_color=plain,
        highlight=False,
        markup=False,
        emoji=False,
        _environ={name: value for name, value in environ.items() if name not in ("COLUMNS", "LINES")},
    )
    if color == "always" and console.color_system is None:
        return Console(
            file=stream, force_terminal=True, color_system="standard", highlight=False, markup=False, emoji=False
        )
    return console


def is_ascii(stream: IO[str], environ: Mapping[str, str]) -> bool:
    """Whether only ASCII is sure to be shown: another encoding than UTF-8, or the C locale, asked for by name."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    locale = environ.get("LC_ALL") or environ.get("LC_CTYPE") or environ.get("LANG") or ""
    return not encoding.lower().startswith("utf") or locale in ("C", "POSIX")


def supports_live(stdout: TextIO | None, stderr: TextIO | None, environ: Mapping[str, str] | None = None) -> bool:
    """Whether a live view makes sense: two real terminals, which can move the cursor, of a readable size."""
    environ = os.environ if environ is None else environ
    if os.name == "nt" or environ.get("TERM", "").lower() in ("", "dumb", "unknown"):
        return False
    if not (is_terminal(stdout) and is_terminal(stderr)):
        return False
    assert stdout is not None
    width, height = os.get_terminal_size(stdout.fileno())
    return width >= MIN_WIDTH and height >= MIN_HEIGHT


def is_terminal(stream: TextIO | None) -> bool:
    try:
        return stream is not None and stream.isatty()
    except (OSError, ValueError):  # closed
        return False


def size(console: Console) -> tuple[int, int]:
    """Columns and lines as they are now; COLUMNS and LINES of the environment may be old."""
    try:
        width, height = os.get_terminal_size(console.file.fileno())
    except (OSError, ValueError, AttributeError):
        return console.size.width, console.size.height
    return (width or 80), (height or 24)


def visible(text: str, *, ascii_only: bool = False) -> str:
    """Model text made safe for a terminal: control characters, bidi overrides and isolates become visible.

    Newline, tab, and the zero-width characters that emoji and many scripts need, stay as they are.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join([shown(char, ascii_only) for char in text])


def shown(char: str, ascii_only: bool) -> str:
    """One character of a text as `visible` shows it."""
    code = ord(char)
    if char in "\n\t" or 0x20 <= code < 0x7F:
        return char
    if ascii_only:
        return ascii(char)[1:-1]
    if code < 0x20:
        return chr(0x2400 + code)
    if code == 0x7F:
        return "␡"
    if 0xD800 <= code < 0xE000:
        return "\ufffd"
    return spelt_out(char) if code < 0xA0 or char in BIDI else char


def visible_piece(piece: bytes, *, ascii_only: bool = False) -> str:
    """A token in a table cell, each byte accounted for: ·forest, ↵, ⇥, ‹E2 82› for half a character, ‹U+200D›.

    ASCII terminals get a quoted string with escapes: " forest", "\\n", "\\xe2\\x82".
    """
    if ascii_only:
        decoded = piece.decode("utf-8", "surrogateescape")
        return '"' + "".join([quoted(char) for char in decoded]) + '"'
    if not piece:
        return "‹empty›"
    text, half = [], bytearray()
    for char in piece.decode("utf-8", "surrogateescape"):
        if 0xDC80 <= ord(char) <= 0xDCFF:
            half.append(ord(char) - 0xDC00)
            continue
        text.append(hexadecimal(half))
        half.clear()
        text.append(in_cell(char, first=not "".join(text)))
    text.append(hexadecimal(half))
    return "".join(text)


def in_cell(char: str, *, first: bool) -> str:
    """One character of a piece, alone in its cell and never zero wide."""
    if char in MARKS:
        return MARKS[char]
    kind = unicodedata.category(char)
    if char in RESERVED or kind in ("Cf", "Zs", "Zl", "Zp", "Cs", "Co", "Cn") or 0xFE00 <= ord(char) <= 0xFE0F:
        return spelt_out(char)
    if kind in ("Mn", "Me"):
        return f"◌{char}" if first else char
    return shown(char, ascii_only=False)


def quoted(char: str) -> str:
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    return "\\" + char if char in '"\\' else ascii(char)[1:-1] if char != "'" else char


def hexadecimal(half: bytes | bytearray) -> str:
    return f"‹{half.hex(' ').upper()}›" if half else ""


def spelt_out(char: str) -> str:
    return f"‹U+{ord(char):04X}›"
