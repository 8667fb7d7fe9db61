"""`tokenglass pick` on real pseudo-terminals: what a user presses, sees, and is left with."""

from __future__ import annotations

import json
import shlex
import signal
import termios
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.segment import Segment
from shell import SCRIPTS, assert_one_line_error, generate, tokenglass
from terminal import PATIENCE, Terminal, assert_restored, wait_for_copy

from tokenglass.cli.terminal.keys import split
from tokenglass.cli.widgets.tree import BranchRow, TreeTable
from tokenglass.cli.widgets.widget import ASCII, UNICODE
from tokenglass.model.checkpoint.store import bundled_folder
from tokenglass.model.sampling.draw import uniform
from tokenglass.model.text.tokenizer import Tokenizer

PROMPT = "Once upon a time"
ALTERNATE, SCROLLBACK = "\x1b[?1049h", "\x1b[?1049l"
KEYS = "1-0 pick  enter draw  bksp back  / type  a run  s save  q quit  u b t  ? keys"
WIDE_KEYS = KEYS.replace("u b t", "u undo  b mark  t tree")


def program(arguments: str = "") -> str:
    return f"{shlex.quote(str(SCRIPTS / 'tokenglass'))} pick --seed 1 {arguments} {shlex.quote(PROMPT)}"


class Picker(Terminal):
    """`tokenglass pick` on a terminal; waits for what is shown, never for time."""

    def __init__(self, arguments: str = "", columns: int = 80, lines: int = 24, **environment: str):
        super().__init__("", columns, lines, f"exec {program(arguments)}", OMP_NUM_THREADS="1", **environment)
        self.wait_for_page("token 1 ")

    @property
    def page(self) -> str:
        return "\n".join(line.rstrip() for line in self.screen.display)

    def wait_for_page(self, *words: str) -> None:
        self.wait_for(lambda: all(word in self.page for word in words))

    def press(self, keys: str, *words: str) -> None:
        """Press keys, and wait until the screen says these words."""
        self.child.send(keys)
        self.wait_for_page(*words)

    def row(self, number: int) -> str:
        """The row of a candidate."""
        return next(line for line in self.screen.display if line[1:2] == str(number) and "%" in line)

    def left_behind(self) -> str:
        """What was written after the screen was given back."""
        return self.output.rpartition(SCROLLBACK)[2].replace("\r\n", "\n").replace("\x1b[?25h", "")

    def plain_text(self) -> str:
        """The same without the prompt's style."""
        return self.left_behind().replace("\x1b[2m", "").replace("\x1b[0m", "")


def piece(row: str) -> str:
    return row[4:].split(maxsplit=1)[0].replace("·", " ")


def test_pick_back_and_draw_afresh() -> None:
    terminal = Picker()
    assert PROMPT in terminal.page
    assert KEYS in terminal.page
    assert "the prompt ends here" in terminal.page
    second = piece(terminal.row(2))

    terminal.press("2", "token 2 ", "by hand", "rank 2")
    assert f"{PROMPT}{second}" in terminal.page
    terminal.press("\x7f", "token 1 ")
    assert terminal.row(2)[2] == "▸"
    terminal.press("\x1b[C", "token 2 ", "by hand")
    terminal.press("\x1b[D", "token 1 ")

    position = len(Tokenizer.from_folder(bundled_folder()).encode(PROMPT))
    draws = [uniform(1, position, attempt=attempt) for attempt in range(3)]
    for draw in draws:
        terminal.press("\r", "token 2 ", f"draw {draw:.2f}")
        terminal.press("\x7f", "token 1 ")
    terminal.press("\x7f", "this is where the prompt ends")

    terminal.press("\x1b[B\x1b[B", "❯2", "enter take")
    terminal.press("\x1b", KEYS)
    terminal.press("\x1b[A", "❯0")
    terminal.press("\x1b[B", "❯1")
    first = piece(terminal.row(1))
    terminal.press("\r", "token 2 ", "by hand", "rank 1")
    terminal.child.send("q")
    assert terminal.finish() == 0
    assert terminal.plain_text() == f"{PROMPT}{first}\n"
    assert_restored(terminal)


