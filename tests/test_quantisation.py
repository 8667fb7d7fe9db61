"""8- and 4-bit weights: what they are, what they cost, and how they are kept in files."""

from __future__ import annotations

import itertools
import json
import shutil
import sys
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
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F
from torch_parts import as_tensor, quantize_model, quantize_tensor

from tokenglass.model.checkpoint.folder import Checkpoint
from tokenglass.model.checkpoint.quantised import Int8Weight
from tokenglass.model.checkpoint.quantised_checkpoint import quantize_checkpoint
from tokenglass.model.checkpoint.quantised_layout import FORMAT_KEY, SOURCE_KEY, VERSION, VERSION_KEY
from tokenglass.model.checkpoint.shards import SINGLE
from tokenglass.model.checkpoint.store import bundled_folder
from tokenglass.model.errors import CheckpointError, ParameterError
from tokenglass.model.loading import load_model, quantizer
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
    groups, found = (F.pad(w, (0, padding)).view(-1, 32) for w in (weight, quantize_int4(weight).dequantize()))
    least = groups.amin(1, keepdim=True).half().float()
    step = ((groups.amax(1, keepdim=True) - groups.amin(1, keepdim=True)) / 15).half().float()
    even = torch.where(step > 0, ((groups - least) / step).round().clamp(0, 15), 0) * step + least
    real = torch.ones_like(weight)
    real = F.pad(real, (0, padding)).view(-1, 32)
    errors = [((w - groups) ** 2).sum(1) for w in (found, even)]
    padded = ((even * (1 - real)) ** 2).sum(1)  # the grids are chosen with the zeros of the padding
    assert (errors[0] <= errors[1] * (1 + 1e-4) + padded + 1e-9).all()


