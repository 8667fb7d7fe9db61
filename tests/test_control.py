"""Where a text ends and what it may not say: stops, bans, limits, healing."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st

from tokenglass.model.decoding.autoregressive import decode
from tokenglass.model.decoding.drafts import NgramDrafter
from tokenglass.model.decoding.healing import heal
from tokenglass.model.decoding.job import Job
from tokenglass.model.decoding.request import Request
from tokenglass.model.decoding.samples import decode_samples
from tokenglass.model.decoding.speculative import decode_jacobi, decode_speculative
from tokenglass.model.errors import ParameterError
from tokenglass.model.loading import load_model
from tokenglass.model.records.steps import Finish, Step
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
    return [step for step in steps if isinstance(step, Step)], finish


def text_of(steps: list[Step], finish: Finish) -> str:
    return "".join(step.text for step in steps) + finish.text


def standing(steps: list[Step], prompt_length: int) -> list[int]:
    """The new tokens that no rewind took back."""
    ids: list[int] = []
    for step in steps:
        if step.rewound_to is not None:
            del ids[step.rewound_to - prompt_length :]
        ids += [choice.token_id for choice in step.choices if choice.token_id is not None]
    return ids


@pytest.fixture(scope="module")
def engine(saved_checkpoint: Path) -> TorchEngine:
    return load_model(saved_checkpoint).engine


def test_a_stop_ends_the_text_before_it(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode_bare(" one two three")
    steps, finish = run(tiny.ScriptedEngine(tiny.says(*ids, EOS, after=1)), tokenizer, (5,), stops=("wo t",))
    assert (text_of(steps, finish), finish.reason) == (" one t", "stop")


def test_text_that_only_might_have_become_a_stop_comes_with_the_finish(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode_bare(" one two")
    steps, finish = run(tiny.ScriptedEngine(tiny.says(*ids, EOS, after=1)), tokenizer, (5,), stops=("two three",))
    assert (text_of(steps, finish), finish.text, finish.reason) == (" one two", "two", "eos")


def says_or(first: list[tuple[int, ...]], after: int) -> Any:
    """A script with a second and third choice at each place, each less probable than the one before."""

    def script(length: int) -> torch.Tensor:
        logits = torch.zeros(tiny.VOCAB_SIZE)
        for rank, token_id in enumerate(first[min(max(length - after, 0), len(first) - 1)]):
            logits[token_id] = 30.0 - 3 * rank
        return logits

    return script


def test_a_banned_phrase_is_taken_back_to_where_it_began(tokenizer: Tokenizer) -> None:
    a, b, c, d = (tokenizer.encode_bare(text)[0] for text in ("a", "b", "c", "d"))
    engine = tiny.ScriptedEngine(says_or([(a,), (b, d), (c,), (EOS,)], after=1))

    steps, finish = run(engine, tokenizer, (5,), bans=("bc",))

    assert text_of(steps, finish) == "adc"
    assert [step.text for step in steps] == ["a", "", "", "d", "c", ""]
    assert [step.rewound_to for step in steps] == [None, None, None, 2, None, None]
    again = steps[3].choices[0]
    assert (again.position, again.token_id) == (2, d)
    assert {c.removed_by for c in again.candidates if c.token_id == b} == {"ban"}
    assert finish.totals.new_tokens == len(standing(steps, 1)) == 4
    assert finish.totals.rewound_tokens == 2


def test_a_ban_that_leaves_nothing_ends_by_constraint(tokenizer: Tokenizer) -> None:
    a, b = (tokenizer.encode_bare(text)[0] for text in "ab")

    def script(_: int) -> torch.Tensor:
        logits = torch.full((tiny.VOCAB_SIZE,), -torch.inf)
        logits[[a, b]] = 1.0
        return logits

    steps, finish = run(tiny.ScriptedEngine(script), tokenizer, (5,), bans=("a", "b"))
    assert (text_of(steps, finish), finish.reason) == ("", "constraint")


@given(
    seed=st.integers(0, 20),
    bans=st.lists(st.sampled_from(["e", "th", " the", "fox", "o", " l", "日"]), min_size=1, max_size=3).map(tuple),
)
def test_a_banned_text_never_comes_and_the_cache_is_as_if_it_never_had(
    seed: int, bans: tuple[str, ...], engine: TorchEngine, tokenizer: Tokenizer
) -> None:
    prompt = tokenizer.encode("The fox")
    sampling = SamplingParameters(temperature=1.5, top_k=3, top_p=1)  # few borders that rounding could move
    options: dict[str, Any] = {"seed": seed, "sampling": sampling, "bans": bans, "max_new_tokens": 30}

    steps, finish = run(engine, tokenizer, prompt, **options)
    again, finish_again = run(engine, tokenizer, prompt, use_cache=False, **options)

    text = text_of(steps, finish)
    assert not any(ban in text for ban in bans)
    ids = standing(steps, len(prompt))
    expected = tokenizer.decode((*prompt, *ids)).removeprefix(tokenizer.decode(prompt))
    assert text == expected
    assert finish.totals.new_tokens == len(ids)
    assert (standing(again, len(prompt)), text_of(again, finish_again)) == (ids, text)


def test_no_end_token_comes_before_min_new_tokens(tokenizer: Tokenizer) -> None:
    steps, finish = run(
        tiny.ScriptedEngine(tiny.says(EOS, after=2)), tokenizer, (1, 2), min_new_tokens=3, max_new_tokens=9
    )
    assert (len(tiny.new_tokens(steps)), finish.reason) == (4, "eos")
    removed = [{c.removed_by for c in step.choices[0].candidates if c.token_id == EOS} for step in steps]
    assert removed == [{"min-new-tokens"}] * 3 + [{None}]


def test_ignored_end_tokens_never_come(tokenizer: Tokenizer) -> None:
    steps, finish = run(
        tiny.ScriptedEngine(tiny.says(EOS, after=2)), tokenizer, (1, 2), ignore_eos=True, max_new_tokens=9
    )
    assert (len(tiny.new_tokens(steps)), finish.reason) == (9, "length")


def test_the_time_is_looked_at_before_each_pass(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that moves a second at each look; a run looks once, a step twice."""
    clock = itertools.count()
    monkeypatch.setattr("tokenglass.model.decoding.recorder.time.perf_counter", lambda: float(next(clock)))
    steps, finish = run(tiny.ScriptedEngine(tiny.says(30, after=2)), tokenizer, (1, 2), max_seconds=5.5)
    assert (len(steps), finish.reason) == (3, "time")


