"""GGUF files of every family that is built: the checkpoint that was converted comes back, and runs as it did."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from closeness import assert_close
from families import random_ids, save
from gguf_metadata import byte_level_metadata
from safetensors.torch import load_file, save_file
from tiny_gguf import TYPES, write_gguf
from torch_parts import as_tensor

from tokenglass.model.errors import CheckpointError, ConfigError, GGUFError
from tokenglass.model.importers.gguf import import_gguf
from tokenglass.model.loading import load_model

VOCAB = len(byte_level_metadata()["tokenizer.ggml.tokens"])
SIZES: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.1,
    "pad_token_id": 0,
}
GEMMA = {"head_dim": 32, "query_pre_attn_scalar": 32, "sliding_window": 20}
GEMMA4 = {
    **SIZES,
    "num_hidden_layers": 6,
    "layer_types": ["sliding_attention", "full_attention"] * 3,
    "head_dim": 32,
    "global_head_dim": 64,
    "sliding_window": 20,
    "num_kv_shared_layers": 2,
    "hidden_size_per_layer_input": 16,
    "vocab_size_per_layer_input": VOCAB,
    "use_double_wide_mlp": True,
    "tie_word_embeddings": True,
}
KEYS_ARE_VALUES = {"attention_k_eq_v": True, "num_global_key_value_heads": 1, "final_logit_softcapping": 8.0}
SHIFTED = {
    "gemma",
    "gemma2",
    "gemma3_text",
    "qwen3_5_text",
    "qwen3_5_moe_text",
    "qwen3_next",
}  # norms to which 1 is added
GEMMA3_ROPES = {
    "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 50000.0},
    "sliding_attention": {"rope_type": "default", "rope_theta": 700.0},
}
PLAIN_ROPE = {"rope_type": "default", "rope_theta": 10000.0}
OLMO3_ROPES = {
    "full_attention": {**PLAIN_ROPE, "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64},
    "sliding_attention": PLAIN_ROPE,
}
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "original_max_position_embeddings": 96,
    "short_factor": [1.0 + 0.05 * pair for pair in range(6)],
    "long_factor": [1.0 + 0.5 * pair for pair in range(6)],
    "attention_factor": 1.1,
    "partial_rotary_factor": 0.75,
}
YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 64}
MINISTRAL3_ROPE = {
    "original_max_position_embeddings": 32,
    "llama_4_scaling_beta": 0.3,
    "mscale": 1.0,
    "mscale_all_dim": 1.0,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
}
EXPERTS = {"num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
SIGMOID = {
    "n_routed_experts": 6,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "n_shared_experts": 2,
    "routed_scaling_factor": 1.5,
    "norm_topk_prob": True,
}
DELTA = {
    "initializer_range": 0.05,
    "tie_word_embeddings": False,
    "head_dim": 32,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 6,
    "linear_key_head_dim": 32,
    "linear_value_head_dim": 32,
    "linear_conv_kernel_dim": 3,
}
GPT_OSS = {**SIZES, "num_local_experts": 6, "num_experts_per_tok": 2, "head_dim": 16, "sliding_window": 20}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {**SIZES, "tie_word_embeddings": True}),
    "llama, yarn": ("llama", {**SIZES, "rope_parameters": YARN}),
    "mistral": ("mistral", {**SIZES, "sliding_window": 20, "head_dim": 16}),
    "qwen2": ("qwen2", SIZES),
    "qwen3": ("qwen3", {**SIZES, "head_dim": 32}),
    "gemma2": ("gemma2", {**SIZES, **GEMMA, "attn_logit_softcapping": 20.0, "final_logit_softcapping": 10.0}),
    "gemma4_text": ("gemma4_text", GEMMA4),
    "gemma4_text, no token rows": (
        "gemma4_text",
        {**GEMMA4, **KEYS_ARE_VALUES, "hidden_size_per_layer_input": 0, "num_kv_shared_layers": 0},
    ),
    "gemma4_text, experts": (
        "gemma4_text",
        {**GEMMA4, "enable_moe_block": True, "num_experts": 6, "top_k_experts": 2, "moe_intermediate_size": 32},
    ),
    "gemma3_text": ("gemma3_text", {**SIZES, **GEMMA, "num_hidden_layers": 7, "rope_parameters": GEMMA3_ROPES}),
    "gemma": ("gemma", {**SIZES, "head_dim": 32}),
    "granite": (
        "granite",
        {**SIZES, "embedding_multiplier": 3.0, "attention_multiplier": 0.3, "residual_multiplier": 0.5}
        | {"logits_scaling": 2.0, "tie_word_embeddings": True},
    ),
    "arcee": ("arcee", SIZES),
    "olmo3": ("olmo3", {**SIZES, "sliding_window": 20, "rope_parameters": OLMO3_ROPES}),
    "cohere2": ("cohere2", {**SIZES, "sliding_window": 20, "logit_scale": 0.5}),
    "cohere": ("cohere", {**SIZES, "logit_scale": 0.5}),
    "olmo": ("olmo", SIZES),
    "jais2": ("jais2", SIZES),
    "exaone": ("exaone", SIZES),
    "glm": ("glm", {**SIZES, "head_dim": 16, "attention_bias": True}),
    "ernie4_5": ("ernie4_5", {**SIZES, "head_dim": 32}),
    "glm4": ("glm4", {**SIZES, "head_dim": 32}),
    "starcoder2": ("starcoder2", SIZES),
    "stablelm": ("stablelm", {**SIZES, "use_qkv_bias": True}),
    "stablelm, norms of heads": ("stablelm", {**SIZES, "qk_layernorm": True}),
    "phi": ("phi", {**SIZES, "num_key_value_heads": 4}),
    "seed_oss": ("seed_oss", {**SIZES, "head_dim": 16}),
    "phi3": ("phi3", {**SIZES, "num_key_value_heads": 4, "original_max_position_embeddings": 256}),
    "phi3, longrope": (
        "phi3",
        {**SIZES, "tie_word_embeddings": True, "original_max_position_embeddings": 96, "rope_parameters": LONGROPE},
    ),
    "olmo2": ("olmo2", SIZES),
    "smollm3": ("smollm3", {**SIZES, "num_hidden_layers": 5}),
    "mixtral": ("mixtral", {**SIZES, "num_local_experts": 6}),
    "qwen2_moe": (
        "qwen2_moe",
        {**SIZES, **EXPERTS, "shared_expert_intermediate_size": 40, "norm_topk_prob": False},
    ),
    "qwen3_moe": ("qwen3_moe", {**SIZES, **EXPERTS, "head_dim": 32, "norm_topk_prob": True}),
    "olmoe": (
        "olmoe",
        {**SIZES, "num_key_value_heads": 4, "num_experts": 6, "num_experts_per_tok": 2, "norm_topk_prob": False},
    ),
    "granitemoe": (
        "granitemoe",
        {**SIZES, "num_local_experts": 6, "residual_multiplier": 0.7, "attention_multiplier": 0.3},
    ),
    "granitemoeshared": (
        "granitemoeshared",
        {**SIZES, "num_local_experts": 6, "shared_intermediate_size": 40, "attention_multiplier": 0.3},
    ),
    "glm4_moe": (
        "glm4_moe",
        {**SIZES, **SIGMOID, "n_shared_experts": 1, "head_dim": 32, "use_qk_norm": True, "first_k_dense_replace": 1},
    ),
    "dots1": (
        "dots1",
        {**SIZES, **SIGMOID, "num_key_value_heads": 4, "sliding_window": None, "first_k_dense_replace": 1},
    ),
    "minimax_m2": (
        "minimax_m2",
        {**SIZES, "num_local_experts": 6, "num_experts_per_tok": 2, "head_dim": 32}
        | {"rope_parameters": {**PLAIN_ROPE, "partial_rotary_factor": 0.5}},
    ),
    "hunyuan_v1_moe": ("hunyuan_v1_moe", {**SIZES, "num_experts": 6, "moe_topk": 2, "head_dim": 16}),
    "gpt_oss": ("gpt_oss", {**GPT_OSS, "rope_parameters": PLAIN_ROPE}),
    "gpt_oss, yarn": (
        "gpt_oss",
        {**GPT_OSS, "rope_parameters": {**YARN, "truncate": False, "beta_fast": 32.0, "beta_slow": 1.0}},
    ),
    "exaone4": ("exaone4", {**SIZES, "sliding_window": None, "layer_types": ["full_attention"] * 4}),
    "exaone4, windows": ("exaone4", {**SIZES, "sliding_window": 20, "sliding_window_pattern": 4}),
    "hunyuan_v1_dense": ("hunyuan_v1_dense", {**SIZES, "head_dim": 16}),
    "ministral3": (
        "ministral3",
        {**SIZES, "head_dim": 16, "sliding_window": None, "rope_parameters": {**YARN, **MINISTRAL3_ROPE}},
    ),
    "apertus": ("apertus", {**SIZES, "rope_parameters": PLAIN_ROPE}),
    "lfm2": (
        "lfm2",
        {**SIZES, "layer_types": ["conv", "full_attention", "conv", "full_attention"], "block_multiple_of": 8},
    ),
    "lfm2_moe": (
        "lfm2_moe",
        {**SIZES, **EXPERTS, "num_dense_layers": 1}
        | {"layer_types": ["conv", "full_attention", "conv", "full_attention"]},
    ),
    "qwen3_5": ("qwen3_5_text", {**SIZES, **DELTA}),
    "qwen3_5_moe": (
        "qwen3_5_moe_text",
        {**SIZES, **DELTA, **EXPERTS, "shared_expert_intermediate_size": 40},
    ),
    "qwen3_next": ("qwen3_next", {**SIZES, **DELTA, **EXPERTS, "shared_expert_intermediate_size": 40}),
    "gpt2": (
        "gpt2",
        {"vocab_size": VOCAB, "n_positions": 256, "n_embd": 64, "n_layer": 3, "n_head": 4, "initializer_range": 0.1},
    ),
    "gpt_neox": (
        "gpt_neox",
        {key: value for key, value in SIZES.items() if key != "num_key_value_heads"}
        | {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}},
    ),
    "gpt_neox, one after the other": (
        "gpt_neox",
        {key: value for key, value in SIZES.items() if key != "num_key_value_heads"} | {"use_parallel_residual": False},
    ),
}


def write(name: str, folder: Path, **options: Any) -> tuple[Any, Path]:
    """A random model of transformers', and the GGUF file of its checkpoint."""
    reference = save(folder / "original", *CASES[name])
    return reference, write_gguf(folder / "a.gguf", folder / "original", **options)


