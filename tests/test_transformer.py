"""The transformer computes what Hugging Face transformers computes from the same files."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny
import torch
from closeness import assert_close
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_parts import as_tensor, load_engine

from tokenglass.model.checkpoint.folder import Checkpoint
from tokenglass.model.decoding.autoregressive import decode
from tokenglass.model.decoding.job import Job
from tokenglass.model.decoding.request import Request
from tokenglass.model.sampling.parameters import SamplingParameters
from tokenglass.model.text.tokenizer import Tokenizer

CASES = {
    "grouped heads": {},
    "a key-value head per head": {"num_key_value_heads": 4},
    "one key-value head": {"num_key_value_heads": 1},
    "tied head": {"tie_word_embeddings": True},
    "sharded": {"max_shard_size": "20KB"},
    "tied and sharded": {"tie_word_embeddings": True, "max_shard_size": "20KB"},
    "head_dim of its own": {"head_dim": 16},
    "stored in bfloat16": {"dtype": torch.bfloat16},
    "three layers, odd sizes": {"num_hidden_layers": 3, "hidden_size": 36, "intermediate_size": 50, "head_dim": 6},
}


@pytest.fixture(params=CASES.values(), ids=CASES)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return tiny.save_llama(tmp_path, **request.param)


def test_logits_and_greedy_text_equal_those_of_transformers(folder: Path, tokenizer: Tokenizer) -> None:
    check_against_transformers(folder, tokenizer)


@pytest.mark.parametrize("theta", [10000.0, 700.0])
def test_rope_theta_is_read_from_the_top_level_too(theta: float, tmp_path: Path, tokenizer: Tokenizer) -> None:
    folder = tiny.save_llama(tmp_path, rope_parameters={"rope_type": "default", "rope_theta": theta})
    tiny.edit_json(folder / "config.json", rope_parameters=None, rope_theta=theta)
    check_against_transformers(folder, tokenizer)


def check_against_transformers(folder: Path, tokenizer: Tokenizer) -> None:
    from transformers import LlamaForCausalLM  # noqa: PLC0415  (takes seconds)

    reference = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    engine = load_engine(Checkpoint.open(folder), dtype="float32", device="cpu")
    ids = torch.randint(tiny.VOCAB_SIZE, (2, 60), generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        expected = reference(ids).logits
    assert expected.std() > 0.5  # a flat model would agree with anything
    assert_close(as_tensor(engine.forward(ids, None, last=None)), expected)

    prompt = ids[:1, :8]
    whole = reference.generate(prompt, max_new_tokens=200, do_sample=False, eos_token_id=None, pad_token_id=0)
    request = Request(tuple(prompt[0].tolist()), 1, SamplingParameters(temperature=0), max_new_tokens=200)
    records = list(decode(Job(engine, tokenizer, request)))
    assert tiny.new_tokens(records) == whole[0, 8:].tolist()
    assert len(set(tiny.new_tokens(records))) > 3


@settings(max_examples=25)
@given(changed=st.integers(0, 39), shift=st.integers(1, tiny.VOCAB_SIZE - 1), cached=st.booleans())
def test_a_later_token_changes_no_earlier_logit(changed: int, shift: int, cached: bool) -> None:
    model = tiny.random_transformer()
    ids = torch.arange(40)[None] * 7 % tiny.VOCAB_SIZE
    other = ids.clone()
    other[0, changed] = (ids[0, changed] + shift) % tiny.VOCAB_SIZE
    before, after = (logits_of(model, sequence, cached) for sequence in (ids, other))
    assert torch.equal(before[:, :changed], after[:, :changed])
    assert not torch.equal(before[:, changed], after[:, changed])


def logits_of(model: torch.nn.Module, ids: torch.Tensor, cached: bool) -> torch.Tensor:
    """All logits at once, or, with a cache, after a first chunk of 5 tokens."""
    if not cached:
        return model(ids)
    cache = tiny.ScriptedEngine(tiny.says(0, after=0)).new_cache()
    return torch.cat((model(ids[:, :5], cache), model(ids[:, 5:], cache)), dim=1)


def test_last_gives_only_the_logits_after_the_last_token() -> None:
    model = tiny.random_transformer()
    ids = torch.arange(12).view(2, 6)
    torch.testing.assert_close(model(ids, last=True), model(ids)[:, -1:], rtol=0, atol=1e-6)
