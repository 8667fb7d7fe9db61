"""Where arrays lie, for ctypes; those of a cache and of rotary tables are found once and told in every pass."""

from __future__ import annotations

import ctypes
import sys
import weakref
from collections.abc import Sequence
from ctypes import c_int64, c_void_p
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from tokenglass.model.engine.cache import KVCache


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


@dataclass(frozen=True, slots=True)
class Turns:
    """Where the rotary tables lie, cosines and sines of each rope, for the first `positions` of a planned length."""

    planned_length: int
    positions: int
    tables: tuple[NDArray[Any], ...]  # they live as long as their addresses are told
    addresses: ctypes.Array[c_void_p]

    @staticmethod
    def of(planned_length: int, tables: Sequence[NDArray[Any]]) -> Turns:
        positions = min((len(table) for table in tables), default=sys.maxsize)
        return Turns(planned_length, positions, tuple(tables), addresses(tables))

    def reach(self, planned_length: int, needed: int) -> bool:
        return self.planned_length == planned_length and self.positions >= needed


def integers(values: Sequence[int]) -> ctypes.Array[c_int64]:
    return (c_int64 * len(values))(*values)


def addresses(arrays: Sequence[NDArray[Any]]) -> ctypes.Array[c_void_p]:
    return (c_void_p * len(arrays))(*[array.ctypes.data for array in arrays])
