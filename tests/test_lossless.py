"""Every way of decoding that promises the autoregressive text gives it, whatever masks, stops and bans there are."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import lossless
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lossless import CONSTRAINTS, LAYERS, MASK, MODES, Case, check, engine, tokenizer
from torch_parts import as_tensor

from tokenglass.model.decoding.request import Request
from tokenglass.model.sampling.parameters import SamplingParameters

GUESSING = ("n-grams", "blocks as guesses", "the model itself guesses", "another model guesses", "jacobi")


def case(mode: str, prompt: str, seed: int, count: int, temperature: float = 1.0, **options: Any) -> Case:
    sampling = SamplingParameters(temperature=temperature, top_p=1)
    request = Request(tokenizer().encode(prompt), seed, sampling, **{"max_new_tokens": 40, **options})
    return Case(request, "torch", mode, count)


@pytest.mark.parametrize("mode", sorted(MODES))
@settings(max_examples=14)
@given(data=st.data())
def test_the_tokens_the_text_and_the_end_are_those_of_one_token_at_a_time(mode: str, data: st.DataObject) -> None:
    check(replace(data.draw(lossless.cases()), mode=mode))


@pytest.mark.parametrize("kind", [*LAYERS, *(f"native {kind}" for kind in LAYERS)])
@pytest.mark.parametrize("mode", sorted(MODES))
@settings(max_examples=3)
@given(data=st.data())
def test_mixtures_and_layers_without_attention_go_through_every_mode(mode: str, kind: str, data: st.DataObject) -> None:
    check(replace(data.draw(lossless.cases()), mode=mode, kind=kind))


@pytest.mark.parametrize("mode", GUESSING)
@pytest.mark.parametrize("name", ["schema", "choice"])
def test_forced_tokens_behind_a_rejected_guess_are_computed(mode: str, name: str) -> None:
    for seed in range(3):
        check(case(mode, 'true {"ab":', seed, 6, seed / 2, constraint=CONSTRAINTS[name], eos_token_ids=frozenset({0})))


@pytest.mark.parametrize("mode", GUESSING)
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_ban_takes_back_tokens_of_earlier_passes(mode: str, temperature: float) -> None:
    often = (((tokenizer().encode("c")[0],), 8.0),)
    for count in (1, 3):
        run = case(mode, "ab ab ab", 1, count, temperature, bans=("cccccccc", "a"), stops=("tr",))
        check(replace(run, request=replace(run.request, sampling=run.request.sampling.replace(logit_bias=often))))


@pytest.mark.parametrize("kind", ["torch", "native"])
def test_a_cache_keeps_what_an_ids_row_has_in_common_with_another_and_no_position_of_a_block(kind: str) -> None:
    model = engine(kind)
    cache = model.new_cache(2)
    as_tensor(model.forward(torch.tensor([[1, 2, 3, 4], [1, 2, 5, 6]]), cache))
    assert [cache.keep_prefix(row, (1, 2, 3, 4, 7)) for row in (0, 1)] == [4, 2]
    cache.select([0])
    as_tensor(model.forward(torch.tensor([[5, MASK, MASK]]), cache, block=2))
    assert cache.keep_prefix(0, [1, 2, 3, 4, 5, MASK, MASK]) == 5
    tail = cache.detach(0, 2)
    assert cache.rows[0].token_ids == [1, 2]
    cache.attach(0, tail)
    assert cache.rows[0].token_ids == [1, 2, 3, 4, 5]