def import_folder(path: Path) -> Path:
    folder = path.parent / "imported"
    for _ in import_gguf(path, folder):
        pass
    return folder


@pytest.mark.parametrize("name", CASES)
def test_the_checkpoint_comes_back(name: str, tmp_path: Path) -> None:
    """Every tensor bit for bit, but for norms to which the converter added 1; and the same logits as transformers."""
    reference, path = write(name, tmp_path)
    folder = import_folder(path)
    expected, actual = load_file(tmp_path / "original" / "model.safetensors"), load_file(folder / "model.safetensors")
    assert actual.keys() == expected.keys()
    for tensor_name, tensor in expected.items():
        if CASES[name][0] in SHIFTED and tensor_name.endswith(("norm.weight", "A_log")):
            torch.testing.assert_close(actual[tensor_name], tensor, rtol=0, atol=1e-6)
        else:
            assert torch.equal(actual[tensor_name], tensor), tensor_name
    ids = random_ids(80) % VOCAB
    with torch.inference_mode():
        logits = reference(ids).logits
    for backend in ("native", "torch"):
        engine = load_model(folder, device="cpu", backend=backend).engine
        assert_close(as_tensor(engine.forward(ids, None, last=None, planned_length=80)), logits)


@pytest.mark.parametrize("name", CASES)
def test_transformers_reads_what_was_imported(name: str, tmp_path: Path) -> None:
    """An import is an ordinary checkpoint."""
    from transformers import AutoModelForCausalLM  # noqa: PLC0415  (takes seconds)

    reference, path = write(name, tmp_path)
    ids = random_ids(40) % VOCAB
    again = AutoModelForCausalLM.from_pretrained(import_folder(path)).eval()
    with torch.inference_mode():
        assert_close(again(ids).logits, reference(ids).logits)


