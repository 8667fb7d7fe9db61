"""What a terminal can do, and the one place where untrusted text becomes safe to show on it. A pipe needs no rich."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Mapping
from typing import IO, Any, TextIO

MIN_WIDTH, MIN_HEIGHT = 20, 6  # below this a panel says nothing

# Control characters (C0 but for newline and tab, DEL, C1), bidi overrides and isolates, halves of surrogate pairs
UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
NOT_ASCII = re.compile("[^\n\t\x20-\x7e]")
MARKS = {" ": "·", "\n": "↵", "\t": "⇥"}
RESERVED = frozenset("·↵⇥‹›◌")  # a token that holds one of our own marks is spelt out


def plain_stream(stream: Any) -> Any:
    """The stream that a console writes its own codes to: it makes all else visible itself."""
    return getattr(stream, "plain_stream", stream)


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


def visible(text: str, *, ascii_only: bool = False) -> str:
    """Model text made safe for a terminal: control characters, bidi overrides and isolates become visible.

    Newline, tab, and the zero-width characters that emoji and many scripts need, stay as they are.
    """
    if text.isascii() and text.isprintable():
        return text
    if ascii_only:
        return NOT_ASCII.sub(lambda char: ascii(char[0])[1:-1], text)
    return UNSAFE.sub(lambda char: escape_char(char[0]), text)


def escape_char(char: str) -> str:
    """One character that is not safe, as `visible` shows it."""
    code = ord(char)
    if code < 0x20:
        return chr(0x2400 + code)
    if code == 0x7F:
        return "␡"
    if 0xD800 <= code < 0xE000:
        return "\ufffd"
    return spelt_out(char)


def visible_piece(piece: bytes, *, ascii_only: bool = False) -> str:
    """A token in a table cell, each byte accounted for: ·forest, ↵, ⇥, ‹E2 82› for half a character, ‹U+200D›.

    ASCII terminals get a quoted string with escapes: " forest", "\\n", "\\xe2\\x82".
    """
    if ascii_only:
        decoded = piece.decode("utf-8", "surrogateescape")
        return '"' + "".join([quote_char(char) for char in decoded]) + '"'
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
    return visible(char)


def quote_char(char: str) -> str:
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    return "\\" + char if char in '"\\' else ascii(char)[1:-1] if char != "'" else char


def hexadecimal(half: bytes | bytearray) -> str:
    return f"‹{half.hex(' ').upper()}›" if half else ""


def spelt_out(char: str) -> str:
    return f"‹U+{ord(char):04X}›"
