"""The bundled model writes both ways: its mask token is trained, and its card shows what it writes in blocks."""

from __future__ import annotations

import json

import pytest
import torch

from tokenglass.model.checkpoint.store import bundled_folder, resolve
from tokenglass.model.loaded_model import LoadedModel
from tokenglass.model.loading import load_model
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
