"""The raw distribution of one position, measured by the kernels. No torch here."""

from __future__ import annotations

import ctypes
import math
from ctypes import POINTER, c_int64, c_void_p

import numpy as np

from model.kernels.structures import Measured
from model.sampling.head import Head
from model.sampling.provenance import Logits
from model.sampling.raw import Raw, not_numbers

ROOM = 4  # times the tokens that are asked for; where more are as probable, numpy finds them
MOST = 512  # tokens asked for that are put in order one by one


class Measure:
    """Does what `Raw.of` does, in one pass over the logits that starts no threads."""

    def __init__(self, library: ctypes.CDLL):
        self._measure = library.tokenglass_measure
        self._measure.argtypes = [c_void_p, c_int64, c_int64, c_int64, c_void_p, c_void_p, POINTER(Measured)]
        self._measure.restype = None

    def __call__(self, logits: Logits, count: int) -> Raw:
        """Raises what `Raw.of` raises."""
        if logits.dtype != np.float32 or not logits.flags.c_contiguous or count > MOST:
            return Raw.of(logits, count)
        room = min(ROOM * count, len(logits))
        token_ids, values = np.empty(room, np.int64), np.empty(room)
        found = Measured()
        self._measure(
            logits.ctypes.data, len(logits), count, room, token_ids.ctypes.data, values.ctypes.data, ctypes.byref(found)
        )
        if not math.isfinite(found.peak):
            raise not_numbers()
        if found.count > room:
            return Raw.of(logits, count)
        count = found.count
        head = Head(token_ids[:count], values[:count], bool(found.complete))
        return Raw(logits, found.peak, found.mass, found.weighted, head)