def test_type_branch_tree_switch_save_and_quit(tmp_path: Path) -> None:
    file = tmp_path / "tree.json"
    terminal = Picker(f"--save {shlex.quote(str(file))}")
    terminal.press("/", "enter take it", "a new word begins with a space")
    terminal.press(" jq Zoë 日本x\x7f", " jq Zoë 日本")
    assert not file.exists()
    terminal.press("\x1b", KEYS, "0 new")
    assert "Zoë" not in terminal.page
    terminal.press("i", "enter take it")
    terminal.press(" Zoë 日本\r", "by hand", "logprob -", f"{PROMPT} Zoë 日本")
    terminal.press("b", "a branch is marked here")
    for _ in range(40):
        if "token 1 " in terminal.page:
            break
        before = terminal.page
        terminal.child.send("\x7f")
        terminal.wait_for(lambda before=before: terminal.page != before)
    terminal.press("1", "token 2 ")
    terminal.press("1", "token 3 ", "branches 2")
    terminal.press("t", "the tree of branches", "├─", "└─", "◆", "●")
    tree = terminal.page
    assert "Zoë 日本" in tree
    assert "a token" in tree
    terminal.press("\x1b[A", "go there")
    terminal.wait_for(lambda: "▸" in next(line for line in terminal.screen.display if "日本" in line))
    terminal.press("\r", KEYS, f"{PROMPT} Zoë 日本", "marked")
    terminal.press("s", f"saved to {file}"[:60])
    content = json.loads(file.read_text(encoding="utf-8"))
    assert sorted((branch["text"] == " Zoë 日本", branch["marked"]) for branch in content["branches"]) == [
        (False, False),
        (True, True),
    ]
    assert all(branch["logprob"] < 0 for branch in content["branches"])
    assert content["run"]["request"]["seed"] == 1
    terminal.press("\r", "draw 0.")
    terminal.press("s", "saved to")
    assert len(json.loads(file.read_text(encoding="utf-8"))["nodes"]) == len(content["nodes"]) + 1
    terminal.press("\x7f", "marked")
    terminal.child.send("q")
    assert terminal.finish() == 0
    assert terminal.plain_text() == f"{PROMPT} Zoë 日本\n"
    assert list(tmp_path.iterdir()) == [file]


def test_a_run_goes_on_until_its_limit_or_any_key() -> None:
    terminal = Picker("-n 3")
    terminal.press("a", "token 4 ", "3 tokens written")
    terminal.press("a", "token 7 ")
    terminal.child.send("q")
    assert terminal.finish() == 0

    terminal = Picker("-n 800 --ignore-eos")
    terminal.press("a", "any key stops")
    terminal.wait_for(lambda: "token" not in terminal.page.splitlines()[14])
    terminal.press("q", "stopped after", KEYS)
    terminal.press("?", "run on until any key", "any key goes back")
    terminal.press("q", KEYS)
    terminal.child.send("q")
    assert terminal.finish() == 0


@pytest.mark.parametrize(
    ("stop", "code"),
    [(lambda terminal: terminal.child.sendintr(), 130), (lambda terminal: terminal.child.kill(signal.SIGTERM), 143)],
    ids=["Ctrl-C", "SIGTERM"],
)
def test_being_stopped_restores_the_terminal_and_keeps_the_text(stop: Callable[[Terminal], None], code: int) -> None:
    terminal = Picker()
    first = piece(terminal.row(1))
    terminal.press("1", "token 2 ")
    assert not terminal.local_flags & (termios.ECHO | termios.ICANON)
    stop(terminal)
    assert terminal.finish() == code
    assert terminal.plain_text().startswith(f"{PROMPT}{first}\n")
    assert "^C" not in terminal.output
    assert_restored(terminal)


