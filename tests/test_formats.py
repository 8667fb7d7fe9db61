"""Floats of 4 and 8 bits, codes of 1 to 8 bits, and blocks that are cut short, beside torch, transformers and gguf."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from packers import words

from tokenglass.model.checkpoint.arrays import E4M3, E5M2, E8M0
from tokenglass.model.checkpoint.formats.fp4 import read_mxfp4
from tokenglass.model.checkpoint.formats.fp8 import read_fp8
from tokenglass.model.checkpoint.formats.numbers import decode, unpack_bits
from tokenglass.model.checkpoint.formats.parts import Parts

RNG = np.random.default_rng(5)


@pytest.mark.parametrize(
    ("dtype", "theirs"), [(E4M3, torch.float8_e4m3fn), (E5M2, torch.float8_e5m2), (E8M0, torch.float8_e8m0fnu)]
)
def test_every_float_of_8_bits_is_what_torch_says(dtype: np.dtype, theirs: torch.dtype) -> None:
    codes = np.arange(256, dtype=np.uint8)
    expected = torch.from_numpy(codes).view(theirs).float().numpy()
    ours = decode(codes.view(dtype))
    assert np.array_equal(ours, expected, equal_nan=True)
    numbers = ~np.isnan(expected)
    assert np.array_equal(np.signbit(ours[numbers]), np.signbit(expected[numbers]))  # of zeros too


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("count", [32, 37, 64])
def test_codes_lie_bit_behind_bit(bits: int, count: int) -> None:
    codes = torch.from_numpy(RNG.integers(0, 2**bits, (5, count)))
    assert np.array_equal(unpack_bits(words(codes, bits).numpy(), bits, count), codes.numpy())


def test_mxfp4_of_gpt_oss_is_what_transformers_makes_of_it() -> None:
    from transformers.integrations.mxfp4 import convert_moe_packed_tensors  # noqa: PLC0415  (takes seconds)

    blocks = RNG.integers(0, 256, (1, 18, 4, 16), dtype=np.uint8)  # experts, rows, groups, bytes
    scales = RNG.integers(110, 140, (1, 18, 4), dtype=np.uint8)
    theirs = convert_moe_packed_tensors(torch.from_numpy(blocks), torch.from_numpy(scales), dtype=torch.float32)
    assert np.array_equal(mxfp4(blocks.reshape(18, 64), scales[0]).T, theirs[0].numpy())


def mxfp4(packed: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """Weights (rows, columns) of bytes (rows, columns / 2) and scales (rows, groups)."""
    shape = (len(packed), 2 * packed.shape[1])
    return read_mxfp4(Parts("w", shape, {"packed": packed, "scale": scales}), "packed", "scale").numbers("float32")


def test_mxfp4_has_the_numbers_of_gguf() -> None:
    gguf = pytest.importorskip("gguf", reason="needs the extra gguf")
    codes, scales = RNG.integers(0, 16, (7, 32), dtype=np.uint8), RNG.integers(2, 250, (7, 1), dtype=np.uint8)
    pairs = codes.reshape(7, 16, 2)
    ours = mxfp4(pairs[..., 0] | pairs[..., 1] << 4, scales)
    stored = np.concatenate((scales, codes[:, :16] | codes[:, 16:] << 4), axis=1)  # there the halves of a group
    assert np.array_equal(ours, gguf.dequantize(stored, gguf.GGMLQuantizationType.MXFP4))


@pytest.mark.parametrize("dtype", [np.dtype(np.float32), np.dtype(np.float16), E8M0])
def test_blocks_of_fp8_may_be_cut_short_at_the_ends(dtype: np.dtype) -> None:
    """As in DeepSeek's and Qwen's releases, whose sizes are not all multiples of 128."""
    codes = RNG.integers(0, 127, (70, 90), dtype=np.uint8)
    scales = (
        RNG.integers(120, 130, (3, 3), dtype=np.uint8).view(E8M0) if dtype == E8M0 else RNG.random((3, 3)).astype(dtype)
    )
    matrix = read_fp8(Parts("w", (70, 90), {"weight": codes.view(E4M3), "weight_scale_inv": scales}), [(32, 40)])
    weights, by_block = decode(codes.view(E4M3)), decode(scales)
    expected = [[weights[row, column] * by_block[row // 32, column // 40] for column in range(90)] for row in range(70)]
    assert np.array_equal(matrix.numbers("float32"), np.array(expected, np.float32))
