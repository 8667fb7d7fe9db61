"""What other settings would have drawn, told from a trace: a real run with them is the oracle."""

from __future__ import annotations

import dataclasses
import json
import random
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shell
from hypothesis import given, settings
from hypothesis import strategies as st
from test_replay import BLOCKED

from tokenglass.model.api import generate, load
from tokenglass.model.decoding.modes import ModeSettings
from tokenglass.model.decoding.request import Request
from tokenglass.model.errors import ParameterError
from tokenglass.model.loaded_model import LoadedModel
from tokenglass.model.records.steps import Choice, Record, Step
from tokenglass.model.runs.playback import Texts
from tokenglass.model.runs.run import Run, Search
from tokenglass.model.runs.trace import from_line, to_line
from tokenglass.model.runs.unseen import Unseen
from tokenglass.model.runs.what_if import WhatIf, what_if
from tokenglass.model.sampling.parameters import SamplingParameters

PROMPTS = ("Once upon a time", "The fox", "One day, a girl named Lily", "Tom and his dog went")
TOKENS = 24


@cache
def tale() -> LoadedModel:
    return load("tale", threads=1)


def keep_run(prompt: str, top: int = 64, mode: str = "autoregressive", **fields: Any) -> tuple[Run, list[Record]]:
    """A real run as a trace has it."""
    model = tale()
    options = {"max_new_tokens": TOKENS, "top": top, "eos_token_ids": model.eos_token_ids, **fields}
    records = list(generate(model, prompt, **options))
    request = Request(model.tokenizer.encode(prompt), **options)
    run = Run("tale", "", "", prompt, request, mode=ModeSettings(mode))
    copies = [from_line(to_line(record)) for record in (run, *records)]
    assert isinstance(copies[0], Run)
    return copies[0], [record for record in copies[1:] if not isinstance(record, Run)]


def tokens_of(records: Sequence[Record]) -> list[Choice]:
    texts = Texts()
    for record in records:
        if isinstance(record, Step):
            texts.add(record)
    return texts.choices[0]


def some_settings(rng: random.Random) -> dict[str, float]:
    """What users set: a temperature, and often something that truncates."""
    values: dict[str, float] = {"temperature": rng.choice([0, 0.3, 0.7, 0.8, 1.0, 1.1, 1.2, 1.4])}
    values["top_p"] = rng.choice([1.0, 0.98, 0.95, 0.9, 0.5])
    values["top_k"] = rng.choice([0, 0, 5, 40, 50])
    values["min_p"] = rng.choice([0.0, 0.0, 0.0, 0.05, 0.2])
    if rng.random() < 0.2:
        values |= {"xtc_probability": 0.5, "xtc_threshold": 0.1}
    return values


def check_against_a_rerun(prompt: str, seed: int, new: dict[str, Any], **fields: Any) -> bool:
    """Whether there is an answer, which is then the right one."""
    run, records = keep_run(prompt, seed=seed, **fields)
    sampling = run.request.sampling.replace(**new)
    (answer,) = what_if(run, records, sampling)
    before = [choice.token_id for choice in tokens_of(records)]
    real = tokens_of(list(generate(tale(), prompt, seed=seed, **{**fields_of(run), "sampling": sampling})))
    after = [choice.token_id for choice in real]
    assert after[: answer.same_tokens] == before[: answer.same_tokens]
    if answer.choice is None:
        assert after == before
    elif answer.instead is not None:
        assert answer.probs is not None
        assert before[answer.same_tokens] == answer.choice.token_id != answer.instead.token_id
        assert after[answer.same_tokens] == answer.instead.token_id
        prob = real[answer.same_tokens].prob
        assert prob is not None
        assert answer.probs[0] * (1 - 1e-6) <= prob <= answer.probs[1] * (1 + 1e-6) or prob == pytest.approx(
            answer.probs[0]
        )
    return answer.choice is None or answer.instead is not None


def fields_of(run: Run) -> dict[str, Any]:
    return {
        field.name: getattr(run.request, field.name)
        for field in dataclasses.fields(run.request)
        if field.name not in ("prompt_ids", "seed")
    }


