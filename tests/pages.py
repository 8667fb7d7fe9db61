"""The help pages of every command as a terminal of 80 columns shows them, kept in snapshots/help/, and the manual page.

python tests/pages.py        # renew them after a change of an option, and read the difference
"""

from __future__ import annotations

from pathlib import Path

import typer
from manual import manual
from typer.testing import CliRunner

from tokenglass.cli.app import tokenglass_app

MANUAL = Path(__file__).parent.parent / "cli" / "tokenglass.1"
FOLDER = Path(__file__).parent / "snapshots" / "help"
COMMANDS = ("", *typer.main.get_command(tokenglass_app()).commands)  # type: ignore[attr-defined]


def path_of(command: str) -> Path:
    return FOLDER / f"{command or 'tokenglass'}.txt"


def page_of(command: str) -> str:
    """What `tokenglass COMMAND --help` prints, without the spaces at the ends of lines."""
    runner = CliRunner(env={"COLUMNS": "80", "TERM": "dumb"})
    done = runner.invoke(tokenglass_app(), [*command.split(), "--help"], prog_name="tokenglass")
    assert done.exit_code == 0, done.output
    return "".join(f"{line.rstrip()}\n" for line in done.stdout.splitlines())


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for kept in FOLDER.iterdir():
        kept.unlink()
    for command in COMMANDS:
        path_of(command).write_text(page_of(command), encoding="utf-8")
    MANUAL.write_text(manual(), encoding="utf-8")
