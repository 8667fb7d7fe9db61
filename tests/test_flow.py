"""`tokenglass flow`: what it prints, saves and shows, and what its words and colours mean."""

from __future__ import annotations

import io
import json
import math
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import shell
from closeness import near
from flow_picture import PICTURE, RUN, draw, fresh_run, read_flow
from rich.console import Console
from terminal import Terminal

from tokenglass.cli.terminal.console import make_console
from tokenglass.cli.views.flow import WalkPage
from tokenglass.cli.widgets.flow_grid import FlowGrid, telling
from tokenglass.cli.widgets.flow_layers import FlowLayers, pick_rows
from tokenglass.cli.widgets.flow_page import FlowHead, FlowPage, styles_of
from tokenglass.cli.widgets.flow_panel import FlowPanel
from tokenglass.cli.widgets.flow_parts import FlowParts
from tokenglass.cli.widgets.influence import LEVELS, LEVELS_WITHOUT_COLOR, InfluenceText, level
from tokenglass.cli.widgets.widget import ASCII, UNICODE, Glyphs, Widget
from tokenglass.model.inspection.reading import as_rows
from tokenglass.model.inspection.records import Effect, Flow, Token
from tokenglass.model.records.codec import from_dict
from tokenglass.model.records.steps import Step
from tokenglass.model.runs.trace import from_line, to_line

STORY = "Once upon a time there was a little fox. The little fox"


@pytest.fixture(scope="module")
def flow() -> Flow:
    return read_flow(RUN.read_text())


def text_of(widget: Widget, width: int = 80, glyphs: Glyphs = UNICODE) -> str:
    return "\n".join("".join(segment.text for segment in row) for row in widget.rows(width, glyphs))


def read_json(done: subprocess.CompletedProcess[bytes]) -> list[Flow]:
    assert done.returncode == 0, done.stderr.decode()
    return [from_dict(Flow, json.loads(line)) for line in done.stdout.splitlines()]


def test_the_bundled_model_names_the_fox_because_of_the_earlier_fox() -> None:
    (flow,) = read_json(shell.tokenglass("flow", STORY, "--jsonl"))

    assert flow.chosen.piece == b" fox"
    strongest = max(flow.positions[:-1], key=lambda influence: influence.direct.kl_bits)
    assert strongest.token.piece == b" fox"
    assert math.exp(flow.logprob) > 0.8
    assert math.exp(flow.logprob + strongest.direct.logprob_change) < 0.01
    assert flow.sum_of_components == near(flow.difference)


def test_the_kept_induction_run_points_at_the_earlier_occurrence(flow: Flow) -> None:
    assert flow.chosen.piece == b"ak"
    strongest = max(flow.positions[:-1], key=lambda influence: influence.direct.kl_bits)
    assert (strongest.position, strongest.token.piece) == (5, b"ak")
    assert strongest.direct.kl_bits > 5 * sorted(influence.direct.kl_bits for influence in flow.positions[:-1])[-2]
    assert max(flow.positions[1:-1], key=lambda influence: influence.logit) == strongest
    assert math.exp(flow.logprob + flow.positions[4].direct.logprob_change) > 0.8  # already read by those after it
    assert math.exp(flow.logprob + flow.positions[4].total.logprob_change) < 0.01
    assert flow.sum_of_components == near(flow.difference)


def test_the_picture_is_what_its_run_shows() -> None:
    assert draw(RUN.read_text()) == PICTURE.read_text(encoding="utf-8"), "run: python tests/flow_picture.py"
    assert "http://www.w3.org/2000/svg" in PICTURE.read_text()
    assert "https://" not in PICTURE.read_text().replace("https://www.textualize.io", "")  # it fetches nothing


@pytest.mark.slow
def test_the_kept_run_is_what_the_program_finds_in_smollm2(flow: Flow) -> None:
    if shell.tokenglass("inspect", "smollm2").returncode != 0:
        pytest.skip("needs `tokenglass pull smollm2`")

    fresh = read_flow(fresh_run().decode())

    for old, new in zip(flow.positions, fresh.positions, strict=True):
        assert old.token == new.token
        assert abs(old.logit - new.logit) < 1e-3
        if old.direct is not None:
            assert abs(old.direct.kl_bits - new.direct.kl_bits) < 1e-3
    assert [old.top for old in flow.layers] == [new.top for new in fresh.layers]


def test_a_pipe_gets_plain_text_with_letters_below_what_mattered() -> None:
    done = shell.tokenglass("flow", STORY, "--rows", "5")

    words = done.stdout.decode()
    assert done.returncode == 0, done.stderr.decode()
    assert "\x1b" not in words
    assert done.stderr == b""
    lines = words.splitlines()
    text = next(number for number, line in enumerate(lines) if "Once upon a time" in line)
    at = lines[text].index(" fox.")
    assert lines[text + 1][at : at + 4] == "AAAA"
    assert lines[text + 1].rstrip().endswith("^^^^")
    assert all(len(line) <= 80 for line in lines)