def test_ctrl_z_gives_the_terminal_back_and_fg_comes_back_to_the_same_place() -> None:
    terminal = Terminal(program="exec bash --norc --noprofile -i", OMP_NUM_THREADS="1")
    terminal.child.sendline(program())
    terminal.wait_for_words("token 1 ")
    terminal.child.send("1")
    terminal.wait_for_words("token 2 ")
    terminal.child.send("\x1a")
    terminal.wait_for_words("Stopped")
    assert_restored(terminal)
    screens = terminal.output.count(ALTERNATE)
    terminal.child.sendline("fg")
    terminal.wait_for(lambda: terminal.output.count(ALTERNATE) > screens)
    terminal.child.send("2")
    terminal.wait_for_words("token 3 ")
    terminal.child.send("q")
    terminal.child.sendline("exit")
    assert terminal.finish() == 0
    assert_restored(terminal)


@pytest.mark.parametrize(
    ("columns", "lines", "environment"),
    [(40, 10, {}), (40, 10, {"LC_ALL": "C"}), (80, 24, {"NO_COLOR": "1"}), (120, 40, {"LC_ALL": "C"}), (20, 6, {})],
)
def test_small_plain_and_ascii_terminals_show_candidates_and_keys(
    columns: int, lines: int, environment: dict[str, str]
) -> None:
    terminal = Picker("", columns, lines, **environment)
    assert PROMPT in terminal.page
    assert "%" in terminal.row(1)
    if columns >= 40:
        keys = ("1-0", "enter", "bksp", "/", "a", "u", "b", "t", "s", "q", "?")
        assert all(key in terminal.page.splitlines()[-1] for key in keys)
    terminal.press("1", "token 2 ")
    terminal.press("t", "tree")
    terminal.press("\x1b", "token 2 ")
    if environment.get("LC_ALL"):
        assert terminal.output.isascii()
    if environment.get("NO_COLOR"):
        assert "\x1b[32m" not in terminal.output
        assert "\x1b[36m" not in terminal.output
    terminal.child.send("q")
    assert terminal.finish() == 0


def test_resizing_draws_the_whole_screen_anew() -> None:
    terminal = Picker()
    terminal.resize(50, 30)
    terminal.wait_for(lambda: "? keys" in terminal.screen.display[29])
    terminal.resize(110, 40)
    terminal.wait_for(lambda: WIDE_KEYS in terminal.screen.display[39])
    terminal.press("1", "token 2 ")
    terminal.child.send("q")
    assert terminal.finish() == 0


def test_tmux_is_left_with_the_text_once_and_no_line_break_of_ours(tmux: Callable[..., str]) -> None:
    typed = " long and longer" * 8
    tmux("new-session", "-d", "-s", "run", "-x", "40", "-y", "10", f"{program()}; sleep {PATIENCE}")
    wait_for_copy(tmux, lambda copied: "token 1 " in copied)
    tmux("send-keys", "-t", "run", "/")
    wait_for_copy(tmux, lambda copied: "enter take it" in copied)
    tmux("send-keys", "-t", "run", "-l", typed)
    tmux("send-keys", "-t", "run", "Enter")
    wait_for_copy(tmux, lambda copied: "logprob -" in copied)
    tmux("send-keys", "-t", "run", "q")
    assert wait_for_copy(tmux, lambda copied: "token" not in copied and "longer" in copied) == PROMPT + typed


@pytest.mark.parametrize("arguments", ["", "--seed 1"])
def test_without_a_terminal_it_refuses(arguments: str) -> None:
    assert_one_line_error(tokenglass("pick", *arguments.split(), "Once"), 2, "terminal", "generate")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("> out", "pick needs a terminal"),
        ("< /dev/null", "pick needs a terminal"),
        ("--no-cache", "leave out --no-cache"),
        ("--save taken.json", "already exists"),
    ],
)
def test_what_cannot_be_is_refused_at_once(arguments: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "taken.json").write_text("precious")
    options, redirect = (arguments, "") if arguments.startswith("--") else ("", arguments)
    terminal = Terminal(program=f"cd {shlex.quote(str(tmp_path))}; {program(options)} {redirect}")
    assert terminal.finish() == 2
    assert message in terminal.text().replace("\n", "")
    assert ALTERNATE not in terminal.output
    assert (tmp_path / "taken.json").read_text() == "precious"


