"""The live view in one process: what a screen holds after its frames, and the panel at each width."""

from __future__ import annotations

import io
import os
from dataclasses import replace
from pathlib import Path

import pyte
import pytest
import scripted_run
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.segment import Segment

from tokenglass.cli.terminal.region import Region
from tokenglass.cli.terminal.terminal import visible
from tokenglass.cli.views.live import LiveView
from tokenglass.cli.widgets.lines import Keys
from tokenglass.cli.widgets.panel import Panel, Progress, panel_height
from tokenglass.cli.widgets.widget import ASCII, UNICODE, glyphs_of
from tokenglass.model.records.steps import Finish, Totals

SNAPSHOTS = Path(__file__).parent / "snapshots"
SIZES = [(40, 24), (80, 24), (120, 40), (200, 50), (80, 10), (40, 10), (20, 6)]
# No tabs here: where one goes at the right edge is each terminal's own.
PIECES = st.lists(
    st.text(
        st.sampled_from("ab cdé\n")
        | st.characters(max_codepoint=0xFF, exclude_characters="\t")
        | st.sampled_from("\u202e\u2066x"),
        max_size=9,
    ),
    max_size=40,
)


class Screen(io.StringIO):
    """A stream that pyte reads, as a terminal would; it has the cooked mode's newline."""

    def __init__(self, columns: int, lines: int):
        super().__init__()
        self.screen = pyte.HistoryScreen(columns, lines, history=10_000, ratio=0.5)
        self.stream = pyte.Stream(self.screen)

    def write(self, text: str) -> int:
        self.stream.feed(text.replace("\r\n", "\n").replace("\n", "\r\n"))
        return len(text)

    def lines(self) -> list[str]:
        columns = self.screen.columns
        past = ["".join(row[x].data for x in range(columns)) for row in self.screen.history.top]
        return [line.rstrip() for line in [*past, *self.screen.display]]


def pinned(stream: io.StringIO, width: int, height: int) -> Console:
    return Console(
        file=stream,
        width=width,
        height=height,
        color_system="standard",
        force_terminal=True,
        legacy_windows=False,
        _environ={},
    )


@given(PIECES, st.integers(2, 30), st.integers(0, 8))
def test_whatever_the_tokens_the_screen_holds_their_text_once_and_then_the_panel(
    pieces: list[str], width: int, height: int
) -> None:
    screen = Screen(width, 10)
    region = Region(pinned(screen, width, 10))
    rows = [[Segment(f"{k}" * width)] for k in range(height)]

    for piece in pieces:
        region.draw([Segment(piece)], rows)
        assert not rows or f"{height - 1}" * width in screen.lines()
    region.finish([], rows)

    expected = wrap(visible("".join(pieces)), width) + ["".join(segment.text for segment in row) for row in rows]
    lines = screen.lines()
    assert lines[: len(expected)] == [line.rstrip() for line in expected]
    assert not any(lines[len(expected) :])


def wrap(text: str, width: int) -> list[str]:
    """Lines of single-width text as a terminal wraps them."""
    lines = []
    for paragraph in text.split("\n"):
        lines += [paragraph[start : start + width] for start in range(0, max(1, len(paragraph)), width)]
    return lines


@pytest.mark.parametrize(("width", "height"), SIZES)
@pytest.mark.parametrize("size", ["full", "slim"])
def test_the_panel_looks_as_it_was_approved(width: int, height: int, size: str) -> None:
    lines = draw(Panel(progress(14), size, panel_height(width, height)), width)

    assert_snapshot(f"panel-{size}-{width}x{height}", lines)


@pytest.mark.parametrize(
    ("name", "panel"),
    [
        ("end", lambda: Panel(progress(53, finished=True), "full", 16, "probability")),
        ("pause", lambda: Panel(progress(13), "full", 16, "entropy", keys=Keys("next"), highlighted=1)),
        (
            "prefill",
            lambda: Panel(Progress(scripted_run.run(prompt_tokens=2000), Totals(prefill_tokens=512)), "full", 16),
        ),
        ("no-cache", lambda: Panel(progress(20, cached=False), "full", 16)),
    ],
)
def test_the_panel_of_each_situation_looks_as_it_was_approved(name: str, panel: object) -> None:
    assert callable(panel)
    assert_snapshot(f"panel-{name}", draw(panel(), 80))