@pytest.mark.parametrize(
    "options",
    [{"stops": ("",)}, {"bans": ("a", "")}, {"min_new_tokens": 9, "max_new_tokens": 3}, {"max_seconds": 0}],
)
def test_requests_that_cannot_be_meant_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ParameterError):
        Request((1,), 1, **options)


@given(cut=st.integers(1, 22), seed=st.integers(0, 5))
def test_a_healed_prompt_is_continued_by_text_that_joins_it_without_a_seam(
    cut: int, seed: int, engine: TorchEngine, tokenizer: Tokenizer
) -> None:
    prompt_text = "The little fox lived in"[:cut]
    whole = tokenizer.encode(prompt_text)
    prompt, piece = heal(tokenizer, whole)
    assert (not piece and prompt == whole) or (*prompt, whole[-1]) == whole

    steps, finish = run(
        engine, tokenizer, prompt, healed=piece, seed=seed, sampling=SamplingParameters(), max_new_tokens=8
    )

    ids = [*prompt, *tiny.new_tokens(steps)]
    assert tokenizer.decode([i for i in ids if i != EOS]) == prompt_text + text_of(steps, finish)
    if piece:
        first = steps[-1 - len(tiny.new_tokens(steps)) + 1].choices[0]
        assert first.piece.startswith(piece) or piece.startswith(first.piece)


def test_only_a_token_that_longer_ones_begin_with_is_healed(tokenizer: Tokenizer) -> None:
    prompt = tokenizer.encode("The fo")
    healed, piece = heal(tokenizer, prompt)
    assert (*healed, prompt[-1]) == prompt
    assert tokenizer.piece(prompt[-1]) == piece
    only_start = tokenizer.encode("T")[:1]
    assert heal(tokenizer, only_start) == (only_start, b"")


SPECIAL = "<|im_end|>"


@pytest.fixture(scope="module")
def special_tokenizer() -> tuple[Tokenizer, int]:
    """A tokenizer with a special token, and its id."""
    backend = tiny.byte_level_tokenizer()
    backend.add_special_tokens([SPECIAL])
    return Tokenizer(backend), backend.token_to_id(SPECIAL)


