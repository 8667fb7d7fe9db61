"""Mixtures of experts and layers without attention give the same texts in every way of decoding, on both engines."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import lossless
import pytest
import tiny
from closeness import assert_close
from families import CASES, save
from hypothesis import given, settings
from hypothesis import strategies as st
from lossless import LAYERS, MODES, check, engine
from test_beams import asked, assert_same_as_transformers
from torch_parts import as_tensor

from tokenglass.model.decoding.beam_search import BeamParameters
from tokenglass.model.decoding.path_cache import PathCache
from tokenglass.model.decoding.request import Request
from tokenglass.model.loading import load_model
from tokenglass.model.text.tokenizer import Tokenizer

KINDS = (*LAYERS, *(f"native {kind}" for kind in LAYERS))
TOKENIZER = Tokenizer(tiny.byte_level_tokenizer())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", sorted(MODES))
@settings(max_examples=3)
@given(data=st.data())
def test_texts_are_those_of_one_token_at_a_time(mode: str, kind: str, data: st.DataObject) -> None:
    check(replace(data.draw(lossless.cases()), mode=mode, kind=kind))


@pytest.fixture(scope="module", params=["qwen3_moe", "gpt_oss", "lfm2", "qwen3_5_text"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("layers")
    save(path, *CASES[request.param])
    return path


@pytest.mark.parametrize("backend", ["native", "torch"])
@pytest.mark.parametrize("chunk", [3, 256])
def test_beams_are_those_of_transformers(folder: Path, backend: Any, chunk: int) -> None:
    beams = load_model(folder, dtype="float32", device="cpu", backend=backend).engine
    for prompt in ("The fox and the hen", "Once upon a time"):
        request = asked(TOKENIZER.encode(prompt), prefill_chunk=chunk, eos_token_ids=frozenset({7}))
        for count in (2, 4):
            assert_same_as_transformers(folder, beams, TOKENIZER, request, BeamParameters(count))


@dataclass(eq=False)
class Node:
    """A token at its place in a tree."""

    token_id: int


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=10)
@given(walk=st.lists(st.integers(0, 30), min_size=2, max_size=12), chunk=st.integers(1, 9))
def test_branches_have_the_logits_of_their_whole_texts(kind: str, walk: list[int], chunk: int) -> None:
    """Each step of the walk goes on from a place that was there before, or from the root, by a few tokens."""
    model, prompt = engine(kind), (1, 2, 3, 4, 5, 6, 7)
    branches: PathCache[Node] = PathCache(model, Request(prompt, 1, max_new_tokens=60, prefill_chunk=chunk))
    paths: list[tuple[Node, ...]] = [()]
    for step in walk:
        begin = paths[step % len(paths)]
        path = (*begin[: len(begin) - step % 3], *(Node(8 + (step + k) % 30) for k in range(step % 4)))
        paths.append(path)
        *_, logits = branches.follow(path)
        whole = [*prompt, *(node.token_id for node in path)]
        assert_close(as_tensor(logits), as_tensor(model.forward([whole], None)[0])[0])
