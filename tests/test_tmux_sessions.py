"""The live view in tmux, which wraps anew when it is resized: what a user copies from it."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import scripted_run
from terminal import SIZES, hold_at, is_held, start_in_tmux, wait_for_copy

LONG = scripted_run.PROMPT + "".join(scripted_run.STORY) * 6


@pytest.mark.parametrize(("columns", "lines"), SIZES)
def test_what_tmux_copies_has_no_line_break_that_the_model_did_not_write(
    tmux: Callable[..., str], columns: int, lines: int
) -> None:
    start_in_tmux(tmux, "--repeat 6 --delay 0.003", columns, lines)

    copied = wait_for_copy(tmux, lambda copied: "reason eos" in copied)

    assert copied.startswith(LONG.rstrip() + "\n")
    assert copied.count("eos: the model") == 1


@pytest.mark.parametrize("color_by", ["none", "probability"])
def test_wide_characters_that_meet_the_right_edge_are_copied_whole(tmux: Callable[..., str], color_by: str) -> None:
    pieces = ["日本", "x", "語の", "👍", "é", "yz", "한국어"]
    arguments = f"--repeat 20 --delay 0.06 --color-by {color_by} --pieces {shlex.quote(repr(pieces))}"
    start_in_tmux(tmux, arguments, 41, 24)

    copied = wait_for_copy(tmux, lambda copied: "reason eos" in copied)

    assert copied.startswith(scripted_run.PROMPT + "".join(pieces) * 20 + "\n")


def test_resizing_in_tmux_which_wraps_anew_keeps_the_text_and_one_panel(
    tmux: Callable[..., str], tmp_path: Path
) -> None:
    resize_in_turn(tmux, tmp_path / "held", (100, 24), (97, 12), (94, 30), (120, 24))

    copied = wait_for_copy(tmux, lambda copied: "reason eos" in copied)

    assert copied.startswith(scripted_run.PROMPT + "".join(scripted_run.STORY) * 8 + "\n")
    assert copied.count("chosen ") == 1


def test_dragging_a_tmux_pane_narrower_leaves_no_old_panel_in_its_history(
    tmux: Callable[..., str], tmp_path: Path
) -> None:
    resize_in_turn(tmux, tmp_path / "held", (77, 24), (74, 24), (70, 24), (67, 24))

    copied = wait_for_copy(tmux, lambda copied: "reason eos" in copied)

    assert copied.startswith(scripted_run.PROMPT + "".join(scripted_run.STORY) * 8 + "\n")
    assert copied.count("─ token ") == copied.count("chosen ") == 1


def test_halving_a_tmux_pane_goes_on_with_the_text_and_a_whole_panel(tmux: Callable[..., str], tmp_path: Path) -> None:
    """tmux may push the place where the text ends into its history, and old panel lines with it: they stay there."""
    resize_in_turn(tmux, tmp_path / "held", (40, 24), (80, 24), (31, 24))

    copied = wait_for_copy(tmux, lambda copied: "reason eos" in copied)

    paragraph = "".join(scripted_run.STORY).split("\n\n")[1]
    assert paragraph + "".join(scripted_run.STORY).split("\n\n")[0] + "\n" in copied
    assert copied.count("eos: the model") == 1
    panel = copied[copied.rindex("─ token ") :]
    assert [label for label in ("chosen", "cache", "speed", "end") if panel.count(f" {label} ") != 1] == []


def resize_in_turn(tmux: Callable[..., str], held: Path, *sizes: tuple[int, int]) -> None:
    """A run that is resized between two frames, one size after the other, with 30 tokens in between."""
    tokens = [20 + 30 * turn for turn in range(len(sizes))]
    start_in_tmux(tmux, f"--repeat 8 --delay 0.01 {hold_at(tokens, held)}", 80, 24)
    for token, (columns, lines) in zip(tokens, sizes, strict=True):
        wait_for_copy(tmux, lambda _, token=token: is_held(held, token))
        time.sleep(0.2)  # tmux takes what was written before it
        tmux("resize-window", "-t", "run", "-x", str(columns), "-y", str(lines))
