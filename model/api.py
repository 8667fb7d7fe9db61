"""A model and its texts in a few lines of Python; what `from tokenglass.model import load, generate` gives."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tokenglass.model.checkpoint.store import resolve
from tokenglass.model.decoding.autoregressive import decode
from tokenglass.model.decoding.job import Job
from tokenglass.model.decoding.request import Request
from tokenglass.model.loaded_model import LoadedModel
from tokenglass.model.loading import load_model
from tokenglass.model.records.steps import Record


def load(model: str = "tale", **options: Any) -> LoadedModel:
    """A model by its path or the name that `tokenglass models` gives; `options` are those of `load_model`.

    Runs on the kernels where they can be had. Raises TokenglassError.
    """
    return load_model(resolve(model), **{"backend": "auto", **options})


def generate(model: LoadedModel, prompt: str, *, seed: int = 0, **options: Any) -> Iterator[Record]:
    """The records of a text that continues the prompt, token after token: a Step per forward pass, then a Finish.

    `options` are the fields of `Request`, such as `sampling` and `max_new_tokens`. Raises TokenglassError.
    """
    fields = {"eos_token_ids": model.eos_token_ids, **options}
    request = Request(model.tokenizer.encode(prompt), seed=seed, **fields)
    yield from decode(Job.of(model, request))
