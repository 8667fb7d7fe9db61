"""What the compiled kernels tell of themselves: numbers that both sides count on, and what they were compiled for."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from ctypes import CFUNCTYPE, c_char_p, c_int64

from tokenglass.model.checkpoint import quantised_layout
from tokenglass.model.errors import KernelsError
from tokenglass.model.native_engine import structures
from tokenglass.model.native_engine.measure import MAX_WANTED

SHARED: Mapping[str, int] = {
    **{
        structure.__name__: ctypes.sizeof(structure)
        for structure in (
            *(structures.Matrix, structures.Norm, structures.Operation),
            *(structures.Sizes, structures.Measurement, structures.Measuring, structures.TokenMeasuring),
            *(structures.Chain, structures.TokenDraw, structures.DrawRow),
            *(structures.PassRow, structures.Pass),
        )
    },
    **{
        member.name: member.value
        for enumeration in (
            *(structures.Kind, structures.Code, structures.Activation, structures.Buffer),
            structures.PartKind,
        )
        for member in enumeration
    },
    **{f"NORM_{member.name}": member.value for member in structures.Normed},
    **{member.name: member.value for member in structures.Status},
    **{name: getattr(quantised_layout, name) for name in ("GROUP", "PANEL", "UNIT", "STEP")},
    "MAX_WANTED": MAX_WANTED,
    **{name: getattr(structures, name) for name in ("MAX_PARTS", "MAX_SHOWN", "CHUNK")},
}


def facts_of(library: ctypes.CDLL) -> dict[str, int]:
    """Sizes of structures in bytes, numbers of enumerations, and LANES, BYTE_PRODUCTS, TILES and where those begin."""
    facts: dict[str, int] = {}

    def note(name: bytes, value: int) -> None:
        facts[name.decode()] = value

    library.tokenglass_facts(CFUNCTYPE(None, c_char_p, c_int64)(note))
    return facts


def check_facts(library: ctypes.CDLL) -> None:
    """Raises KernelsError where the kernels count on other numbers than this program."""
    if not hasattr(library, "tokenglass_facts"):
        raise KernelsError("the compiled kernels are not those of this program")
    facts = facts_of(library)
    for name, value in SHARED.items():
        if facts.get(name) != value:
            raise KernelsError(f"{name} is {facts.get(name)} in the compiled kernels and {value} in this program")


def kernels_of(library: ctypes.CDLL) -> str:
    """Which kernels run, for a person to read: lanes of a vector, and how rows of int8 and int4 are multiplied:
    in tiles of bytes, in bytes, or in words of 16 bits."""
    facts = facts_of(library)
    products = "tiles" if facts["TILES"] else "bytes" if facts["BYTE_PRODUCTS"] else "words"
    return f"vectors of {facts['LANES']}, quantised weights in {products}"
