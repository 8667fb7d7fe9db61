"""A folder is opened, then the request is built, and only then the weights are loaded."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from tokenglass.cli.app import generate_app, tokenglass_app
from tokenglass.model.engine.memory import Caches
from tokenglass.model.errors import ParameterError, PromptError, TokenglassError
from tokenglass.model.loaded_model import LoadedModel, OpenedModel
from tokenglass.model.loading import load_weights, open_model
from tokenglass.model.progress import Progress, finish


@pytest.fixture
def opened(saved_checkpoint: Path) -> OpenedModel:
    return open_model(saved_checkpoint, device="cpu", backend="torch")


def test_opening_reads_no_weights(saved_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_arrays(*_: object) -> Iterator[object]:
        raise AssertionError("weights are read")

    monkeypatch.setattr("tokenglass.model.checkpoint.weights.read_arrays", read_arrays)
    opened = open_model(saved_checkpoint, device="cpu", backend="torch")
    with pytest.raises(AssertionError, match="weights are read"):
        finish(load_weights(opened, Caches()))


def test_an_opened_model_says_what_the_loaded_one_says(opened: OpenedModel) -> None:
    loaded = finish(load_weights(opened, Caches()))
    assert isinstance(loaded, LoadedModel)
    for name in ("name", "threads", "dtype", "device", "quantize", "eos_token_ids", "turn_end_ids", "checkpoint"):
        assert getattr(loaded, name) == getattr(opened, name)
    assert (opened.limit, opened.vocab_size) == (loaded.engine.limit, loaded.engine.vocab_size)
    assert opened.nbytes == sum(info.nbytes for info in opened.checkpoint.tensors)


@pytest.mark.parametrize("quantize", ["none", "int8"])
def test_progress_grows_until_all_weights_are_there(saved_checkpoint: Path, quantize: str) -> None:
    opened = open_model(saved_checkpoint, device="cpu", backend="torch", quantize=quantize)
    steps: list[Progress] = []
    finish(load_weights(opened, Caches()), steps.append)
    assert {step.doing for step in steps} == {"loading"}
    assert {step.total for step in steps} == {steps[0].total}
    assert all(one.done < other.done for one, other in pairwise(steps))
    if quantize == "none":
        assert steps[-1].done == steps[-1].total == opened.nbytes


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("fox " * 500,), PromptError),
        (("The fox", "--logit-bias", "fox"), ParameterError),
        (("The fox", "--temperature", "0", "--num-samples", "2", "--pause"), ParameterError),
        (("The fox", "--negative", "sad"), ParameterError),
        (("The fox", "--chat"), TokenglassError),  # it has no template
        (("The fox", "--mode", "speculative", "--draft-model", "/nowhere"), TokenglassError),
    ],
    ids=lambda value: " ".join(value)[-30:] if isinstance(value, tuple) else None,
)
def test_what_cannot_be_asked_is_refused_before_the_weights_are_loaded(
    arguments: tuple[str, ...],
    error: type[TokenglassError],
    saved_checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    forbid_loading(monkeypatch)
    with pytest.raises(error):
        generate_app()(["-m", str(saved_checkpoint), *arguments], standalone_mode=False)


def test_inspect_loads_no_weights(saved_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forbid_loading(monkeypatch)
    tokenglass_app()(["inspect", str(saved_checkpoint)], standalone_mode=False)


def forbid_loading(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: object) -> Iterator[object]:
        raise AssertionError("weights are loaded")

    monkeypatch.setattr("tokenglass.model.loading.load_weights", load)