def test_elements_lie_in_panels_and_bytes_as_the_layout_says() -> None:
    rng = np.random.default_rng(0)
    bytes_ = rng.integers(-127, 128, (19, 70))
    bytes_[:, ::64] = 127
    factors = rng.integers(1, 129, (19, 2))
    factors[:, 0] = 128  # so the scale is 1 / 128
    eight = torch.from_numpy(bytes_ * factors.repeat(64, axis=1)[:, :70] / 128).float()
    made = quantize_int8(eight)
    assert made.values.shape == (2, 32, 16, 4)
    assert made.factors.shape == (2, 2, 16)
    for row, group in itertools.product(range(19), range(2)):
        assert made.factors[row // 16, group, row % 16] == factors[row, group]
    assert torch.equal(made.dequantize(), eight)
    for row, k in itertools.product(range(32), range(128)):
        value = bytes_[row, k] if row < 19 and k < 70 else 0
        assert made.values[row // 16, k // 4, row % 16, k % 4] == value
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
    assert torch.equal(made.rows(torch.tensor([[18, 2]])), eight[[18, 2]][None])


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


# Files


def quantised(source: Path, folder: Path, stored: Any) -> Path:
    for _ in quantize_checkpoint(Checkpoint.open(source), stored, folder, quantizer(stored, None, 1)):
        pass
    return folder


def logits(folder: Path, **settings: Any) -> Tensor:
    engine = load_model(folder, device="cpu", **settings).engine
    return as_tensor(engine.forward([[5, 9, 2, 40]], None, last=None))


@pytest.fixture(params=FORMATS)
def stored(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def kept(saved_checkpoint: Path, tmp_path: Path, stored: str) -> Path:
    """The tiny checkpoint, quantised and stored."""
    return quantised(saved_checkpoint, tmp_path / "kept", stored)


def test_what_is_stored_computes_what_was_made_at_load(saved_checkpoint: Path, kept: Path, stored: str) -> None:
    assert torch.equal(logits(kept), logits(saved_checkpoint, quantize=stored))
    assert torch.equal(logits(kept, quantize=stored), logits(kept))


@pytest.mark.parametrize("family", ["GPT2", "GPTNeoX", "Phi3"])
def test_families_whose_files_are_laid_out_otherwise(family: str, stored: str, tmp_path: Path) -> None:
    source = save_family(family, tmp_path / "source")
    assert torch.equal(logits(quantised(source, tmp_path / "kept", stored)), logits(source, quantize=stored))


def save_family(family: str, folder: Path) -> Path:
    """A tiny random model of that family, written by transformers, in bfloat16."""
    import transformers  # noqa: PLC0415

    sizes = {"hidden_size": 40, "intermediate_size": 72, "num_hidden_layers": 2, "num_attention_heads": 4}
    if family == "GPT2":
        sizes = {"n_embd": 40, "n_layer": 2, "n_head": 4, "n_positions": 64}
    if family == "Phi3":
        sizes |= {"num_key_value_heads": 2, "pad_token_id": 0}
    ends = {"bos_token_id": 0, "eos_token_id": 0}
    config = getattr(transformers, f"{family}Config")(vocab_size=tiny.VOCAB_SIZE, **sizes, **ends)
    name = "GPT2LMHeadModel" if family == "GPT2" else f"{family}ForCausalLM"
    torch.manual_seed(0)
    getattr(transformers, name)(config).to(torch.bfloat16).save_pretrained(folder)
    tiny.byte_level_tokenizer().save(str(folder / "tokenizer.json"))
    return folder


def stored_bytes(shape: tuple[int, ...], stored: str) -> int:
    """What the layout takes for a weight of this shape: whole panels, and rows of int8 filled up to 64 and a factor."""
    if len(shape) == 1:
        return 4 * shape[0]
    (out, size), panels, groups = shape, -(-shape[0] // 16), -(-shape[1] // 32)
    if stored == "int8":
        return panels * 16 * -(-size // 64) * (64 + 1) + 4 * out
    return panels * groups * 16 * (16 + 2 + 2)


def test_the_file_says_what_it_is_and_what_it_was_made_from(saved_checkpoint: Path, kept: Path, stored: str) -> None:
    source, made = Checkpoint.open(saved_checkpoint), Checkpoint.open(kept)
    with safe_open(kept / SINGLE, framework="pt") as opened:
        metadata = opened.metadata()
    assert metadata[FORMAT_KEY] == stored
    assert metadata[VERSION_KEY] == VERSION
    assert metadata[SOURCE_KEY] == source.fingerprint
    assert made.quantisation is not None
    assert made.quantisation.format == stored
    assert made.num_parameters == source.num_parameters
    matrices = sum(info.size for info in source.tensors if len(info.shape) == 2)
    assert made.dtypes == {stored: matrices, "float32": source.num_parameters - matrices}
    assert made.nbytes == sum(stored_bytes(info.shape, stored) for info in source.tensors)
    assert stored_bytes((64, 576), "int8") < 0.26 * 4 * 64 * 576
    assert stored_bytes((64, 576), "int4") < 0.16 * 4 * 64 * 576
    assert made.fingerprint != source.fingerprint


def test_everything_but_the_weights_is_copied(saved_checkpoint: Path, kept: Path) -> None:
    names = {file.name for file in saved_checkpoint.iterdir()}
    assert {file.name for file in kept.iterdir()} == names
    for name in names - {SINGLE}:
        assert (kept / name).read_bytes() == (saved_checkpoint / name).read_bytes()


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc what is mapped")
def test_stored_weights_are_mapped_not_copied(kept: Path) -> None:
    loaded = load_model(kept, device="cpu")
    spans = [
        line.split()[0].split("-") for line in Path("/proc/self/maps").read_text().splitlines() if str(kept) in line
    ]
    weight = loaded.engine.model.lm_head.weight
    address = (weight.values if isinstance(weight, Int8Weight) else weight.packed).data_ptr()
    assert any(int(begin, 16) <= address < int(end, 16) for begin, end in spans)


def test_a_safetensors_reader_finds_every_tensor_where_the_header_says(kept: Path) -> None:
    loaded = load_model(kept, device="cpu").engine.model
    head = loaded.lm_head.weight
    read = load_file(kept / SINGLE)
    parts = ("values", "scales", "factors") if isinstance(head, Int8Weight) else ("packed", "scales", "offsets")
    for part in parts:
        assert torch.equal(read[f"lm_head.weight.{part}"], getattr(head, part))


def test_nothing_is_left_where_quantising_fails(saved_checkpoint: Path, tmp_path: Path) -> None:
    source = shutil.copytree(saved_checkpoint, tmp_path / "source")
    tensors = load_file(source / SINGLE)
    tensors["model.layers.1.mlp.up_proj.weight"][0, 0] = float("nan")
    save_file(tensors, source / SINGLE)
    with pytest.raises(CheckpointError, match=r"model\.layers\.1\.mlp\.up_proj: .*not a number"):
        quantised(source, tmp_path / "made", "int8")
    assert [file.name for file in tmp_path.iterdir()] == ["source"]


def rewrite(folder: Path, change: Any) -> None:
    """Let `change` edit the tensors and the metadata of a stored model."""
    with safe_open(folder / SINGLE, framework="pt") as opened:
        metadata = dict(opened.metadata())
    tensors = {name: tensor.clone() for name, tensor in load_file(folder / SINGLE).items()}
    change(tensors, metadata)
    save_file(tensors, folder / SINGLE, metadata)


SCALES = "model.layers.0.mlp.up_proj.weight.scales"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda tensors, _: tensors.pop(SCALES), f"missing: {SCALES}"),
        (lambda tensors, _: tensors.update(extra=torch.ones(1)), "unexpected: extra"),
        (lambda tensors, _: tensors.update({SCALES: tensors[SCALES][:-1].clone()}), f"wrong shape: {SCALES} is"),
        (lambda tensors, _: tensors.update({SCALES: tensors[SCALES].double()}), f"unsupported dtype: {SCALES} is F64"),
        (
            lambda tensors, _: tensors.update({SCALES: tensors[SCALES].bfloat16()}),
            f"unsupported dtype: {SCALES} is BF16",
        ),
        (lambda _, metadata: metadata.update({FORMAT_KEY: "int3"}), "quantised to 'int3', which is not known"),
        (lambda _, metadata: metadata.update({FORMAT_KEY: "a\nb"}), r"quantised to 'a\nb', which is not known"),
        (lambda _, metadata: metadata.update({VERSION_KEY: "1"}), "version '1' of the layout"),
        (lambda _, metadata: metadata.pop(FORMAT_KEY), "unexpected: "),
    ],
)
def test_a_file_that_lies_is_refused_in_one_line(kept: Path, change: Any, told: str) -> None:
    rewrite(kept, change)
    with pytest.raises(CheckpointError) as caught:
        load_model(kept, device="cpu")
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("stored", ["int8"])
def test_a_file_from_before_there_were_factors_is_read(kept: Path, stored: str) -> None:
    def change(tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
        for name in [name for name in tensors if name.endswith(".factors")]:
            del tensors[name]
            tensors[name.replace("factors", "scales")] *= 128
        metadata[VERSION_KEY] = "2"

    rewrite(kept, change)
    engines = [load_model(kept, backend=backend, cache_dtype="float32").engine for backend in ("native", "torch")]
    ours, theirs = (torch.as_tensor(engine.forward([range(40)], None, last=None)[0]) for engine in engines)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-3 * float(theirs.abs().max()))


def test_one_format_stored_as_the_other_is_refused(kept: Path, stored: str) -> None:
    rewrite(kept, lambda _, metadata: metadata.update({FORMAT_KEY: "int8" if stored == "int4" else "int4"}))
    with pytest.raises(CheckpointError, match="do not fit"):
        load_model(kept, device="cpu")


def test_names_of_parts_on_strange_shapes_are_only_unexpected(kept: Path) -> None:
    def change(tensors: dict[str, Tensor], _: dict[str, str]) -> None:
        tensors |= {"packed": torch.ones(()), "weight.packed": torch.ones(()), "x.weight.values": torch.ones(2, 2, 2)}

    rewrite(kept, change)
    assert Checkpoint.open(kept).num_parameters > 0
    with pytest.raises(CheckpointError, match="unexpected"):
        load_model(kept, device="cpu")


@pytest.mark.parametrize("cut", [100, 10_000])
def test_a_file_cut_short_is_refused(kept: Path, cut: int) -> None:
    content = (kept / SINGLE).read_bytes()
    (kept / SINGLE).write_bytes(content[:-cut])
    with pytest.raises(CheckpointError, match="damaged or incomplete"):
        load_model(kept, device="cpu")


def test_layers_beyond_what_the_file_holds_are_refused_before_they_are_built(kept: Path) -> None:
    config = json.loads((kept / "config.json").read_text())
    (kept / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 900, "layer_types": None}))
    with pytest.raises(CheckpointError, match="900 layers"):
        load_model(kept, device="cpu")