@pytest.mark.slow
def test_a_hundred_pairs_of_settings_agree_with_a_real_rerun_and_at_least_ninety_are_answered() -> None:
    rng = random.Random(1)
    answers = []
    for number in range(100):
        old, new = some_settings(rng), some_settings(rng)
        answers.append(
            check_against_a_rerun(PROMPTS[number % 4], rng.randrange(2**32), new, sampling=SamplingParameters(**old))
        )
    assert sum(answers) >= 90


@pytest.mark.slow
@pytest.mark.parametrize(
    "fields",
    [
        {"sampling": {"repetition_penalty": 1.3}},
        {"sampling": {"presence_penalty": 0.5, "frequency_penalty": 0.2}},
        {"sampling": {"no_repeat_ngram_size": 2, "dry_multiplier": 0.8}},
        {"bans": (" was", " and"), "sampling": {}},
        {"min_new_tokens": 20, "sampling": {}},
        {"ignore_eos": True, "stops": ("the",), "sampling": {}},
    ],
)
def test_what_moved_single_tokens_stays_as_it_was(fields: dict[str, Any]) -> None:
    rng = random.Random(2)
    answers = []
    for number in range(16):
        sampling = SamplingParameters(temperature=0.9, **fields["sampling"])
        new = {"temperature": rng.choice([0, 0.6, 0.8, 1.0]), "top_p": rng.choice([0.7, 0.9])}
        answers.append(check_against_a_rerun(PROMPTS[number % 4], number, new, **{**fields, "sampling": sampling}))
    assert sum(answers) >= 4


def test_a_token_that_was_drawn_and_taken_back_is_not_told_as_one_of_the_text() -> None:
    """The first token that comes freely is banned: a run draws it, takes it back, and draws again."""
    answers = []
    for number in range(12):
        prompt, sampling = PROMPTS[number % 4], SamplingParameters(temperature=0.9)
        _, free = keep_run(prompt, seed=number, sampling=sampling)
        bans = tuple(choice.piece.decode() for choice in tokens_of(free)[:2])
        new = {"temperature": (0.5, 0.7, 1.1)[number % 3]}
        answers.append(check_against_a_rerun(prompt, number, new, bans=bans, sampling=sampling))
    assert sum(answers) >= 4


def test_the_same_settings_give_the_same_text() -> None:
    run, records = keep_run(PROMPTS[0], top=200, seed=3, sampling=SamplingParameters(temperature=0.8, top_p=0.9))
    (answer,) = what_if(run, records, run.request.sampling)
    assert answer == WhatIf(0, TOKENS)


def test_each_sample_is_asked_with_its_own_seed() -> None:
    one, first = keep_run(PROMPTS[0], seed=3, sampling=SamplingParameters(temperature=0.8))
    _, second = keep_run(PROMPTS[0], seed=4, sampling=SamplingParameters(temperature=0.8))
    both = dataclasses.replace(one, search=Search(2, (3, 4)))
    shifted = [dataclasses.replace(record, sequence=1) for record in second]
    new = one.request.sampling.replace(temperature=0.5)
    alone = [
        next(iter(what_if(dataclasses.replace(one, request=dataclasses.replace(one.request, seed=seed)), records, new)))
        for seed, records in ((3, first), (4, second))
    ]
    together = {answer.sequence: answer for answer in what_if(both, [*first, *shifted], new)}
    assert [dataclasses.replace(together[number], sequence=0) for number in (0, 1)] == alone


