"""The finish of every text holds all of it: in each way of decoding, what the plain view writes."""

from __future__ import annotations

import json

import pytest
from shell import generate

RUN = ("Once upon a time", "-n", "24", "--seed", "5")


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--mode", "parallel", "--passes", "4"),
        ("--mode", "speculative"),
        ("--mode", "jacobi"),
        ("--stop", "little girl"),
        ("--ban", " little"),
        ("--heal",),
        ("--no-cache",),
    ],
    ids=lambda arguments: " ".join(arguments) or "autoregressive",
)
def test_one_text(arguments: tuple[str, ...]) -> None:
    written = generate(*RUN, *arguments).stdout.decode()
    last = json.loads(generate(*RUN, *arguments, "--jsonl").stdout.splitlines()[-1])
    assert last["record"] == "finish"
    assert last["whole_text"] == written != ""


@pytest.mark.parametrize("arguments", [("--num-samples", "3"), ("--beams", "3", "--num-samples", "3")], ids=" ".join)
def test_several_texts(arguments: tuple[str, ...]) -> None:
    written = generate(*RUN, *arguments, "--separator", "|||").stdout.decode().split("|||")
    records = [json.loads(line) for line in generate(*RUN, *arguments, "--jsonl").stdout.splitlines()]
    wholes = [record["whole_text"] for record in records if record["record"] == "finish"]
    assert sorted(wholes) == sorted(written)
    assert len({*written}) == 3