@pytest.mark.parametrize("term", ["", "dumb"])
def test_a_terminal_that_cannot_move_its_cursor_is_refused(term: str) -> None:
    terminal = Terminal(program=f"exec {program()}", TERM=term)
    assert terminal.finish() == 2
    assert "TERM is" in terminal.text()


def test_typed_bytes_are_keys_by_name_characters_and_nothing_else() -> None:
    keys, rest = [], "a\x1b[A\x1bOB\x1b[D\x1b[C\x7f\x08\r\né日\x1b[1;5Cq\x1b[5~\x01\t \x1b"
    while rest:
        key, rest = split(rest)
        keys.append(key)
    arrows = ["up", "down", "left", "right"]
    assert [key for key in keys if key is not None] == [
        *("a", *arrows, "backspace", "backspace", "enter", "enter"),
        *("é", "日", "q", "\t", " ", "escape"),
    ]


@pytest.mark.parametrize("width", [20, 31, 40, 59, 60, 80, 140])
@pytest.mark.parametrize("glyphs", [UNICODE, ASCII])
def test_a_tree_fits_any_width_and_keeps_the_highlighted_row(width: int, glyphs: object) -> None:
    assert glyphs in (UNICODE, ASCII)
    branches = [
        BranchRow(
            "日本語の\nテキスト" * 9,
            k,
            -1234.5,
            -12.3,
            (True, False) * (k % 4),
            forked=True,
            marked=k % 2 == 0,
            here=k == 3,
        )
        for k in range(12)
    ]
    for highlighted in range(12):
        rows = TreeTable(branches, highlighted, 5).rows(width, UNICODE if glyphs is UNICODE else ASCII)
        assert len(rows) == 6
        assert all(sum(segment.cell_length for segment in row) <= width for row in rows)
        assert sum(marker in next(iter(Segment.simplify(row))).text for row in rows for marker in "▸>") == 1


@pytest.mark.parametrize(
    ("options", "end"),
    [
        ("--stop ,", "the text ended (stop)"),
        ("--ban ' a' --ban ','", "12 tokens written"),
        (r"--regex ' (bear|fox) [a-z]{3,8}\.'", "the text ended (eos)"),
        ("--negative 'A dark night' --guidance 1.5", "12 tokens written"),
    ],
)
def test_a_run_writes_what_generate_writes_with_the_same_options(options: str, end: str) -> None:
    written = generate("--seed", "1", "--echo", "-n", "12", *shlex.split(options), PROMPT).stdout.decode()
    terminal = Picker(f"-n 12 {options}")
    terminal.press("a", end)
    terminal.child.send("q")
    assert terminal.finish() == 0
    assert terminal.plain_text().rstrip("\n") == written.rstrip("\n")


def test_what_is_banned_or_outside_a_constraint_is_told_and_going_back_opens_the_text_again() -> None:
    terminal = Picker("--ban bear --regex ' a [a-z ]+'")
    terminal.press("/", "enter take it")
    terminal.press(" a bear\r", "back to where it began")
    terminal.press("/", "enter take it")
    terminal.press("7\r", "--regex: nothing may follow")
    terminal.press("\x7f", "1 ", "%")
    terminal.child.send("q")
    assert terminal.finish() == 0
    assert terminal.plain_text().startswith(f"{PROMPT} a")


def test_an_option_that_cannot_be_met_is_refused_before_the_screen_is_taken() -> None:
    terminal = Terminal(program=f"exec {program('--guidance 2')}")
    assert terminal.finish() == 2
    assert "--negative TEXT" in terminal.text().replace("\n", "")
    assert ALTERNATE not in terminal.output
