"""What the widgets and the terminal's sink do with numbers, tokens and untrusted text."""

from __future__ import annotations

import io
import math
from dataclasses import replace

import pytest
import scripted_run
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from tokenglass.cli.terminal.console import make_console
from tokenglass.cli.terminal.terminal import supports_live, visible, visible_piece
from tokenglass.cli.widgets.cache_bar import CacheBar
from tokenglass.cli.widgets.candidates import CandidateTable
from tokenglass.cli.widgets.draw_strip import DrawStrip, stretches
from tokenglass.cli.widgets.lines import ChosenLine, SpeedLine
from tokenglass.cli.widgets.token_text import NO_COLORS, SIXTEEN_COLORS, TRUE_COLORS, Legend, styled_token, token_style
from tokenglass.cli.widgets.widget import ASCII, CHOSEN, PLAIN, UNICODE, Row, Widget, bar, bar_leftwards, curve, percent
from tokenglass.model.records.steps import CacheUsage, Candidate, Choice, Totals

BIDI = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


@given(st.text(st.characters() | st.sampled_from(BIDI + "\x1b\x9b\x7f\r")))
def test_visible_text_has_nothing_that_a_terminal_would_obey(text: str) -> None:
    for safe in (visible(text), visible(text, ascii_only=True)):
        assert not any(ord(char) < 0x20 and char not in "\n\t" for char in safe)
        assert not any(0x7F <= ord(char) < 0xA0 or char in BIDI for char in safe)
        safe.encode()
    assert visible(text, ascii_only=True).isascii()


@pytest.mark.parametrize("text", ["नमस्ते", "می‌خواهم", "👩‍👩‍👧‍👦", "e\u0301", "שלום\u200f", "日本語", "tab\tline\n"])
def test_scripts_and_emoji_that_need_zero_width_characters_stay_as_they_are(text: str) -> None:
    assert visible(text) == text


@pytest.mark.parametrize(
    ("text", "drawing"),
    [
        ("\x1b[2J", "␛[2J"),
        ("a\rb", "a␍b"),
        ("\x7f", "␡"),
        ("\x9b", "‹U+009B›"),
        ("\u202e", "‹U+202E›"),
        ("\ud800", "\ufffd"),
    ],
)
def test_control_characters_are_drawn_instead_of_obeyed(text: str, drawing: str) -> None:
    assert visible(text) == drawing


@pytest.mark.parametrize(
    ("piece", "cell", "in_ascii"),
    [
        (b" forest", "·forest", '" forest"'),
        (b"\n\n", "↵↵", '"\\n\\n"'),
        (b"\t", "⇥", '"\\t"'),
        (b"", "‹empty›", '""'),
        ("日本".encode(), "日本", '"\\u65e5\\u672c"'),
        (b"\xe2\x82", "‹E2 82›", '"\\xe2\\x82"'),
        (b"a\xff", "a‹FF›", '"a\\xff"'),
        (b"\x1b[", "␛[", '"\\x1b["'),
        ("\u200d".encode(), "‹U+200D›", '"\\u200d"'),
        ("\u00a0".encode(), "‹U+00A0›", '"\\xa0"'),
        ("·".encode(), "‹U+00B7›", '"\\xb7"'),
        ("\u0301".encode(), "◌\u0301", '"\\u0301"'),
        (b'"', '"', '"\\""'),
        (b"it's", "it's", '"it\'s"'),
    ],
)
def test_a_piece_shows_every_byte_without_doubt(piece: bytes, cell: str, in_ascii: str) -> None:
    assert visible_piece(piece) == cell
    assert visible_piece(piece, ascii_only=True) == in_ascii


@pytest.mark.parametrize(
    ("share", "text"),
    [(0.312, "31.2 %"), (0, "0.0 %"), (1, "100 %"), (0.0001, "<0.1 %"), (0.99999, ">99.9 %"), (None, "–")],
)
def test_a_percentage_never_rounds_to_nothing_or_to_all(share: float | None, text: str) -> None:
    assert percent(share) == text


