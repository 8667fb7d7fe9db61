"""How rows, columns and values of some tensors in GGUF files differ from those of the blueprint's weights.

An order gives, of a tensor with so many rows or columns, the one in the file for each of ours, whose weights lie one
below the other; None where both lie alike. Source: conversion/ in github.com/ggml-org/llama.cpp.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tokenglass.model.checkpoint.arrays import Array
from tokenglass.model.checkpoint.family_layouts import QKVZ, STRENGTH_DECAY
from tokenglass.model.checkpoint.layouts import Indices, order_of_heads, order_of_recurrence
from tokenglass.model.config.config import ModelConfig
from tokenglass.model.config.layer_kinds import DeltaNet
from tokenglass.model.errors import GGUFError

Order = Callable[[ModelConfig, int], Indices | None]


def rotary_pairs(config: ModelConfig, count: int) -> Indices | None:
    """The numbers of a head that rotate together lie side by side, and not in its halves."""
    rope = next((layer.rope for layer in config.layers if layer.rope is not None), None)
    return None if rope is None else order_of_heads(count, config.head_dim, rope.dim, "pairs")


def fused_rotary_pairs(config: ModelConfig, count: int) -> Indices | None:
    """The same of queries and keys that lie before the values in one tensor."""
    queries, keys = (heads * config.head_dim for heads in (config.num_heads, config.num_kv_heads))
    orders = rotary_pairs(config, queries), rotary_pairs(config, keys)
    if orders[0] is None or orders[1] is None:
        return None
    return np.concatenate((orders[0], queries + orders[1], np.arange(queries + keys, count)))


def queries_beside_gates(config: ModelConfig, count: int) -> Indices:
    """Each head has its queries and then its gates."""
    return np.arange(count).reshape(config.num_heads, 2, -1).swapaxes(0, 1).reshape(-1)


def value_heads(config: ModelConfig, count: int) -> Indices:
    """The first value head of every key head comes first, then the second of every one."""
    sizes = delta_net(config)
    return np.arange(count).reshape(-1, sizes.key_heads, count // sizes.value_heads).swapaxes(0, 1).reshape(-1)


def values_behind_keys(config: ModelConfig, count: int) -> Indices:
    """The same of what comes behind queries and keys."""
    sizes = delta_net(config)
    before = 2 * sizes.key_heads * sizes.key_dim
    return np.concatenate((np.arange(before), before + value_heads(config, count - before)))


def queries_to_gates(config: ModelConfig, _: int) -> Indices:
    """Each key head has its queries and keys, and the values and gates of the value heads that it serves."""
    return order_of_recurrence(delta_net(config), QKVZ)


def strengths_beside_decays(config: ModelConfig, _: int) -> Indices:
    """Each key head has the strengths and then the decays of the value heads that it serves."""
    return order_of_recurrence(delta_net(config), STRENGTH_DECAY)


def delta_net(config: ModelConfig) -> DeltaNet:
    return next(layer.delta for layer in config.layers if layer.delta is not None)


def same(values: Array) -> Array:
    return values


def without_one(values: Array) -> Array:
    """Of weights to which 1 was added."""
    return values - np.float32(1)


def logarithms(values: Array) -> Array:
    """A of -e^A. Raises GGUFError where a number is above 0."""
    if not (values <= 0).all():
        raise GGUFError("ssm_a holds a number that is not negative; the file is damaged")
    with np.errstate(divide="ignore"):
        return np.log(-values)