def test_a_prompt_is_continued_by_a_seed_and_every_new_token_explained() -> None:
    command = ("flow", "Once upon a time", "-n", "3", "--seed", "5", "--jsonl")
    flows = read_json(shell.tokenglass(*command))

    assert [flow.position for flow in flows] == [5, 6, 7]
    assert [flow.chosen for flow in read_json(shell.tokenglass(*command))] == [flow.chosen for flow in flows]
    assert flows[2].positions[5].token == flows[0].chosen
    (same,) = read_json(shell.tokenglass("flow", "Once upon a time" + text(flows), "--jsonl"))
    assert same.chosen == flows[2].chosen
    assert abs(same.logprob - flows[2].logprob) < 1e-4


def text(flows: list[Flow]) -> str:
    return b"".join(flow.chosen.piece for flow in flows).decode()


def test_what_cannot_be_explained_is_refused_in_one_line(tmp_path: Path) -> None:
    shell.assert_one_line_error(shell.tokenglass("flow", "a b", "--at", "9"), 2, "positions 1 to 2")
    shell.assert_one_line_error(shell.tokenglass("flow", ""), 2, "empty")
    shell.assert_one_line_error(shell.tokenglass("flow", "a b", "-i"), 2, "--interactive needs a terminal")
    shell.assert_one_line_error(shell.tokenglass("flow", "a b", "-i", "--jsonl"), 2, "exclude each other")
    missing = tmp_path / "no" / "folder.svg"
    shell.assert_one_line_error(shell.tokenglass("flow", "a b", "--svg", str(missing)), 1, "No such file")


def test_a_picture_is_saved_and_told_on_stderr(tmp_path: Path) -> None:
    done = shell.tokenglass("flow", STORY, "--svg", str(tmp_path / "flow.svg"))

    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout == b""
    assert "wrote" in done.stderr.decode()
    assert "added&#160;up" in (tmp_path / "flow.svg").read_text(encoding="utf-8")


@pytest.mark.parametrize(("columns", "lines"), [(80, 24), (120, 40), (40, 24), (80, 10)])
def test_walking_along_the_text_on_a_terminal(columns: int, lines: int) -> None:
    program = f"exec {shell.SCRIPTS / 'tokenglass'} flow -i '{STORY}'"
    terminal = Terminal(columns=columns, lines=lines, program=program)
    terminal.wait_for_words("token 13 of 13")
    terminal.child.send("\x1b[D\x1b[D")
    terminal.wait_for_words("token 11 of 13")
    terminal.child.send("\x1b[C")
    terminal.wait_for_words("token 12 of 13")
    terminal.child.send("2")
    terminal.wait_for_words("reads as")
    terminal.child.send("3")
    terminal.wait_for_words("sum")
    terminal.child.send("\x1b[H")
    terminal.wait_for_words("token 1 of 13")
    terminal.child.send("q")
    assert terminal.finish() == 0
    assert terminal.output.count("\x1b[?1049h") == terminal.output.count("\x1b[?1049l") == 1


def test_ctrl_c_leaves_the_walk_and_gives_the_screen_back() -> None:
    terminal = Terminal(program=f"exec {shell.SCRIPTS / 'tokenglass'} flow -i '{STORY}'")
    terminal.wait_for_words("token 13 of 13")
    terminal.child.send("\x03")
    assert terminal.finish() == 130
    assert terminal.output.endswith("\x1b[?25h")


@pytest.mark.parametrize("glyphs", [UNICODE, ASCII], ids=["unicode", "ascii"])
@pytest.mark.parametrize("width", [20, 33, 40, 60, 61, 79, 80, 99, 100, 120, 200])
def test_nothing_is_wider_than_the_terminal(flow: Flow, width: int, glyphs: Glyphs) -> None:
    for styles in ("color", "attributes", "none"):
        for row in FlowPage(flow, styles).rows(width, glyphs):
            assert sum(segment.cell_length for segment in row) <= width
        for table in (0, 1, 2):
            for height in (6, 10, 24, 40):
                rows = WalkPage(flow, table, False, 19, styles).rows(width, height, glyphs)
                assert len(rows) <= height
                assert all(sum(segment.cell_length for segment in row) <= width for row in rows)
    if glyphs is ASCII:
        assert text_of(FlowPage(flow, "none"), width, ASCII).isascii()


@pytest.mark.parametrize("width", [80, 120])
def test_tables_keep_their_columns(flow: Flow, width: int) -> None:
    for table in (FlowGrid(flow, 9, explained=False), FlowLayers(flow, 9, explained=False)):
        rows = [row for row in table.rows(width, UNICODE) if len(row) > 4]
        ends = {tuple(sum(segment.cell_length for segment in row[:stop]) for stop in (1, 2, 4)) for row in rows[1:]}
        assert len(ends) == 1