def test_another_format_than_the_stored_one_and_a_dtype_are_refused(kept: Path, stored: str) -> None:
    other: Any = "int8" if stored == "int4" else "int4"
    with pytest.raises(ParameterError, match=f"is stored as {stored}"):
        load_model(kept, device="cpu", quantize=other)
    with pytest.raises(ParameterError, match="float32"):
        load_model(kept, device="cpu", dtype="bfloat16")
    with pytest.raises(CheckpointError, match="quantised already"):
        quantised(kept, kept.parent / "again", stored)


# Quality


def test_divergence_and_perplexity_are_those_of_torch_over_each_window(saved_checkpoint: Path) -> None:
    reference, other = (load_model(saved_checkpoint, device="cpu", quantize=q) for q in ("none", "int4"))
    ids = reference.tokenizer.encode(held_out_text())[:150]
    *_, found = compare(reference.engine, other.engine, ids, window=40)
    p, q, targets = list[Tensor](), list[Tensor](), list[Tensor]()
    for start, last in pairwise([*range(0, 149, 39), 149]):
        window = torch.tensor([list(ids[start : last + 1])])
        for engine, kept in ((reference.engine, p), (other.engine, q)):
            kept.append(as_tensor(engine.forward(window, None, last=None))[0, :-1])
        targets.append(window[0, 1:])
    raw_p, raw_q, target = torch.cat(p), torch.cat(q), torch.cat(targets)
    assert found.tokens == 149
    assert target.tolist() == list(ids[1:])
    kl = F.kl_div(raw_q.log_softmax(-1), raw_p.log_softmax(-1), log_target=True, reduction="batchmean")
    assert found.mean_kl == pytest.approx(kl.item(), rel=1e-4)
    assert found.perplexity == pytest.approx(F.cross_entropy(raw_q, target).exp().item(), rel=1e-5)
    assert found.reference_perplexity == pytest.approx(F.cross_entropy(raw_p, target).exp().item(), rel=1e-5)
    assert found.agreement == pytest.approx((raw_p.argmax(-1) == raw_q.argmax(-1)).float().mean().item())


