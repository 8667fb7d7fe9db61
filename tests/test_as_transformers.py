"""What transformers loads is loaded: tensors and fields by other names, fields left out, fields not followed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import tiny
import torch
from families import BASE, CASES, EXPERTS, GPT2, NEOX, SIZES, SLIDING_TYPES, YARN, close, random_ids, save
from torch_parts import ReadEngine, as_tensor, load_engine

from tokenglass.model.checkpoint.folder import Checkpoint
from tokenglass.model.config.config import ModelConfig
from tokenglass.model.config.families import FAMILIES
from tokenglass.model.errors import CheckpointError, ConfigError
from tokenglass.model.loading import load_model


def reread(folder: Path) -> Any:
    """The folder as transformers reads it now."""
    from transformers import AutoModelForCausalLM  # noqa: PLC0415  (takes seconds)

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def agrees(folder: Path) -> ReadEngine:
    """Our engine, whose logits are those of transformers for the same folder."""
    engine = load_engine(Checkpoint.open(folder), dtype="float32", device="cpu")
    ids = random_ids(40)
    with torch.inference_mode():
        close(as_tensor(engine.forward(ids, None, last=None)), reread(folder)(ids).logits)
    return engine


def rename(folder: Path, names: dict[str, str]) -> None:
    """Rename the tensors of a folder by their beginnings."""
    file = folder / "model.safetensors"
    tensors = safetensors.torch.load_file(file)
    for old, new in names.items():
        tensors = {new + name.removeprefix(old) if name.startswith(old) else name: t for name, t in tensors.items()}
    safetensors.torch.save_file(tensors, file, {"format": "pt"})


TIED = {"llama", "qwen3", "gemma2", "gemma3_text", "gpt2", "smollm3", "gpt_neox"}


@pytest.mark.parametrize("family", sorted(TIED))
def test_a_base_model_saved_alone_is_loaded(family: str, tmp_path: Path) -> None:
    """AutoModel.save_pretrained, as Qwen3-Embedding was made: no prefix, no head."""
    model_type, options = CASES[family]
    reference = save(tmp_path, model_type, {**options, "tie_word_embeddings": True})
    reference.base_model.save_pretrained(tmp_path)
    with safetensors.safe_open(tmp_path / "model.safetensors", framework="pt") as file:
        assert not any(name.startswith(("model.", "transformer.", "gpt_neox.")) for name in file.keys())  # noqa: SIM118
    engine = agrees(tmp_path)
    assert engine.notes == ()


def test_a_base_model_without_a_head_to_tie_is_refused_by_name(tmp_path: Path) -> None:
    save(tmp_path, *CASES["llama"]).base_model.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"missing: lm_head\.weight"):
        load_engine(Checkpoint.open(tmp_path), dtype="float32", device="cpu")


@pytest.mark.parametrize(
    ("family", "names"),
    [
        ("gpt2", {"transformer.": ""}),
        ("gpt_neox", {"gpt_neox.": ""}),
        ("olmo2", {"model.layers": "layers"}),
        ("mistral, no window", {"lm_head": "model.lm_head"}),
    ],
)
def test_prefixes_may_be_there_or_not(family: str, names: dict[str, str], tmp_path: Path) -> None:
    save(tmp_path, *CASES[family])
    rename(tmp_path, names)
    assert agrees(tmp_path).notes == ()


@pytest.mark.parametrize(
    ("family", "name", "shape"),
    [
        ("llama", "model.layers.0.self_attn.rotary_emb.inv_freq", (4,)),
        ("qwen3", "rotary_emb.inv_freq", (4,)),
        ("gpt_neox", "gpt_neox.layers.0.attention.bias", (1, 1, 8, 8)),
        ("gpt_neox", "gpt_neox.layers.0.attention.masked_bias", ()),
        ("gpt_neox", "gpt_neox.layers.1.attention.rotary_emb.inv_freq", (1,)),
        ("gpt2", "transformer.h.0.attn.masked_bias", ()),
    ],
)
def test_tables_that_old_files_hold_are_left_aside(family: str, name: str, shape: Any, tmp_path: Path) -> None:
    save(tmp_path, *CASES[family])
    file = tmp_path / "model.safetensors"
    safetensors.torch.save_file({**safetensors.torch.load_file(file), name: torch.ones(shape)}, file, {"format": "pt"})
    assert agrees(tmp_path).notes == ()


OPTIONS = {
    "gpt2": GPT2,
    "gpt_neox": NEOX,
    "hunyuan_v1_dense": {**SIZES, "head_dim": 12},
    "qwen3_next": CASES["qwen3_next"][1],
    "lfm3": CASES["lfm3"][1],
    "lfm2_moe": {**SIZES, **EXPERTS, "layer_types": ["conv", "full_attention", "conv"], "num_dense_layers": 1},
    "cohere2": {**SIZES, "logit_scale": 1.0},
}
GROWTH = {"llama_4_scaling_beta": 0.3, "original_max_position_embeddings": 16}
IGNORED = [
    ("llama", {"sliding_window": 8}, "sliding_window 8"),
    ("llama", {"partial_rotary_factor": 0.5}, "partial_rotary_factor 0.5"),
    ("llama", {"rope_interleaved": True, "embedding_multiplier": 12.0}, "embedding_multiplier 12.0"),
    ("olmo2", {"sliding_window": 8}, "sliding_window 8"),
    ("llama", {"is_encoder_decoder": True}, "is_encoder_decoder True"),
    ("mistral", {"layer_types": ["sliding_attention"] * 2 + ["full_attention"]}, "layer_types"),
    ("mistral", {"attn_logit_softcapping": 2.0}, "attn_logit_softcapping 2.0"),
    ("qwen2", {"attention_bias": True}, "attention_bias True"),
    ("qwen2", {"rope_parameters": {"rope_type": "default", "mrope_section": [1, 2, 1]}}, "mrope_section"),
    ("qwen3", {"use_parallel_residual": True}, "use_parallel_residual True"),
    ("qwen3", {"rope_parameters": {**YARN, "attn_factor": 0.8782488562869419}}, "attn_factor 0.878"),
    ("llama", {"rope_parameters": {"type": "linear", "factor": 2.0, "finetuned": True}}, "finetuned True"),
    ("olmo2", {"clip_qkv": 0.01}, "clip_qkv 0.01"),
    ("gemma3_text", {"attn_logit_softcapping": 0.5}, "attn_logit_softcapping 0.5"),
    (
        "gemma3_text",
        {"rope_parameters": {"full_attention": {**YARN, "beta_fast": 4, "truncate": False}}},
        "truncate False",
    ),
    ("gemma3_text", {"rope_parameters": {"rope_theta": 50.0, "rope_type": "default"}}, "rope_theta 50.0"),
    ("llama", {"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_scaling and rope_parameters differ"),
    ("apertus", {"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_scaling and rope_parameters differ"),
    (
        "ministral3",
        {"rope_scaling": {"type": "linear", "factor": 2.0, **GROWTH}},
        "rope_scaling and rope_parameters differ",
    ),
    ("hunyuan_v1_dense", {"mlp_bias": True}, "mlp_bias True"),
    ("exaone4", {"attention_bias": True}, "attention_bias True"),
    ("seed_oss", {"sliding_window": 9}, "sliding_window 9"),
    ("cohere2", {"use_qk_norm": True}, "use_qk_norm True"),
]


@pytest.mark.parametrize(("family", "changes", "message"), IGNORED, ids=[f"{i[0]}: {i[2]}" for i in IGNORED])
def test_a_field_that_transformers_does_not_follow_is_noted(
    family: str, changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    save(tmp_path, family, OPTIONS.get(family, SIZES))
    tiny.edit_json(tmp_path / "config.json", **changes)
    agrees(tmp_path)
    (note,) = Checkpoint.open(tmp_path).config.notes
    assert message in note
    assert len(note) < 300


GRANITE = ("embedding_multiplier", "attention_multiplier", "residual_multiplier", "logits_scaling")
OLD_ALPHA = {"type": "dynamic", "factor": 1.0, "alpha": 50.0, "beta_fast": 32, "beta_slow": 1}  # Hunyuan's
READ = [
    ("llama", {"head_dim": None, "num_key_value_heads": 2}),
    ("llama", {"rope_parameters": {"rope_type": "linear", "type": "dynamic", "factor": 2.0, "rope_theta": 5000.0}}),
    ("llama", {"rope_parameters": {"type": "linear", "factor": 2.0}, "rope_theta": 700.0}),
    ("llama", {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 700.0}, "rope_theta": 5.0}),
    ("llama", {"rope_parameters": {"rope_type": "linear", "factor": 0.5, "rope_theta": 700.0}}),
    ("llama", {"rope_parameters": {"rope_type": "dynamic", "factor": 0.5, "rope_theta": 700.0}}),
    ("llama", {"rope_parameters": {**YARN, "factor": 3, "beta_fast": 0, "truncate": None}}),
    ("qwen2", {"layer_types": ["attention"] * 3}),
    ("qwen2", {"use_sliding_window": True, "sliding_window": None}),
    ("smollm3", {"no_rope_layers": [1, 0, 1, 1, 0]}),
    ("smollm3", {"no_rope_layers": [1, 0, 1], "use_sliding_window": True, "sliding_window": 9, "layer_types": None}),
    ("gpt2", {"hidden_size": 32, "n_embd": 64, "num_attention_heads": 4, "n_head": 2}),
    ("gpt_neox", {"num_key_value_heads": 2, "rotary_pct": 0.5, "rope_parameters": None}),
    ("gpt_neox", {"rope_theta": 5.0, "rotary_emb_base": 700, "rope_parameters": None}),
    ("gemma2", {"hidden_act": "relu"}),
    (
        "gemma3_text",
        {
            "rope_parameters": {"full_attention": {"rope_type": "linear", "factor": 2.0, "rope_theta": 900.0}},
            "rope_scaling": {"factor": 4.0, "rope_type": "linear"},
            "layer_types": ["full_attention", "sliding_attention", "full_attention"],
        },
    ),
    ("phi3", {"original_max_position_embeddings": 256, "partial_rotary_factor": 0.5, "rope_parameters": None}),
    ("exaone4", {"sliding_window": 9, "sliding_window_pattern": "LLLG", "layer_types": SLIDING_TYPES}),
    ("exaone4", {"sliding_window": 9, "layer_types": None, "sliding_window_pattern": 2}),
    ("exaone4", {"sliding_window": None, "layer_types": ["full_attention"] * 3, "sliding_window_pattern": None}),
    ("cohere2", {"sliding_window": 9, "layer_types": None, "sliding_window_pattern": 2}),
    ("cohere2", {"sliding_window": 9, "layer_types": SLIDING_TYPES, "sliding_window_pattern": None}),
    ("apertus", {"rope_parameters": None}),
    ("apertus", {"rope_parameters": None, "rope_scaling": None, "rope_theta": 700.0}),
    ("apertus", {"rope_parameters": None, "rope_scaling": {"type": "linear", "factor": 2.0}, "rope_theta": 700.0}),
    ("ministral3", {"rope_parameters": None}),
    ("ministral3", {"rope_parameters": None, "rope_scaling": {**YARN, "llama_4_scaling_beta": 0.3}}),
    ("ministral3", {"sliding_window": 9, "rope_parameters": {**YARN, "llama_4_scaling_beta": 0.0}}),
    ("glm4", {"rope_parameters": None, "rope_theta": 700.0}),
    ("glm4", {"rope_parameters": None, "rope_theta": 700.0, "partial_rotary_factor": 0.25}),
    ("lfm2_moe", {"rope_parameters": None, "rope_theta": 700.0, "tie_embedding": True}),
    ("lfm2_moe", {"use_expert_bias": False, "norm_topk_prob": False, "routed_scaling_factor": 2.0}),
    ("lfm2_moe", {"rope_parameters": {"type": "linear", "factor": 2.0}, "rope_theta": 700.0}),
    ("lfm3", {"rope_parameters": None}),
    ("lfm3", {"rope_parameters": None, "layer_types": ["sliding_attention", "conv", "sliding_attention", "conv"]}),
    ("llama", {"rope_parameters": {"rope_type": "proportional", "rope_theta": 70.0, "partial_rotary_factor": 0.6}}),
    ("qwen3_next", {"rope_parameters": None, "rope_theta": 700.0, "rope_scaling": None}),
    ("qwen3_next", {"rope_parameters": None, "rope_theta": 700.0, "partial_rotary_factor": 0.5}),
    ("qwen3_next", {"norm_topk_prob": False, "layer_types": None, "full_attention_interval": 2, "head_dim": 16}),
    ("stablelm", {"rope_parameters": None, "rope_theta": 700.0, "partial_rotary_factor": 0.5}),
    ("hunyuan_v1_dense", {"rope_parameters": None, "rope_theta": 700.0, "rope_scaling": OLD_ALPHA}),
    ("hunyuan_v1_dense", {"rope_parameters": {"rope_type": "default", "rope_theta": 700.0, "alpha": 50.0}}),
    ("nanochat", {"rope_parameters": None, "rope_theta": 700.0, "final_logit_softcapping": None}),
    ("seed_oss", {"rope_parameters": None, "rope_theta": 700.0, "rope_scaling": None}),
    ("ernie4_5", {"rope_parameters": None, "use_bias": None}),
    ("arcee", {"rope_parameters": None, "rope_theta": 700.0, "rope_scaling": {"type": "linear", "factor": 2.0}}),
    ("granite", {"rope_parameters": None, "rope_theta": 700.0, "attention_multiplier": 0.4, "logits_scaling": 2}),
    ("exaone", {"layer_norm_epsilon": 1e-2, "activation_function": "gelu"}),
    ("internlm3", {"qkv_bias": False, "bias": False}),
]


@pytest.mark.parametrize(("family", "changes"), READ, ids=[f"{r[0]}: {', '.join(r[1])}" for r in READ])
def test_a_spelling_means_what_it_means_to_transformers(family: str, changes: dict[str, Any], tmp_path: Path) -> None:
    save(tmp_path, family, OPTIONS.get(family, SIZES))
    file = tmp_path / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    agrees(tmp_path)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_file_that_leaves_everything_out_has_the_defaults_of_transformers(family: str) -> None:
    from transformers import AutoConfig  # noqa: PLC0415

    nameless = {"dots1": {"n_routed_experts": 8, "num_experts_per_tok": 2}, "glm4_moe": {"head_dim": 128}}
    named = nameless.get(family, {})  # without which theirs is no model
    ours, theirs = ModelConfig.from_hf({"model_type": family, **named}), AutoConfig.for_model(family, **named)
    if family == "gemma4_text":  # whose layers have sizes of their own
        theirs.allow_global_per_layer_attribute_access = True
        heads = [theirs.per_layer_config[layer] for layer in range(ours.num_layers)]
        sizes = [(size.num_kv_heads, size.head_dim) for size in map(ours.heads_of, ours.layers)]
        assert sizes == [(layer.num_key_value_heads, layer.head_dim) for layer in heads]
    for own, other in {
        "vocab_size": "vocab_size",
        "hidden_size": "hidden_size",
        "num_layers": "num_hidden_layers",
        "num_heads": "num_attention_heads",
        "max_positions": "max_position_embeddings",
        "tie_word_embeddings": "tie_word_embeddings",
    }.items():
        if hasattr(theirs, other):  # the text part of a wrapper does not say whether it is tied
            assert getattr(ours, own) == getattr(theirs, other), own
    for own, others in {
        "intermediate_size": ("intermediate_size",),
        "num_kv_heads": ("num_key_value_heads",),
        "head_dim": ("head_dim",),
        "norm_eps": ("rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon"),
        "logit_softcap": ("final_logit_softcapping",),
    }.items():
        for other in others:
            if family == "lfm2" and other == "intermediate_size":  # of which its modules take two thirds, rounded up
                assert ours.intermediate_size == 32 * 256 == 2 * theirs.intermediate_size / 3
            elif getattr(theirs, other, None) is not None:  # None is what the others give
                assert getattr(ours, own) == getattr(theirs, other), own
    thetas = {kind.rope.theta for kind in ours.layers if kind.rope is not None}
    theirs_rope = getattr(theirs, "rope_parameters", None) or {}
    expected = theirs_rope if "full_attention" in theirs_rope else {"all": theirs_rope} if theirs_rope else {}
    assert thetas == {rope["rope_theta"] for rope in expected.values()}


REFUSED = [
    ("exaone4", {"sliding_window": 9, "sliding_window_pattern": "LLLG"}, "sliding_window_pattern is 'LLLG'"),
    ("exaone4", {"sliding_window": None, "layer_types": ["sliding_attention"] * 32}, "there is no sliding_window"),
    ("cohere2", {"sliding_window": None}, "there is no sliding_window"),
    ("cohere2", {"logit_scale": -0.5}, "logit_scale is -0.5; expected a positive number"),
    ("cohere2", {"logit_scale": None}, "logit_scale is None"),
    *(("granite", {key: 0.0}, "expected a positive number") for key in GRANITE),
    *(("granite", {key: None}, f"{key} is None; expected a number") for key in GRANITE),
    ("granite", {"residual_multiplier": -0.5}, "expected a positive number"),
    ("stablelm", {"qk_layernorm": 1}, "qk_layernorm is 1; expected true or false"),
    (
        "stablelm",
        {"qk_layernorm": True, "num_attention_heads": 2**20, "hidden_size": 2**20, "num_key_value_heads": 1},
        "each with a norm of its own",
    ),
    ("hunyuan_v1_dense", {"rope_scaling": {"type": "ntk", "alpha": 50.0}}, "rope_type 'ntk' is not supported"),
    ("ministral3", {"rope_scaling": {**YARN, "llama_4_scaling_beta": -0.1}}, "llama_4_scaling_beta -0.1"),
    ("apertus", {"hidden_act": "silu2"}, "hidden_act 'silu2' is not supported"),
    ("nanochat", {"final_logit_softcapping": 0.0}, "logit_softcap is 0.0; expected a positive number"),
    ("glm4", {"partial_rotary_factor": 1.5}, "partial_rotary_factor 1.5 is not supported"),
    ("ernie4_5", {"use_bias": "yes"}, "use_bias is 'yes'; expected true or false"),
    ("seed_oss", {"attention_out_bias": 1}, "attention_out_bias is 1; expected true or false"),
    ("arcee", {"rope_scaling": {"type": "linear"}}, "factor"),
    ("glm4_moe", {"head_dim": 128, "n_group": 2}, "n_group is 2; expected 1"),
    ("dots1", {"n_routed_experts": 8, "num_experts_per_tok": 2, "topk_group": 2}, "topk_group is 2; expected 1"),
    ("solar_open", {"routed_scaling_factor": 0.0}, "routed_scaling_factor is 0.0; expected a positive number"),
    ("minimax_m2", {"rotary_dim": 192}, "partial_rotary_factor 1.5 is not supported"),
    ("hunyuan_v1_moe", {"moe_topk": 3}, "3 experts of 1 are chosen"),
    ("hunyuan_v1_moe", {"num_experts": [8, 16]}, "num_experts is [8, 16]; expected a whole number"),
    ("flex_olmo", {"norm_topk_prob": 1}, "norm_topk_prob is 1; expected true or false"),
    ("granitemoeshared", {"shared_intermediate_size": -1}, "expected between 1 and"),
    ("cohere", {"use_qk_norm": True}, "use_qk_norm True is not supported"),
    ("cohere", {"logit_scale": None}, "logit_scale is None"),
    ("olmo", {"clip_qkv": 8.0}, "clip_qkv 8.0 is not supported"),
    ("glm", {"partial_rotary_factor": 1.5}, "partial_rotary_factor 1.5 is not supported"),
    ("jais2", {"mlp_bias": 1}, "mlp_bias is 1; expected true or false"),
    ("internlm3", {"qkv_bias": True, "bias": False}, "mlp_bias is False; expected True"),
    ("iquestcoder", {"clip_qkv": 8.0}, "clip_qkv 8.0 is not supported"),
    ("iquestcoder", {"use_sliding_window": True}, "use_sliding_window True is not supported"),
    ("ministral", {"layer_types": ["sliding_attention"] * 32, "sliding_window": None}, "there is no sliding_window"),
    ("vaultgemma", {"final_logit_softcapping": 0.0}, "logit_softcap is 0.0; expected a positive number"),
]


@pytest.mark.parametrize(("family", "changes", "words"), REFUSED, ids=str)
def test_a_field_that_would_change_the_numbers_is_refused_by_name(
    family: str, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError) as error:
        ModelConfig.from_hf({"model_type": family, **changes})
    assert words in str(error.value)
    assert "\n" not in str(error.value)


NUMBERS = [
    *(("llama", {"rope_theta": value}) for value in (0, -1.0, float("nan"), float("inf"), 1e-300)),
    *(
        ("llama", {"rope_scaling": {"type": kind, "factor": value}})
        for kind in ("linear", "dynamic")
        for value in (0, -2.0, float("nan"), 1e-300, 1e300)
    ),
    *(
        ("llama", {"rope_scaling": {**YARN, key: value}})
        for key in ("factor", "attention_factor", "beta_fast", "beta_slow")
        for value in (-1.0, 1e-300, float("nan"))
    ),
    *(("llama", {"rope_scaling": {**YARN, "mscale": 1.0, "mscale_all_dim": value}}) for value in (-7.2, float("inf"))),
    *(
        ("phi3", {"rope_scaling": {"type": "longrope", "short_factor": [1.0] * 4, "long_factor": [value] + [1.0] * 3}})
        for value in (0, -1.0, 1e-300, float("nan"), float("inf"))
    ),
    ("gemma3_text", {"rope_local_base_freq": 0}),
    ("gpt_neox", {"rotary_emb_base": 0}),
    ("gpt_neox", {"rotary_pct": float("nan")}),
    ("llama", {"rope_scaling": {"type": "linear", "factor": 2.0}, "partial_rotary_factor": 0.5}),
    ("qwen2", {"rope_parameters": {"full_attention": {"rope_type": "default"}}}),
]


@pytest.mark.parametrize(("family", "changes"), NUMBERS, ids=str)
def test_a_number_that_makes_no_rope_is_refused_by_name(family: str, changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        ModelConfig.from_hf({**BASE, "model_type": family, **changes})
    message = str(caught.value)
    assert any(word in message for word in ("theta", "factor", "beta", "mscale", "rotary", "per layer type")), message


@pytest.mark.parametrize("family", ["gemma2", "gemma3_text"])
def test_a_float16_gemma_is_computed_in_float32(family: str, tmp_path: Path) -> None:
    """Its hidden states pass 65,504, the largest number of float16."""
    reference = save(tmp_path, *CASES[family])
    with torch.no_grad():
        for layer in reference.model.layers:
            layer.post_feedforward_layernorm.weight += 3e4
    reference.half().save_pretrained(tmp_path)
    tiny.byte_level_tokenizer().save(str(tmp_path / "tokenizer.json"))
    ids = random_ids(12)
    with torch.inference_mode():
        assert not reference(ids).logits.isfinite().all()
    loaded = load_model(tmp_path)
    assert loaded.dtype == "float32"
    assert "overflows" in " ".join(loaded.notes)
    assert as_tensor(loaded.engine.forward(ids, None)).isfinite().all()
