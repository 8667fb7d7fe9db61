"""How many prompts are in work at once, by the memory that is free."""

from __future__ import annotations

from tokenglass.cli.options.control import ControlOptions
from tokenglass.model.engine.memory import Caches, count_rows, snapshot_bytes
from tokenglass.model.loaded_model import LoadedModel, OpenedModel
from tokenglass.model.loading import free_memory

MOST_SLOTS = 32  # where no number is asked for: with more, a pass is hardly faster for each
PROMPT = 256  # tokens that a prompt is taken to have before one is read
SHARE = 2  # the caches get the free memory divided by this


def typical_length(opened: OpenedModel, control: ControlOptions) -> int:
    """Positions that a text is taken to need."""
    return min(PROMPT + control.planned_length, opened.limit)


def least_caches(opened: OpenedModel, control: ControlOptions, slots: int | None) -> Caches:
    """What must have room before the weights are loaded: the slots that are asked for, or one."""
    return Caches(typical_length(opened, control), slots or 1)


def free_positions(loaded: LoadedModel, slots: int | None) -> int | None:
    """Positions that all caches together may have, beside what each has however long it is; None where the free memory
    is not known."""
    free, config = free_memory(loaded.device), loaded.checkpoint.config
    if free is None:
        return None
    room = free // SHARE - (slots or MOST_SLOTS) * snapshot_bytes(config)
    return max(0, room) // max(1, config.cache_bytes_per_token(loaded.cache_dtype))


def count_slots(loaded: LoadedModel, control: ControlOptions, room: int | None) -> int:
    """Slots where no number is asked for."""
    return MOST_SLOTS if room is None else count_rows(room, typical_length(loaded, control), loaded.limit, MOST_SLOTS)
