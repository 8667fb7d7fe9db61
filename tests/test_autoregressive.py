"""The loop: one record per forward pass, every reason to finish, and the same text whatever the cache does."""

from __future__ import annotations

import itertools
import threading
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from torch import Tensor

from tokenglass.model.decoding.autoregressive import decode
from tokenglass.model.decoding.job import Job
from tokenglass.model.decoding.request import Request, truncate
from tokenglass.model.errors import EngineError, ParameterError, PromptError
from tokenglass.model.loading import load_model
from tokenglass.model.records.steps import Finish, Record, Step, Totals
from tokenglass.model.sampling.parameters import SamplingParameters
from tokenglass.model.text.tokenizer import Tokenizer
from tokenglass.model.torch_engine.engine import TorchEngine

GREEDY = SamplingParameters(temperature=0)
EOS = 0


def run(engine: Any, tokenizer: Tokenizer, prompt_ids: tuple[int, ...], **options: Any) -> tuple[list[Step], Finish]:
    """The steps and the one Finish of a run, greedy unless told otherwise."""
    request = Request(prompt_ids, **{"seed": 1, "sampling": GREEDY, "eos_token_ids": frozenset({EOS}), **options})
    *steps, finish = decode(Job(engine, tokenizer, request))
    assert isinstance(finish, Finish)
    assert all(isinstance(step, Step) for step in steps)
    return steps, finish


def text_of(steps: list[Step], finish: Finish) -> str:
    return "".join(step.text for step in steps) + finish.text


@pytest.fixture(scope="module")
def engine(saved_checkpoint: Path) -> TorchEngine:
    return load_model(saved_checkpoint).engine


@pytest.fixture
def prompt(tokenizer: Tokenizer) -> tuple[int, ...]:
    return tokenizer.encode("The fox")


def test_a_script_is_followed_to_its_end_token(tokenizer: Tokenizer, prompt: tuple[int, ...]) -> None:
    token_ids = tokenizer.encode(" said hello 日本語")[1:]
    steps, finish = run(tiny.ScriptedEngine(tiny.says(*token_ids, EOS, after=len(prompt))), tokenizer, prompt)
    assert tiny.new_tokens(steps) == [*token_ids, EOS]
    assert text_of(steps, finish) == " said hello 日本語"
    assert all("\ufffd" not in step.text for step in steps)
    assert finish.reason == "eos"


def test_prefill_chunks_are_steps_and_only_the_last_of_them_chooses(tokenizer: Tokenizer) -> None:
    prompt = tuple(range(10, 20))
    scripted = tiny.ScriptedEngine(tiny.says(30, 31, EOS, after=10))
    steps, finish = run(scripted, tokenizer, prompt, prefill_chunk=4)
    assert scripted.inputs == [[10, 11, 12, 13], [14, 15, 16, 17], [18, 19], [30], [31]]
    assert [step.phase for step in steps] == ["prefill"] * 3 + ["decode"] * 2
    assert [step.num_input_tokens for step in steps] == [4, 4, 2, 1, 1]
    assert [len(step.choices) for step in steps] == [0, 0, 1, 1, 1]
    assert [step.index for step in steps] == [step.forward for step in steps] == [0, 1, 2, 3, 4]
    assert [step.cache.length for step in steps] == [4, 8, 10, 11, 12]
    assert [choice.position for step in steps for choice in step.choices] == [10, 11, 12]
    assert {(step.sequence, step.parent, step.rewound_to) for step in steps} == {(0, None, None)}
    totals = finish.totals
    assert (totals.new_tokens, totals.forwards, totals.positions_computed) == (3, 5, 12)
    assert (totals.prefill_tokens, totals.decode_tokens) == (10, 2)


def test_totals_are_a_fold_over_the_steps(engine: TorchEngine, tokenizer: Tokenizer, prompt: tuple[int, ...]) -> None:
    steps, finish = run(engine, tokenizer, prompt, max_new_tokens=9)
    total = Totals()
    for step in steps:
        total = total.plus(step)
    assert finish.totals == total
    assert total.new_tokens == 9


@pytest.mark.parametrize("end", [40, 41])
def test_any_of_several_end_tokens_ends_and_its_text_is_not_shown(end: int, tokenizer: Tokenizer) -> None:
    scripted = tiny.ScriptedEngine(tiny.says(30, end, after=2))
    steps, finish = run(scripted, tokenizer, (1, 2), eos_token_ids=frozenset({40, 41}))
    assert (tiny.new_tokens(steps), finish.reason) == ([30, end], "eos")
    assert text_of(steps, finish) == tokenizer.decode([30])


@pytest.mark.parametrize("count", [1, 2, 7])
def test_max_new_tokens_is_exact(count: int, tokenizer: Tokenizer) -> None:
    steps, finish = run(tiny.ScriptedEngine(tiny.says(30, after=2)), tokenizer, (1, 2), max_new_tokens=count)
    assert (len(tiny.new_tokens(steps)), finish.reason) == (count, "length")


@pytest.mark.parametrize("use_cache", [True, False])
def test_the_context_is_filled_to_its_last_position(use_cache: bool, tokenizer: Tokenizer) -> None:
    scripted = tiny.ScriptedEngine(tiny.says(30, after=3), limit=8)
    steps, finish = run(scripted, tokenizer, (1, 2, 3), use_cache=use_cache)
    assert (len(tiny.new_tokens(steps)), finish.reason) == (5, "context")


def test_an_end_token_at_the_limit_is_an_end_token(tokenizer: Tokenizer) -> None:
    scripted = tiny.ScriptedEngine(tiny.says(30, EOS, after=6), limit=8)
    assert run(scripted, tokenizer, tuple(range(1, 7)), max_new_tokens=2)[1].reason == "eos"


