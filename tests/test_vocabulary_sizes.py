"""A tokenizer and an embedding of different sizes: what both have works, what one lacks is told when it is named."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import torch
from torch_parts import as_tensor, load_engine

from tokenglass.model.checkpoint.folder import Checkpoint
from tokenglass.model.decoding.autoregressive import decode
from tokenglass.model.decoding.drafts import ModelDrafter
from tokenglass.model.decoding.healing import heal
from tokenglass.model.decoding.job import Job
from tokenglass.model.decoding.request import Request
from tokenglass.model.decoding.speculative import decode_speculative
from tokenglass.model.errors import ParameterError, PromptError
from tokenglass.model.inspection.reading import Reading
from tokenglass.model.loaded_model import LoadedModel
from tokenglass.model.loading import load_model
from tokenglass.model.native_engine.engine import NativeEngine
from tokenglass.model.sampling.parameters import SamplingParameters
from tokenglass.model.sampling.penalties import read_bias
from tokenglass.model.torch_engine.engine import TorchEngine

BEYOND = tiny.VOCAB_SIZE  # the first id without a row


@pytest.fixture(scope="module", params=["torch", "native"])
def loaded(
    request: pytest.FixtureRequest, saved_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> LoadedModel:
    """A model of 512 rows; its tokenizer has more tokens, as gemma-3-1b-it's has one, and fine-tunes a pad token."""
    folder = larger_tokenizer(saved_checkpoint, tmp_path_factory.mktemp("larger"))
    if request.param == "native":
        ready = load_model(folder, backend="auto")
        if ready.backend != "native":
            pytest.skip(str(ready.notes))
        return ready
    return load_model(folder)


def larger_tokenizer(source: Path, folder: Path) -> Path:
    shutil.copytree(source, folder, dirs_exist_ok=True)
    tokenizer = tiny.byte_level_tokenizer()
    names = [f"<filler {number}>" for number in range(BEYOND - tokenizer.get_vocab_size())]
    tokenizer.add_tokens([*names, "<image>", " foxes", " fox"])
    assert tokenizer.token_to_id("<image>") == BEYOND
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def greedy(loaded: LoadedModel, text: str) -> Request:
    return Request(loaded.tokenizer.encode(text), seed=1, sampling=SamplingParameters(temperature=0), max_new_tokens=12)


def test_it_loads_and_generates(loaded: LoadedModel) -> None:
    assert loaded.tokenizer.vocab_size > loaded.engine.vocab_size == BEYOND
    records = list(decode(Job(loaded.engine, loaded.tokenizer, greedy(loaded, "Once upon"))))
    assert len(tiny.new_tokens(records)) == 12


@pytest.mark.parametrize("text", ["<image>", "Once <image> upon"])
def test_a_prompt_that_names_a_token_without_a_row_is_an_error(loaded: LoadedModel, text: str) -> None:
    with pytest.raises(PromptError, match="token 512, which the tokenizer has and the model has not"):
        list(decode(Job(loaded.engine, loaded.tokenizer, greedy(loaded, text))))
    with pytest.raises(PromptError, match="token 512"):
        as_tensor(loaded.engine.forward(torch.tensor([[1, BEYOND]]), None))


def test_flow_says_so_too(loaded: LoadedModel) -> None:
    assert isinstance(loaded.engine, TorchEngine | NativeEngine)
    with pytest.raises(PromptError, match="token 512"):
        Reading(loaded.engine, loaded.tokenizer.encode("Once <image>"), loaded.tokenizer.piece)


def test_a_bias_is_for_ids_that_have_a_logit(loaded: LoadedModel) -> None:
    rows = loaded.engine.vocab_size
    with pytest.raises(ParameterError, match="vocabulary ends at id 511"):
        read_bias("id:512=1", loaded.tokenizer, rows)
    with pytest.raises(ParameterError, match="the model gives it no logit"):
        read_bias("<image>=1", loaded.tokenizer, rows)
    assert all(token_id < rows for token_id in read_bias("fox=1", loaded.tokenizer, rows)[0])


def test_a_prompt_whose_end_only_tokens_beyond_the_embedding_continue_is_healed(loaded: LoadedModel) -> None:
    prompt_ids, piece = heal(loaded.tokenizer, loaded.tokenizer.encode("the fo"))
    request = replace(greedy(loaded, "x"), prompt_ids=prompt_ids, healed=piece)
    records = list(decode(Job(loaded.engine, loaded.tokenizer, request)))
    assert max(tiny.new_tokens(records)) < BEYOND


@pytest.mark.parametrize("rows", [BEYOND - 40, BEYOND + 40])
def test_a_draft_model_of_other_rows_guesses_what_both_have(loaded: LoadedModel, rows: int, tmp_path: Path) -> None:
    """Qwen2.5's models have 151,936 or 152,064 rows for one tokenizer."""
    draft = load_engine(Checkpoint.open(tiny.save_llama(tmp_path, vocab_size=rows)), dtype="float32", device="cpu")
    with torch.no_grad():  # it is sure of its last token, which the other model may not have
        draft.model.lm_head.weight[-1] = 50 * draft.model.lm_head.weight.abs().max()
    request = greedy(loaded, "Once upon a time")
    request = replace(request, prompt_ids=(*request.prompt_ids, rows - 1 if rows < BEYOND else 1, 1))
    plain = tiny.new_tokens(list(decode(Job(loaded.engine, loaded.tokenizer, request))))
    cache = loaded.engine.new_cache()
    job = Job(loaded.engine, loaded.tokenizer, request, cache=cache, draft_engine=draft)
    records = decode_speculative(job, ModelDrafter(job), 4)
    token_ids = [c.token_id for r in records for c in getattr(r, "choices", ()) if c.status in ("accepted", "sampled")]
    assert token_ids == plain


def test_an_id_beyond_the_tokenizer_is_drawn_without_text(saved_checkpoint: Path, tmp_path: Path) -> None:
    """Embeddings are padded to round sizes: rows that no token of the tokenizer has."""
    folder = tiny.save_llama(tmp_path / "padded", vocab_size=600)
    shutil.copy(saved_checkpoint / "tokenizer.json", folder)
    loaded = load_model(folder)
    assert isinstance(loaded.engine, TorchEngine)
    bias = ((599,), 1000.0)
    request = replace(greedy(loaded, "Once upon"), sampling=SamplingParameters(temperature=0, logit_bias=(bias,)))
    records = list(decode(Job(loaded.engine, loaded.tokenizer, request)))
    assert tiny.new_tokens(records) == [599] * 12
    assert "".join(record.text for record in records) == ""
    assert [candidate.piece for candidate in records[1].choices[0].candidates if candidate.token_id == 599] == [b""]
