"""import: a GGUF file as an ordinary checkpoint folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tokenglass.cli import options
from tokenglass.cli.say import say

File = Annotated[Path, typer.Argument(metavar="FILE.gguf", help="A GGUF file.")]
Folder = Annotated[Path, typer.Argument(metavar="DIR", help="The folder to make.")]
Stored = Annotated[
    options.Dtype,
    typer.Option("--dtype", help="auto loses nothing: quantised becomes float32, float16 and bfloat16 stay."),
]


def import_(
    file: File,
    folder: Folder,
    dtype: Stored = options.Dtype.auto,
    keep: options.Keep = False,
    debug: options.Debug = False,
) -> None:
    """Turn a GGUF file into a checkpoint folder in Hugging Face's layout: weights, config, tokenizer, template."""
    from tokenglass.cli.progress import watch_store
    from tokenglass.cli.text import nbytes
    from tokenglass.model.checkpoint.store import size_of
    from tokenglass.model.errors import ParameterError
    from tokenglass.model.importers.gguf import import_gguf

    if keep and dtype is options.Dtype.float16:
        raise ParameterError("--dtype float16 is not for --keep: beside int4 the rest is float32 or bfloat16")
    note = watch_store(import_gguf(file, folder, dtype=dtype.value, keep=keep))
    say(f"imported {file.name} to {folder}, {nbytes(size_of(folder))}" + (f"; {note}" if note else ""))
