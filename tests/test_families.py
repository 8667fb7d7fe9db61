"""Every family computes what Hugging Face transformers computes from the same files."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import tiny
import torch
from closeness import assert_close
from torch import Tensor
from torch_parts import as_tensor, load_engine

from tokenglass.model.checkpoint.arrays import read_arrays
from tokenglass.model.checkpoint.folder import Checkpoint
from tokenglass.model.checkpoint.weights import read_weights
from tokenglass.model.config.config import ModelConfig
from tokenglass.model.decoding.autoregressive import decode
from tokenglass.model.decoding.cached_conversation import CachedConversation
from tokenglass.model.decoding.job import Job
from tokenglass.model.decoding.request import Request
from tokenglass.model.errors import CheckpointError, ConfigError
from tokenglass.model.progress import finish
from tokenglass.model.sampling.parameters import SamplingParameters
from tokenglass.model.text.chat import ChatTemplate
from tokenglass.model.text.tokenizer import Tokenizer
from tokenglass.model.torch_engine.engine import TorchEngine

BORDER, LIMIT, WINDOW = 96, 256, 16  # trained length of the scaled ropes, context, sliding window
SHORT, LONG = 50, 110  # prompts on both sides of the border, both longer than the window
SIZES: dict[str, Any] = {
    "vocab_size": tiny.VOCAB_SIZE,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": LIMIT,
    "initializer_range": 0.3,
    "pad_token_id": 0,
}
GEMMA = {"head_dim": 12, "query_pre_attn_scalar": 10, "sliding_window": WINDOW}
GPT2 = {"vocab_size": tiny.VOCAB_SIZE, "n_embd": 32, "n_layer": 3, "n_head": 4, "initializer_range": 0.3}
NEOX = {key: value for key, value in SIZES.items() if key != "num_key_value_heads"}
OFF = {"rope_type": "default", "rope_theta": 5000.0}
LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": BORDER}
YARN = {"rope_type": "yarn", "rope_theta": 5000.0, "factor": 4.0, "original_max_position_embeddings": BORDER}
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 5000.0,
    "original_max_position_embeddings": BORDER,
    "short_factor": [1.0, 1.1, 1.2],
    "long_factor": [1.5, 2.0, 4.0],
}
PHI3 = {"num_attention_heads": 2, "hidden_size": 16, "original_max_position_embeddings": BORDER}  # heads of 8
SLIDE_LAST = {"use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 1}
EXPERTS = {"num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 20}
DELTA = {
    **dict.fromkeys(("linear_num_key_heads", "linear_conv_kernel_dim"), 2),
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 12,
}
SLIDING_TYPES = ["sliding_attention", "full_attention", "sliding_attention"]

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", SIZES),
    "llama, biases": ("llama", {**SIZES, "attention_bias": True, "mlp_bias": True}),
    "llama, gelu": ("llama", {**SIZES, "hidden_act": "gelu"}),
    "llama, linear": ("llama", {**SIZES, "rope_parameters": {**OFF, "rope_type": "linear", "factor": 4.0}}),
    "llama, dynamic": (
        "llama",
        {**SIZES, "max_position_embeddings": BORDER, "rope_parameters": {**OFF, "rope_type": "dynamic", "factor": 3.0}},
    ),
    "llama, yarn": ("llama", {**SIZES, "rope_parameters": YARN}),
    "llama, yarn, all options": (
        "llama",
        {
            **SIZES,
            "rope_parameters": {**YARN, "beta_fast": 8, "beta_slow": 2, "mscale": 0.7, "mscale_all_dim": 0.4}
            | {"truncate": False},
        },
    ),
    "llama, llama3": ("llama", {**SIZES, "rope_parameters": {**OFF, **LLAMA3, "rope_type": "llama3"}}),
    "mistral, window": ("mistral", {**SIZES, "sliding_window": WINDOW, "head_dim": 12}),
    "mistral, no window": ("mistral", {**SIZES, "sliding_window": None}),
    "qwen2": ("qwen2", SIZES),
    "qwen2, window in the last layers": ("qwen2", {**SIZES, **SLIDE_LAST}),
    "qwen2, window by layer types": ("qwen2", {**SIZES, **SLIDE_LAST, "layer_types": SLIDING_TYPES}),
    "qwen2, yarn": ("qwen2", {**SIZES, "rope_parameters": YARN}),
    "qwen3": ("qwen3", {**SIZES, "head_dim": 12}),
    "qwen3, biases and window": ("qwen3", {**SIZES, **SLIDE_LAST, "head_dim": 12, "attention_bias": True}),
    "gemma2": (
        "gemma2",
        {**SIZES, **GEMMA, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 8.0}
        | {"tie_word_embeddings": False},
    ),
    "gemma2, no caps": (
        "gemma2",
        {**SIZES, **GEMMA, "attn_logit_softcapping": None, "final_logit_softcapping": None}
        | {"attention_bias": True, "tie_word_embeddings": False},
    ),
    "gemma3_text": ("gemma3_text", {**SIZES, **GEMMA, "layer_types": SLIDING_TYPES}),
    "gemma3_text, linear": (
        "gemma3_text",
        {
            **SIZES,
            **GEMMA,
            "num_hidden_layers": 6,
            "final_logit_softcapping": 8.0,
            "tie_word_embeddings": False,
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 50000.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 700.0},
            },
        },
    ),
    "gpt2": ("gpt2", GPT2),
    "gpt2, other sizes": (
        "gpt2",
        {
            **GPT2,
            "n_inner": 40,
            "activation_function": "relu",
            "scale_attn_weights": False,
            "tie_word_embeddings": False,
        },
    ),
    "gpt_neox": ("gpt_neox", NEOX),
    "gpt_neox, one after the other": (
        "gpt_neox",
        {
            **NEOX,
            "use_parallel_residual": False,
            "attention_bias": False,
            "rope_parameters": {**OFF, "partial_rotary_factor": 0.5},
        },
    ),
    "phi3": ("phi3", {**SIZES, "original_max_position_embeddings": LIMIT}),
    "phi3, window": ("phi3", {**SIZES, "original_max_position_embeddings": LIMIT, "sliding_window": WINDOW}),
    "phi3, longrope": (
        "phi3",
        {**SIZES, **PHI3, "rope_parameters": {**LONGROPE, "partial_rotary_factor": 0.75}},
    ),
    "olmo2": ("olmo2", SIZES),
    "olmo2, biases": ("olmo2", {**SIZES, "attention_bias": True, "num_key_value_heads": 4}),
    "olmo3": (
        "olmo3",
        {
            **SIZES,
            "sliding_window": WINDOW,
            "layer_types": SLIDING_TYPES,
            "rope_parameters": {
                "full_attention": {**YARN, "rope_theta": 5e5},
                "sliding_attention": {"rope_type": "default", "rope_theta": 5e5},
            },
        },
    ),
    "exaone4": ("exaone4", {**SIZES, "sliding_window": WINDOW, "sliding_window_pattern": 2}),
    "granite": (
        "granite",
        {**SIZES, "mlp_bias": True, "attention_bias": True, "embedding_multiplier": 3.0, "attention_multiplier": 0.3}
        | {"residual_multiplier": 0.7, "logits_scaling": 1.5},
    ),
    "cohere2": (
        "cohere2",
        {**SIZES, "logit_scale": 0.5, "sliding_window": WINDOW, "layer_types": SLIDING_TYPES}
        | {"tie_word_embeddings": False},
    ),
    "glm4": ("glm4", {**SIZES, "head_dim": 16}),
    "hunyuan_v1_dense": (
        "hunyuan_v1_dense",
        {
            **SIZES,
            "head_dim": 12,
            "rope_parameters": {"rope_type": "dynamic", "factor": 1.0, "alpha": 50.0, "rope_theta": 5000.0},
        },
    ),
    "ministral3": (
        "ministral3",
        {
            **SIZES,
            "head_dim": 12,
            "rope_parameters": {**YARN, "original_max_position_embeddings": 32, "llama_4_scaling_beta": 0.3},
        },
    ),
    "mixtral": ("mixtral", {**SIZES, "num_local_experts": 6, "sliding_window": WINDOW}),
    "qwen2_moe": (
        "qwen2_moe",
        {**SIZES, **SLIDE_LAST, **EXPERTS, "shared_expert_intermediate_size": 40, "decoder_sparse_step": 2}
        | {"max_window_layers": 2},
    ),
    "qwen3_moe": (
        "qwen3_moe",
        {**SIZES, **EXPERTS, "head_dim": 12, "mlp_only_layers": [1], "norm_topk_prob": True},
    ),
    "olmoe": ("olmoe", {**SIZES, **EXPERTS}),
    "gpt_oss": (
        "gpt_oss",
        {**SIZES, "num_local_experts": 6, "num_experts_per_tok": 2, "head_dim": 8, "sliding_window": WINDOW}
        | {"rope_parameters": {**YARN, "truncate": False}, "swiglu_limit": 0.7},
    ),
    "granitemoe": (
        "granitemoe",
        {**SIZES, "num_local_experts": 6, "residual_multiplier": 0.7, "attention_multiplier": 0.3},
    ),
    "lfm2": (
        "lfm2",
        {**SIZES, "layer_types": ["full_attention", "conv", "full_attention"], "block_multiple_of": 8},
    ),
    "qwen3_5_text": (
        "qwen3_5_text",
        {**SIZES, **DELTA, "head_dim": 16, "initializer_range": 0.15, "tie_word_embeddings": False}
        | {"layer_types": ["linear_attention", "full_attention", "linear_attention"]},
    ),
    "apertus": ("apertus", {**SIZES, "attention_bias": True}),
    "nanochat": ("nanochat", {**SIZES, "rope_parameters": OFF}),
    "phi": ("phi", {**SIZES, "initializer_range": 0.4}),
    "stablelm": ("stablelm", {**SIZES, "use_qkv_bias": True, "use_parallel_residual": True}),
    "smollm3": ("smollm3", {**SIZES, "no_rope_layer_interval": 2}),
    "smollm3, window": (
        "smollm3",
        {**SIZES, "no_rope_layers": [0, 1, 1], "use_sliding_window": True, "sliding_window": WINDOW, "mlp_bias": True},
    ),
}


@dataclass(frozen=True)
class Pair:
    """The same checkpoint, read by transformers and by us."""

    reference: Any
    engine: TorchEngine
    folder: Path

    def expected(self, ids: Tensor) -> Tensor:
        with torch.inference_mode():
            self.reference(ids[:, :1])  # its dynamic rope remembers the longest pass until a short one
            return self.reference(ids).logits


@pytest.fixture(scope="module", params=CASES, ids=lambda name: name)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    folder = tmp_path_factory.mktemp("family")
    reference = save(folder, *CASES[request.param])
    return Pair(reference, load_engine(Checkpoint.open(folder), dtype="float32", device="cpu"), folder)


def save(folder: Path, model_type: str, options: dict[str, Any]) -> Any:
    """Write a random checkpoint as transformers does; norms and biases are random too."""
    from transformers import AutoConfig, AutoModelForCausalLM  # noqa: PLC0415  (takes seconds)

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **json.loads(json.dumps(options)))).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter) * 0.2)
    model.save_pretrained(folder)
    return model


def random_ids(length: int, rows: int = 2) -> Tensor:
    return torch.randint(1, tiny.VOCAB_SIZE, (rows, length), generator=torch.Generator().manual_seed(3))


def close(actual: Tensor, expected: Tensor) -> None:
    assert expected.std() > 0.5  # a flat model would agree with anything
    assert_close(actual, expected)


@pytest.mark.parametrize("length", [SHORT, LONG])
def test_logits_equal_those_of_transformers(pair: Pair, length: int) -> None:
    ids = random_ids(length)
    close(as_tensor(pair.engine.forward(ids, None, last=None)), pair.expected(ids))


@pytest.mark.parametrize("length", [SHORT, LONG])
@pytest.mark.parametrize("chunk", [7, 40])
def test_chunks_through_a_cache_give_the_same_logits(pair: Pair, length: int, chunk: int) -> None:
    ids = random_ids(length)
    cache = pair.engine.new_cache(2, planned_length=length)
    parts = [as_tensor(pair.engine.forward(part, cache, last=None)) for part in ids.split(chunk, dim=1)]
    close(torch.cat(parts, dim=1), as_tensor(pair.engine.forward(ids, None, last=None)))


@pytest.mark.parametrize("length", [40, 60])
def test_greedy_text_is_that_of_transformers(pair: Pair, length: int, tokenizer: Tokenizer) -> None:
    """Up to the border of the scaled ropes, and across it: the factors are then those beyond from the start."""
    prompt = random_ids(length, rows=1)
    for use_cache in (True, False):
        request = Request(
            tuple(prompt[0].tolist()),
            seed=1,
            sampling=SamplingParameters(temperature=0),
            max_new_tokens=BORDER - 40,
            prefill_chunk=24,
            use_cache=use_cache,
        )
        records = list(decode(Job(pair.engine, tokenizer, request)))
        new = tiny.new_tokens(records)
        assert len(new) == BORDER - 40
        assert len(set(new)) > 1
        sequence = torch.tensor([[*prompt[0].tolist(), *new]])
        assert new == pair.expected(sequence)[0, length - 1 : -1].argmax(dim=-1).tolist()  # in one pass, not 56


def test_a_later_token_changes_no_earlier_logit(pair: Pair) -> None:
    ids = random_ids(SHORT, rows=1)
    bound = 1e-6 if pair.engine.model.config.mixture is None else 5e-6  # experts' products have other rows beside them
    before = as_tensor(pair.engine.forward(ids, None, last=None))
    for changed in (0, 1, 30, SHORT - 1):
        other = ids.clone()
        other[0, changed] = ids[0, changed] % (tiny.VOCAB_SIZE - 1) + 1
        after = as_tensor(pair.engine.forward(other, None, last=None))
        torch.testing.assert_close(after[:, :changed], before[:, :changed], rtol=0, atol=bound)
        assert not torch.equal(after[:, changed], before[:, changed])


def test_the_older_style_of_config_json_means_the_same(pair: Pair) -> None:
    raw = json.loads((pair.folder / "config.json").read_text())
    assert ModelConfig.from_hf(older(raw)) == ModelConfig.from_hf(raw)


def older(raw: dict[str, Any]) -> dict[str, Any]:
    """The same config.json as earlier versions of transformers wrote it."""
    old = {key: value for key, value in raw.items() if key not in ("rope_parameters", "dtype")}
    old["torch_dtype"] = raw["dtype"]
    rope = dict(raw.get("rope_parameters") or {})
    if raw["model_type"] == "gemma3_text":
        local, rope = dict(rope["sliding_attention"]), dict(rope["full_attention"])
        old["rope_local_base_freq"] = local["rope_theta"]
    if raw["model_type"] == "olmo3":  # with one base for both
        rope = dict(rope["full_attention"])
    if rope:
        names = {"gpt_neox": ("rotary_emb_base", "rotary_pct")}
        theta, partial = names.get(raw["model_type"], ("rope_theta", "partial_rotary_factor"))
        old[theta] = rope.pop("rope_theta")
        if "partial_rotary_factor" in rope:
            old[partial] = rope.pop("partial_rotary_factor")
        rope["type"] = rope.pop("rope_type")
        old["rope_scaling"] = None if rope == {"type": "default"} else rope
    return old


def test_a_chat_turn_that_crosses_the_border_computes_its_prompt_again(tmp_path: Path, tokenizer: Tokenizer) -> None:
    save(tmp_path, *CASES["phi3, longrope"])
    engine = load_engine(Checkpoint.open(tmp_path), dtype="float32", device="cpu")
    ids = random_ids(80, rows=1)
    conversation = CachedConversation(engine, tokenizer, ChatTemplate("", {}))
    assert conversation.reuse(ids[0, :50].tolist(), 60) == 0
    as_tensor(engine.forward(ids[:, :50], conversation.cache))
    assert conversation.reuse(ids[0].tolist(), BORDER) == 50
    assert conversation.reuse(ids[0].tolist(), BORDER + 1) == 0
    cached = as_tensor(engine.forward(ids, conversation.cache, last=None))
    close(cached, as_tensor(engine.forward(ids, None, last=None, planned_length=LIMIT)))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", ["gemma2", "gemma3_text", "olmo2", "phi3, longrope", "gpt2"])
def test_half_precision_stays_near(name: str, dtype: str, tmp_path: Path) -> None:
    reference = save(tmp_path, *CASES[name])
    engine = load_engine(Checkpoint.open(tmp_path), dtype=dtype, device="cpu")
    ids = random_ids(SHORT)
    with torch.inference_mode():
        exact = reference(ids).logits
        theirs = (reference.to(getattr(torch, dtype))(ids).logits.float() - exact).abs().mean()
    ours = (as_tensor(engine.forward(ids, None, last=None)) - exact).abs().mean()
    assert ours < 1.25 * theirs + 1e-3


def test_the_first_files_of_gpt2_have_no_prefix_and_hold_masks(tmp_path: Path) -> None:
    reference = save(tmp_path, *CASES["gpt2"])
    file = tmp_path / "model.safetensors"
    tensors = {name.removeprefix("transformer."): tensor for name, tensor in safetensors.torch.load_file(file).items()}
    masks = {"h.0.attn.bias": torch.ones(1, 1, 8, 8).tril(), "h.0.attn.masked_bias": torch.tensor(-1e4)}
    safetensors.torch.save_file({**tensors, **masks}, file)
    engine = load_engine(Checkpoint.open(tmp_path), dtype="float32", device="cpu")
    ids = random_ids(SHORT)
    with torch.inference_mode():
        close(as_tensor(engine.forward(ids, None, last=None)), reference(ids).logits)


@pytest.mark.parametrize(
    ("name", "lost", "message"),
    [
        ("gpt2", "transformer.h.1.attn.c_attn.weight", "missing: transformer.h.1.attn.c_attn.weight"),
        ("gpt_neox", "embed_out.weight", "missing: embed_out.weight"),
        ("phi3", "model.layers.0.self_attn.qkv_proj.weight", "missing: model.layers.0.self_attn.qkv_proj.weight"),
    ],
)
def test_what_is_missing_is_told_by_the_checkpoint_s_own_name(
    name: str, lost: str, message: str, tmp_path: Path
) -> None:
    save(tmp_path, *CASES[name])
    file = tmp_path / "model.safetensors"
    tensors = safetensors.torch.load_file(file)
    del tensors[lost]
    safetensors.torch.save_file(tensors, file)
    with pytest.raises(CheckpointError, match=message):
        load_engine(Checkpoint.open(tmp_path), dtype="float32", device="cpu")


def test_a_fused_tensor_of_another_shape_is_told(tmp_path: Path) -> None:
    save(tmp_path, *CASES["gpt2"])
    tiny.edit_json(tmp_path / "config.json", n_inner=40)
    with pytest.raises(CheckpointError, match=r"h.0.mlp.c_fc.weight is \[32, 128\], expected \[32, 40\]"):
        load_engine(Checkpoint.open(tmp_path), dtype="float32", device="cpu")


def test_weights_are_views_of_the_file_s_where_they_can_be(tmp_path: Path) -> None:
    save(tmp_path, *CASES["phi3"])
    checkpoint = Checkpoint.open(tmp_path)
    (stored,) = read_arrays(checkpoint.tensors, ["model.layers.0.self_attn.qkv_proj.weight"])
    weights = finish(read_weights(checkpoint, dtype="float32")).weights
    parts = [weights[f"model.layers.0.self_attn.{name}_proj.weight"] for name in "qkv"]
    assert np.array_equal(np.concatenate(parts), stored[1])
    ends = [(part.ctypes.data, part.ctypes.data + part.nbytes) for part in parts]
    assert ends[0][1] == ends[1][0]  # one behind the other, in the one place that the file is mapped to
    assert ends[1][1] == ends[2][0]


BASE = {key: value for key, value in SIZES.items() if key not in ("initializer_range", "pad_token_id")}
ROPE = {"rope_type": "llama3", **LLAMA3}
REFUSED = [
    ("mistral", {"sliding_window": 0}, "sliding_window is 0; expected at least 1"),
    ("qwen2", {"layer_types": SLIDING_TYPES}, "names sliding_attention, but use_sliding_window is off"),
    ("qwen2", {"layer_types": ["full_attention"]}, "layer_types is .*; expected a list of 3"),
    ("qwen2", {**SLIDE_LAST, "layer_types": ["chunked_attention"] * 3}, "'chunked_attention', which is not supported"),
    ("qwen2", {"rope_scaling": {"type": "mrope", "mrope_section": [2, 2]}}, "rope_type 'mrope' is not supported"),
    ("gemma2", {"sliding_window": None}, "sliding_attention, but there is no sliding_window"),
    ("gemma2", {"query_pre_attn_scalar": 0}, "query_pre_attn_scalar is 0; expected a positive number"),
    ("gemma2", {"final_logit_softcapping": -1.0}, "logit_softcap is -1.0; expected a positive number"),
    ("gemma3_text", {"use_bidirectional_attention": True}, "use_bidirectional_attention True is not supported"),
    ("gemma3_text", {"sliding_window_pattern": 0}, "a pattern of 0 layers"),
    ("gpt2", {**GPT2, "scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx True is not"),
    ("gpt2", {**GPT2, "add_cross_attention": True}, "add_cross_attention True is not supported for gpt2"),
    ("gpt2", {**GPT2, "num_hidden_layers": 10**9}, "n_layer is 1000000000; expected between 1 and 1,024"),
    ("gpt2", {**GPT2, "activation_function": "mish"}, "activation_function 'mish' is not supported"),
    ("gpt_neox", {"rotary_pct": 0.2}, "rotary positions need an even number"),
    ("gpt_neox", {"rotary_pct": 1.5}, "partial_rotary_factor 1.5 is not supported"),
    ("phi3", {"rope_scaling": {"type": "longrope", "short_factor": [1.0]}}, "short_factor is .*; expected a list of 4"),
    ("gemma2", {"hidden_size": 10**400}, "hidden_size is too large a number"),
    ("phi3", {"head_dim": 10**400, "rope_scaling": LONGROPE}, "head_dim is too large a number"),
    ("llama", {"max_position_embeddings": 10**400, "rope_scaling": YARN}, "max_position_embeddings is too large"),
    ("smollm3", {"no_rope_layers": [1, 2, 0]}, "no_rope_layers is .*; expected a 0 or a 1 for each layer"),
    ("llama", {"rope_scaling": {**ROPE, "high_freq_factor": 1.0}}, "high_freq_factor is 1.0; expected more than"),
    ("llama", {"rope_scaling": {**ROPE, "factor": 0}}, "factor is 0; expected a positive number"),
    (
        "llama",
        {"rope_scaling": {**ROPE, "original_max_position_embeddings": 0}},
        "embeddings is 0; expected at least 2",
    ),
    ("llama", {"rope_scaling": {"type": "dynamic", "factor": 1e300}}, "factor is 1e.300; expected a positive number"),
    ("llama", {"rope_scaling": {"type": "proportional"}}, "rope_type 'proportional' is not supported"),
    ("llama", {"rope_theta": 1.0, "rope_scaling": YARN | {"rope_theta": 1.0}}, "yarn needs more than 1"),
]


@pytest.mark.parametrize(("model_type", "changes", "message"), REFUSED, ids=[f"{r[0]}: {r[2][:40]}" for r in REFUSED])
def test_what_a_family_cannot_run_is_refused_by_name(model_type: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        ModelConfig.from_hf({**BASE, "model_type": model_type, **changes})
    assert str(caught.value).startswith("config.json: ")
    assert len(str(caught.value).splitlines()) == 1