def test_a_stop_may_be_the_name_of_a_special_token(special_tokenizer: tuple[Tokenizer, int]) -> None:
    """No decoded text shows it; text that another stop may begin with comes out before it."""
    tokenizer, mark = special_tokenizer
    engine = tiny.ScriptedEngine(tiny.says(*tokenizer.encode_bare(" one two"), mark, 30, after=1))
    for stops in ((SPECIAL,), ("two three", SPECIAL)):
        steps, finish = run(engine, tokenizer, (5,), stops=stops)
        assert (text_of(steps, finish), finish.reason) == (" one two", "stop")
        assert tiny.new_tokens(steps)[-1] == mark


def test_half_a_character_before_a_special_token_is_shown_as_one_that_is_none(
    special_tokenizer: tuple[Tokenizer, int],
) -> None:
    tokenizer, mark = special_tokenizer
    half = next(token_id for token_id in range(tokenizer.vocab_size) if tokenizer.piece(token_id) == b"\xc3")
    engine = tiny.ScriptedEngine(tiny.says(*tokenizer.encode_bare(" one"), half, mark, 30, after=1))
    steps, finish = run(engine, tokenizer, (5,), stops=(SPECIAL,))
    assert (text_of(steps, finish), finish.reason) == (" one\N{REPLACEMENT CHARACTER}", "stop")


def test_the_name_of_a_special_token_that_comes_as_text_stops_too(special_tokenizer: tuple[Tokenizer, int]) -> None:
    tokenizer, _ = special_tokenizer
    spelled = [token_id for char in SPECIAL for token_id in tokenizer.encode_bare(char)]
    engine = tiny.ScriptedEngine(tiny.says(*tokenizer.encode_bare(" one"), *spelled, 30, after=1))
    steps, finish = run(engine, tokenizer, (5,), stops=(SPECIAL,))
    assert (text_of(steps, finish), finish.reason) == (" one", "stop")


@pytest.mark.parametrize("ends", [frozenset({EOS}), "the special token"], ids=str)
def test_a_ban_may_be_the_name_of_a_special_token(special_tokenizer: tuple[Tokenizer, int], ends: Any) -> None:
    """It never comes, not even where it would end the text."""
    tokenizer, mark = special_tokenizer
    a, b = (tokenizer.encode_bare(text)[0] for text in "ab")
    engine = tiny.ScriptedEngine(says_or([(a,), (mark, b), (a,)], after=1))
    eos = ends if ends == frozenset({EOS}) else frozenset({mark})
    steps, finish = run(engine, tokenizer, (5,), bans=(SPECIAL,), eos_token_ids=eos, max_new_tokens=3)
    assert (text_of(steps, finish), finish.reason) == ("aba", "length")
    assert {c.removed_by for step in steps for c in step.choices[0].candidates if c.token_id == mark} == {"ban"}


def test_ways_of_decoding_stop_at_a_special_token(engine: TorchEngine) -> None:
    """The fifth token that comes is made a special one."""
    prompt = Tokenizer(tiny.byte_level_tokenizer()).encode("The fox")
    steps, _ = run(engine, Tokenizer(tiny.byte_level_tokenizer()), prompt, max_new_tokens=5)
    *ids, mark = tiny.new_tokens(steps)
    assert mark not in ids
    backend = tiny.byte_level_tokenizer()
    name = backend.id_to_token(mark)
    backend.add_special_tokens([name])
    tokenizer = Tokenizer(backend)
    assert tokenizer.special_ids((name,)) == (mark,)

    request = Request(prompt, 1, GREEDY, stops=(name,), max_new_tokens=9)
    sharp = replace(request, sampling=SamplingParameters(temperature=1e-6))
    ways = {
        "autoregressive": decode(Job(engine, tokenizer, request)),
        "samples": decode_samples(Job(engine, tokenizer, sharp), 2),
        "speculative": decode_speculative(Job(engine, tokenizer, request, cache=engine.new_cache()), NgramDrafter(), 3),
        "jacobi": decode_jacobi(Job(engine, tokenizer, request, cache=engine.new_cache()), 4),
    }
    for way, records in ways.items():
        records_kept = list(records)
        finish = next(record for record in records_kept if isinstance(record, Finish))
        steps = [step for step in records_kept if isinstance(step, Step) and step.sequence == 0]
        text = "".join(step.text for step in steps) + finish.text
        assert (text, finish.reason) == (tokenizer.decode(ids), "stop"), way
