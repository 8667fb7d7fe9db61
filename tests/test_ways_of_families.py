"""Families whose layers are not all alike give the same text in every way of decoding: mixtures of experts, sliding
windows, convolutions, recurrences. The oracle of beams is transformers, that of the rest one token at a time without a
cache."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from families import CASES, save
from hypothesis import given, settings
from hypothesis import strategies as st
from test_beams import assert_same_as_transformers, request_of
from torch_parts import as_tensor

from tokenglass.model.decoding.beam_search import BeamParameters
from tokenglass.model.decoding.job import Job
from tokenglass.model.decoding.modes import ModeSettings, decode_job
from tokenglass.model.decoding.path_cache import PathCache
from tokenglass.model.decoding.request import Request
from tokenglass.model.decoding.samples import decode_samples
from tokenglass.model.loaded_model import LoadedModel
from tokenglass.model.loading import load_model
from tokenglass.model.records.steps import Record, Step
from tokenglass.model.sampling.parameters import SamplingParameters

FAMILIES = (
    *("qwen3_moe", "qwen2_moe", "gpt_oss", "gemma3_text", "gemma4_text", "lfm2", "lfm2_moe", "lfm3"),
    *("gemma4_text, experts", "lfm3, no sandwich norms"),
    *("qwen3_5_text", "qwen3_5_moe_text", "qwen3_next"),
)
PROMPT = "the fox and the hen and the fox"
DRAWN = SamplingParameters(temperature=1.0, top_p=0.95)


@pytest.fixture(scope="module", params=FAMILIES)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("family")
    save(path, *CASES[request.param])
    return path


@pytest.fixture(scope="module", params=["native", "torch"])
def loaded(request: pytest.FixtureRequest, folder: Path) -> LoadedModel:
    backend: Literal["native", "torch"] = request.param
    return load_model(folder, dtype="float32", device="cpu", backend=backend)


@pytest.mark.parametrize("beams", [2, 4])
def test_beams_are_those_of_transformers(loaded: LoadedModel, folder: Path, beams: int) -> None:
    request = request_of(loaded.tokenizer.encode(PROMPT), max_new_tokens=12)
    assert_same_as_transformers(folder, loaded.engine, loaded.tokenizer, request, BeamParameters(beams))


WAYS: dict[str, tuple[dict[str, Any], ModeSettings]] = {
    "over a cache": ({}, ModeSettings()),
    "in chunks": ({"prefill_chunk": 3}, ModeSettings()),
    "guesses from the text": ({}, ModeSettings("speculative", draft="ngram", draft_length=4)),
    "guesses from the text, in chunks": ({"prefill_chunk": 2}, ModeSettings("speculative", draft_length=3)),
    "jacobi": ({}, ModeSettings("jacobi", block_size=5)),
}


@pytest.mark.parametrize("sampling", [SamplingParameters(temperature=0), DRAWN], ids=["greedy", "drawn"])
@pytest.mark.parametrize("way", WAYS)
def test_every_lossless_way_gives_the_text_of_one_token_at_a_time(
    loaded: LoadedModel, way: str, sampling: SamplingParameters
) -> None:
    changes, mode = WAYS[way]
    alone = {"sampling": sampling, "max_new_tokens": 30}
    prompt_ids = loaded.tokenizer.encode(PROMPT)
    expected = new_ids(records(loaded, Request(prompt_ids, 7, **alone, use_cache=False), ModeSettings()))
    assert len(expected) == 30
    assert new_ids(records(loaded, Request(prompt_ids, 7, **alone, **changes), mode)) == expected


def test_samples_are_their_single_runs(loaded: LoadedModel) -> None:
    request = Request(loaded.tokenizer.encode(PROMPT), 7, DRAWN, max_new_tokens=20)
    together = list(decode_samples(Job(loaded.engine, loaded.tokenizer, request), 3))
    first = new_ids(records(loaded, request, ModeSettings()))
    assert [new_ids(together, number) == first for number in range(3)] == [True, False, False]


@settings(max_examples=6)
@given(walk=st.lists(st.integers(0, 30), min_size=2, max_size=10), chunk=st.integers(1, 9))
def test_branches_have_the_logits_of_their_whole_texts(loaded: LoadedModel, walk: list[int], chunk: int) -> None:
    """Each step of the walk goes on from a place that was there before, or from the root, by a few tokens."""
    engine, prompt = loaded.engine, (1, 2, 3, 4, 5, 6, 7)
    branches: PathCache[Node] = PathCache(engine, Request(prompt, 1, max_new_tokens=60, prefill_chunk=chunk))
    paths: list[tuple[Node, ...]] = [()]
    for step in walk:
        begin = paths[step % len(paths)]
        path = (*begin[: len(begin) - step % 3], *(Node(8 + (step + k) % 50) for k in range(step % 4)))
        paths.append(path)
        *_, logits = branches.follow(path)
        whole = [*prompt, *(node.token_id for node in path)]
        torch.testing.assert_close(
            as_tensor(logits), as_tensor(engine.forward([whole], None)[0])[0], rtol=1e-4, atol=1e-4
        )


@dataclass(eq=False)
class Node:
    """A token at its place in a tree."""

    token_id: int


def records(loaded: LoadedModel, request: Request, mode: ModeSettings) -> Iterator[Record]:
    return decode_job(Job(loaded.engine, loaded.tokenizer, request), mode)


def new_ids(steps: Sequence[Record] | Iterator[Record], sequence: int = 0) -> list[int | None]:
    """The tokens that stand of one text."""
    own = (step for step in steps if isinstance(step, Step) and step.sequence == sequence)
    return [choice.token_id for step in own for choice in step.settled]
