"""A run of the recipe: it stops and goes on, ends when it is told to, and begins with a smaller model."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from functools import partialmethod
from pathlib import Path

import pytest
import tiny
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from tokenglass.model.torch_engine.transformer import Transformer
from tokenglass.weights.recipe.corpus import PATTERNS, REPEATS, SOURCES
from tokenglass.weights.recipe.dropout import add_dropout
from tokenglass.weights.recipe.growth import grow
from tokenglass.weights.recipe.schedule import Decay, Recipe
from tokenglass.weights.recipe.train import Training, append_log, batch, new_model, read_log, row_starts, train

SMALL = replace(tiny.CONFIG, vocab_size=4096, max_positions=1024)
RECIPE = Recipe(tokens=6 * 1024, batch_tokens=1024, micro_tokens=512, warmup_steps=2, block_sizes=(4, 32))


@pytest.fixture
def streams(monkeypatch: pytest.MonkeyPatch) -> dict[str, torch.Tensor]:
    """One random stream for every source, and a model small enough to be trained on it."""
    monkeypatch.setattr("tokenglass.weights.recipe.train.model_config", lambda: SMALL)
    stream = torch.randint(4096, (4000,), generator=torch.Generator().manual_seed(0), dtype=torch.int16)
    return {source.name: stream for source in SOURCES}


def run(streams: dict[str, torch.Tensor], recipe: Recipe, work: Path, steps: int = 99) -> list[dict[str, float]]:
    work.mkdir(exist_ok=True)
    return list(itertools.islice(train(streams, recipe, work, save_every=-1), steps))


def test_the_learning_rate_warms_up_holds_and_falls_to_zero() -> None:
    recipe = Recipe(tokens=1000 * 4096, warmup_steps=10, peak=0.5)
    rates = [recipe.learning_rate_at(step, recipe.planned_decay) for step in range(recipe.steps)]
    assert rates[:11] == pytest.approx([0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.5])
    assert set(rates[10:701]) == {0.5}
    assert rates[850] == pytest.approx(0.25)
    assert all(later < earlier for earlier, later in itertools.pairwise(rates[700:]))
    assert 0 < rates[-1] < 0.01


def test_a_longer_budget_changes_nothing_before_the_rate_falls() -> None:
    short, long = Recipe(tokens=100 * 4096), Recipe(tokens=200 * 4096)
    for step in range(short.planned_decay.start):
        for of in (Recipe.learning_rate_at, Recipe.context_at):
            assert of(short, step, short.planned_decay) == of(long, step, long.planned_decay)


def test_rows_are_short_while_the_rate_is_held_and_as_long_as_the_context_at_the_end() -> None:
    recipe = Recipe(tokens=100 * 4096)
    contexts = [recipe.context_at(step, recipe.planned_decay) for step in range(recipe.steps)]
    assert contexts == [256] * 70 + [512] * 18 + [1024] * 12


def test_rows_of_patterns_and_repeats_begin_with_a_document_and_others_anywhere() -> None:
    stream = torch.arange(20_000) % 130  # an end token, 0, and then 129 others, again and again
    firsts: dict[str, set[int]] = {source.name: set() for source in SOURCES}
    for step in range(64):
        for name, place in row_starts({source.name: stream for source in SOURCES}, RECIPE, step, 128):
            firsts[name].add(int(stream[place]))
    assert firsts[PATTERNS.name] == firsts[REPEATS.name] == {0}
    assert all(len(firsts[source.name]) > 10 for source in SOURCES if source not in (PATTERNS, REPEATS))


def test_every_second_step_teaches_both_ways() -> None:
    assert sum(Recipe(tokens=1).is_joint(step) for step in range(100)) == 50
    assert not any(Recipe(tokens=1, joint_every=0).is_joint(step) for step in range(100))


@pytest.mark.parametrize(("stop", "dropout"), [(1, 0.0), (2, 0.0), (2, 0.2), (5, 0.0)])
def test_training_that_stops_goes_on_as_if_it_had_not(
    tmp_path: Path, streams: dict[str, torch.Tensor], stop: int, dropout: float
) -> None:
    recipe = replace(RECIPE, dropout=dropout)
    whole = run(streams, recipe, tmp_path / "whole")
    assert [record["step"] for record in whole] == [*range(6)]
    assert whole[0]["loss"] == pytest.approx(math.log(4096))
    assert ["masked" in record for record in whole] == [True, False, True, False, True, False]
    # The state of a step is saved when the next is asked for: what follows computes the last step again.
    run(streams, recipe, tmp_path / "parts", stop + 1)
    for expected, actual in zip(whole[stop:], run(streams, recipe, tmp_path / "parts"), strict=True):
        for name in expected.keys() - {"seconds"}:
            assert actual[name] == pytest.approx(expected[name], rel=1e-5)


def test_an_end_that_is_announced_comes_in_so_many_steps_even_if_the_run_is_stopped_on_the_way(
    tmp_path: Path, streams: dict[str, torch.Tensor]
) -> None:
    recipe = replace(RECIPE, tokens=1000 * 1024)
    run(streams, recipe, tmp_path, 5)  # step 4 is not saved
    (tmp_path / "end").write_text("4\n")
    first = run(streams, recipe, tmp_path, 3)
    assert not (tmp_path / "end").exists()
    rest = run(streams, recipe, tmp_path)
    assert [(record["step"], record["lr"]) for record in first] == [(4, 1.0), (5, 0.75), (6, 0.5)]
    assert [(record["step"], record["lr"]) for record in rest] == [(6, 0.5), (7, 0.25)]


def test_an_end_can_be_announced_again_and_the_rate_goes_on_from_where_it_is(
    tmp_path: Path, streams: dict[str, torch.Tensor]
) -> None:
    training = Training(replace(RECIPE, tokens=1000 * 1024))
    training.step = 100
    training.announce_end(10)
    assert training.decay == Decay(100, 10, 1.0)
    training.step = 106
    training.announce_end(20)
    assert training.decay == Decay(106, 20, 0.5)


def test_an_end_announced_while_the_rate_warms_up_does_not_lower_its_peak() -> None:
    training = Training(replace(RECIPE, tokens=1000 * 1024, warmup_steps=30))
    training.announce_end(100)
    rates = [training.recipe.learning_rate_at(step, training.planned_decay) for step in range(101)]
    assert max(rates) > 0.7
    assert rates[-1] == 0


def test_a_loss_that_is_no_number_ends_the_run_and_leaves_the_state_before_it(
    tmp_path: Path, streams: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    run(streams, RECIPE, tmp_path, 3)
    state = (tmp_path / "training.pt").read_bytes()
    monkeypatch.setattr("tokenglass.weights.recipe.train.train_step", lambda *_: {"loss": math.nan})
    with pytest.raises(FloatingPointError, match="step 2"):
        run(streams, RECIPE, tmp_path)
    assert (tmp_path / "training.pt").read_bytes() == state


def test_the_log_keeps_the_later_record_of_a_step(tmp_path: Path) -> None:
    for step, loss in ((0, 3.0), (1, 2.5), (1, 2.4), (2, 2.0)):
        append_log(tmp_path, {"step": step, "loss": loss})
    assert [record["loss"] for record in read_log(tmp_path)] == [3.0, 2.4, 2.0]


def test_a_fast_run_learns_what_a_precise_one_does(tmp_path: Path, streams: dict[str, torch.Tensor]) -> None:
    precise, fast = (
        run(streams, replace(RECIPE, tokens=4 * 1024, fast=fast), tmp_path / f"{fast}") for fast in (False, True)
    )
    actual, expected = ([record["loss"] for record in records] for records in (fast, precise))
    assert actual == pytest.approx(expected, rel=5e-3)
    assert actual != expected


def test_a_compiled_run_learns_the_same(
    tmp_path: Path, streams: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The graph is captured as in earnest; the backend that would compile it, a minute's work, is left out."""
    monkeypatch.setattr(nn.Module, "compile", partialmethod(nn.Module.compile, backend="aot_eager"))
    plain, compiled = (
        run(streams, replace(RECIPE, tokens=2 * 1024, compiled=compiled), tmp_path / f"{compiled}")
        for compiled in (False, True)
    )
    assert [record["loss"] for record in compiled] == pytest.approx([record["loss"] for record in plain], rel=1e-4)


