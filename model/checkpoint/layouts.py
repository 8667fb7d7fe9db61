"""Checkpoints whose tensors have other names or shapes than Llama's: which stored tensor holds which weights."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tokenglass.model.checkpoint.arrays import Array
from tokenglass.model.checkpoint.blueprint import LAYER
from tokenglass.model.checkpoint.family_layouts import (
    NEOX_HEAD,
    QKV,
    QKVZ,
    STACKED,
    STRENGTH_DECAY,
    Layout,
    family_layout,
)
from tokenglass.model.checkpoint.parts import Shape
from tokenglass.model.config.config import ModelConfig
from tokenglass.model.config.layer_kinds import DeltaNet

HEAD = "lm_head.weight"
Indices = NDArray[np.int64]
IN_ONE_TENSOR = re.compile(r"\.(\w+)\.experts\.down_proj$")
NUMBER = re.compile(r"\.\d+(?=\.|$)")  # of an expert, or of a head


@dataclass(frozen=True, slots=True)
class Stored:
    """One tensor of a checkpoint and the weights it holds, with their shapes, by Llama's names."""

    name: str
    parts: Mapping[str, Shape]
    transposed: bool = False
    heads: int = 0  # not 0: the parts are interleaved by head
    experts: int = 0  # not 0: the parts are those of so many experts, one behind the other
    order: Indices | None = None  # of the rows, where ours have another

    @property
    def shape(self) -> Shape:
        if self.is_one:
            return next(iter(self.parts.values()))
        first, *rest = zip(*self.parts.values(), strict=True)
        shape = (sum(first), *(sizes[0] for sizes in rest))
        if self.experts:
            rows, columns = shape[0] // self.experts, shape[1:]
            return (self.experts, *columns, rows) if self.transposed else (self.experts, rows, *columns)
        return shape[::-1] if self.transposed else shape

    @property
    def is_one(self) -> bool:
        """Whether it is one weight, as it is."""
        return len(self.parts) == 1 and not (self.transposed or self.heads or self.experts) and self.order is None

    def cut(self, array: Array) -> dict[str, Array]:
        """The weights in it, as views; only what has another order of rows is copied."""
        if self.experts:
            return self.cut_experts(array)
        if self.transposed:
            array = array.T
        if self.order is not None:
            array = array[self.order]
        if self.heads:
            by_head = array.reshape(self.heads, len(self.parts), -1, *array.shape[1:])
            pieces = [by_head[:, part].reshape(-1, *array.shape[1:]) for part in range(len(self.parts))]
        else:
            ends = np.cumsum([shape[0] for shape in self.parts.values()])
            pieces = np.split(array, ends[:-1])
        return dict(zip(self.parts, pieces, strict=True))

    def cut_experts(self, array: Array) -> dict[str, Array]:
        """The same of one tensor of all experts."""
        if self.transposed:
            array = array.swapaxes(1, 2)
        each = len(self.parts) // self.experts
        rows = array.shape[1] // each
        places = [slice(p, None, each) if self.heads else slice(p * rows, (p + 1) * rows) for p in range(each)]
        pieces = [expert[place] for expert in array for place in places]
        return dict(zip(self.parts, pieces, strict=True))

    def join(self, weights: Mapping[str, Array]) -> Array:
        """The tensor whose `cut` gives these weights."""
        pieces = [weights[name] for name in self.parts]
        if self.experts:
            each = len(pieces) // self.experts
            experts = [pieces[first : first + each] for first in range(0, len(pieces), each)]
            array = np.stack(
                [weave(parts, len(parts[0])) if self.heads else np.concatenate(parts) for parts in experts]
            )
            return array.swapaxes(1, 2) if self.transposed else array
        array = weave(pieces, self.heads) if self.heads else np.concatenate(pieces)
        if self.order is not None:
            ordered, array = array, np.empty_like(array)
            array[self.order] = ordered
        return array.T if self.transposed else array


def weave(pieces: list[Array], count: int) -> Array:
    """Arrays of as many rows, the first of `count` equal parts of each, then the second of each, and so on."""
    parts = [piece.reshape(count, -1, *piece.shape[1:]) for piece in pieces]
    return np.concatenate(parts, axis=1).reshape(-1, *pieces[0].shape[1:])