def test_bars_are_in_eighths_and_never_empty_for_more_than_nothing() -> None:
    assert bar(0.5, 4, UNICODE) == "██"
    assert bar(0.53125, 4, UNICODE) == "██▏"
    assert bar(1e-9, 4, UNICODE) == "▏"
    assert bar(0, 4, UNICODE) == ""
    assert bar(2, 4, ASCII) == "####"


def test_a_bar_that_grows_leftwards_is_in_the_parts_of_a_cell_that_there_are_signs_for() -> None:
    assert bar_leftwards(0.5, 4, UNICODE) == "██"
    assert bar_leftwards(0.61, 4, UNICODE) == "▐██"
    assert bar_leftwards(1e-9, 4, UNICODE) == "▕"
    assert bar_leftwards(0, 4, UNICODE) == ""
    assert bar_leftwards(2, 4, ASCII) == "####"


@given(st.floats(0, 1), st.integers(1, 50))
def test_a_bar_is_as_long_leftwards_as_it_is_rightwards(share: float, width: int) -> None:
    assert abs(len(bar_leftwards(share, width, UNICODE)) - share * width) <= 1
    assert len(bar_leftwards(share, width, UNICODE)) <= width
    assert (bar_leftwards(share, width, UNICODE) == "") == (share == 0)


def test_a_legend_names_ranges_that_meet_each_other() -> None:
    assert text_of(Legend("probability", NO_COLORS), 80).split("  ")[-4:] == ["≥ 60 %", "20–60 %", "5–20 %", "< 5 %\n"]
    assert "< 1 bit  1–3 bits  3–5 bits  ≥ 5 bits" in text_of(Legend("entropy", NO_COLORS), 80)
    assert Legend("probability", NO_COLORS).rows(80, ASCII)[0][3].text == ">= 60 %"


def test_a_curve_ends_with_the_newest_value_and_is_as_wide_as_told() -> None:
    assert curve([1, 2, 3, 4], 16, UNICODE) == "▃▅▆█"
    assert len(curve(range(1000), 16, UNICODE)) == 16
    assert curve([0, 0], 16, UNICODE) == "▁▁"


@pytest.mark.parametrize("width", [40, 80, 120])
def test_columns_stay_aligned_whatever_the_cells_of_the_tokens(width: int) -> None:
    pieces = [" 日本語".encode(), "👍".encode(), b"plain", "e\u0301".encode(), b"x" * 99, b"\xe2"]
    candidates = tuple(Candidate(k, piece, math.log(0.1), 0.2) for k, piece in enumerate(pieces))
    choice = replace(scripted_run.choice(b"plain"), candidates=candidates)

    rows = CandidateTable(choice, heading=False, together=False).rows(width, UNICODE)

    starts = {cells_before(row, "20.0 %") for row in rows}
    assert len(starts) == 1


@pytest.mark.parametrize(
    ("width", "moved", "words"),
    [
        (120, (("dry", -0.26),), "−0.26 dry"),
        (120, (("logit-bias", 2.0), ("dry", -0.1)), "+2.00 logit-bias +1"),
        (100, (("repetition-penalty", -0.26),), "repetition-penalty"),
        (70, (("repetition-penalty", -0.26),), ""),
        (120, (), ""),
    ],
)
def test_what_moved_a_candidate_most_is_told_where_there_is_room(
    width: int, moved: tuple[tuple[str, float], ...], words: str
) -> None:
    candidate = Candidate(1, b" fox", math.log(0.1), 0.01, moved=moved)
    choice = replace(scripted_run.choice(b"plain"), candidates=(candidate,))

    (row,) = CandidateTable(choice, heading=False, together=False).rows(width, UNICODE)

    text = "".join(segment.text for segment in row)
    assert text.partition("█ ")[2].strip(" ▏▎▍▌▋▊▉") == words
    assert len(text) <= width


def test_what_is_not_reported_is_said_so() -> None:
    forced = Choice(3, 7, b"x", None, None, None, None, None)

    text = text_of(ChosenLine(forced), 200)

    assert text.count("not reported") == 3
    assert "raw – → final –" in text
    assert "no draw (greedy)" in text_of(ChosenLine(forced, greedy=True), 200)
    assert "prefill not reported" in text_of(SpeedLine(Totals(prefill_tokens=3)), 80)
    assert DrawStrip(forced).rows(80, UNICODE) == []


