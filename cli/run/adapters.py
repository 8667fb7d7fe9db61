"""The LoRA adapters that options name, and the model that they are for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tokenglass.cli.run.model_folder import model_folder
from tokenglass.cli.say import say
from tokenglass.cli.terminal.opening import NO_OPENING, Opening
from tokenglass.model.config.fields import quote, shown_name
from tokenglass.model.errors import ParameterError, StoreError
from tokenglass.model.files import expand_home

if TYPE_CHECKING:
    from tokenglass.model.checkpoint.adapter import Adapter
    from tokenglass.model.checkpoint.folder import Checkpoint


def open_adapters(arguments: Sequence[str] | None) -> tuple[Adapter, ...]:
    """Those of --lora DIR or DIR=SCALE, in their order. Raises TokenglassError."""
    if not arguments:
        return ()
    from tokenglass.model.checkpoint.adapter import Adapter

    return tuple(Adapter.open(*split_scale(each)) for each in arguments)


def split_scale(argument: str) -> tuple[Path, float]:
    """The folder and the scale; a folder whose own name ends so is taken whole. Raises ParameterError."""
    name, sign, scale = argument.rpartition("=")
    if not sign or expand_home(argument).exists():
        return expand_home(argument), 1.0
    try:
        value = float(scale)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ParameterError(
            f"--lora {quote(argument)}: {quote(scale)} is no scale; give a number, as in --lora {name}=0.5"
        )
    return expand_home(name), value


def base_folder(name: str | None, adapters: Sequence[Adapter], opening: Opening = NO_OPENING) -> Path:
    """The folder of the model that is named; of the one that the adapters were trained on, where none is.

    Raises TokenglassError.
    """
    if name is not None or not adapters:
        return model_folder(name, opening)
    bases = dict.fromkeys(adapter.base for adapter in adapters)
    (base, *others) = bases
    if others or not base:
        what = f"are for {' and '.join(map(shown_name, bases))}" if others else "do not say which model they are for"
        raise ParameterError(f"the adapters {what}; name one with -m")
    try:
        folder = model_folder(catalog_name(base) or base, opening)
    except StoreError:
        folder = Path(base)
    if not folder.exists():
        raise ParameterError(f"the adapter is for {shown_name(base)}, which is not here; name its folder with -m")
    say(f"note: the model is {folder}, as the adapter says")
    return folder


def catalog_name(base: str) -> str | None:
    """What a model is called by `tokenglass models`, where it is in the catalog under its author's name."""
    from tokenglass.model.importers.catalog import read_catalog

    title = base.rpartition("/")[2]
    return next((name for name, entry in read_catalog().items() if entry.title == title), None)


def open_checkpoint(name: str | None, arguments: Sequence[str] | None, opening: Opening = NO_OPENING) -> Checkpoint:
    """A model with adapters, of which only headers are read. Raises TokenglassError."""
    from tokenglass.model.checkpoint.folder import Checkpoint

    adapters = open_adapters(arguments)
    return Checkpoint.open(base_folder(name, adapters, opening)).with_adapters(adapters)
