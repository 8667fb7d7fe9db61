"""A chat on a real pseudo-terminal looks like a conversation, and thoughts stand back behind what is said."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

import pytest
from shell import SCRIPTS
from terminal import Terminal, assert_restored
from test_chat import CHATML, chat_checkpoint

THINKS = r"<think>\n[a-z]{4,8} fox\n</think>\n\nYes [a-z]{3,8}\."
FACTS = r"\d+ tokens(, [\d,]+ tok/s)?, \d+ of \d+ positions reused"
DIM = re.compile(r"\x1b\[2m(.*?)\x1b\[0m", re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return chat_checkpoint(tmp_path_factory.mktemp("chat"), CHATML)


class Talk(Terminal):
    """`tokenglass chat` on a terminal; `redirect` goes behind it."""

    def __init__(self, model: Path | str, *options: str, columns: int = 80, redirect: str = "", **environment: str):
        program = [str(SCRIPTS / "tokenglass"), "chat", "-m", str(model), "--seed", "1", *options]
        super().__init__("", columns, 50, f"{shlex.join(program)} {redirect}", OMP_NUM_THREADS="1", **environment)
        self.wait_for_prompt(0)

    def wait_for_prompt(self, before: int) -> None:
        """Until the chat asks for another line than those that had come `before`."""
        self.wait_for(lambda: self.num_prompts() > before and self.lines()[-1] == ">")

    def num_prompts(self) -> int:
        return sum(line.startswith(">") for line in self.lines())

    def ask(self, line: str) -> list[str]:
        """The lines that come after this one, to the next prompt."""
        before, length = self.num_prompts(), len(self.lines())
        self.child.sendline(line)
        self.wait_for_prompt(before)
        return self.lines()[length:-1]

    def leave(self) -> None:
        self.child.sendeof()
        assert self.finish() == 0
        assert "Traceback" not in self.output
        assert_restored(self)


def assert_lines(lines: Sequence[str], *patterns: str) -> None:
    assert len(lines) == len(patterns), lines
    for line, pattern in zip(lines, patterns, strict=True):
        assert re.fullmatch(pattern, line), lines


@pytest.mark.parametrize("view", ["live", "plain"])
def test_roles_stand_apart_with_a_blank_line_and_one_dim_line_of_facts(folder: Path, view: str) -> None:
    terminal = Talk(folder, "--view", view, "--choice", " It is.")
    assert_lines(terminal.lines(), ".*, seed 1. /help names the commands, Ctrl-D ends.", "", ">")
    assert_lines(terminal.ask("Is it?"), "", " It is.", FACTS, "")
    terminal.child.send("Is it\\\r")
    terminal.wait_for(lambda: terminal.lines()[-1] == ".")
    assert_lines(terminal.ask("not?"), "", " It is.", FACTS, "")
    assert [bool(re.fullmatch(FACTS, dim)) for dim in DIM.findall(terminal.output) if "token" in dim][-2:] == [
        True,
        True,
    ]
    assert "\x1b[1m> " in terminal.output
    terminal.leave()


@pytest.mark.parametrize("view", ["live", "plain"])
def test_quiet_leaves_the_facts_out_and_no_color_every_style(folder: Path, view: str) -> None:
    terminal = Talk(folder, "--view", view, "--choice", " It is.", "--quiet", NO_COLOR="1")
    assert terminal.lines() == [">"]
    begun = len(terminal.output)
    assert terminal.ask("Is it?") == ["", " It is.", ""]
    terminal.leave()
    if view == "plain":
        assert not re.search(r"\x1b\[\d+m", terminal.output[begun:])


def test_an_answer_that_was_cut_says_how_it_goes_on(folder: Path) -> None:
    terminal = Talk(folder, "-n", "3", columns=120)
    assert_lines(terminal.ask("hello")[-2:], f"{FACTS}, stopped at -n: /continue goes on", "")
    terminal.leave()


def test_a_thought_is_one_line_in_the_end_and_can_be_asked_for(folder: Path) -> None:
    terminal = Talk(folder, "--regex", THINKS, "-n", "60")
    lines = terminal.ask("Is it?")
    assert_lines(lines, "", r"▸ thought for \d+ tokens \(/thoughts\)", "", r"Yes [a-z]+\.", FACTS, "")
    assert_lines(terminal.ask("/thoughts"), "[a-z]{4,8} fox", "")
    assert "think>" not in terminal.text()
    terminal.leave()


def test_without_a_live_view_a_thought_is_dim(folder: Path) -> None:
    terminal = Talk(folder, "--regex", THINKS, "-n", "60", "--view", "plain")
    assert_lines(terminal.ask("Is it?"), "", "", "[a-z]{4,8} fox", "", "", r"Yes [a-z]+\.", FACTS, "")
    dim = "".join(DIM.findall(terminal.output))
    assert "fox" in dim
    assert "Yes" not in dim
    terminal.leave()


def test_a_pipe_gets_the_exact_text_and_the_terminal_the_prompt(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "out"
    terminal = Talk(folder, "--regex", THINKS, "-n", "60", redirect=f"> {shlex.quote(str(file))}")
    assert_lines(terminal.ask("Is it?"), "", FACTS, "")
    terminal.leave()
    assert re.fullmatch(THINKS + r"\n", file.read_text())


@pytest.mark.parametrize("columns", [40, 80])
def test_while_a_model_thinks_the_end_of_its_thought_is_shown(columns: int) -> None:
    words = [f" word{number}" for number in range(40)]
    pieces = ["<think>", "\n", *words, "\n", "</think>", "\n\n", *(f" said{number}" for number in range(8))]
    terminal = Terminal(f"--chat --prompt '' --panel slim --delay 0.03 --pieces {shlex.quote(repr(pieces))}", columns)
    most_shown, is_over = 0, False
    for frame in terminal.frames():
        screen = " ".join(" ".join(frame).split())
        is_over = is_over or "thought for" in screen
        if is_over:
            assert "word" not in re.sub("token .*", "", screen)
        elif numbers := [int(number) for number in re.findall(r"word(\d+)", re.sub("token .*", "", screen))]:
            assert numbers == list(range(numbers[0], numbers[-1] + 1))
            most_shown = max(most_shown, len(numbers))
    assert terminal.finish() == 0
    assert is_over
    assert most_shown > 12
    thought = "".join(pieces[-8:])
    assert_lines(terminal.lines()[:2], r"▸ thought for 4\d tokens \(/thoughts\)", "")
    assert thought.replace(" ", "") in "".join("".join(terminal.lines()).split())
    assert "token 5" not in terminal.text()
    assert_restored(terminal)


def test_ctrl_c_in_a_thought_stops_it_and_the_chat_goes_on(folder: Path) -> None:
    slow = ("--speed", "20")  # else the context may be full before the key arrives
    terminal = Talk(folder, "--regex", r"<think>[a-z ]+</think>[a-z]+", "-n", "400", "--ban", "</think>", *slow)
    before = terminal.num_prompts()
    terminal.child.sendline("Is it?")
    terminal.wait_for_words("token ")
    terminal.child.sendintr()
    terminal.wait_for_prompt(before)
    assert "▸ thought for" in terminal.text()
    assert "stopped: /continue goes on" in " ".join(terminal.text().split())
    terminal.ask("/undo")
    terminal.leave()


def test_tab_completes_commands_and_ctrl_c_gives_a_line_up(folder: Path) -> None:
    terminal = Talk(folder)
    terminal.child.send("/ret\t")
    terminal.wait_for_words("> /retry")
    assert_lines(terminal.ask(""), "there is no message to answer again", "")
    before = terminal.num_prompts()
    terminal.child.send("half a line")
    terminal.wait_for_words("half a line")
    terminal.child.sendintr()
    terminal.wait_for_prompt(before)
    assert "Ctrl-D ends the chat" in terminal.text()
    before = terminal.num_prompts()
    terminal.child.sendline("/quit")
    assert terminal.finish() == 0