def test_the_tables_name_their_numbers(flow: Flow) -> None:
    text = " ".join(text_of(FlowPage(flow, limit=9), 120).split())

    for words in (
        "“ak” at position 19 had 99.7 % (rank 1); the runner-up, “ack”, had 0.2 %.",
        "“ak” at 5 moves this step most: without it, “ak” would have <0.1 %.",
        "the direct effect; the tokens between have read it already",
        "mean attention weight: a diagnostic, not an explanation",
        "attention often just rests there",
        "10 more that matter less",
        "22 more between them",
        "53 others together",
        "logit “ak” - logit “ack” = +6.253",
    ):
        assert words in text, text


def test_the_rows_that_are_shown_add_up_to_the_sum(flow: Flow) -> None:
    rows = FlowParts(flow, 9, explained=False).rows(80, UNICODE)

    numbers = [float(row[2].text) for row in rows]
    assert sum(numbers[:-1]) == pytest.approx(numbers[-1], abs=0.0005 * len(numbers))


def test_the_commit_depth_is_always_among_the_layers_shown() -> None:
    for count in (2, 7, 31, 97):
        for commit in range(count):
            for limit in (4, 9, 12):
                layers = pick_rows(count, commit, limit)
                assert layers == sorted(set(layers))
                assert len(layers) == min(limit, count)
                assert {0, commit, count - 1} <= set(layers)


def test_the_positions_that_matter_most_are_shown_in_the_order_of_the_text(flow: Flow) -> None:
    positions = [influence.position for influence in telling(flow, 5)]

    assert positions == [0, 4, 5, 17, 18]


@pytest.mark.parametrize(("left", "found"), [(0.3, 2), (0.5, 2), (0.7, 1), (0.9, 1), (0.95, 0), (1.0, 0), (1.2, 3)])
def test_levels_are_shares_of_the_probability_that_is_left(left: float, found: int) -> None:
    assert level(Effect(0.1, math.log(left))) == found
    assert len(set(LEVELS)) == len(set(LEVELS_WITHOUT_COLOR)) == 4


def test_a_token_cannot_speak_to_the_terminal(flow: Flow) -> None:
    evil = replace(flow, chosen=Token(1, b"\x1b[2J\n\xe2"), positions=flow.positions[:-1] + tuple(
        replace(text, token=Token(2, "\u202e\x07".encode())) for text in flow.positions[-1:]
    ))  # fmt: skip

    for glyphs in (UNICODE, ASCII):
        text = text_of(FlowPage(evil, "none"), 80, glyphs) + text_of(FlowPanel(as_rows(evil)), 80, glyphs)
        assert not any(ord(char) < 32 and char != "\n" for char in text)
        assert "\u202e" not in text


@pytest.mark.parametrize(
    ("environ", "styles"),
    [({"TERM": "dumb"}, "none"), ({"TERM": "xterm"}, "color"), ({"TERM": "xterm", "NO_COLOR": "1"}, "attributes")],
)
def test_a_terminal_without_colour_gets_attributes_and_a_dumb_one_letters(environ: dict[str, str], styles: str) -> None:
    class Teletype(io.StringIO):
        def isatty(self) -> bool:
            return True

    assert styles_of(make_console(Teletype(), color="auto", environ=environ)) == styles


def test_long_texts_are_cut_from_the_front(flow: Flow) -> None:
    rows = text_of(InfluenceText(flow, "color", limit=2), 20).splitlines()

    assert len(rows) == 2
    assert rows[0].startswith("…")
    assert rows[1].endswith("Zorbak")


def test_the_live_rows_draw_what_the_flow_found(flow: Flow) -> None:
    rows = as_rows(flow)

    text = text_of(FlowPanel(rows), 120)

    assert "ak <0.1 %" in text
    assert "settled in layer 30 of 30" in text
    assert "before: ·B" in text
    assert FlowPanel(()).rows(80, UNICODE) == []
    assert len(FlowPanel(({"row": "sums"}, {"row": "layer", "prob": "x"})).rows(80, UNICODE)) > 0  # a damaged trace
    step = Step(0, 0, 0, "decode", 1, (), "", None, 0.0, flow=rows)
    assert text_of(FlowPanel(from_line(to_line(step)).flow), 120) == text


def test_a_choice_that_was_not_the_most_probable_says_what_was(flow: Flow) -> None:
    assert "the most probable, “ack”," in text_of(FlowHead(replace(flow, rank=2)), 200)
    assert "from the embedding on" in text_of(FlowHead(replace(flow, layers=flow.layers[-1:])), 200)
    assert "before the soft cap" in text_of(FlowParts(replace(flow, capped=True)), 200)


def test_rich_prints_the_page_like_any_renderable(flow: Flow) -> None:
    out = io.StringIO()
    Console(file=out, width=80, color_system=None, legacy_windows=False, _environ={}).print(FlowPage(flow, "none"))

    assert "from the earlier tokens" in out.getvalue()
