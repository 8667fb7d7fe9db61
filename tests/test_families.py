"""Every family computes what Hugging Face transformers computes from the same files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import tiny
import torch
from families import (
    BASE,
    BORDER,
    CASES,
    GPT2,
    LIMIT,
    LLAMA3,
    LONGROPE,
    SLIDE_LAST,
    SLIDING_TYPES,
    YARN,
    Pair,
    close,
    older,
    random_ids,
    save,
)
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

SHORT, LONG = 50, 110  # prompts on both sides of the border, both longer than the window


@pytest.fixture(scope="module", params=CASES, ids=lambda name: name)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    folder = tmp_path_factory.mktemp("family")
    reference = save(folder, *CASES[request.param])
    return Pair(reference, load_engine(Checkpoint.open(folder), dtype="float32", device="cpu"), folder)


@pytest.mark.parametrize("length", [SHORT, LONG])
def test_logits_equal_those_of_transformers(pair: Pair, length: int) -> None:
    ids = random_ids(length)
    close(as_tensor(pair.engine.forward(ids, None, last=None)), pair.reference_logits(ids))


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
        assert new == pair.reference_logits(sequence)[0, length - 1 : -1].argmax(dim=-1).tolist()  # in one pass, not 56


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
    ("llama", {"rope_scaling": {"type": "axial"}}, "rope_type 'axial' is not supported"),
    ("llama", {"rope_theta": 1.0, "rope_scaling": YARN | {"rope_theta": 1.0}}, "yarn needs more than 1"),
]


@pytest.mark.parametrize(("model_type", "changes", "message"), REFUSED, ids=[f"{r[0]}: {r[2][:40]}" for r in REFUSED])
def test_what_a_family_cannot_run_is_refused_by_name(model_type: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        ModelConfig.from_hf({**BASE, "model_type": model_type, **changes})
    assert str(caught.value).startswith("config.json: ")
    assert len(str(caught.value).splitlines()) == 1