def test_an_ascii_terminal_gets_the_same_panel_in_ascii() -> None:
    rows = Panel(progress(14), "full", 16).rows(80, ASCII)
    text = "\n".join("".join(segment.text for segment in row).rstrip() for row in rows) + "\n"

    assert text.isascii()
    assert_snapshot("panel-ascii", text)


@given(st.integers(1, 250), st.integers(0, 60), st.integers(1, 53), st.sampled_from(["full", "slim", "off"]))
def test_no_row_is_wider_than_the_terminal_and_no_panel_higher_than_its_share(
    width: int, height: int, tokens: int, size: str
) -> None:
    for glyphs in (UNICODE, ASCII):
        rows = Panel(progress(tokens), size, panel_height(width, height), "probability").rows(width, glyphs)
        assert len(rows) <= max(0, height - 3)
        assert all(sum(segment.cell_length for segment in row) <= width for row in rows)


def test_the_chosen_token_is_shown_in_every_panel_that_shows_candidates() -> None:
    for tokens in range(1, 54):
        lines = draw(Panel(progress(tokens), "full", 6), 80)
        assert lines.count("▸") == 1


def test_the_draw_and_the_headings_have_room_before_the_second_line_of_the_cache() -> None:
    for height in range(6, 24):
        lines = draw(Panel(progress(14), "full", height), 80)
        assert " used, " not in lines or (" draw " in lines and " token " in lines and "rank" in lines)
    assert " used, " not in draw(Panel(progress(14), "full", 12), 80)
    assert "▼" in draw(Panel(progress(14), "full", 12), 80)


def test_a_view_on_a_pinned_console_returns_the_finish_and_draws_every_token() -> None:
    screen = Screen(80, 24)

    finish = LiveView(pinned(screen, 80, 24)).show(scripted_run.run(), scripted_run.records())

    assert isinstance(finish, Finish)
    text = scripted_run.PROMPT + "".join(scripted_run.STORY)
    expected = [line.rstrip() for line in wrap(text, 80)]
    assert screen.lines()[: len(expected)] == expected


def progress(tokens: int, *, cached: bool = True, finished: bool = False) -> Progress:
    totals, history = Totals(), []
    for step in list(scripted_run.steps(scripted_run.STORY, cached=cached))[:tokens]:
        totals = totals.plus(step)
        history.append(step.cache.nbytes_used if step.cache else step.num_input_tokens)
    finish = Finish(0, "eos", "", totals) if finished else None
    return Progress(scripted_run.run(), totals, step.choices[-1], step.cache, history, finish)


def draw(panel: Panel, width: int) -> str:
    """The panel as text, without blanks at line ends."""
    console = pinned(io.StringIO(), width, 50)
    rows = panel.rows(width, glyphs_of(console.options))
    return "\n".join("".join(segment.text for segment in row).rstrip() for row in rows) + "\n"


def assert_snapshot(name: str, screen: str) -> None:
    """Compare with the approved file; UPDATE_SNAPSHOTS=1 approves what is there now."""
    path = SNAPSHOTS / f"{name}.txt"
    if os.environ.get("UPDATE_SNAPSHOTS"):
        SNAPSHOTS.mkdir(exist_ok=True)
        path.write_text(screen, encoding="utf-8")
    assert screen == path.read_text(encoding="utf-8")


def test_a_forced_end_leaves_the_last_choice_in_the_panel_and_flow_stays_with_its_own_step() -> None:
    run = scripted_run.run(eos_token_ids=frozenset({7}))
    first, second, *_ = scripted_run.steps(scripted_run.STORY)
    progress_shown = replace(Progress(run, Totals()).plus(first), flow=({"row": "sums"},))
    (chosen,) = second.choices
    end = replace(chosen, token_id=7, status="forced", candidates=(), logprob=None)

    assert progress_shown.plus(replace(second, choices=(chosen, end))).choice == chosen
    assert progress_shown.plus(replace(second, choices=(end,))).choice == first.choices[0]
    assert progress_shown.plus(second).flow == ()
