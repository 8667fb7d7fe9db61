"""The recipe behind the bundled model: its pure parts, and a run that stops and goes on."""

from __future__ import annotations

import dataclasses
import itertools
import lzma
import math
from functools import partialmethod
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from model.transformer import Transformer
from weights.recipe.corpus import (
    END_OF_TEXT,
    HELD_OUT_ONE_IN,
    SOURCES,
    Source,
    documents,
    held_out_documents,
    is_held_out,
    training_documents,
)
from weights.recipe.evaluate import bits_per_byte
from weights.recipe.optimizer import Muon, orthogonalise
from weights.recipe.train import Recipe, batch, joint_recipe, new_model, train

TEXTS = [f"Story {number}.\nThe fox met {number} bears.\n\nThe end." for number in range(1000)]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    with lzma.open(tmp_path / "tales.txt.xz", "wt", encoding="utf-8") as file:
        file.write("".join(f"{text}\n{END_OF_TEXT}\n" for text in [*TEXTS, "", "  "]))
    return tmp_path


def test_documents_are_read_whole_and_empty_ones_left_out(corpus: Path) -> None:
    assert list(documents(corpus, Source("tales", rows=1))) == TEXTS


def test_reading_stops_at_the_document_that_passes_the_bound(corpus: Path) -> None:
    first = list(documents(corpus, Source("tales", rows=1, max_bytes=200)))
    assert first == TEXTS[: len(first)]
    assert 200 <= sum(len(f"{text}\n{END_OF_TEXT}\n") for text in first) < 300


def test_no_document_is_both_trained_on_and_held_out(corpus: Path) -> None:
    source = Source("tales", rows=1)
    training, held_out = list(training_documents(corpus, source)), list(held_out_documents(corpus, source))
    assert sorted(training + held_out) == sorted(TEXTS)
    assert not set(training) & set(held_out)
    assert len(TEXTS) / HELD_OUT_ONE_IN / 2 < len(held_out) < len(TEXTS) / HELD_OUT_ONE_IN * 2


def test_what_is_held_out_depends_on_the_text_alone() -> None:
    assert [number for number in range(200) if is_held_out(str(number))] == [57, 193]


def test_the_learning_rate_warms_up_holds_and_falls_to_zero() -> None:
    recipe = Recipe(tokens=1000 * 8192)
    rates = [recipe.learning_rate_at(step) for step in range(recipe.steps)]
    assert rates[:11] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1, 1])
    assert set(rates[10:550]) == {1.0}
    assert rates[775] == pytest.approx(0.5)
    assert all(later < earlier for earlier, later in itertools.pairwise(rates[551:]))
    assert 0 < rates[-1] < 0.01