def test_dropout_leaves_out_its_share_while_a_model_trains_and_nothing_afterwards(trained_model: Transformer) -> None:
    ids = torch.arange(1, 65)[None]
    whole, rows = trained_model(ids), trained_model.model.embed_tokens(ids)
    add_dropout(trained_model, 0.25)
    assert torch.equal(trained_model(ids), whole)
    outputs: list[torch.Tensor] = []
    layers = trained_model.model.layers
    parts = [part for layer in layers for name, part in layer.named_modules() if name.endswith(("o_proj", "down_proj"))]
    assert len(parts) == 2 * len(layers)
    for part in (trained_model.model.embed_tokens, *parts):
        part.register_forward_hook(lambda _module, _arguments, output: outputs.append(output))
    trained_model.train()(ids)
    kept = [output != 0 for output in outputs]
    assert [each.float().mean().item() for each in kept] == pytest.approx([0.75] * len(kept), abs=0.05)
    torch.testing.assert_close(outputs[0][kept[0]], rows[kept[0]] / 0.75)


def test_a_run_trains_with_the_dropout_of_its_recipe(tmp_path: Path, streams: dict[str, torch.Tensor]) -> None:
    plain, dropped = (
        run(streams, replace(RECIPE, dropout=share), tmp_path / f"{share}", 3)[-1]["loss"] for share in (0.0, 0.2)
    )
    assert dropped == pytest.approx(plain, rel=0.1)
    assert dropped != plain


