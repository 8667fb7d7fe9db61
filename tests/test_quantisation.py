"""8- and 4-bit weights: what they are, and what they cost."""

from __future__ import annotations

import itertools
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import Tensor, nn
from torch.nn import functional as F
from torch_parts import as_tensor, quantize_model, quantize_tensor

from tokenglass.model.checkpoint.store import bundled_folder
from tokenglass.model.errors import CheckpointError, ParameterError
from tokenglass.model.loading import load_model
from tokenglass.model.measuring.quality import compare, held_out_text
from tokenglass.model.torch_engine.quantised import QuantizedEmbedding, QuantizedLinear

quantize_int8, quantize_int4 = partial(quantize_tensor, format="int8"), partial(quantize_tensor, format="int4")
MAKERS = {"int8": quantize_int8, "int4": quantize_int4}
FORMATS = list(MAKERS)
numbers = st.floats(-8, 8, width=32)
matrices = st.tuples(st.integers(1, 4), st.integers(1, 70)).flatmap(
    lambda shape: arrays(np.float32, shape, elements=numbers)
)


@given(matrices)
def test_int8_is_within_half_a_step_of_every_weight(matrix: np.ndarray) -> None:
    weight = torch.from_numpy(matrix)
    error = (quantize_int8(weight).dequantize() - weight).abs()
    assert (error <= 0.501 * weight.abs().amax(dim=1, keepdim=True) / 127 + 1e-12).all()


@given(matrices)
def test_int4_errs_no_more_in_a_group_than_sixteen_even_steps_over_its_span(matrix: np.ndarray) -> None:
    weight = torch.from_numpy(matrix)
    padding = -weight.shape[1] % 32
    groups, actual = (F.pad(w, (0, padding)).view(-1, 32) for w in (weight, quantize_int4(weight).dequantize()))
    least = groups.amin(1, keepdim=True).half().float()
    step = ((groups.amax(1, keepdim=True) - groups.amin(1, keepdim=True)) / 15).half().float()
    even = torch.where(step > 0, ((groups - least) / step).round().clamp(0, 15), 0) * step + least
    real = torch.ones_like(weight)
    real = F.pad(real, (0, padding)).view(-1, 32)
    errors = [((w - groups) ** 2).sum(1) for w in (actual, even)]
    padded = ((even * (1 - real)) ** 2).sum(1)  # the grids are chosen with the zeros of the padding
    assert (errors[0] <= errors[1] * (1 + 1e-4) + padded + 1e-9).all()


