"""The raw distribution of one position, or one token's numbers in each of several, measured by the kernels."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Sequence
from ctypes import POINTER, c_double, c_int64, c_void_p
from dataclasses import dataclass

import numpy as np

from tokenglass.model.native_engine.draw import drawer_of
from tokenglass.model.native_engine.machine import Machine
from tokenglass.model.native_engine.structures import Measurement, Measuring, TokenMeasuring
from tokenglass.model.sampling.head import Head
from tokenglass.model.sampling.processor import Processor
from tokenglass.model.sampling.provenance import Floats, Ints, Logits
from tokenglass.model.sampling.raw import Drawer, Measure, Raw, RowNumbers, measure_rows, not_numbers

ROOM = 4  # times the tokens that are asked for: more are found where many are about as probable
MAX_WANTED = 4096  # tokens that are found for a flat distribution
SUMS = np.dtype(Measurement)


@dataclass(frozen=True, slots=True)
class MeasuredRaw(Raw):
    """A raw distribution that the kernels measure again at another temperature."""

    sum_mass: Callable[[int, int, float, float], float]

    def mass_at(self, temperature: float) -> float:
        return self.sum_mass(self.logits.ctypes.data, len(self.logits), self.peak, temperature)


class KernelMeasure(Measure):
    """Does what `Raw.of` does, in one call that starts no threads."""

    def __init__(self, library: ctypes.CDLL):
        self._library = library
        self._measure = library.tokenglass_measure
        self._measure.argtypes = [c_void_p, c_int64, c_int64, c_int64, c_void_p, c_void_p, POINTER(Measurement)]
        self._measure.restype = None
        self._sum_mass = library.tokenglass_mass_at
        self._sum_mass.argtypes, self._sum_mass.restype = [c_void_p, c_int64, c_double, c_double], c_double

    def __call__(self, logits: Logits, count: int) -> Raw:
        """Raises what `Raw.of` raises."""
        if logits.dtype != np.float32 or not logits.flags.c_contiguous:
            return Raw.of(logits, count)
        size, measurement = len(logits), Measurement()
        room = room_for(count, size)
        while True:
            token_ids, values = np.empty(2 * room, np.int64), np.empty(2 * room)
            places = token_ids.ctypes.data, values.ctypes.data
            self._measure(logits.ctypes.data, size, count, room, *places, ctypes.byref(measurement))
            if not math.isfinite(measurement.peak):
                raise not_numbers()
            if measurement.count <= room:
                break
            room = size
        return self.raw(logits, measurement, token_ids, values)

    def drawer(self, chain: Sequence[Processor], top: int, *, is_greedy: bool) -> Drawer | None:
        return drawer_of(self._library, chain, top, is_greedy=is_greedy)

    def raw(self, logits: Logits, measurement: Measurement, token_ids: Ints, values: Floats) -> Raw:
        head = Head(token_ids[: measurement.count], values[: measurement.count], bool(measurement.complete))
        sums = measurement.peak, measurement.mass, measurement.weighted
        return MeasuredRaw(logits, *sums, head, self._sum_mass)


class MeasureEach:
    """Does what `KernelMeasure` does for several positions, in one call that all threads share."""

    def __init__(self, machine: Machine, measure: KernelMeasure):
        self._machine = machine
        self._measure = measure

    def __call__(self, logits: Sequence[Logits], count: int, threads: int) -> list[Raw | Logits]:
        """Logits that hold no distribution come back as they are, and so do those that need more room than usual: they
        are measured alone."""
        if len(logits) < 2 or not all(row.dtype == np.float32 and row.flags.c_contiguous for row in logits):
            return list(logits)
        rows, size = len(logits), len(logits[0])
        room = room_for(count, size)
        token_ids, values = np.empty((rows, 2 * room), np.int64), np.empty((rows, 2 * room))
        measurements = (Measurement * rows)()
        addresses = (c_void_p * rows)(*[row.ctypes.data for row in logits])
        places = token_ids.ctypes.data, values.ctypes.data, ctypes.addressof(measurements)
        self._machine.share(Measuring(addresses, rows, size, count, room, *places), threads)
        each = zip(logits, measurements, token_ids, values, strict=True)
        return [
            self._measure.raw(row, measurement, ids, below)
            if math.isfinite(measurement.peak) and measurement.count <= room
            else row
            for row, measurement, ids, below in each
        ]


def room_for(count: int, size: int) -> int:
    """Tokens that a measurement has room for at first."""
    return min(max(ROOM * count, MAX_WANTED), size)


class MeasureRows:
    """Does what `measure_rows` does, in one call that all threads share."""

    def __init__(self, machine: Machine):
        self._machine = machine

    def __call__(self, logits: Logits, token_ids: Ints, threads: int) -> RowNumbers:
        """Raises what `measure_rows` raises, and IndexError for an id that has no logit."""
        if logits.dtype != np.float32 or not logits.flags.c_contiguous:
            return measure_rows(logits, token_ids)
        own = np.take_along_axis(logits, token_ids[:, None], 1)[:, 0].astype(np.float64)
        ids, sums = np.ascontiguousarray(token_ids, np.int64), np.empty(len(logits), SUMS)
        task = TokenMeasuring(logits.ctypes.data, *logits.shape, ids.ctypes.data, sums.ctypes.data)
        self._machine.share(task, threads)
        if not np.isfinite(sums["peak"]).all():
            raise not_numbers()
        return RowNumbers.of_sums(own - sums["peak"], sums["mass"], sums["weighted"], sums["count"])