def test_the_strip_is_only_drawn_where_the_draw_falls_in_the_chosen_tokens_stretch() -> None:
    choice = scripted_run.choice(b" fox", 2)

    assert "▼" in text_of(DrawStrip(choice), 80)
    assert DrawStrip(replace(choice, draw=0.01)).rows(80, UNICODE) == []
    ends = [stretch.end for stretch in stretches(choice)]
    assert ends == sorted(ends)
    assert ends[-1] == 1


def test_the_cache_bar_tells_bytes_positions_and_what_was_evicted() -> None:
    usage = CacheUsage(512, 1024, 1024, 2048, 4096, 4, 7)

    text = text_of(CacheBar(usage, (1, 2), Totals()), 200)

    for words in (
        "██████████░░░░░░░░░░",
        "512 of 1,024 positions",
        "2.0 KiB used, 4.0 KiB held",
        "+4 B per token",
        "7 evicted",
    ):
        assert words in text


@pytest.mark.parametrize(("prob", "entropy"), [(0.9, 0.1), (0.3, 2.0), (0.1, 4.0), (0.01, 7.0)])
def test_surprise_has_a_style_with_colour_and_without(prob: float, entropy: float) -> None:
    choice = replace(scripted_run.choice(b"x"), prob=prob, entropy=entropy)
    level = [0.9, 0.3, 0.1, 0.01].index(prob)

    for ramp in (TRUE_COLORS, SIXTEEN_COLORS, NO_COLORS):
        assert token_style(choice, "probability", ramp) == ramp[level]
        assert token_style(choice, "entropy", ramp) == ramp[level]
        assert len(set(ramp)) == 4
        assert all(style.color != CHOSEN.color for style in ramp)
    assert token_style(choice, "entropy", None) == PLAIN
    underlined = styled_token("  fox x ", NO_COLORS[1])
    assert [(segment.text, segment.style) for segment in underlined] == [("  ", None), ("fox x ", NO_COLORS[1])]


@pytest.mark.parametrize(
    ("color", "environ", "colored"),
    [
        ("auto", {"TERM": "xterm"}, False),
        ("auto", {"TERM": "xterm", "FORCE_COLOR": "1"}, True),
        ("auto", {"TERM": "xterm", "FORCE_COLOR": "1", "NO_COLOR": "1"}, False),
        ("always", {"TERM": "xterm", "NO_COLOR": "1"}, True),
        ("always", {"TERM": "dumb"}, True),
        ("always", {}, True),
        ("never", {"TERM": "xterm", "FORCE_COLOR": "1"}, False),
    ],
)
def test_colour_in_a_pipe_comes_only_where_it_is_asked_for(color: str, environ: dict[str, str], colored: bool) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    console = make_console(stream, color=color, environ=environ)

    console.print("word", style="red")

    stream.flush()
    assert (b"\x1b[31m" in stream.buffer.getvalue()) is colored


def test_what_an_encoding_cannot_say_is_written_as_an_escape() -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="latin-1")

    make_console(stream, color="never", environ={}).print("日é")

    stream.flush()
    assert stream.buffer.getvalue() == b"\\u65e5\\xe9\n"


def test_a_closed_or_absent_stream_has_no_live_view() -> None:
    closed = io.StringIO()
    closed.close()

    assert not supports_live(None, None, {"TERM": "xterm"})
    assert not supports_live(closed, closed, {"TERM": "xterm"})


def text_of(widget: Widget, width: int) -> str:
    out = io.StringIO()
    Console(file=out, width=width, color_system=None, legacy_windows=False, _environ={}).print(widget)
    return out.getvalue()


def cells_before(row: Row, words: str) -> int:
    """Cells left of the segment that holds the words."""
    used = 0
    for segment in row:
        if words in segment.text:
            return used
        used += segment.cell_length
    raise AssertionError(row)
