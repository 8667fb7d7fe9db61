"""The bundled model writes both ways: its mask token is trained, and its card shows what it writes in blocks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from tokenglass.model.checkpoint.store import bundled_folder, resolve
from tokenglass.model.decoding.job import Job
from tokenglass.model.decoding.parallel import decode_parallel
from tokenglass.model.decoding.request import Request
from tokenglass.model.decoding.reveal import ParallelParameters
from tokenglass.model.loaded_model import LoadedModel
from tokenglass.model.loading import load_model
from tokenglass.model.records.steps import Choice, Step
from tokenglass.model.sampling.raw import DrawRequest, TokenDraw
from tokenglass.model.sampling.sampler import Keep
from tokenglass.weights.recipe.card import RULES, sample
from tokenglass.weights.recipe.evaluate import block_losses
from tokenglass.weights.recipe.export import read_model
from tokenglass.weights.recipe.joint import all_masked, joint_losses
from tokenglass.weights.recipe.vocabulary import MASK_ID

STORY = """Once upon a time there was a little girl named Lily. She loved to play outside in the park with her friends.
One day, she saw a big red ball under a tree. She ran to it and picked it up. Her mom said, "Lily, whose ball is it?"
Lily looked around and saw a little boy. He was sad because he had lost his ball. "Is it your ball?" she asked. The boy
smiled and said, "Yes, thank you!" They played with the ball all day and were very happy."""


@pytest.fixture(scope="module")
def tale() -> LoadedModel:
    return load_model(resolve("tale"))


@pytest.fixture(scope="module")
def rows(tale: LoadedModel) -> torch.Tensor:
    return torch.tensor([tale.tokenizer.encode(STORY)[:97]])


def test_the_config_names_the_token_that_was_trained() -> None:
    assert json.loads((bundled_folder() / "config.json").read_text())["mask_token_id"] == MASK_ID


@pytest.mark.parametrize("size", [4, 8, 16, 32])
def test_the_mask_token_tells_more_than_another_token_in_its_place(rows: torch.Tensor, size: int) -> None:
    model, noise = read_model(bundled_folder()), all_masked(1, 96, size)
    with torch.inference_mode():
        losses = [joint_losses(model, rows, size, noise, token_id)[1].item() for token_id in (MASK_ID, 2, 300, 2000)]
    assert losses[0] < min(losses[1:]) - 0.1


@pytest.mark.parametrize("size", [4, 8, 16, 32])
def test_knowing_the_tokens_before_tells_more_than_knowing_some_and_that_more_than_none(
    rows: torch.Tensor, size: int
) -> None:
    losses = block_losses(read_model(bundled_folder()), rows, size)
    assert losses.next_token < losses.any_order < losses.at_once


@pytest.mark.parametrize("seed", [1, 6, 11])
def test_the_samples_of_the_card_are_what_the_program_writes_in_blocks(tale: LoadedModel, seed: int) -> None:
    """Their beginnings: later, another processor's rounding may have drawn another token."""
    card = (bundled_folder() / "README.md").read_text()
    parallel = card[card.index("samples in parallel, unedited") :]
    assert f"{seed}. {sample(tale, seed, RULES[(seed - 1) // 5])[:80]}" in parallel


@pytest.mark.parametrize("options", [{}, {"ignore_eos": True}, {"min_new_tokens": 20}, {"top": 5}])
def test_the_places_of_a_pass_are_drawn_in_one_step_as_one_by_one(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    tale = load_model(resolve("tale"), backend="native", device="cpu")
    counts, draw_each = [], tale.engine.draw_each

    def count(requests: Sequence[DrawRequest]) -> list[TokenDraw | None]:
        counts.append(len(requests))
        return draw_each(requests)

    def revealed(keep: Keep | None) -> list[Choice]:
        request = Request(tale.tokenizer.encode("Once upon a time"), 7, max_new_tokens=32, **options)
        job = Job(tale.engine, tale.tokenizer, request, mask_id=MASK_ID, keep=keep)
        records = decode_parallel(job, ParallelParameters(passes=2))
        return [each for step in records if isinstance(step, Step) for each in step.choices]

    monkeypatch.setattr(tale.engine, "draw_each", count)
    together = revealed(None)
    assert 8 in counts
    assert together == revealed(lambda *_: None)  # which has each chosen by itself
