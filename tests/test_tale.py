"""The bundled model is an ordinary Llama checkpoint, and what its card says is so."""

from __future__ import annotations

import json

import pytest
import torch
from closeness import assert_close
from tokenizers import Tokenizer as Backend
from torch_parts import as_tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from tokenglass.model.checkpoint.store import bundled_folder, resolve
from tokenglass.model.decoding.autoregressive import decode
from tokenglass.model.decoding.job import Job
from tokenglass.model.decoding.request import Request
from tokenglass.model.loaded_model import LoadedModel
from tokenglass.model.loading import load_model
from tokenglass.model.sampling.parameters import SamplingParameters
from tokenglass.weights.recipe.card import sample

TEXT = 'Once upon a time there was a little fox. "Where are you going?" asked the hen.\nCafé, 狐 and 🦊.'


@pytest.fixture(scope="module")
def tale() -> LoadedModel:
    return load_model(resolve("tale"))


@pytest.fixture(scope="module")
def oracle():
    return AutoModelForCausalLM.from_pretrained(bundled_folder(), dtype=torch.float32).eval()


def test_transformers_tokenizer_gives_the_same_ids(tale: LoadedModel) -> None:
    assert tuple(AutoTokenizer.from_pretrained(bundled_folder())(TEXT)["input_ids"]) == tale.tokenizer.encode(TEXT)


def test_logits_equal_transformers(tale: LoadedModel, oracle) -> None:
    ids = torch.tensor([tale.tokenizer.encode(TEXT)])
    with torch.inference_mode():
        expected = oracle(ids).logits
    logits = as_tensor(tale.engine.forward(ids, None, last=None))
    assert_close(logits, expected)


def test_greedy_text_equals_transformers_for_200_tokens(tale: LoadedModel, oracle) -> None:
    request = Request(
        tale.tokenizer.encode("Once upon a time"),
        seed=1,
        sampling=SamplingParameters(temperature=0.0),
        max_new_tokens=200,
    )
    records = decode(Job(tale.engine, tale.tokenizer, request))
    token_ids = [choice.token_id for record in records if hasattr(record, "choices") for choice in record.choices]
    prompt = torch.tensor([request.prompt_ids])
    with torch.inference_mode():
        out = oracle.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            do_sample=False,
            temperature=None,
            top_p=None,
            min_new_tokens=200,
            max_new_tokens=200,
            eos_token_id=None,
            pad_token_id=0,
        )
    assert token_ids == out[0, len(request.prompt_ids) :].tolist()


def test_float32_is_the_automatic_dtype_on_a_cpu_and_the_checkpoint_s_can_be_asked_for(tale: LoadedModel) -> None:
    assert (tale.dtype, tale.device) == ("float32", "cpu")
    assert load_model(resolve("tale"), dtype="bfloat16").engine.model.lm_head.weight.dtype is torch.bfloat16


def test_the_checkpoint_is_small_enough_and_reserves_a_mask_token() -> None:
    folder = bundled_folder()
    assert (folder / "model.safetensors").stat().st_size <= 30 * 2**20
    mask = json.loads((folder / "config.json").read_text())["mask_token_id"]
    assert Backend.from_file(str(folder / "tokenizer.json")).id_to_token(mask) == "<|mask|>"


def test_the_card_tells_data_recipe_quality_limits_and_twenty_samples() -> None:
    card = (bundled_folder() / "README.md").read_text()
    for heading in ("## Data", "## Recipe", "## Measured", "## What it cannot do", "## 20 samples, unedited"):
        assert heading in card
    for credit in ("TinyStories", "CDLA-Sharing-1.0", "African Storybook", "Pratham Books", "CC BY", "Gutenberg"):
        assert credit in card


def test_the_first_sample_of_the_card_is_what_the_program_writes(tale: LoadedModel) -> None:
    """Its beginning: later, another processor's rounding may have drawn another token."""
    assert f"1. {sample(tale, 1)[:80]}" in (bundled_folder() / "README.md").read_text()
