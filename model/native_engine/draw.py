"""The token that a chain of temperature, top-k, top-p and min-p draws, in one call of the kernels."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from ctypes import POINTER, addressof, c_float, c_int64, c_void_p, pointer
from struct import Struct
from typing import Any, NamedTuple

import numpy as np

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
from tokenglass.model.sampling.context import Mask
from tokenglass.model.sampling.processor import Processor
from tokenglass.model.sampling.provenance import Ints, Logits
from tokenglass.model.sampling.raw import DrawRequest, Raw, TokenDraw, bits_of_entropy, draw_one_by_one
from tokenglass.model.sampling.rescaling import Temperature
from tokenglass.model.sampling.truncation import MinP, TopK, TopP

FIRST_WANTED = 32  # tokens that are measured at first: they decide most draws
RECORDS = Struct("qqdd")  # the fields of a TokenRecord, which ctypes would give one by one
MOST_K = 2**31  # more than any vocabulary has
MOST_REMOVED = 64  # tokens by a mask: masks of more are left to the chain
NOTHING = np.empty((0, 2), np.int64)


class Drawer:
    """Draws as the sampler does, with the same numbers. `chain` and the names of its parts are the kernels'."""

    def __init__(self, library: ctypes.CDLL, chain: Chain, names: Sequence[str]):
        self._draw = library.tokenglass_draw
        self._draw.argtypes = [POINTER(DrawRow), c_int64, POINTER(Measurement), c_void_p, c_void_p]
        self._draw.restype = None
        self.chain = pointer(chain)
        self._names = (*names, None)  # -1 is no part

    def __call__(self, logits: Raw | Logits, draw: float, masks: Sequence[Mask] = ()) -> TokenDraw | None:
        """None for logits of another type, masks of another kind, and where the most probable tokens do not decide."""
        measured = ids = below = None
        if isinstance(logits, Raw):
            head = logits.head
            sums = logits.peak, logits.mass, logits.weighted
            measured = Measurement(*sums, len(head.token_ids), head.is_complete)
            ids, below, logits = head.token_ids.ctypes.data, head.values.ctypes.data, logits.logits
        masked = Masked.of(logits, masks)
        if masked is None:
            return None
        row = DrawRow(*self.fields(logits, draw, masked))
        self._draw(row, len(logits), measured, ids, below)
        return self.token(row, masks)

    def fields(self, logits: Logits, draw: float, masked: Masked) -> tuple[Any, ...]:
        """Those of a DrawRow, which ctypes makes of them."""
        address = address_of(logits)
        if not len(masked.removed):
            return address, address, None, 0, self.chain, draw
        removed = masked.removed.ctypes.data, len(masked.removed)
        return address, address_of(masked.logits), *removed, self.chain, draw

    def token(self, row: DrawRow, masks: Sequence[Mask]) -> TokenDraw | None:
        """What the kernels drew; None where they could not tell."""
        out = row.out
        if out.place < 0:
            return None
        tokens = list(RECORDS.iter_unpack(memoryview(out.tokens)[: out.count]))
        names = (*self._names[:-1], *[mask.name for mask in reversed(masks)], None) if masks else self._names
        return TokenDraw(bits_of_entropy(out.mass, out.weighted), out.place, out.rank, tokens, names)


class Masked(NamedTuple):
    """What masks leave of logits (vocab,), and the tokens that they remove, as the kernels read them."""

    logits: Logits  # minus infinity where a token was removed
    removed: Ints  # (tokens, 2): id, and the place of its mask from the end of a TokenDraw's removers

    @staticmethod
    def of(logits: Logits, masks: Sequence[Mask]) -> Masked | None:
        """None for logits that the kernels cannot read, masks that allow certain tokens, and those that remove many."""
        if not is_readable(logits):
            return None
        if not masks:
            return Masked(logits, NOTHING)
        places: dict[int, int] = {}
        for number, mask in enumerate(masks):
            if mask.allowed is not None or len(mask.removed) > MOST_REMOVED:
                return None
            for token_id in mask.removed:
                if token_id < len(logits) and logits[token_id] > -math.inf:
                    places.setdefault(token_id, -2 - number)
        masked = logits.copy()
        masked[[*places]] = -math.inf
        peak = float(logits.max())
        in_order = sorted(places.items(), key=lambda place: (peak - float(logits[place[0]]), place[0]))
        return Masked(masked, np.array(in_order, np.int64).reshape(-1, 2))


class DrawEach:
    """Does what drawers do, each for its position, in one call that all threads share."""

    def __init__(self, machine: Machine):
        self._machine = machine

    def __call__(self, requests: Sequence[DrawRequest], threads: int) -> list[TokenDraw | None]:
        """Raises EngineError."""
        each_masked = [Masked.of(request.logits, request.masks) for request in requests]
        known = [
            (request.drawer, request, masked)
            for request, masked in zip(requests, each_masked, strict=True)
            if isinstance(request.drawer, Drawer) and masked is not None
        ]
        if len(requests) < 2 or len(known) < len(requests):
            return draw_one_by_one(requests)
        fields: list[Any] = [drawer.fields(each.logits, each.draw, masked) for drawer, each, masked in known]
        rows = (DrawRow * len(known))(*fields)
        self._machine.share(Drawing(rows, len(known), len(requests[0].logits)), threads)
        return [drawer.token(row, request.masks) for (drawer, request, _), row in zip(known, rows, strict=True)]


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