def test_a_model_is_nothing_away_from_itself(saved_checkpoint: Path) -> None:
    engine = load_model(saved_checkpoint, device="cpu").engine
    *_, found = compare(engine, engine, range(1, 60))
    assert (found.mean_kl, found.perplexity_ratio, found.agreement) == (0, 1, 1)
    with pytest.raises(ParameterError, match="two tokens"):
        next(compare(engine, engine, [1]))


@pytest.mark.slow
@pytest.mark.parametrize(("stored", "most_kl", "most_perplexity"), [("int8", 0.002, 1.005), ("int4", 0.05, 1.04)])
def test_the_bundled_model_loses_little(stored: Any, most_kl: float, most_perplexity: float) -> None:
    reference, other = (load_model(bundled_folder(), device="cpu", quantize=q) for q in ("none", stored))
    *_, found = compare(reference.engine, other.engine, reference.tokenizer.encode(held_out_text()))
    assert found.mean_kl <= most_kl
    assert found.perplexity_ratio <= most_perplexity


@pytest.mark.parametrize(
    ("change", "told"),
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
def test_an_int8_weight_of_wrong_parts_cannot_be_made(change: Any, told: str) -> None:
    good = quantize_int8(torch.randn(4, 64))
    with pytest.raises(ValueError, match=told):
        replace(good, **change(good))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda good: {"in_features": 65}, "packed is uint8"),
        (lambda good: {"out_features": 17}, "packed is uint8"),
        (lambda good: {"scales": good.scales.float()}, "scales and offsets"),
        (lambda good: {"offsets": good.offsets[:, :, :4]}, "scales and offsets"),
    ],
)
def test_an_int4_weight_of_wrong_parts_cannot_be_made(change: Any, told: str) -> None:
    good = quantize_int4(torch.randn(4, 64))
    with pytest.raises(ValueError, match=told):
        replace(good, **change(good))
