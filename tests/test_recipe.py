"""The recipe behind the bundled model: its corpus, batches, optimizer and measure."""

from __future__ import annotations

import lzma
import math
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import torch
from torch import nn

from tokenglass.model.torch_engine.transformer import Transformer
from tokenglass.weights.recipe.corpus import (
    END_OF_TEXT,
    HELD_OUT_ONE_IN,
    SOURCES,
    Source,
    documents,
    held_out_documents,
    is_held_out,
    training_documents,
)
from tokenglass.weights.recipe.evaluate import bits_per_byte
from tokenglass.weights.recipe.optimizer import Muon, orthogonalise
from tokenglass.weights.recipe.schedule import Recipe
from tokenglass.weights.recipe.train import batch, new_model, row_starts

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


def test_batches_have_as_many_tokens_whatever_their_context() -> None:
    recipe = Recipe(tokens=100 * 4096)
    streams = {source.name: torch.arange(5000) for source in SOURCES}
    for context in (256, 512, 1024):
        rows = batch(streams, recipe, 7, context)
        assert rows.shape == (4096 // context, context + 1)
        assert torch.equal(rows[:, 1:], rows[:, :-1] + 1)  # each row is one stretch of a stream


def test_a_batch_is_a_function_of_its_step_and_two_mix_the_sources_by_their_rows() -> None:
    recipe = Recipe(tokens=100 * 4096)
    marks = {source.name: torch.full((3000,), number) for number, source in enumerate(SOURCES)}
    firsts = torch.cat([batch(marks, recipe, step, 256)[:, 0] for step in (6, 7)])
    assert firsts.bincount().tolist() == [source.rows for source in SOURCES]
    stream = {source.name: torch.arange(100_000) for source in SOURCES}
    again = [
        batch(stream, changed, step, 256) for changed, step in ((recipe, 5), (recipe, 6), (replace(recipe, seed=2), 5))
    ]
    assert torch.equal(batch(stream, recipe, 5, 256), again[0])
    assert not torch.equal(again[0], again[1])
    assert not torch.equal(again[0], again[2])


def test_very_simple_text_is_at_least_half_of_what_is_read() -> None:
    rows = {source.name: source.rows for source in SOURCES}
    assert sum(rows.values()) == 32
    assert rows["stories-tiny"] + rows["stories-tiny-more"] >= 16


def test_batches_reach_all_of_a_stream() -> None:
    stream = torch.arange(60_000) % 130  # an end token, 0, and then 129 others, again and again
    streams = {source.name: stream for source in SOURCES}
    recipe = Recipe(tokens=100 * 4096)
    starts = torch.tensor([place for step in range(100) for _, place in row_starts(streams, recipe, step, 256)])
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
    model = Transformer(replace(tiny.CONFIG, eos_token_ids=(0,))).eval()
    nn.init.zeros_(model.lm_head.weight)
    tokenizer = tiny.byte_level_tokenizer()
    texts = ["The fox lived in the forest. " * 150, "Füße", "x"]
    tokens = sum(len(tokenizer.encode(text).ids) for text in texts)  # the start token in, as the end token is counted
    assert tokens > 3 * tiny.CONFIG.max_positions
    expected = tokens * math.log2(tiny.VOCAB_SIZE) / sum(len(text.encode()) for text in texts)
    assert bits_per_byte(model, tokenizer, texts, stride) == pytest.approx(expected)