def test_experts_in_mxfp4_become_bfloat16_which_holds_them_exactly(tmp_path: Path) -> None:
    _, path = write("gpt_oss", tmp_path, quantised=lambda name: TYPES.MXFP4 if "_exps" in name else TYPES.F32)
    exact = import_folder(path)
    for _ in import_gguf(path, tmp_path / "wide", dtype="float32"):
        pass
    actual, expected = (load_file(folder / "model.safetensors") for folder in (exact, tmp_path / "wide"))
    experts = [name for name in actual if ".experts." in name and not name.endswith("bias")]
    assert len(experts) == 8
    for name in actual:
        assert actual[name].dtype == (torch.bfloat16 if name in experts else torch.float32)
        assert torch.equal(actual[name].float(), expected[name]), name


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("xielu.beta", [0.5, 0.5, 0.7, 0.5], "xielu.beta is .* expected 0.5 in every layer"),
        ("xielu.beta", None, "xielu.beta is None; expected 0.5"),
        ("xielu.eps", [0.1] * 4, "xielu.eps is .* expected -1e-06"),
        ("xielu.alpha_p", [0.5], "xielu.alpha_p is .* expected a number for each of 4 layers"),
        ("xielu.alpha_n", [1, 2, 3, 4], "xielu.alpha_n holds 1; expected numbers"),
    ],
)
def test_an_activation_that_is_another_is_refused(key: str, value: Any, words: str, tmp_path: Path) -> None:
    _, path = write("apertus", tmp_path, **{key.replace(".", "__"): value})
    with pytest.raises((GGUFError, ConfigError), match=words):
        import_folder(path)


