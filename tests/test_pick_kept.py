"""`tokenglass pick` over more than one sitting: undo, saved trees, other prompts, branches and traces in files."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from shell import SCRIPTS, generate, tokenglass
from terminal import Terminal, assert_restored
from test_pick import ALTERNATE, KEYS, PROMPT, Picker, piece

from tokenglass.cli.views.line_editor import LineEditor
from tokenglass.cli.widgets.picker import HELP, MORE, KeyLine
from tokenglass.cli.widgets.picker import KEYS as ALL_KEYS
from tokenglass.cli.widgets.widget import UNICODE


class Loader(Picker):
    """`tokenglass pick --load FILE` on a terminal."""

    def __init__(self, arguments: str):
        Terminal.__init__(
            self, "", program=f"exec {shlex.quote(str(SCRIPTS / 'tokenglass'))} pick {arguments}", OMP_NUM_THREADS="1"
        )
        self.wait_for_page("token ", "%")


def quoted(path: Path) -> str:
    return shlex.quote(str(path))


def test_undo_takes_back_steps_and_whole_runs_also_in_another_sitting(tmp_path: Path) -> None:
    file, trace = tmp_path / "tree.json", tmp_path / "walk.jsonl"
    terminal = Picker(f"-n 6 --save {quoted(file)}")
    terminal.press("u", "there is nothing to undo")
    tenth = piece(terminal.row(0))
    terminal.press("0", "token 2 ", "by hand")
    terminal.press("a", "token 8 ", "6 tokens written")
    terminal.press("\x7f", "token 7 ")
    terminal.press("u", "token 8 ", "undone")
    terminal.press("s", "saved to")
    terminal.child.send("q")
    assert terminal.finish() == 0
    written = terminal.plain_text().strip()

    page = tmp_path / "page.html"
    again = Loader(f"--load {quoted(file)} --trace {quoted(trace)} --html {quoted(page)}")
    again.wait_for_page("token 8 ", written[:70])
    again.press("u", "token 2 ", "undone", f"{PROMPT}{tenth}")
    again.press("u", "token 1 ", "undone")
    again.press("u", "there is nothing to undo")
    again.press("\x1b[C\x1b[C", "token 3 ")
    again.child.send("q")
    assert again.finish() == 0
    assert_restored(again)
    text = again.plain_text().strip()
    assert written.startswith(text)
    replayed = tokenglass("replay", str(trace))
    assert (PROMPT + replayed.stdout.decode()).strip() == text
    rewinds = [json.loads(line).get("rewound_to") for line in trace.read_text().splitlines()]
    assert len([place for place in rewinds if place is not None]) == 2
    assert page.read_text().startswith("<!doctype html>")


def test_a_saved_tree_goes_on_with_the_draws_of_one_sitting(tmp_path: Path) -> None:
    file = tmp_path / "tree.json"
    whole = generate("--seed", "1", "--echo", "-n", "9", "--top-k", "30", PROMPT).stdout.decode()
    terminal = Picker(f"-n 4 --top-k 30 --save {quoted(file)}")
    terminal.press("a", "4 tokens written")
    terminal.press("s", "saved to")
    terminal.child.send("q")
    terminal.finish()
    again = Loader(f"--load {quoted(file)}")
    again.press("a", "token 9 ")
    again.press("\r", "token 10 ")
    again.child.send("q")
    assert again.finish() == 0
    assert again.plain_text().strip() == whole.strip()


def test_the_prompt_can_be_edited_and_undo_comes_back(tmp_path: Path) -> None:
    trace = tmp_path / "walk.jsonl"
    terminal = Picker(f"--trace {quoted(trace)}")
    terminal.press("1", "token 2 ")
    terminal.press("p", "begin anew with it")
    terminal.press("\x1b[H\x1b[3~\x1b[3~\x1b[3~\x1b[3~Twice", "Twice upon a time")
    terminal.press("\x1b", KEYS, "token 2 ")
    terminal.press("p", "begin anew with it")
    terminal.press("\x1b[F! A fox\x7f\x7f\x7fbear\r", "token 1 ", f"{PROMPT}! A bear", "the prompt ends here")
    first = generate("--seed", "1", "-n", "1", f"{PROMPT}! A bear").stdout.decode()
    terminal.press("\r", "token 2 ", f"{PROMPT}! A bear{first.rstrip()}")
    terminal.press("uu", "token 2 ", "undone", "by hand")
    terminal.press("p", "begin anew with it")
    terminal.press("\x7f" * len(PROMPT), "the prompt;")
    terminal.press("\r", KEYS)
    terminal.child.send("q")
    assert terminal.finish() == 0
    assert terminal.plain_text().startswith(PROMPT)
    assert "bear" not in terminal.plain_text()
    runs = [json.loads(line) for line in trace.read_text().splitlines()]
    assert [run["prompt"] for run in runs if run["record"] == "run"] == [PROMPT, f"{PROMPT}! A bear", PROMPT]


def test_a_branch_is_exported_as_text_and_as_a_trace_that_replays(tmp_path: Path) -> None:
    text, trace = tmp_path / "branch.txt", tmp_path / "branch.jsonl.gz"
    taken = tmp_path / "taken.txt"
    taken.write_text("precious")
    terminal = Picker("-n 5")
    terminal.press("a", "5 tokens written")
    for path, message in ((text, "this branch is in"), (trace, "this branch is in"), (taken, "not written")):
        terminal.press("e", "export this branch to")
        terminal.child.send("\x1b[H" + "\x1b[3~" * 40)
        terminal.press(f"{path}\r", message)
    terminal.child.send("q")
    assert terminal.finish() == 0
    assert taken.read_text() == "precious"
    assert text.read_text() == generate("--seed", "1", "--echo", "-n", "5", PROMPT).stdout.decode()
    assert PROMPT + tokenglass("replay", str(trace)).stdout.decode() == text.read_text()


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ("[", "", "not valid JSON"),
        ("{}", "", "no tree of `tokenglass pick`"),
        ("{}", "Once", "--load brings its own prompt"),
        ("{}", "--temperature 1", "--load brings its own prompt"),
    ],
)
def test_what_cannot_be_loaded_is_one_line_before_the_screen_is_taken(
    tmp_path: Path, content: str, options: str, message: str
) -> None:
    file = tmp_path / "t.json"
    file.write_text(content)
    terminal = Terminal(program=f"cd {quoted(tmp_path)}; {SCRIPTS / 'tokenglass'} pick --load t.json {options}")
    assert terminal.finish() in (1, 2)
    assert message in terminal.text().replace("\n", "")
    assert ALTERNATE not in terminal.output
    assert file.read_text() == content


def test_a_tree_of_another_model_is_refused(tmp_path: Path, saved_checkpoint: Path) -> None:
    file = tmp_path / "t.json"
    terminal = Picker(f"--save {quoted(file)}")
    terminal.press("1s", "saved to")
    terminal.child.send("q")
    terminal.finish()
    other = Terminal(program=f"{SCRIPTS / 'tokenglass'} pick --load {quoted(file)} -m {quoted(saved_checkpoint)}")
    assert other.finish() == 1
    assert "saved with 'tale'" in other.text().replace("\n", "")


@given(st.lists(st.sampled_from(["a", "é", " ", "left", "right", "home", "end", "backspace", "delete", "up"])))
def test_a_line_editor_writes_what_a_list_with_a_cursor_would(keys: list[str]) -> None:
    editor, before, behind = LineEditor.of("text", "fox"), list("fox"), list[str]()
    for key in keys:
        editor = editor.after(key)
        match key:
            case "left":
                behind[:0] = [before.pop()] if before else []
            case "right":
                before += [behind.pop(0)] if behind else []
            case "home":
                before, behind = [], before + behind
            case "end":
                before, behind = before + behind, []
            case "backspace":
                del before[-1:]
            case "delete":
                del behind[:1]
            case "up":
                pass
            case _:
                before.append(key)
        assert (editor.before, editor.behind) == ("".join(before), "".join(behind))


@pytest.mark.parametrize("width", range(20, 120))
def test_the_keys_that_explain_all_others_are_in_every_line_of_keys(width: int) -> None:
    (row,) = KeyLine(ALL_KEYS, MORE, (HELP,)).rows(width, UNICODE)
    text = "".join(segment.text for segment in row)
    assert len(text) <= width
    if width >= 40:
        assert text.rstrip().endswith(("? keys", "?"))
    if width >= 80:
        assert "? keys" in text
