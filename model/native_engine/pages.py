"""Weights on large pages: fewer of the processor's page tables to walk while they stream by."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any

from torch import Tensor, nn

from tokenglass.model.engine.large_pages import large_block
from tokenglass.model.torch_engine.quantisation import Int4Weight, Int8Weight
from tokenglass.model.torch_engine.transformer import Transformer

ALIGNMENT = 64  # bytes: a cache line


def move_to_large_pages(model: Transformer) -> None:
    """Copy the weights of a model into memory of large pages, where the system has them; else leave them.

    For weights that were made in memory. Those mapped from a file are better left there: a copy takes time at the
    start, and memory that the system cannot take back.
    """
    sharing: dict[int, list[Any]] = {}  # modules by where their weight lies: ties stay ties
    for module in holders_of(model):
        sharing.setdefault(tensors_of(module)[0].data_ptr(), []).append(module)
    arena = large_block(sum(padded(tensor.nbytes) for modules in sharing.values() for tensor in tensors_of(modules[0])))
    if arena is None:
        return
    start = 0

    def moved(tensor: Tensor) -> Tensor:
        nonlocal start
        place = arena[start : start + tensor.nbytes].view(tensor.dtype).view(tensor.shape)
        start += padded(tensor.nbytes)
        return place.copy_(tensor)

    while sharing:  # one by one, so that what was there is given back on the way
        _, modules = sharing.popitem()
        weight = modules[0].weight
        if isinstance(weight, Tensor):
            weight = nn.Parameter(moved(weight), requires_grad=False)
        else:
            weight = replace(weight, **{name: moved(tensor) for name, tensor in parts_of(weight)})
        for module in modules:
            module.weight = weight


def holders_of(model: Transformer) -> Iterator[Any]:
    """Every projection and embedding."""
    for module in model.modules():
        weight = getattr(module, "weight", None)
        if isinstance(weight, Int8Weight | Int4Weight) or isinstance(module, nn.Linear | nn.Embedding):
            yield module


def tensors_of(module: Any) -> list[Tensor]:
    weight = module.weight
    return [weight] if isinstance(weight, Tensor) else [tensor for _, tensor in parts_of(weight)]


def parts_of(weight: Int8Weight | Int4Weight) -> list[tuple[str, Tensor]]:
    parts = ((field.name, getattr(weight, field.name)) for field in fields(weight))
    return [(name, part) for name, part in parts if isinstance(part, Tensor)]


def padded(nbytes: int) -> int:
    return -(-nbytes // ALIGNMENT) * ALIGNMENT
