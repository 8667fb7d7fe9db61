"""Modes, samples and controls at the shell, with the bundled model."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest
import shell

PROMPT = "Once upon a time there was a fox. Once upon a time"
OPTIONS = ("-n", "24", "--seed", "5")


def generate(*arguments: str) -> subprocess.CompletedProcess[str]:
    done = shell.generate(*arguments)
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


def text(*arguments: str) -> str:
    done = generate(PROMPT, *OPTIONS, *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def records(*arguments: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text("--jsonl", *arguments).splitlines()]


@pytest.fixture(scope="module")
def plain() -> str:
    return text()


@pytest.mark.parametrize(
    "mode",
    [
        ("--mode", "jacobi", "--block-size", "4"),
        ("--mode", "speculative"),
        ("--mode", "speculative", "--draft", "parallel"),
        ("--mode", "speculative", "--draft-model", "tale"),
        ("--no-cache",),
    ],
    ids=" ".join,
)
def test_lossless_modes_write_the_autoregressive_text(mode: tuple[str, ...], plain: str) -> None:
    assert text(*mode) == plain


def test_the_records_of_a_draft_that_is_always_right_are_fewer(plain: str) -> None:
    run, *steps, _ = records("--mode", "speculative", "--draft-model", "tale", "--draft-length", "4")
    assert run["mode"]["name"] == "speculative"
    verified = [step for step in steps if step["phase"] == "verify"]
    assert len(verified) <= 6
    assert all(choice["status"] in ("accepted", "sampled") for step in verified for choice in step["choices"])
    assert "".join(step["text"] for step in steps) == plain


def test_samples_are_what_their_seeds_write_alone() -> None:
    done = generate("The fox", "-n", "12", "--seed", "5", "--num-samples", "3")
    seeds = done.stderr.strip().removeprefix("seeds ").split(", ")
    assert (len(seeds), seeds[0]) == (3, "5")
    assert done.stdout == "\n".join(generate("The fox", "-n", "12", "--seed", seed).stdout for seed in seeds)


def test_parallel_blocks_are_in_the_records() -> None:
    _, *steps, finish = records("--mode", "parallel", "--passes", "2", "--block-size", "8", "--ignore-eos")
    blocks = [step for step in steps if step["phase"] == "denoise"]
    assert [step["block"]["length"] for step in blocks] == [8] * 6
    assert [[choice["status"] for choice in step["choices"]].count("revealed") for step in blocks] == [4] * 6
    assert finish["totals"]["new_tokens"] == 24


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--mode", "jacobi", "--no-cache"), "leave out --no-cache"),
        (("--mode", "parallel", "--num-samples", "2"), "exclude each other"),
        (("--mode", "parallel", "--passes", "2", "--reveal", "1"), "expected one of"),
        (("--draft", "model", "--mode", "speculative"), "--draft-model"),
        (("--guidance", "2"), "--negative"),
        (("--negative", "A cat"), "--guidance"),
        (("--logit-bias", "fox"), "TEXT=N"),
        (("--samplers", "top-k,nothing"), "nothing"),
        (("--regex", "a", "--json"), "exclude each other"),
        (("--prefill-response", "Yes"), "--chat"),
        (("--beams", "2", "--pause"), "--pause"),
    ],
)
def test_what_cannot_be_meant_is_a_line_on_stderr(arguments: tuple[str, ...], message: str) -> None:
    done = generate("The fox", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_chain_is_shown_in_its_order() -> None:
    done = generate(
        "The fox", "-n", "1", "--seed", "1", "--show-chain", "--top-k", "9", "--samplers", "top-k,temperature"
    )
    assert [line.split()[0] for line in done.stderr.splitlines()] == ["top-k", "temperature", "top-p"]
    assert "not in samplers" in done.stderr


def test_flow_is_in_every_drawn_step_and_changes_no_text(plain: str) -> None:
    _, *steps, _ = records("--flow")
    assert "".join(step["text"] for step in steps) == plain
    drawn = [step for step in steps if step["choices"]]
    assert all({"layer", "position", "sums"} == {row["row"] for row in step["flow"]} for step in drawn)
    _, *without, _ = records()
    assert all(step["flow"] is None for step in without)
