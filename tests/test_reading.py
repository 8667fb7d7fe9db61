"""Text while it grows, on real pseudo-terminals: each frame fits, words are whole, and the scrollback has all once."""

from __future__ import annotations

import shlex

import pytest
import scripted_run
from terminal import SIZES, Terminal, assert_restored
from wrapped_text import laid_out, wrap

PIECES = [piece.replace("\n", " ") for piece in scripted_run.STORY]  # one paragraph, however long


def text_lines(lines: list[str]) -> list[str]:
    """What stands above the panel's rule."""
    return lines[: next((k for k, line in enumerate(lines) if line.startswith("─ ")), len(lines))]


@pytest.mark.parametrize(("columns", "lines"), SIZES)
def test_the_open_paragraph_has_whole_words_in_every_frame_and_is_written_once_at_its_end(
    columns: int, lines: int
) -> None:
    pieces = PIECES * 6
    arguments = f"--repeat 6 --delay 0.004 --pieces {shlex.quote(repr(PIECES))}"
    terminal = Terminal(arguments, columns, lines)
    whole = scripted_run.PROMPT + "".join(pieces)
    beginnings = {len(scripted_run.PROMPT)}
    for piece in pieces:
        beginnings.add(max(beginnings) + len(piece))
    allowed = [laid_out(whole[:length], columns) for length in sorted(beginnings)]
    heights = set()

    for frame in terminal.frames():
        assert all(len(line) <= columns for line in frame)
        rows = text_lines(frame)
        heights.add(len(rows))
        if rows[0].endswith("more above"):
            rows = rows[1:]
            assert any(screen_lines[-len(rows) :] == rows and len(screen_lines) > len(rows) for screen_lines in allowed)
        elif "eos: the model" not in "".join(frame):
            assert rows in allowed

    assert terminal.finish() == 0
    assert max(heights) <= max(len(wrap(whole, columns)), lines)
    assert terminal.lines()[: len(wrap(whole, columns))] == wrap(whole, columns)
    assert terminal.text().count("more above") == 0
    assert_restored(terminal)


def test_text_that_is_interrupted_amid_a_paragraph_is_left_once_and_unwrapped() -> None:
    terminal = Terminal(f"--repeat 9 --delay 0.01 --pieces {shlex.quote(repr(PIECES))}", 60, 24)
    terminal.wait_for_token(80)
    terminal.child.sendintr()
    assert terminal.finish() == 0

    lines = text_lines(terminal.lines())
    whole = scripted_run.PROMPT + "".join(PIECES * 9)
    beginning = wrap(whole, 60)[: len(lines)]
    assert lines[:-1] == beginning[:-1]
    assert beginning[-1].startswith(lines[-1])
    assert_restored(terminal)