def stored_tensors(
    config: ModelConfig, weights: Mapping[str, Shape], present: Collection[str] | None = None
) -> list[Stored]:
    """What a checkpoint must hold for these weights; `present` names what it holds, for files without a prefix.

    Without `present`, the names are those that transformers writes.
    """
    layout = layout_of(config, present)
    module_of = {part: module for module, parts in layout.modules.items() for part in parts}
    shapes_of: dict[str, dict[str, Shape]] = {}
    modules: dict[str, str] = {}
    for name, shape in weights.items():
        stem, _, kind = name.rpartition(".")
        if stem.startswith(LAYER):
            number, _, part = stem.removeprefix(LAYER).partition(".")
            module = module_of.get(part, part)
            if numbered := NUMBER.search(part):
                module = module_of.get(NUMBER.sub(".*", part), part).replace(".*", numbered[0])
            if bare := layout.bare.get(f"{part}.{kind}"):
                shapes_of.setdefault(f"{layout.layer}{number}.{bare}", {})[name] = shape
                continue
            end = ("" if kind == "weight" else f"_{kind}") if module in layout.stacked else f".{kind}"
            place = f"{number}.{module}" if module else number  # some weights stand in the layer itself
            stored = f"{layout.layer}{place}{end}"
            modules[stored] = module
        else:
            stored = f"{layout.outer.get(stem, stem)}.{kind}"
        shapes_of.setdefault(stored, {})[name] = shape
    return [
        Stored(
            stored if present is None else find_spelling(stored, present, layout),
            parts,
            transposed=modules.get(stored) in layout.transposed and not stored.endswith("bias"),
            heads=interleaving(config, layout, modules.get(stored), parts),
            experts=config.mixture.count if config.mixture and modules.get(stored) in layout.stacked else 0,
            order=row_order(config, layout, modules[stored], parts) if stored in modules else None,
        )
        for stored, parts in shapes_of.items()
    ]


def layout_of(config: ModelConfig, present: Collection[str] | None) -> Layout:
    """The family's own; of experts in one tensor, where the files hold them as transformers has them in memory."""
    layout = family_layout(config)
    if config.mixture is None or layout.stacked or present is None:
        return layout
    module = next((match[1] for name in present if (match := IN_ONE_TENSOR.search(name))), None)
    if module is None:
        return layout
    stacked = {f"{module}.{name.removeprefix('mlp.')}": parts for name, parts in STACKED.items()}
    return replace(layout, modules={**layout.modules, **stacked}, stacked=frozenset(stacked))


def interleaving(config: ModelConfig, layout: Layout, module: str | None, parts: Mapping[str, Shape]) -> int:
    """How many times the parts of a module stand one behind the other: by head, or by row of each expert."""
    if module not in layout.interleaved:
        return 0
    return next(iter(parts.values()))[0] if module in layout.stacked else config.num_heads


def row_order(config: ModelConfig, layout: Layout, module: str, parts: Mapping[str, Shape]) -> Indices | None:
    """The stored rows in our order, in which the two halves of a head of queries or keys rotate together, and those of
    each kind lie together in what enters a recurrence."""
    delta = next((kind.delta for kind in config.layers if kind.delta is not None), None)
    if delta is not None and module in (QKVZ, STRENGTH_DECAY):
        return order_of_recurrence(delta, module)
    rope = next((kind.rope for kind in config.layers if kind.rope is not None), None)
    if layout.rotary == "halves" or rope is None or module not in QKV[:2]:
        return None
    ((rows, *_),) = parts.values()
    return order_of_heads(rows, config.head_dim, rope.dim, layout.rotary)


def order_of_heads(rows: int, head_dim: int, rotary_dim: int, rotary: Literal["pairs", "swapped"]) -> Indices:
    """The stored row of each of ours, of heads whose first `rotary_dim` numbers lie so."""
    turning, still = np.arange(rotary_dim), np.arange(rotary_dim, head_dim)
    turned = turning.reshape(-1, 2).T if rotary == "pairs" else turning.reshape(2, -1)[::-1]
    within = np.concatenate((turned.reshape(-1), still))
    return np.arange(rows).reshape(-1, head_dim)[:, within].reshape(-1)


def order_of_recurrence(delta: DeltaNet, module: str) -> Indices:
    """The stored row of each of ours, of QKVZ or STRENGTH_DECAY."""
    shared = delta.value_heads // delta.key_heads
    values = shared * delta.value_dim
    widths = (delta.key_dim, delta.key_dim, values, values) if module == QKVZ else (shared, shared)
    return order_of_key_heads(delta.key_heads, widths)


def order_of_key_heads(heads: int, widths: Sequence[int]) -> Indices:
    """The stored row of each of ours, of heads that each have so many rows of every kind."""
    stored = np.arange(heads * sum(widths)).reshape(heads, -1)
    return np.concatenate([rows.reshape(-1) for rows in np.split(stored, np.cumsum(widths)[:-1], axis=1)])


def spelling_of(name: str, present: Collection[str], config: ModelConfig) -> str:
    """What these files call a tensor that transformers calls so."""
    return find_spelling(name, present, family_layout(config))


def find_spelling(name: str, present: Collection[str], layout: Layout) -> str:
    """The name as these files spell it. A base model saved alone has no prefix, as the first files of gpt2 have none,
    and a head may have one: transformers takes either, and a module's name in memory, too. gpt_neox may call its head
    lm_head."""
    prefix = layout.layer.partition(".")[0] + "."
    other = name.removeprefix(prefix) if name.startswith(prefix) else prefix + name
    spellings = [name, other, *([HEAD] if name == NEOX_HEAD else [])]
    for pair in layout.in_memory.items():
        for one, another in (pair, pair[::-1]):
            spellings += [each.replace(f".{one}.", f".{another}.") for each in (name, other)]
    missing = name if any(held.startswith(prefix) for held in present) else name.removeprefix(prefix)
    return next((spelling for spelling in spellings if spelling in present), missing)
