"""The joint objective: what the halves of [clean | noised] see, and that training and decoding use the same indices."""

from __future__ import annotations

import math

import pytest
import tiny
import torch
from closeness import assert_close
from torch.nn import functional as F

from tokenglass.model.text.tokenizer import Tokenizer
from tokenglass.weights.recipe.evaluate import block_losses, held_out_rows
from tokenglass.weights.recipe.joint import JointView, all_masked, draw_noise, joint_losses, joint_mask

MASK = 1


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("length", "size"), [(8, 4), (12, 3), (6, 1), (4, 4)])
def test_the_mask_position_by_position(length: int, size: int) -> None:
    """Clean tokens see clean ones up to themselves; noised ones the clean past of their block, and their own block."""
    mask = joint_mask(length, size)
    assert mask.shape == (2 * length, 2 * length)
    for i in range(length):
        for j in range(length):
            assert mask[i, j] == (j <= i)
            assert not mask[i, length + j]
            assert mask[length + i, j] == (j < i // size * size)
            assert mask[length + i, length + j] == (j // size == i // size)


def test_each_input_moves_exactly_the_hidden_states_that_may_see_it() -> None:
    """Through all layers what is seen of what was seen stays inside the same bounds."""
    model, length, size = tiny.random_transformer(), 8, 4
    ids = torch.arange(20, 20 + 2 * length)[None]
    mask = joint_mask(length, size)
    with torch.inference_mode():
        before = model.model(ids, JointView(ids, size))[0]
        for j in range(2 * length):
            changed = ids.clone()
            changed[0, j] = 7
            after = model.model(changed, JointView(changed, size))[0]
            assert (after != before).any(dim=-1).tolist() == mask[:, j].tolist()


@pytest.mark.parametrize("size", [1, 2, 4])
def test_the_clean_half_is_the_ordinary_model_and_a_noised_block_is_what_decoding_computes(size: int) -> None:
    model, length = tiny.random_transformer(), 12
    clean = torch.randint(2, tiny.VOCAB_SIZE, (2, length), generator=generator())
    noise = draw_noise(2, length, size, generator(1))
    noised = clean.masked_fill(noise.masked, MASK)
    both = torch.cat((clean, noised), dim=1)
    with torch.inference_mode():
        logits = model.lm_head(model.model(both, JointView(both, size)))
        assert_close(logits[:, :length], model(clean))
        for start in range(0, length, size):
            inputs = torch.cat((clean[:, :start], noised[:, start : start + size]), dim=1)
            expected = model(inputs, block=size)[:, -size:]
            assert_close(logits[:, length + start : length + start + size], expected)


@pytest.mark.parametrize("size", [2, 4, 8, 32])
def test_the_first_input_of_a_block_is_known_and_what_is_hidden_is_a_target(size: int) -> None:
    noise = draw_noise(3, 64, size, generator())
    masked, unknown, weights = (x.view(-1, size) for x in (noise.masked, noise.unknown, noise.weights))
    assert not masked[:, 0].any()
    assert torch.equal(unknown[:, :-1], masked[:, 1:])  # the state at i predicts token i + 1
    assert unknown[:, -1].all()
    assert torch.equal(weights > 0, unknown)
    counts = masked.sum(dim=1)
    assert counts.min() >= 1
    expected = torch.cat((unknown[:, :-1] * ((size - 1) / counts)[:, None], torch.ones(len(counts), 1)), dim=1)
    assert torch.allclose(weights, expected)  # 1/t
    assert torch.allclose(weights.sum(dim=1), torch.tensor(float(size)))


@pytest.mark.parametrize("size", [2, 4, 8, 32])
def test_every_other_block_can_hide_its_end_with_targets_that_weigh_the_same(size: int) -> None:
    noise, at_random = (draw_noise(8, 64, size, generator(), ends=ends) for ends in (True, False))
    masked, unknown, weights = (x.view(-1, size) for x in (noise.masked, noise.unknown, noise.weights))
    counts = masked[::2].sum(dim=1, keepdim=True)
    assert torch.equal(masked[::2], torch.arange(size) >= size - counts)
    assert torch.equal(unknown[::2], torch.arange(size) >= size - 1 - counts)
    assert torch.allclose(weights[::2], unknown[::2] * size / (counts + 1))
    for hidden, expected in zip(
        (masked, unknown, weights), (at_random.masked, at_random.unknown, at_random.weights), strict=True
    ):
        assert torch.equal(hidden[1::2], expected.view(-1, size)[1::2])


def test_the_shares_of_masks_are_spread_evenly_and_places_at_random() -> None:
    noise = draw_noise(64, 64, 8, generator())
    masked = noise.masked.view(-1, 8)
    counts = masked.sum(dim=1).bincount(minlength=8)[1:]
    assert counts.tolist() == pytest.approx([512 / 7] * 7, abs=2)
    assert masked[:, 1:].float().mean(dim=0).tolist() == pytest.approx([4 / 7] * 7, abs=0.06)
    assert not torch.equal(noise.masked, draw_noise(64, 64, 8, generator(1)).masked)
    assert torch.equal(noise.masked, draw_noise(64, 64, 8, generator()).masked)


def test_the_losses_are_cross_entropies_of_shifted_targets() -> None:
    model, length, size = tiny.random_transformer(), 8, 4
    rows = torch.randint(2, tiny.VOCAB_SIZE, (2, length + 1), generator=generator())
    noise = draw_noise(2, length, size, generator(1))
    with torch.inference_mode():
        next_token, masked = joint_losses(model, rows, size, noise, MASK)
        assert next_token.item() == pytest.approx(
            F.cross_entropy(model(rows[:, :-1]).flatten(0, 1), rows[:, 1:].flatten()).item(), rel=1e-5
        )
        total = 0.0
        for row in range(2):
            for start in range(0, length, size):
                inputs = rows[row, : start + size].clone()
                inputs[start:][noise.masked[row, start : start + size]] = MASK
                logprobs = model(inputs[None], block=size)[0].log_softmax(dim=-1)
                for i in range(start, start + size):
                    if noise.unknown[row, i]:
                        total -= noise.weights[row, i].item() * logprobs[i, rows[row, i + 1]].item()
    assert masked.item() == pytest.approx(total / (2 * length), rel=1e-4)


def test_blocks_of_one_learn_the_next_token() -> None:
    """Without masks both halves are the same: the block objective ends where the ordinary one is."""
    model, length = tiny.random_transformer(), 8
    rows = torch.randint(2, tiny.VOCAB_SIZE, (2, length + 1), generator=generator())
    with torch.inference_mode():
        next_token, masked = joint_losses(model, rows, 1, all_masked(2, length, 1), MASK)
    assert masked.item() == pytest.approx(next_token.item(), rel=1e-5)


def test_a_model_that_knows_nothing_needs_the_logarithm_of_the_vocabulary_for_every_token() -> None:
    """The masked loss is an estimate per token, whatever was masked."""
    model = tiny.random_transformer()
    torch.nn.init.zeros_(model.lm_head.weight)
    rows = torch.randint(2, tiny.VOCAB_SIZE, (2, 65), generator=generator())
    for size in (2, 4, 16, 32):
        for seed in range(3):
            losses = joint_losses(model, rows, size, draw_noise(2, 64, size, generator(seed)), MASK)
            assert [loss.item() for loss in losses] == pytest.approx([math.log(tiny.VOCAB_SIZE)] * 2, rel=1e-5)


def test_held_out_rows_are_documents_one_after_the_other(tokenizer: Tokenizer) -> None:
    backend = tiny.byte_level_tokenizer()
    texts = ["The fox and the bear lived in the forest. " * 9, "A happy house. " * 9]
    rows = held_out_rows(backend, texts * 50, rows=5, length=32)
    assert rows.shape == (5, 33)
    assert tokenizer.decode(rows.flatten().tolist()).startswith(texts[0])
    few = held_out_rows(backend, texts[:1], rows=5, length=32)
    assert 1 <= len(few) < 5


def test_at_once_no_place_of_a_block_knows_another() -> None:
    model = tiny.random_transformer()
    rows = torch.randint(2, tiny.VOCAB_SIZE, (1, 9), generator=generator())
    losses = block_losses(model, rows, 8)
    inputs = torch.tensor([[rows[0, 0], *[MASK] * 7]])
    with torch.inference_mode():
        expected = F.cross_entropy(model(inputs, block=8)[0], rows[0, 1:])
    assert losses.at_once == pytest.approx(expected.item(), rel=1e-5)
    assert losses.next_token == pytest.approx(F.cross_entropy(model(rows[:, :-1])[0], rows[0, 1:]).item(), rel=1e-5)
