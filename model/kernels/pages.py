"""Weights on large pages: fewer of the processor's page tables to walk while they stream by."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any

from torch import Tensor, nn

from model.large_pages import large_block
from model.quantisation import Int4Weight, Int8Weight
from model.transformer import Transformer

ALIGNMENT = 64  # bytes: a cache line


def move_to_large_pages(model: Transformer) -> None:
    """Copy the weights of a model into memory of large pages, where the system has them; else leave them.

    For weights that were made in memory. Those mapped from a file are better left there: a copy takes time at the
    start, and memory that the system cannot take back.
    """
    arena = large_block(sum(padded(tensor.nbytes) for tensor in {id(t): t for t in weights_of(model)}.values()))
    if arena is None:
        return
    start = 0
    moved: dict[int, Tensor | nn.Parameter] = {}  # by the identity of what was there: ties stay ties

    def move(tensor: Tensor) -> Tensor:
        nonlocal start
        if id(tensor) not in moved:
            place = arena[start : start + tensor.nbytes].view(tensor.dtype).view(tensor.shape)
            start += padded(tensor.nbytes)
            place.copy_(tensor)
            moved[id(tensor)] = nn.Parameter(place, requires_grad=False) if isinstance(tensor, nn.Parameter) else place
        return moved[id(tensor)]

    kept = list(weights_of(model))  # so that no identity is used twice
    module: Any
    for module in model.modules():
        weight: Any = getattr(module, "weight", None)
        if isinstance(weight, Int8Weight | Int4Weight):
            module.weight = replace(weight, **{name: move(tensor) for name, tensor in parts_of(weight)})  # type: ignore[arg-type]
        elif isinstance(module, nn.Linear | nn.Embedding):
            module.weight = move(module.weight)
    del kept


def weights_of(model: Transformer) -> Iterator[Tensor]:
    """The tensors of every projection and embedding; tied ones come twice."""
    for module in model.modules():
        weight = getattr(module, "weight", None)
        if isinstance(weight, Int8Weight | Int4Weight):
            yield from (tensor for _, tensor in parts_of(weight))
        elif isinstance(module, nn.Linear | nn.Embedding):
            yield module.weight


def parts_of(weight: Int8Weight | Int4Weight) -> list[tuple[str, Tensor]]:
    parts = ((field.name, getattr(weight, field.name)) for field in fields(weight))
    return [(name, part) for name, part in parts if isinstance(part, Tensor)]


def padded(nbytes: int) -> int:
    return -(-nbytes // ALIGNMENT) * ALIGNMENT