def test_what_a_trace_does_not_tell_is_said() -> None:
    run, records = keep_run(PROMPTS[0], top=1, seed=3, sampling=SamplingParameters(temperature=1.0, top_p=1.0))
    (answer,) = what_if(run, records, run.request.sampling.replace(temperature=2.0))
    assert answer.choice is not None
    assert answer.instead is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"search": Search(beams=2)}, "beams"),
        ({"mode": ModeSettings("parallel")}, "parallel"),
        ({"typical_p": 0.5}, "typical-p looks at every token"),
        ({"top_n_sigma": 1.0}, "top-n-sigma"),
        ({"repetition_penalty": 0.5}, "favours"),
        ({"logit_bias": (((5,), 2.0),)}, "favours"),
        ({"samplers": ("top-p", "temperature")}, "--samplers"),
    ],
)
def test_a_run_that_a_trace_does_not_tell_enough_of_is_refused(changes: dict[str, Any], words: str) -> None:
    run = Run("tale", "", "", "", Request((1,), 1))
    is_run = "search" in changes or "mode" in changes
    run, sampling = (
        (dataclasses.replace(run, **changes), SamplingParameters()) if is_run else (run, SamplingParameters(**changes))
    )
    with pytest.raises(ParameterError, match=words):
        list(what_if(run, [], sampling))


@settings(max_examples=200)
@given(st.integers(0, 2**32), st.integers(2, 5000), st.floats(0.3, 8), st.sampled_from([0.1, 0.5, 0.9, 1, 1.2, 2, 9]))
def test_what_is_not_named_weighs_between_its_bounds(seed: int, size: int, spread: float, temperature: float) -> None:
    logits = np.random.default_rng(seed).normal(size=size) * spread
    probs = np.sort(np.exp(logits - logits.max()))[::-1]
    probs /= probs.sum()
    named = 1 + seed % (size - 1)
    logs = np.log(np.maximum(probs, 1e-300))
    unseen = Unseen(1 - probs[:named].sum(), -(probs * logs)[named:].sum(), float(logs[named - 1]))
    least, most = unseen.count(temperature)
    real = float(((probs[named:] / probs[named - 1]) ** (1 / temperature)).sum())
    assert least <= real * (1 + 1e-6) + 1e-9
    assert real <= most * (1 + 1e-6) + 1e-9
    if temperature == 1:
        assert most == pytest.approx(least, rel=1e-3, abs=1e-6 / probs[named - 1])


def test_replay_tells_it_in_words_and_in_json_and_writes_the_text(tmp_path: Path) -> None:
    for seed in range(5, 15):  # until one is answered
        path = tmp_path / f"{seed}.jsonl"
        arguments = ("The fox", "-n", "30", "--seed", str(seed), "--threads", "1")
        assert shell.generate(*arguments, "--trace", str(path), "--trace-top", "64").returncode == 0
        facts = json.loads(shell.tokenglass("replay", str(path), "--temperature", "0.7", "--jsonl").stdout)
        if facts["is_answered"] and facts["instead"] is not None:
            break
    done = shell.tokenglass("replay", str(path), "--temperature", "0.7")
    real = shell.generate(*arguments, "--temperature", "0.7").stdout
    assert shell.tokenglass("replay", str(path), "--temperature", "0.7", "--continue").stdout == real
    assert facts["is_answered"]
    assert f"{facts['same_tokens']} tokens stay the same" in done.stdout.decode()
    assert " instead of " in done.stdout.decode()
    assert facts["instead"]["piece"] in real.decode()
    same = shell.tokenglass("replay", str(path), "--top-p", "0.95")
    assert same.stdout == b"the same text, all 30 tokens\n"
    open_ = shell.tokenglass("replay", str(path), "--temperature", "9", "--top-p", "1").stdout.decode()
    assert "does not tell" in open_
    assert "--trace-top" in open_
    shell.assert_one_line_error(shell.tokenglass("replay", str(path), "--temperature", "-1"), 2, "--temperature")
    shell.assert_one_line_error(
        shell.tokenglass("replay", str(path), "--continue", "-m", str(tmp_path / "no")), 1, "no"
    )


def test_what_if_imports_no_engine(tmp_path: Path) -> None:
    path = tmp_path / "run"
    shell.generate("The fox", "-n", "5", "--trace", str(path))
    command = [shell.SCRIPTS / "python", "-c", BLOCKED, "replay", str(path), "--temperature", "0.5"]
    done = subprocess.run(command, capture_output=True, check=False, stdin=subprocess.DEVNULL, env=shell.ENVIRONMENT)
    assert done.returncode == 0, done.stderr.decode()
