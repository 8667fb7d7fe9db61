"""What LoRA adapters change in the weights of a checkpoint, tensor by tensor, in float32. No torch here.

    changes = plan_changes(adapters, stored, config)
    changes["model.layers.0.self_attn.q_proj.weight"].apply(array)  # W + scale * alpha / r * (B A)

Names are those of the checkpoint's own tensors: where several weights lie in one, they have one adapter.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tokenglass.model.checkpoint.adapter import Adapter
from tokenglass.model.checkpoint.arrays import Array, read_arrays, to_float32
from tokenglass.model.checkpoint.blueprint import ENDS
from tokenglass.model.checkpoint.layouts import Stored, spelling_of
from tokenglass.model.checkpoint.wrapped import text_name
from tokenglass.model.config.config import ModelConfig
from tokenglass.model.config.fields import first_few, shown_name
from tokenglass.model.errors import CheckpointError

ROWS = 1024  # of a product that are made at once
LINEAR, EMBEDDING = {"lora_A.weight", "lora_B.weight"}, {"lora_embedding_A", "lora_embedding_B"}
NAME = re.compile(
    r"base_model\.model\.(?P<module>.+?)(?P<base>\.base_layer)?\."
    rf"(?P<part>{'|'.join(map(re.escape, sorted(LINEAR | EMBEDDING)))}|weight|bias)"
)


@dataclass(frozen=True, slots=True)
class LowRank:
    """left (rows, r) times right (r, columns), `factor` times."""

    left: Array
    right: Array
    factor: float

    def add_to(self, weight: NDArray[np.float32]) -> None:
        left, right = to_float32(self.left) * np.float32(self.factor), to_float32(self.right)
        for start in range(0, len(weight), ROWS):
            weight[start : start + ROWS] += left[start : start + ROWS] @ right


@dataclass(slots=True)
class Change:
    """Of one stored tensor: what stands in its place, where an adapter brings that, and what is added to it."""

    replacement: Array | None = None
    added: list[LowRank] = field(default_factory=list)

    def apply(self, array: Array) -> NDArray[np.float32]:
        """The tensor as the adapters leave it. Raises CheckpointError where a number becomes infinite or none."""
        changed = to_float32(array if self.replacement is None else self.replacement).copy()
        with np.errstate(over="ignore", invalid="ignore"):
            for part in self.added:
                part.add_to(changed)
            if not np.isfinite(changed.sum(dtype=np.float64)):
                raise CheckpointError("with its adapters a weight is infinite or not a number")
        return changed


@dataclass(slots=True)
class Pair:
    """A (r, in) and B (out, r) of a module, by the ends of their names."""

    module: str
    parts: dict[str, Array] = field(default_factory=dict)


def plan_changes(adapters: Collection[Adapter], stored: Mapping[str, Stored], config: ModelConfig) -> dict[str, Change]:
    """What changes of the stored tensors, by their names. Raises CheckpointError where an adapter does not fit."""
    changes: dict[str, Change] = {}
    for adapter in adapters:
        fit = AdapterFit(adapter, stored, config)
        for name, array in fit.replacements.items():
            change = changes.setdefault(name, Change())
            if change.replacement is not None:
                raise CheckpointError(f"{adapter.folder}: replaces {name}, as an adapter before it does; leave one out")
            change.replacement = array
        for name, added in fit.added.items():
            changes.setdefault(name, Change()).added.append(added)
    return changes


class AdapterFit:
    """The tensors of one adapter, each with the stored tensor that it is for. Raises CheckpointError."""

    def __init__(self, adapter: Adapter, stored: Mapping[str, Stored], config: ModelConfig):
        self._adapter, self._stored, self._config = adapter, stored, config
        self._pairs: dict[str, Pair] = {}
        self.replacements: dict[str, Array] = {}
        arrays = read_arrays(adapter.tensors, {info.name for info in adapter.tensors})
        homeless = [shown_name(name) for name, array in arrays if not self._place(name, array)]
        if homeless:
            raise self._error(f"fits no weight of this {config.model_type} model: {first_few(homeless)}")
        if not self._pairs and not self.replacements:
            raise self._error(f"changes nothing of this {config.model_type} model")
        self.added = {home: self._low_rank(stored[home], pair) for home, pair in self._pairs.items()}

    def _error(self, what: str) -> CheckpointError:
        return CheckpointError(f"{self._adapter.folder}: {what}")

    def _place(self, name: str, array: Array) -> bool:
        """Keep a tensor for what it changes; whether there is such a thing. What changes another part of a wrapper than
        its text is left alone, as that part is."""
        match = NAME.fullmatch(name)
        if match is None:
            return False
        module, part = match["module"], match["part"]
        if self._config.wrapper is not None and text_name(f"{module}.") is None:
            return True
        is_whole = part in ("weight", "bias")
        home = self._home(f"{module}.{part}" if is_whole else f"{module}.weight")
        if home is None:
            return False
        if is_whole:
            self._replace(name, home, array, is_base=match["base"] is not None)
        else:
            pair = self._pairs.setdefault(home.name, Pair(module))
            if part in pair.parts:
                raise self._error(f"{shown_name(name)} is there twice, by two spellings")
            pair.parts[part] = array
        return True

    def _home(self, name: str) -> Stored | None:
        own = name if self._config.wrapper is None else text_name(name)
        return None if own is None else self._stored.get(spelling_of(own, self._stored, self._config))

    def _replace(self, name: str, home: Stored, array: Array, *, is_base: bool) -> None:
        """A tensor as it was trained. A base layer is what lies beneath an adapter: of all that is tied to it."""
        if array.shape != home.shape:
            raise self._error(f"{shown_name(name)} is {list(array.shape)}, the model's own {list(home.shape)}")
        if self._adapter.scale != 1 and not is_base:
            raise self._error(f"holds {shown_name(name)} whole, which has no scale; leave the scale out")
        homes = [home.name]
        if is_base and self._config.tie_word_embeddings and not ENDS.isdisjoint(home.parts):
            homes = [each.name for each in self._stored.values() if not ENDS.isdisjoint(each.parts)]
        self.replacements |= dict.fromkeys(homes, array)

    def _low_rank(self, home: Stored, pair: Pair) -> LowRank:
        if pair.parts.keys() not in (LINEAR, EMBEDDING):
            raise self._error(f"of {shown_name(pair.module)} it holds {first_few(sorted(pair.parts))}, not A and B")
        down, up = (pair.parts[part] for part in sorted(pair.parts))
        left, right = (down.T, up.T) if home.transposed or pair.parts.keys() == EMBEDDING else (up, down)
        rank = len(down) if down.ndim else 0
        if len(home.shape) != 2 or (left.shape, right.shape) != ((home.shape[0], rank), (rank, home.shape[1])):
            shapes = f"A {list(down.shape)} and B {list(up.shape)}"
            raise self._error(f"{shown_name(pair.module)} is {list(home.shape)}, which {shapes} do not make")
        return LowRank(left, right, self._adapter.factor(pair.module, rank))
