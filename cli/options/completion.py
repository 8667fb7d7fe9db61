"""What a shell completes behind an option: names that are read from the disk, without torch and without a model."""

from __future__ import annotations


def model_names(incomplete: str) -> list[str]:
    """The names that -m takes besides paths."""
    from tokenglass.model.checkpoint.store import names_here

    return [name for name in names_here() if name.startswith(incomplete)]


def catalog_names(incomplete: str) -> list[tuple[str, str]]:
    """What can be pulled by a name that is known, and what it is."""
    from tokenglass.model.importers.catalog import read_catalog, read_hub_catalog

    titles = {name: entry.title for name, entry in read_catalog().items()}
    titles |= {name: entry.about for name, entry in read_hub_catalog().items()}
    return [(name, title) for name, title in titles.items() if name.startswith(incomplete)]


def sampler_names(incomplete: str) -> list[str]:
    """The next name of a list with commas; each stands in it once."""
    from tokenglass.model.sampling.parameters import SAMPLERS

    before, comma, last = incomplete.rpartition(",")
    names = before.split(",")
    return [f"{before}{comma}{name}" for name in SAMPLERS if name.startswith(last) and name not in names]
