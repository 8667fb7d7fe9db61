"""The negative prompt: the same tokens as transformers finds, and only what is new is computed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from torch_parts import as_tensor

from tokenglass.model.decoding.autoregressive import decode
from tokenglass.model.decoding.guidance import Negative, room
from tokenglass.model.decoding.job import Job
from tokenglass.model.decoding.request import Request
from tokenglass.model.decoding.sequence import Sequence
from tokenglass.model.errors import PromptError
from tokenglass.model.loading import load_model
from tokenglass.model.sampling.context import Context, Mask
from tokenglass.model.sampling.parameters import SamplingParameters
from tokenglass.model.sampling.sampler import Sampler
from tokenglass.model.text.tokenizer import Tokenizer
from tokenglass.model.torch_engine.engine import TorchEngine

PROMPT = "Once upon a time there was a little fox"
NEGATIVE = "The bear said that the forest was cold, and so"


@pytest.fixture(scope="module")
def engine(saved_checkpoint: Path) -> TorchEngine:
    return load_model(saved_checkpoint).engine


def guided(tokenizer: Tokenizer, scale: float = 1.5, **options: object) -> Request:
    greedy = SamplingParameters(temperature=0, guidance_scale=scale)
    return Request(
        tokenizer.encode(PROMPT),
        1,
        greedy,
        **{"max_new_tokens": 40, "negative_ids": tokenizer.encode(NEGATIVE), **options},
    )


@pytest.mark.parametrize("scale", [1.5, 3.0, -1.0])
def test_a_guided_greedy_run_takes_the_tokens_that_transformers_takes(
    scale: float, engine: TorchEngine, tokenizer: Tokenizer, saved_checkpoint: Path
) -> None:
    from transformers import AutoModelForCausalLM  # noqa: PLC0415

    model = AutoModelForCausalLM.from_pretrained(saved_checkpoint)
    request = guided(tokenizer, scale)
    expected = model.generate(
        torch.tensor([request.prompt_ids]),
        attention_mask=torch.ones(1, len(request.prompt_ids)),
        negative_prompt_ids=torch.tensor([request.negative_ids]),
        guidance_scale=scale,
        do_sample=False,
        max_new_tokens=40,
        eos_token_id=None,
        pad_token_id=0,
    )

    token_ids = tiny.new_tokens(list(decode(Job(engine, tokenizer, request))))

    assert token_ids == expected[0, len(request.prompt_ids) :].tolist()
    unguided = replace(request, negative_ids=(), sampling=SamplingParameters(temperature=0))
    assert token_ids != tiny.new_tokens(list(decode(Job(engine, tokenizer, unguided))))


@pytest.mark.parametrize("scale", [1.5, 4.0])
@pytest.mark.parametrize(
    ("sampling", "options", "theirs"),
    [
        ({"repetition_penalty": 1.3}, {}, {"repetition_penalty": 1.3}),
        ({"repetition_penalty": 0.7}, {"prefill_chunk": 3}, {"repetition_penalty": 0.7}),
        (
            {"repetition_penalty": 1.2, "no_repeat_ngram_size": 2},
            {},
            {"repetition_penalty": 1.2, "no_repeat_ngram_size": 2},
        ),
        (
            {"repetition_penalty": 1.3, "logit_bias": (((30, 41), 4.0),)},
            {},
            {"repetition_penalty": 1.3, "sequence_bias": [[[30], 4.0], [[41], 4.0]]},
        ),
        (
            {"repetition_penalty": 1.3},
            {"min_new_tokens": 9, "eos_token_ids": frozenset({0, 7})},
            {"repetition_penalty": 1.3, "min_new_tokens": 9, "eos_token_id": [0, 7]},
        ),
    ],
)
def test_guided_scores_are_penalised_as_those_of_transformers_are(
    scale: float,
    sampling: dict[str, Any],
    options: dict[str, Any],
    theirs: dict[str, Any],
    engine: TorchEngine,
    tokenizer: Tokenizer,
    saved_checkpoint: Path,
) -> None:
    """Token for token; masks leave the distribution that guidance starts from alone."""
    from transformers import AutoModelForCausalLM  # noqa: PLC0415

    model = AutoModelForCausalLM.from_pretrained(saved_checkpoint)
    parameters = SamplingParameters(temperature=0, guidance_scale=scale, **sampling)
    request = guided(tokenizer, scale, **options)
    request = replace(request, sampling=parameters)
    expected = model.generate(
        torch.tensor([request.prompt_ids]),
        attention_mask=torch.ones(1, len(request.prompt_ids)),
        negative_prompt_ids=torch.tensor([request.negative_ids]),
        guidance_scale=scale,
        do_sample=False,
        max_new_tokens=40,
        pad_token_id=0,
        **{"eos_token_id": None, **theirs},
    )
    token_ids = tiny.new_tokens(list(decode(Job(engine, tokenizer, request))))
    assert token_ids == expected[0, len(request.prompt_ids) :].tolist()


@pytest.mark.parametrize("penalty", [0.6, 1.4])
def test_a_guided_distribution_with_a_mask_is_that_of_the_same_list_of_transformers(penalty: float) -> None:
    from transformers.generation import logits_process as peer  # noqa: PLC0415

    row, negative = torch.randn(2, 300, generator=torch.Generator().manual_seed(3), dtype=torch.float64) * 3
    text, allowed = list(range(0, 120, 2)), list(range(3, 200, 3))

    def model(*_: object, **__: object) -> Any:
        return type("Out", (dict,), {"logits": negative[None, None]})(past_key_values=None)

    theirs = peer.LogitsProcessorList(
        [
            peer.UnbatchedClassifierFreeGuidanceLogitsProcessor(1.7, model),
            peer.RepetitionPenaltyLogitsProcessor(penalty),
            peer.PrefixConstrainedLogitsProcessor(lambda *_: allowed, 1),
            peer.TemperatureLogitsWarper(0.7),
            peer.TopKLogitsWarper(30),
            peer.TopPLogitsWarper(0.9),
        ]
    )
    expected = theirs(torch.tensor([text]), row[None]).softmax(-1)[0]

    mask = Mask("constraint", np.isin(np.arange(300), allowed))
    context = Context(text, 0, 1, masks=(mask,), negative=negative.numpy())
    sampling = SamplingParameters(temperature=0.7, top_k=30, top_p=0.9, repetition_penalty=penalty, guidance_scale=1.7)
    distribution = torch.from_numpy(Sampler(sampling, lambda _: b"").distribution(row, context).final)
    torch.testing.assert_close(distribution, expected, atol=1e-6, rtol=0)


def test_the_logits_are_those_behind_the_negative_prompt_also_after_a_rewind(
    engine: TorchEngine, tokenizer: Tokenizer
) -> None:
    request = guided(tokenizer, prefill_chunk=3)
    sequence, negative = Sequence(tokenizer, request, engine.limit), Negative(engine, request)
    for new_ids in ([], [30], [30, 31, 32], [30, 40], [30]):
        sequence.token_ids = [*request.prompt_ids, *new_ids]
        whole = as_tensor(engine.forward(torch.tensor([[*request.negative_ids, *new_ids]]), None))[0, -1]
        torch.testing.assert_close(as_tensor(negative.logits(sequence)), whole, atol=1e-4, rtol=0)


def test_only_what_is_new_is_computed(tokenizer: Tokenizer) -> None:
    scripted = tiny.ScriptedEngine(tiny.says(30, after=0))
    request = Request((1, 2), 1, SamplingParameters(guidance_scale=2.0), negative_ids=(5, 6, 7), prefill_chunk=2)
    sequence, negative = Sequence(tokenizer, request, scripted.limit), Negative(scripted, request)

    negative.logits(sequence)
    sequence.token_ids += [30, 31]
    negative.logits(sequence)

    assert scripted.inputs == [[5, 6], [7], [30, 31]]


def test_rows_from_one_prompt_go_their_own_ways_and_need_not_be_of_one_length(
    engine: TorchEngine, tokenizer: Tokenizer
) -> None:
    request = guided(tokenizer)
    sequence, negative = Sequence(tokenizer, request, engine.limit), Negative(engine, request)
    negative.logits(sequence)
    negative.select([0, 0])

    texts = [[30, 32], [31, *range(40, 90), 32]]
    answers = negative.rows([[*request.prompt_ids, *new_ids] for new_ids in texts])
    for answer, new_ids in zip(answers, texts, strict=True):
        whole = as_tensor(engine.forward([[*request.negative_ids, *new_ids]], None))[0, -1]
        torch.testing.assert_close(as_tensor(answer), whole, atol=1e-4, rtol=0)


def test_rows_are_computed_together(engine: TorchEngine, tokenizer: Tokenizer) -> None:
    request = guided(tokenizer)
    negative = Negative(engine, request)
    prompt = list(request.prompt_ids)
    negative.rows([prompt])
    negative.select([0, 0, 0])
    negative.rows([[*prompt, new_id] for new_id in (30, 31, 32)])
    negative.select([2, 0])

    answers = negative.rows([[*prompt, 32, 33], [*prompt, 30, 34]])

    for answer, new_ids in zip(answers, ((32, 33), (30, 34)), strict=True):
        whole = as_tensor(engine.forward(torch.tensor([[*request.negative_ids, *new_ids]]), None))[0, -1]
        torch.testing.assert_close(as_tensor(answer), whole, atol=1e-4, rtol=0)


def test_a_longer_negative_prompt_leaves_the_text_less_room(engine: TorchEngine) -> None:
    assert room(engine, Request((1, 2), 1, negative_ids=(1,) * 12)) == engine.limit - 10
    assert room(engine, Request((1,) * 12, 1, negative_ids=(1, 2))) == engine.limit


def test_a_negative_prompt_beyond_the_context_is_refused(engine: TorchEngine) -> None:
    with pytest.raises(PromptError, match="256"):
        Negative(engine, Request((1, 2), 1, negative_ids=(1,) * 256))