def test_elements_lie_in_panels_and_bytes_as_the_layout_says() -> None:
    rng = np.random.default_rng(0)
    bytes_ = rng.integers(-127, 128, (19, 70))
    bytes_[:, ::64] = 127
    factors = rng.integers(1, 129, (19, 2))
    factors[:, 0] = 128  # so the scale is 1 / 128
    eight = torch.from_numpy(bytes_ * factors.repeat(64, axis=1)[:, :70] / 128).float()
    result = quantize_int8(eight)
    assert result.values.shape == (2, 32, 16, 4)
    assert result.factors.shape == (2, 2, 16)
    for row, group in itertools.product(range(19), range(2)):
        assert result.factors[row // 16, group, row % 16] == factors[row, group]
    assert torch.equal(result.dequantize(), eight)
    for row, k in itertools.product(range(32), range(128)):
        value = bytes_[row, k] if row < 19 and k < 70 else 0
        assert result.values[row // 16, k // 4, row % 16, k % 4] == value
    nibbles = rng.integers(0, 16, (19, 70))
    nibbles[:, ::32], nibbles[:, 1::32] = 0, 15  # the whole span, so that the grid is sure
    weight = torch.from_numpy(nibbles * 0.25).float()
    packed = quantize_int4(weight)
    assert packed.packed.shape == (2, 12, 16, 4)
    assert packed.scales.shape == packed.offsets.shape == (2, 3, 16)
    for row, k in itertools.product(range(19), range(70)):
        group, element = divmod(k, 32)
        byte, shift = element % 16, element // 16 * 4
        assert packed.packed[row // 16, 4 * group + byte // 4, row % 16, byte % 4] >> shift & 15 == nibbles[row, k]
        assert packed.scales[row // 16, group, row % 16] == 0.25
    assert torch.equal(packed.dequantize(), weight)
    assert torch.equal(packed.rows(torch.tensor([[18, 2]])), weight[[18, 2]][None])
    assert torch.equal(result.rows(torch.tensor([[18, 2]])), eight[[18, 2]][None])


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_1"])
def test_weights_of_a_4_bit_file_come_back_nearly_as_they_were(kind: str) -> None:
    gguf = pytest.importorskip("gguf", reason="needs the extra gguf")
    drawn = np.random.default_rng(1).standard_normal((64, 256), dtype=np.float32)
    coded = gguf.quantize(drawn, gguf.GGMLQuantizationType[kind])
    weight = torch.from_numpy(gguf.dequantize(coded, gguf.GGMLQuantizationType[kind]).astype(np.float32))
    wrong = quantize_int4(weight).dequantize() - weight
    assert wrong.norm() / weight.norm() < 5e-4


def test_sizes_are_those_of_the_real_tensors() -> None:
    weight = torch.randn(16, 128)
    eight, four = quantize_int8(weight), quantize_int4(weight)
    assert (eight.nbytes, eight.bits_per_weight) == (16 * 128 + 16 * 4 + 16 * 2, 8.375)
    assert (four.nbytes, four.bits_per_weight) == (16 * 4 * (16 + 2 + 2), 5.0)
    assert (four.in_features, four.out_features, eight.in_features, eight.out_features) == (128, 16, 128, 16)


@pytest.mark.parametrize("quantize", MAKERS.values())
def test_a_row_of_zeros_stays_zero_and_a_constant_one_constant(quantize: Any) -> None:
    weight = torch.stack((torch.zeros(64), torch.full((64,), 0.75)))
    assert torch.allclose(quantize(weight).dequantize(), weight, atol=1e-6)


@pytest.mark.parametrize("quantize", MAKERS.values())
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_is_refused(quantize: Any, bad: float) -> None:
    weight = torch.ones(2, 32)
    weight[1, 3] = bad
    with pytest.raises(CheckpointError, match="not a number"):
        quantize(weight)


def test_what_float16_cannot_hold_is_refused_in_int4_only() -> None:
    weight = torch.full((1, 32), 1e6)
    with pytest.raises(CheckpointError, match="use int8"):
        quantize_int4(weight)
    assert torch.allclose(quantize_int8(weight).dequantize(), weight)


@pytest.mark.parametrize("quantize", MAKERS.values())
def test_modules_compute_with_the_dequantised_weight(quantize: Any) -> None:
    torch.manual_seed(0)
    weight, bias, x = quantize(torch.randn(24, 50)), torch.randn(24), torch.randn(2, 3, 50)
    assert torch.equal(QuantizedLinear(weight, bias)(x), F.linear(x, weight.dequantize(), bias))
    assert QuantizedLinear(weight)(x.bfloat16()).dtype == torch.bfloat16
    ids = torch.tensor([[0, 23], [5, 5]])
    assert torch.equal(QuantizedEmbedding(weight)(ids), weight.dequantize()[ids])


@pytest.mark.parametrize("stored", FORMATS)
@pytest.mark.parametrize("tied", [True, False])
def test_every_matrix_is_replaced_and_a_tied_head_shares_the_embedding_s(stored: Any, tied: bool) -> None:
    config = replace(tiny.CONFIG, tie_word_embeddings=tied, qkv_bias=True, norm="layer", learned_positions=True)
    model, original = tiny.random_transformer(config), tiny.random_transformer(config)
    model.bfloat16().float(), original.bfloat16().float()
    quantize_model(model, stored)
    modules = dict(model.named_modules())
    assert not [name for name, module in modules.items() if isinstance(module, nn.Linear)]
    assert (model.lm_head.weight is model.model.embed_tokens.weight) is tied
    floats = model.state_dict()
    assert {weight.dtype for weight in floats.values()} == {torch.float32}
    assert "model.embed_positions.weight" in floats
    assert "model.layers.0.self_attn.q_proj.bias" in floats
    for name, weight in floats.items():
        assert torch.equal(weight, original.state_dict()[name])
    # The same model with ordinary modules that hold the dequantised weights
    weights = {
        f"{name}.weight": module.weight.dequantize()
        for name, module in modules.items()
        if isinstance(module, (QuantizedLinear, QuantizedEmbedding))
    }
    original.load_state_dict({**floats, **weights})
    ids = torch.randint(0, config.vocab_size, (2, 9))
    assert torch.allclose(model(ids), original(ids), atol=1e-5)


def test_divergence_and_perplexity_are_those_of_torch_over_each_window(saved_checkpoint: Path) -> None:
    reference, other = (load_model(saved_checkpoint, device="cpu", quantize=q) for q in ("none", "int4"))
    ids = reference.tokenizer.encode(held_out_text())[:150]
    *_, loss = compare(reference.engine, other.engine, ids, window=40)
    p, q, targets = list[Tensor](), list[Tensor](), list[Tensor]()
    for start, last in pairwise([*range(0, 149, 39), 149]):
        window = torch.tensor([list(ids[start : last + 1])])
        for engine, log_probs in ((reference.engine, p), (other.engine, q)):
            log_probs.append(as_tensor(engine.forward(window, None, last=None))[0, :-1])
        targets.append(window[0, 1:])
    raw_p, raw_q, target = torch.cat(p), torch.cat(q), torch.cat(targets)
    assert loss.tokens == 149
    assert target.tolist() == list(ids[1:])
    kl = F.kl_div(raw_q.log_softmax(-1), raw_p.log_softmax(-1), log_target=True, reduction="batchmean")
    assert loss.mean_kl == pytest.approx(kl.item(), rel=1e-4)
    assert loss.perplexity == pytest.approx(F.cross_entropy(raw_q, target).exp().item(), rel=1e-5)
    assert loss.reference_perplexity == pytest.approx(F.cross_entropy(raw_p, target).exp().item(), rel=1e-5)
    assert loss.agreement == pytest.approx((raw_p.argmax(-1) == raw_q.argmax(-1)).float().mean().item())


def test_a_model_is_nothing_away_from_itself(saved_checkpoint: Path) -> None:
    engine = load_model(saved_checkpoint, device="cpu").engine
    *_, loss = compare(engine, engine, range(1, 60))
    assert (loss.mean_kl, loss.perplexity_ratio, loss.agreement) == (0, 1, 1)
    with pytest.raises(ParameterError, match="two tokens"):
        next(compare(engine, engine, [1]))


@pytest.mark.slow
@pytest.mark.parametrize(("stored", "most_kl", "most_perplexity"), [("int8", 0.002, 1.005), ("int4", 0.02, 1.015)])
def test_the_bundled_model_loses_little(stored: Any, most_kl: float, most_perplexity: float) -> None:
    reference, other = (load_model(bundled_folder(), device="cpu", quantize=q) for q in ("none", stored))
    *_, loss = compare(reference.engine, other.engine, reference.tokenizer.encode(held_out_text()))
    assert loss.mean_kl <= most_kl
    assert loss.perplexity_ratio <= most_perplexity


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda good: {"values": good.values.float()}, "values are int8"),
        (lambda good: {"values": good.values.flatten(2)}, "values are int8"),
        (lambda good: {"in_features": 65}, "values are int8"),
        (lambda good: {"scales": torch.ones(20)}, "values are int8"),
        (lambda good: {"scales": good.scales.double()}, "scales are float32"),
        (lambda good: {"factors": good.factors.short()}, "factors are uint8"),
        (lambda good: {"factors": good.factors[:, :, :4]}, "factors are uint8"),
    ],
)
def test_an_int8_weight_of_wrong_parts_cannot_be_made(change: Any, message: str) -> None:
    good = quantize_int8(torch.randn(4, 64))
    with pytest.raises(ValueError, match=message):
        replace(good, **change(good))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda good: {"in_features": 65}, "packed is uint8"),
        (lambda good: {"out_features": 17}, "packed is uint8"),
        (lambda good: {"scales": good.scales.float()}, "scales and offsets"),
        (lambda good: {"offsets": good.offsets[:, :, :4]}, "scales and offsets"),
    ],
)
def test_an_int4_weight_of_wrong_parts_cannot_be_made(change: Any, message: str) -> None:
    good = quantize_int4(torch.randn(4, 64))
    with pytest.raises(ValueError, match=message):
        replace(good, **change(good))