def test_half_a_character_at_the_end_comes_with_the_finish(tokenizer: Tokenizer) -> None:
    first_byte = next(i for i in range(tokenizer.vocab_size) if tokenizer.piece(i) == b"\xf0")
    steps, finish = run(tiny.ScriptedEngine(tiny.says(first_byte, after=2)), tokenizer, (1, 2), max_new_tokens=1)
    assert ([step.text for step in steps], finish.text) == ([""], "\ufffd")


@pytest.mark.parametrize("taken", [0, 1, 3, 5])
def test_an_interrupt_is_seen_before_the_next_pass(taken: int, tokenizer: Tokenizer) -> None:
    """Also in the middle of a prefill of three chunks."""
    scripted, flag = tiny.ScriptedEngine(tiny.says(30, after=6)), threading.Event()
    request = Request((1, 2, 3, 4, 5, 6), 1, GREEDY, prefill_chunk=2)
    records = decode(Job(scripted, tokenizer, request, flag))
    before = list(itertools.islice(records, taken))
    flag.set()
    (finish,) = records
    assert isinstance(finish, Finish)
    assert (finish.reason, finish.totals.forwards, len(scripted.inputs)) == ("interrupt", len(before), taken)


def test_logits_that_are_not_numbers_finish_with_an_error_and_raise(tokenizer: Tokenizer) -> None:
    good = tiny.says(30, after=2)

    def script(length: int) -> Tensor:
        return good(length) if length < 4 else torch.full((tiny.VOCAB_SIZE,), torch.nan)

    seen: list[Record] = []
    with pytest.raises(EngineError, match="not numbers"):
        seen.extend(decode(Job(tiny.ScriptedEngine(script), tokenizer, Request((1, 2), 1, GREEDY))))
    seen = []
    records = decode(Job(tiny.ScriptedEngine(script), tokenizer, Request((1, 2), 1, GREEDY)))
    seen = list(itertools.islice(records, 3))
    assert tiny.new_tokens(seen) == [30, 30]
    assert isinstance(seen[-1], Finish)
    assert (seen[-1].reason, seen[-1].totals.new_tokens) == ("error", 2)
    with pytest.raises(EngineError):
        next(records)


SAMPLED = SamplingParameters(temperature=1.3, top_k=60, top_p=0.98, min_p=0.001)


@pytest.mark.parametrize("sampling", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
def test_the_text_is_the_same_in_any_chunks_and_without_a_cache(
    sampling: SamplingParameters, engine: TorchEngine, tokenizer: Tokenizer
) -> None:
    prompt = tokenizer.encode("Once upon a time there was a little fox")
    options = {"sampling": sampling, "max_new_tokens": 60, "eos_token_ids": frozenset()}
    steps, finish = run(engine, tokenizer, prompt, **options)
    assert len(set(tiny.new_tokens(steps))) > 3
    for chunk in (1, 3, 7):
        again, _ = run(engine, tokenizer, prompt, prefill_chunk=chunk, **options)
        assert tiny.new_tokens(again) == tiny.new_tokens(steps)
    recomputed, slow = run(engine, tokenizer, prompt, use_cache=False, **options)
    assert tiny.new_tokens(recomputed) == tiny.new_tokens(steps)
    assert text_of(recomputed, slow) == text_of(steps, finish) == tokenizer.decode(tiny.new_tokens(steps))
    assert {step.cache for step in recomputed} == {None}
    assert finish.totals.positions_computed == len(prompt) + 59
    assert slow.totals.positions_computed == sum(len(prompt) + count for count in range(60))
    assert [step.phase for step in recomputed] == ["prefill"] + ["decode"] * 59


def test_the_seed_decides_the_text(engine: TorchEngine, tokenizer: Tokenizer, prompt: tuple[int, ...]) -> None:
    texts = [
        tuple(tiny.new_tokens(run(engine, tokenizer, prompt, sampling=SAMPLED, seed=seed, max_new_tokens=20)[0]))
        for seed in (1, 2, 1, 2**64 - 1)
    ]
    assert texts[0] == texts[2]
    assert len(set(texts)) == 3


def test_an_over_long_prompt_is_refused_before_the_first_pass(tokenizer: Tokenizer) -> None:
    scripted = tiny.ScriptedEngine(tiny.says(30, after=2), limit=8)
    with pytest.raises(PromptError, match="the prompt is 8 tokens and the context holds 8"):
        next(decode(Job(scripted, tokenizer, Request(tuple(range(8)), 1))))
    assert scripted.inputs == []


def test_an_empty_prompt_is_refused() -> None:
    with pytest.raises(PromptError, match="the prompt is empty"):
        Request((), 1)


@pytest.mark.parametrize("wrong", [{"max_new_tokens": 0}, {"seed": -1}, {"seed": 2**64}, {"prefill_chunk": 0}])
def test_a_request_out_of_range_is_refused_by_name(wrong: dict[str, int]) -> None:
    with pytest.raises(ParameterError, match=f"^{next(iter(wrong))} is "):
        Request((1,), **{"seed": 1, **wrong})


@pytest.mark.parametrize(
    ("side", "token_ids"),
    [("left", (0, 7, 8, 9)), ("right", (0, 1, 2, 3)), ("middle", (0, 1, 8, 9))],
)
def test_truncation_keeps_the_start_token_and_the_side_not_cut(side: Any, token_ids: tuple[int, ...]) -> None:
    ids = tuple(range(10))
    assert truncate(ids, 4, side, keep=1) == token_ids
    assert truncate(ids, 10, side, keep=1) == ids
