"""Floats of 8 and 4 bits, and codes that lie bit behind bit.

Sources: the OCP "8-bit Floating Point" and "Microscaling Formats (MX)" specifications, versions 1.0.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tokenglass.model.checkpoint.arrays import E4M3, E5M2, E8M0, Array, to_float32

Floats = NDArray[np.float32]
BYTES = np.arange(256)


def table(exponent_bits: int, mantissa_bits: int) -> Floats:
    """What each code of such a float is worth, infinities and NaN apart: sign, exponent, mantissa."""
    codes = np.arange(2 ** (1 + exponent_bits + mantissa_bits))
    steps = 2**mantissa_bits
    exponents, mantissas = codes // steps % 2**exponent_bits, codes % steps
    bias = 2 ** (exponent_bits - 1) - 1
    sizes = np.ldexp(
        np.where(exponents > 0, steps + mantissas, mantissas), np.maximum(exponents, 1) - bias - mantissa_bits
    )
    return np.where(codes < len(codes) // 2, sizes, -sizes).astype(np.float32)


def e4m3() -> Floats:
    """(256,): no infinities, and NaN where all bits but the sign are set."""
    return np.where(BYTES % 128 == 127, np.float32(np.nan), table(4, 3)).astype(np.float32)


def e5m2() -> Floats:
    """(256,): infinities and NaN as in IEEE 754."""
    beyond = np.where(BYTES % 4 > 0, np.nan, np.where(BYTES < 128, np.inf, -np.inf))
    return np.where(BYTES % 128 >= 124, beyond, table(5, 2)).astype(np.float32)


def e8m0() -> Floats:
    """(256,): powers of 2; the last is NaN."""
    return np.where(BYTES < 255, np.ldexp(1.0, BYTES - 127), np.nan).astype(np.float32)


def e2m1() -> Floats:
    """(16,): 0, 0.5, 1, 1.5, 2, 3, 4, 6, and the same below zero."""
    return table(2, 1)


TABLES = {E4M3: e4m3, E5M2: e5m2, E8M0: e8m0}


def decode(array: Array) -> Floats:
    """The same numbers in float32, those of 8 bits too."""
    if array.dtype in TABLES:
        return TABLES[array.dtype]()[array.view(np.uint8)]
    return to_float32(array)


def unpack_bits(stored: Array, bits: int, count: int) -> NDArray[np.uint8]:
    """Codes (rows, count) of 1 to 8 bits that lie one behind the other, from the lowest bit of each row's first byte.

    `stored` is (rows, words) of whole numbers, little-endian.
    """
    packed = np.ascontiguousarray(stored).view(np.uint8)
    if 8 % bits == 0:
        places = np.stack([packed >> shift for shift in range(0, 8, bits)], axis=-1)
        places &= 2**bits - 1
        return places.reshape(len(packed), -1)[:, :count]
    eights = -(-count // 8)  # eight codes are `bits` bytes
    if packed.shape[1] < eights * bits:
        packed = np.pad(packed, ((0, 0), (0, eights * bits - packed.shape[1])))
    packs = packed[:, : eights * bits].reshape(-1, eights, bits)
    codes = np.empty((len(packed), eights, 8), np.uint8)
    for place in range(8):
        byte, shift = divmod(place * bits, 8)
        codes[..., place] = packs[..., byte] >> shift
        if shift + bits > 8:
            codes[..., place] |= packs[..., byte + 1] << (8 - shift)
    codes &= 2**bits - 1
    return codes.reshape(len(packed), -1)[:, :count]