LARGE = replace(
    SMALL,
    hidden_size=SMALL.hidden_size * 3 // 2,
    intermediate_size=SMALL.intermediate_size + 24,
    num_heads=SMALL.num_heads * 2,
    num_kv_heads=SMALL.num_kv_heads * 2,
    layers=SMALL.layers[:1] * (SMALL.num_layers + 1),
)


@pytest.fixture
def trained_model() -> Transformer:
    torch.manual_seed(0)
    model = Transformer(replace(SMALL, layers=SMALL.layers[:1] * SMALL.num_layers)).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)
    return model


def test_a_grown_model_computes_what_the_smaller_one_did(
    trained_model: Transformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tokenglass.weights.recipe.train.model_config", lambda: LARGE)
    large, ids = new_model(1), torch.arange(60).view(2, 30)
    grow(large, trained_model.state_dict())
    with torch.inference_mode():
        torch.testing.assert_close(large(ids), trained_model(ids), rtol=1e-3, atol=1e-3)


def test_what_a_grown_model_adds_gets_gradients(trained_model: Transformer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tokenglass.weights.recipe.train.model_config", lambda: LARGE)
    large, ids = new_model(1), torch.arange(60).view(2, 30)
    grow(large, trained_model.state_dict())
    F.cross_entropy(large(ids).flatten(0, 1), ids.flatten()).backward()
    small = dict(trained_model.named_parameters())
    for name in ("model.layers.0.self_attn.o_proj.weight", "model.layers.0.mlp.down_proj.weight"):
        added = dict(large.named_parameters())[name].grad
        assert added is not None
        added[tuple(slice(size) for size in small[name].shape)] = 0
        assert added.any()


def test_a_run_begins_with_the_weights_it_is_given(tmp_path: Path, streams: dict[str, torch.Tensor]) -> None:
    torch.manual_seed(0)
    weights = {name: torch.randn_like(weight).bfloat16() * 0.1 for name, weight in new_model(1).state_dict().items()}
    save_file(weights, tmp_path / "model.safetensors")
    record = next(train(streams, RECIPE, tmp_path, start=tmp_path))
    model = new_model(1)
    model.load_state_dict(weights)
    rows = batch(streams, RECIPE, 0, 256)
    with torch.inference_mode():
        expected = F.cross_entropy(model(rows[:, :-1]).flatten(0, 1), rows[:, 1:].flatten())
    assert record["loss"] == pytest.approx(expected.item(), rel=1e-5)