def test_the_context_grows_and_every_batch_has_as_many_tokens() -> None:
    recipe = Recipe(tokens=100 * 8192)
    contexts = [recipe.context_at(step) for step in range(recipe.steps)]
    assert contexts == sorted(contexts)
    assert set(contexts) == {256, 512, 1024}
    streams = {source.name: torch.arange(5000) for source in SOURCES}
    for step in (0, 59, 60, 87, 88, 99):
        rows = batch(streams, recipe, step)
        assert rows.shape == (8192 // contexts[step], contexts[step] + 1)
        assert torch.equal(rows[:, 1:], rows[:, :-1] + 1)  # each row is one stretch of a stream


def test_a_batch_is_a_function_of_its_step_and_mixes_the_sources_by_their_rows() -> None:
    recipe = Recipe(tokens=100 * 8192)
    marks = {source.name: torch.full((3000,), number) for number, source in enumerate(SOURCES)}
    rows = batch(marks, recipe, 5)
    assert rows[:, 0].bincount().tolist() == [source.rows for source in SOURCES]
    stream = {source.name: torch.arange(100_000) for source in SOURCES}
    assert torch.equal(batch(stream, recipe, 5), batch(stream, recipe, 5))
    assert not torch.equal(batch(stream, recipe, 5), batch(stream, recipe, 6))
    assert not torch.equal(batch(stream, recipe, 5), batch(stream, dataclasses.replace(recipe, seed=2), 5))


def test_batches_reach_all_of_a_stream() -> None:
    streams = {source.name: torch.arange(60_000) for source in SOURCES}
    starts = torch.cat([batch(streams, Recipe(tokens=100 * 8192), step)[:, 0] for step in range(50)])
    assert (torch.histc(starts.float(), 20, 0, 60_000) > 0.7 * len(starts) / 20).all()


@pytest.mark.parametrize("shape", [(3, 24, 24), (2, 16, 40), (2, 40, 16)])
def test_orthogonalising_keeps_directions_and_brings_singular_values_near_one(shape: tuple[int, int, int]) -> None:
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    left, _, right = torch.linalg.svd(matrices, full_matrices=False)
    inside = left.mT @ orthogonalise(matrices) @ right.mT
    values = inside.diagonal(dim1=-2, dim2=-1)
    torch.testing.assert_close(inside, torch.diag_embed(values), rtol=0, atol=1e-3)
    large = torch.linalg.svdvals(matrices) > 0.05 * torch.linalg.matrix_norm(matrices)[:, None]
    assert ((values[large] > 0.6) & (values[large] < 1.3)).all()


def test_muon_moves_every_matrix_by_the_same_amount_whatever_the_size_of_its_gradient() -> None:
    torch.manual_seed(0)
    matrices = [nn.Parameter(torch.zeros(24, 24)) for _ in range(2)]
    for matrix, size in zip(matrices, (1e-3, 1e3), strict=True):
        matrix.grad = torch.randn(24, 24) * size
    Muon(matrices, lr=0.5).step()
    for matrix in matrices:
        assert matrix.norm().item() == pytest.approx(0.5 * math.sqrt(24), rel=0.2)
        assert (matrix * matrix.grad).sum() < 0  # downhill


def test_a_new_model_knows_nothing() -> None:
    assert torch.equal(new_model(1)(torch.tensor([[1, 2, 3]])), torch.zeros(1, 3, 4096))


@pytest.mark.parametrize("stride", [100, 256])
def test_bits_per_byte_counts_every_token_of_a_long_document_once(stride: int) -> None:
    """A model that knows nothing needs log2(vocabulary) bits for each token; the document is three contexts long."""
    model = Transformer(dataclasses.replace(tiny.CONFIG, eos_token_ids=(0,))).eval()
    nn.init.zeros_(model.lm_head.weight)
    tokenizer = tiny.byte_level_tokenizer()
    texts = ["The fox lived in the forest. " * 150, "Füße", "x"]
    tokens = sum(len(tokenizer.encode(text).ids) for text in texts)  # the start token in, as the end token is counted
    assert tokens > 3 * tiny.CONFIG.max_positions
    expected = tokens * math.log2(tiny.VOCAB_SIZE) / sum(len(text.encode()) for text in texts)
    assert bits_per_byte(model, tokenizer, texts, stride) == pytest.approx(expected)


@pytest.fixture
def streams(monkeypatch: pytest.MonkeyPatch) -> dict[str, torch.Tensor]:
    """One random stream for every source, and a model small enough to be trained on it."""
    small = dataclasses.replace(tiny.CONFIG, vocab_size=4096, max_positions=1024)
    monkeypatch.setattr("weights.recipe.train.model_config", lambda: small)
    stream = torch.randint(4096, (4000,), generator=torch.Generator().manual_seed(0), dtype=torch.int16)
    return {source.name: stream for source in SOURCES}


@pytest.mark.parametrize("block_sizes", [(), (4, 32)], ids=["next token", "joint"])
def test_training_that_stops_goes_on_as_if_it_had_not(
    tmp_path: Path, streams: dict[str, torch.Tensor], block_sizes: tuple[int, ...]
) -> None:
    recipe = Recipe(tokens=3 * 512, batch_tokens=512, micro_tokens=256, block_sizes=block_sizes)

    def records(name: str, steps: int) -> list[dict[str, Any]]:
        run = train(streams, recipe, tmp_path / name, save_every=-1)
        return [record for _, record in zip(range(steps), run, strict=False)]

    whole = records("whole", 3)
    assert whole[0]["loss"] == pytest.approx(math.log(4096))
    assert ("masked" in whole[0]) == bool(block_sizes)
    # The state of a step is saved when the next is asked for: the second run computes its step 1 again.
    parts = [*records("parts", 2), *records("parts", 3)]
    for name in ("loss", "masked", "block"):
        expected = [record.get(name, 0) for record in (whole[0], whole[1], whole[1], whole[2])]
        assert [record.get(name, 0) for record in parts] == pytest.approx(expected, rel=1e-5)


def test_a_joint_run_goes_on_from_the_weights_it_is_given(tmp_path: Path, streams: dict[str, torch.Tensor]) -> None:
    torch.manual_seed(0)
    given = {name: torch.randn_like(weight).bfloat16() * 0.1 for name, weight in new_model(1).state_dict().items()}
    save_file(given, tmp_path / "model.safetensors")
    recipe = dataclasses.replace(joint_recipe(512, 1), batch_tokens=512, peak=0.0, fast=False)
    record = next(train(streams, recipe, tmp_path / "state.pt", start=tmp_path, save_every=-1))
    assert record["block"] in (4, 8, 16, 32)
    model = new_model(1)
    model.load_state_dict(given)
    rows = batch(streams, recipe, 0)
    with torch.inference_mode():
        expected = F.cross_entropy(model(rows[:, :-1]).flatten(0, 1), rows[:, 1:].flatten())
    assert record["loss"] == pytest.approx(expected.item(), rel=1e-5)


def test_a_fast_run_learns_what_a_precise_one_does(
    tmp_path: Path, streams: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The graph is captured as in earnest; the backend that would compile it, a minute's work, is left out."""
    monkeypatch.setattr(nn.Module, "compile", partialmethod(nn.Module.compile, backend="aot_eager"))
    recipe = Recipe(tokens=2 * 512, batch_tokens=512, micro_tokens=256, block_sizes=(4, 32))
    precise, fast = (
        list(train(streams, dataclasses.replace(recipe, fast=fast), tmp_path / f"{fast}.pt")) for fast in (False, True)
    )
    for name in ("loss", "masked"):
        found, expected = ([record[name] for record in run] for run in (fast, precise))
        assert found == pytest.approx(expected, rel=2e-3)
        assert found != expected


def test_the_joint_rate_falls_from_a_share_of_the_full_one() -> None:
    recipe = joint_recipe(1000 * 4096, 1)
    rates = [recipe.learning_rate_at(step) for step in range(recipe.steps)]
    assert max(rates) == pytest.approx(recipe.peak)
    assert all(later < earlier for earlier, later in itertools.pairwise(rates[101:]))
    assert 0 < rates[-1] < 0.01
