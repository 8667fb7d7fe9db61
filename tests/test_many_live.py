"""Many prompts on a terminal: the slots while they are in work, or a bar where the answers go to a file."""

from __future__ import annotations

import io
import json
import shlex
from pathlib import Path

import pytest
from rich.console import Console
from shell import SCRIPTS
from terminal import Terminal

from tokenglass.cli.widgets.slots import SlotPanel, SlotText
from tokenglass.cli.widgets.widget import ASCII, UNICODE
from tokenglass.model.records.steps import CacheUsage, Step

GENERATE = shlex.quote(str(SCRIPTS / "generate"))


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.txt"
    path.write_text("".join(f"The fox met number {number}\n" for number in range(40)))
    return path


def frames_of(program: str, **size: int) -> tuple[list[list[str]], Terminal]:
    terminal = Terminal(program=program, **size)
    return [*terminal.frames()], terminal


def test_the_slots_show_whose_text_is_in_each_and_how_far_it_is(prompts: Path, tmp_path: Path) -> None:
    file = tmp_path / "answers.jsonl"
    program = f"exec {GENERATE} --each-line -n 20 --slots 3 --seed 1 --view live --output {file} < {prompts}"
    frames, terminal = frames_of(program, columns=100, lines=24)

    panels = [[line for line in frame if line.startswith(" ▸")] for frame in frames]
    assert max(map(len, panels)) == 3
    assert any(" 40 prompts " in line and "tok/s" in line for frame in frames for line in frame)
    assert any("/20 " in line for panel in panels for line in panel)
    assert any("positions shared" in line for frame in frames for line in frame)
    assert [json.loads(line)["id"] for line in file.read_text().splitlines()] == list(range(1, 41))
    left = [line for line in terminal.screen.display if line.strip()]
    assert len(left) == 1, "the panel is gone"
    assert left[0].startswith("40 prompts answered")


def test_lines_and_messages_stand_above_the_slots(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"id": "a", "prompt": "The fox"}\n{"id": "b"}\n{"id": "c", "prompt": "The hen"}\n')
    _, terminal = frames_of(f"exec {GENERATE} --prompts {path} -n 5 --seed 1 --view live", columns=200, lines=24)
    left = "\n".join(line.rstrip() for line in terminal.screen.display)
    assert left.count('{"id":') == 3
    assert "line 2: expected either a prompt or messages" in left
    assert "▸" not in left


def test_a_bar_counts_where_the_answers_go_to_a_file(prompts: Path, tmp_path: Path) -> None:
    file = tmp_path / "answers.jsonl"
    terminal = Terminal(program=f"exec {GENERATE} --each-line -n 20 --slots 3 --output {file} < {prompts}")
    while terminal.read():
        pass
    assert "/40" in terminal.output
    assert "tok/s" in terminal.output
    left = [line for line in terminal.screen.display if line.strip()]
    assert len(left) == 1
    assert "40 prompts answered" in left[0]
    assert len(file.read_text().splitlines()) == 40


def text_of(number: int) -> SlotText:
    text = SlotText(f"prompt {number}", 40, 64)
    usage = CacheUsage(40, 512, 64, 40 * 1024, 64 * 1024, 1024, 0)
    text.add(Step(0, 0, number, "prefill", 8, (), "A text\nthat goes on \x1b[31mand on" * 9, usage, 0.1, parent=1))
    return text


@pytest.mark.parametrize("glyphs", [UNICODE, ASCII], ids=["unicode", "ascii"])
@pytest.mark.parametrize("width", [20, 40, 60, 80, 200])
def test_the_panel_fits_any_width_and_height(width: int, glyphs: object) -> None:
    for most_rows in (3, 6, 20):
        panel = SlotPanel([text_of(number) for number in range(9)], "9 of 900 prompts", "12 tok/s", most_rows)
        rows = panel.rows(width, glyphs)  # type: ignore[arg-type]
        assert len(rows) <= most_rows
        assert all(sum(segment.cell_length for segment in row) <= width for row in rows)
        assert not any("\x1b" in segment.text or "\n" in segment.text for row in rows for segment in row)


def test_what_another_text_had_computed_counts_as_shared() -> None:
    text = text_of(1)
    assert (text.shared, text.read) == (32, 40)
    file = io.StringIO()
    Console(file=file, width=100).print(SlotPanel([text], "1 prompt", "", 9))
    assert "32 positions shared" in file.getvalue()
    assert "40.0 KiB used" in file.getvalue()
