"""The raw distribution of one position, measured by the kernels. No torch here."""

from __future__ import annotations

import ctypes
import math
from ctypes import POINTER, c_int64, c_void_p

import numpy as np

from tokenglass.model.native_engine.structures import Measurement
from tokenglass.model.sampling.head import Head
from tokenglass.model.sampling.provenance import Logits
from tokenglass.model.sampling.raw import Raw, not_numbers

ROOM = 4  # times the tokens that are asked for: more are found where many are about as probable
MAX_WANTED = 4096  # tokens that are found for a flat distribution


class Measure:
    """Does what `Raw.of` does, in one call that starts no threads."""

    def __init__(self, library: ctypes.CDLL):
        self._measure = library.tokenglass_measure
        self._measure.argtypes = [c_void_p, c_int64, c_int64, c_int64, c_void_p, c_void_p, POINTER(Measurement)]
        self._measure.restype = None

    def __call__(self, logits: Logits, count: int) -> Raw:
        """Raises what `Raw.of` raises."""
        if logits.dtype != np.float32 or not logits.flags.c_contiguous:
            return Raw.of(logits, count)
        size, measurement = len(logits), Measurement()
        room = min(max(ROOM * count, MAX_WANTED), size)
        while True:
            token_ids, values = np.empty(2 * room, np.int64), np.empty(2 * room)
            places = token_ids.ctypes.data, values.ctypes.data
            self._measure(logits.ctypes.data, size, count, room, *places, ctypes.byref(measurement))
            if not math.isfinite(measurement.peak):
                raise not_numbers()
            if measurement.count <= room:
                break
            room = size
        head = Head(token_ids[: measurement.count], values[: measurement.count], bool(measurement.complete))
        return Raw(logits, measurement.peak, measurement.mass, measurement.weighted, head)
