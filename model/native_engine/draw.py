"""The token that a chain of temperature, top-k, top-p and min-p draws, in one call of the kernels."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from ctypes import POINTER, addressof, c_double, c_float, c_int64, c_void_p, pointer
from struct import Struct
from typing import Any

import numpy as np

from tokenglass.model.native_engine import structures
from tokenglass.model.native_engine.machine import Machine
from tokenglass.model.native_engine.structures import (
    MAX_PARTS,
    MAX_SHOWN,
    Chain,
    ChainPart,
    Drawing,
    DrawRow,
    Measurement,
    PartKind,
)
from tokenglass.model.sampling.chain import GREEDY
from tokenglass.model.sampling.processor import Processor
from tokenglass.model.sampling.provenance import Logits
from tokenglass.model.sampling.raw import DrawRequest, Raw, TokenDraw, bits_of_entropy, draw_one_by_one
from tokenglass.model.sampling.rescaling import Temperature
from tokenglass.model.sampling.truncation import MinP, TopK, TopP

FIRST_WANTED = 32  # tokens that are measured at first: they decide most draws
RECORDS = Struct("qqdd")  # the fields of a TokenRecord, which ctypes would give one by one
MOST_K = 2**31  # more than any vocabulary has


class Drawer:
    """Draws as the sampler does, with the same numbers. `chain` and the names of its parts are the kernels'."""

    def __init__(self, library: ctypes.CDLL, chain: Chain, names: Sequence[str]):
        self._draw = library.tokenglass_draw
        self._draw.argtypes = [
            *(c_void_p, c_int64, POINTER(Measurement), c_void_p, c_void_p),
            *(POINTER(Chain), c_double, POINTER(structures.TokenDraw)),
        ]
        self._draw.restype = None
        self.chain = pointer(chain)
        self._names = (*names, None)  # -1 is no part

    def __call__(self, logits: Raw | Logits, draw: float) -> TokenDraw | None:
        """None for logits of another type, and where the most probable tokens do not decide."""
        measured = ids = below = None
        if isinstance(logits, Raw):
            head = logits.head
            sums = logits.peak, logits.mass, logits.weighted
            measured = Measurement(*sums, len(head.token_ids), head.is_complete)
            ids, below, logits = head.token_ids.ctypes.data, head.values.ctypes.data, logits.logits
        if not is_readable(logits):
            return None
        out = structures.TokenDraw()
        self._draw(address_of(logits), len(logits), measured, ids, below, self.chain, draw, out)
        return self.token(out)

    def token(self, out: structures.TokenDraw) -> TokenDraw | None:
        """What the kernels drew; None where they could not tell."""
        if out.place < 0:
            return None
        tokens = list(RECORDS.iter_unpack(memoryview(out.tokens)[: out.count]))
        return TokenDraw(bits_of_entropy(out.mass, out.weighted), out.place, out.rank, tokens, self._names)


class DrawEach:
    """Does what drawers do, each for its position, in one call that all threads share."""

    def __init__(self, machine: Machine):
        self._machine = machine

    def __call__(self, requests: Sequence[DrawRequest], threads: int) -> list[TokenDraw | None]:
        """Raises EngineError."""
        drawers = [drawer for drawer, logits, _ in requests if isinstance(drawer, Drawer) and is_readable(logits)]
        count = len(requests)
        if count < 2 or len(drawers) < count:
            return draw_one_by_one(requests)
        fields: list[Any] = [  # of which ctypes makes a row itself
            (address_of(logits), drawer.chain, draw)
            for drawer, (_, logits, draw) in zip(drawers, requests, strict=True)
        ]
        rows = (DrawRow * count)(*fields)
        self._machine.share(Drawing(rows, count, len(requests[0][1])), threads)
        return [drawer.token(row.out) for drawer, row in zip(drawers, rows, strict=True)]


def is_readable(logits: Logits) -> bool:
    """Whether the kernels can read these logits (vocab,)."""
    return logits.dtype == np.float32 and logits.flags.carray


def address_of(logits: Logits) -> int:
    """Numpy takes several times as long to tell it."""
    return addressof(c_float.from_buffer(logits.data))


def drawer_of(library: ctypes.CDLL, chain: Sequence[Processor], top: int, *, is_greedy: bool) -> Drawer | None:
    """None for a chain that the kernels do not know."""
    parts = [part for processor in chain if (part := part_of(processor)) is not None]
    is_known = len(parts) == len(chain) <= MAX_PARTS and top <= MAX_SHOWN and not (is_greedy and parts)
    if not is_known or any(part.kind == PartKind.TEMPERATURE for part in parts[1:]):
        return None
    names = [GREEDY] if is_greedy else [processor.name for processor in chain]
    known = (ChainPart * MAX_PARTS)(*parts)
    return Drawer(library, Chain(max(FIRST_WANTED, top), top, is_greedy, len(parts), known), names)


def part_of(processor: Processor) -> ChainPart | None:
    """A processor as the kernels have it."""
    match processor:
        case Temperature():
            return ChainPart(PartKind.TEMPERATURE, processor.temperature)
        case TopK():
            return ChainPart(PartKind.TOP_K, min(processor.k, MOST_K))
        case TopP():
            return ChainPart(PartKind.TOP_P, processor.p)
        case MinP():
            return ChainPart(PartKind.MIN_P, math.log(processor.p))
    return None