def test_a_checkpoint_whose_activation_is_another_is_refused(tmp_path: Path) -> None:
    save(tmp_path, *CASES["apertus"])
    weights = load_file(tmp_path / "model.safetensors")
    weights["model.layers.2.mlp.act_fn.beta"] += 0.25
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(
        CheckpointError, match=r"model.layers.2.mlp.act_fn.beta is not 0.5; it would change the numbers"
    ):
        load_model(tmp_path, device="cpu", backend="native")


def test_a_layer_without_attention_is_refused_where_the_family_has_none(tmp_path: Path) -> None:
    _, path = write("qwen3", tmp_path, qwen3__attention__head_count_kv=(2, 0, 2, 2))
    with pytest.raises(GGUFError, match=r"layers_without_attention \(False, True, False, False\) is not supported"):
        import_folder(path)


def test_the_window_of_every_layer_may_be_listed(tmp_path: Path) -> None:
    pattern = (True, False, True, True)
    _, path = write("gemma2", tmp_path, gemma2__attention__sliding_window_pattern=pattern)
    types = json.loads((import_folder(path) / "config.json").read_text())["layer_types"]
    assert [name == "sliding_attention" for name in types] == list(pattern)


def test_a_file_in_parts_is_read_by_its_first(tmp_path: Path) -> None:
    _, path = write("qwen3", tmp_path, tensors_per_file=20)
    assert path.name == "a-00001-of-00003.gguf"
    expected = load_file(tmp_path / "original" / "model.safetensors")
    actual = load_file(import_folder(path) / "model.safetensors")
    assert all(torch.equal(actual[name], tensor) for name, tensor in expected.items())


@pytest.mark.parametrize(
    ("lost", "words"),
    [("a-00002-of-00003.gguf", "a-00002-of-00003.gguf: no such file"), ("a-00001-of-00003.gguf", "give the first")],
)
def test_a_part_that_is_missing_is_named(lost: str, words: str, tmp_path: Path) -> None:
    _, path = write("qwen3", tmp_path, tensors_per_file=20)
    (tmp_path / lost).rename(tmp_path / "elsewhere.gguf")
    with pytest.raises(GGUFError, match=words):
        import_folder(path if path.exists() else tmp_path / "elsewhere.gguf")


def test_an_absurd_number_of_parts_is_refused(tmp_path: Path) -> None:
    _, path = write("qwen3", tmp_path, split__count=2**31)
    with pytest.raises(GGUFError, match=r"split\.count is 2147483648"):
        import_folder(path)
