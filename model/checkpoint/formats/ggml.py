"""Blocks of GGUF files whose weights are evenly spaced in groups of 32, which int4 can hold as they are.

    Q4_0   32 weights: a scale in float16, and nibbles; weight = (nibble - 8) * scale
    Q4_1   the same with a least weight in float16; weight = nibble * scale + least
    Q4_K   256 weights: two float16 by which 6-bit scales and 6-bit steps below zero of 8 groups are multiplied

A group's nibbles lie as int4 has them: byte j holds element j in its low and j + 16 in its high half; those of Q4_K are
two groups in 32 bytes. Scales and offsets of Q4_K have up to 17 bits, which are rounded to float16's 11: a weight is
then off by no more than 2^-11 of its nibble's share and of its group's offset, each. The others are exact.

Source: github.com/ggml-org/ggml/blob/master/src/ggml-common.h and ggml-quants.c
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from tokenglass.model.checkpoint.arrays import Array
from tokenglass.model.checkpoint.formats.coded import CodedMatrix, Floats
from tokenglass.model.checkpoint.quantised_layout import GROUP

ROUNDED = frozenset({"Q4_K"})  # types whose scales are rounded to float16


def q4_0(blocks: Array) -> CodedMatrix:
    """Blocks of bytes (out, blocks, 18)."""
    scales = halves(blocks[..., :2])
    with np.errstate(over="ignore", invalid="ignore"):
        return matrix(lambda rows: low_then_high(blocks[rows, :, 2:]), scales, -8 * scales)


def q4_1(blocks: Array) -> CodedMatrix:
    """Blocks of bytes (out, blocks, 20)."""
    return matrix(lambda rows: low_then_high(blocks[rows, :, 4:]), halves(blocks[..., :2]), halves(blocks[..., 2:4]))


def q4_k(blocks: Array) -> CodedMatrix:
    """Blocks of bytes (out, blocks, 144)."""
    packed = blocks[..., 4:16]
    low, middle, high = packed[..., :4], packed[..., 4:8], packed[..., 8:]
    scales = np.concatenate((low & 63, (high & 15) | (low >> 2 & 48)), axis=-1)
    steps = np.concatenate((middle & 63, (high >> 4) | (middle >> 2 & 48)), axis=-1)
    with np.errstate(over="ignore", invalid="ignore"):
        by_group = [
            (numbers * halves(blocks[..., at : at + 2])[..., None]).astype(np.float16).astype(np.float32)
            for numbers, at in ((scales, 0), (steps, 2))
        ]
    scale, least = (numbers.reshape(len(blocks), -1) for numbers in by_group)
    return matrix(lambda rows: two_groups(blocks[rows, :, 16:]), scale, -least)


READERS: Mapping[str, Callable[[Array], CodedMatrix]] = {"Q4_0": q4_0, "Q4_1": q4_1, "Q4_K": q4_k}


def matrix(codes: Callable[[slice], Array], scales: Floats, offsets: Floats) -> CodedMatrix:
    """Groups of 32 nibbles with these scales and offsets (out, groups)."""
    shape = (len(scales), scales.shape[1] * GROUP)
    return CodedMatrix(shape, 4, codes, scales, GROUP, offsets=offsets)


def halves(pairs: Array) -> Floats:
    """Pairs of bytes (..., 2) as float16, in float32 (...)."""
    numbers: Floats = np.ascontiguousarray(pairs).view("<f2")[..., 0].astype(np.float32)
    return numbers


def low_then_high(nibbles: Array) -> Array:
    """Codes (rows, weights) of bytes (rows, blocks, n): in each block the low halves of all n, then the high ones."""
    return np.concatenate((nibbles & 15, nibbles >> 4), axis=-1).reshape(len(nibbles), -1)


def two_groups(nibbles: Array) -> Array:
    """The same of Q4_K, where each 32 bytes hold two groups."""
    return low_then_high(nibbles.reshape(len(nibbles), -1, GROUP))
