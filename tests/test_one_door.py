"""What is printed passes cli/say.py or a console of cli/terminal/console.py, and every error kind is in errors.py."""

from __future__ import annotations

import ast
import io
from pathlib import Path

import pytest
from rich.table import Table
from rich.text import Text

from tokenglass.cli import app
from tokenglass.cli.say import LONGEST, VisibleText, json_bytes, one_line
from tokenglass.cli.terminal.console import make_console
from tokenglass.cli.terminal.terminal import UNSAFE
from tokenglass.model import errors

DOORS = {
    "print": {"say.py"},
    "Console": {"terminal/console.py", "views/flow_picture.py"},
    "VisibleConsole": {"terminal/console.py", "export/svg.py"},
    "echo": set(),
    "secho": set(),
    # Whole frames, of text that is visible, and bytes between pipes
    "write": {
        "say.py",
        "terminal/first_screen.py",
        "terminal/region.py",
        "terminal/screen.py",
        "run/trace.py",  # records, to a file
        "run/page_file.py",  # a page, to a file
        "run/lines.py",  # the sign before a line of the user
        "views/choose.py",
        "views/plain.py",
        "views/several.py",
        "views/jsonl.py",
    },
}
# A newline between two answers in a pipe, JSON lines that json_bytes has made visible, a page for a file
ALSO_WRITES = {
    *("run/chat.py", "run/many/screen.py"),
    *("commands/replay.py", "commands/export.py", "commands/flow.py", "commands/import_trace.py"),
}


def test_nothing_is_printed_past_the_doors() -> None:
    folder = Path(app.__file__).parent
    past = []
    for path in folder.rglob("*.py"):
        name = path.relative_to(folder).as_posix()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                called = getattr(node.func, "id", getattr(node.func, "attr", ""))
                is_name = isinstance(node.func, ast.Name)
                own = called == "write" and (name in ALSO_WRITES or is_name)  # cli.say's own
                own = own or (called == "print" and not is_name)  # a console's
                if called in DOORS and name not in DOORS[called] and not own:
                    past.append(f"{name}:{node.lineno} {called}")
    assert past == []


NASTY = "a\x1b]0;x\x07\x9b31m\u202e\x08b"


@pytest.mark.parametrize("renderable", [NASTY, Text(NASTY), Text(NASTY, "red")])
def test_a_console_makes_everything_visible(renderable: str | Text) -> None:
    out = io.StringIO()
    console = make_console(out, color="never")
    table = Table(title=renderable)
    table.add_column(renderable)
    table.add_row(renderable)
    for what in (renderable, table, [renderable], {"key": NASTY}):
        console.print(what)
    console.out(NASTY)
    assert UNSAFE.search(out.getvalue()) is None


def test_a_guarded_stderr_makes_visible_whoever_writes() -> None:
    raw = io.BytesIO()
    stream = VisibleText(io.TextIOWrapper(raw, encoding="utf-8"))
    print(NASTY, file=stream)
    assert UNSAFE.search(raw.getvalue().decode()) is None


def test_a_message_is_one_short_line_that_keeps_its_advice() -> None:
    line = one_line(f"{NASTY}\n" * 10**5 + "; try another")
    assert len(line) <= LONGEST
    assert line.endswith("; try another")
    assert UNSAFE.search(line) is None
    assert "\n" not in line


def test_json_on_a_terminal_is_the_same_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    assert json_bytes('"\x7f\x9b\u202e\ud800é"', terminal=True) == b'"\\u007f\\u009b\\u202e\\ud800\xc3\xa9"'
    monkeypatch.setenv("LC_ALL", "C")
    assert json_bytes('"é👍"', terminal=True) == b'"\\u00e9\\ud83d\\udc4d"'
    assert json_bytes('"\x9b\ud800é"', terminal=False) == '"\x9b\\ud800é"'.encode()


def test_every_kind_of_error_is_in_one_file() -> None:
    names = {name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, Exception)}
    elsewhere = [
        f"{path.name}: {node.name}"
        for path in Path(errors.__file__).parent.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef) and names & {base.id for base in node.bases if isinstance(base, ast.Name)}
    ]
    assert sorted(place.split(": ")[0] for place in elsewhere) == ["errors.py"] * len(elsewhere), elsewhere
    assert len(elsewhere) >= 10
