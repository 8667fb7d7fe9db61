"""Where tensors lie, for ctypes; that of a cache is found once and told in every pass."""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Sequence
from ctypes import c_int64, c_void_p
from dataclasses import dataclass

from torch import Tensor

from model.kv_cache import KVCache


@dataclass(frozen=True, slots=True)
class Stores:
    """Where a cache's keys and values lie, the way a pass is told; true until the cache moves them."""

    cache: weakref.ref[KVCache]
    moves: int
    keys: ctypes.Array[c_void_p]
    values: ctypes.Array[c_void_p]
    slots: ctypes.Array[c_int64]

    @staticmethod
    def of(cache: KVCache) -> Stores:
        slots = integers([store.shape[2] for store in cache.keys])
        return Stores(weakref.ref(cache), cache.moves, addresses(cache.keys), addresses(cache.values), slots)

    def are_of(self, cache: KVCache) -> bool:
        return self.cache() is cache and self.moves == cache.moves


def integers(values: Sequence[int]) -> ctypes.Array[c_int64]:
    return (c_int64 * len(values))(*values)


def addresses(tensors: Sequence[Tensor]) -> ctypes.Array[c_void_p]:
    return (c_void_p * len(tensors))(*[tensor.data_ptr() for tensor in tensors])
