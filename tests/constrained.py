"""Runs of small models under a constraint."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import tiny
import torch

from tokenglass.model.decoding.autoregressive import decode
from tokenglass.model.decoding.job import Job
from tokenglass.model.decoding.request import Request
from tokenglass.model.records.steps import Choice, Finish, Step
from tokenglass.model.sampling.constraints import Constraint, ConstraintState
from tokenglass.model.sampling.parameters import SamplingParameters
from tokenglass.model.text.tokenizer import Tokenizer

KINDS: dict[str, tuple[Callable[[], Any], frozenset[int]]] = {
    "byte level": (tiny.byte_level_tokenizer, frozenset({0})),
    "byte fallback": (tiny.byte_fallback_tokenizer, frozenset({2})),
    "metaspace": (tiny.metaspace_tokenizer, frozenset({2, 0})),
}
EVERYTHING = ("byte level", "byte fallback")  # those that can write any text
PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 6}, "age": {"type": "integer", "minimum": 0, "maximum": 99}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


@functools.cache
def tokenizer_of(kind: str) -> Tokenizer:
    return Tokenizer(KINDS[kind][0]())


def schema(content: Any) -> Constraint:
    return Constraint("json-schema", (json.dumps(content),))


def begin(constraint: Constraint, kind: str = "byte level") -> ConstraintState:
    return constraint.begin(tokenizer_of(kind), KINDS[kind][1])


@dataclass(frozen=True)
class Ran:
    text: str
    reason: str
    steps: tuple[Step, ...]

    @property
    def choices(self) -> list[Choice]:
        return [choice for step in self.steps for choice in step.choices]


def run(
    constraint: Constraint,
    seed: int = 0,
    *,
    kind: str = "byte level",
    script: Callable[[int], torch.Tensor] | None = None,
    sampling: SamplingParameters | None = None,
    **options: Any,
) -> Ran:
    """A run of a model with random logits, or with those of a script."""
    tokenizer, eos_token_ids = tokenizer_of(kind), KINDS[kind][1]

    def noise(length: int) -> torch.Tensor:
        return 3 * torch.randn(tokenizer.vocab_size, generator=torch.Generator().manual_seed(1000 * seed + length))

    prompt_ids = tokenizer.encode("The fox said")
    request = Request(
        prompt_ids,
        seed=seed,
        sampling=sampling or SamplingParameters(temperature=1, top_p=1),
        eos_token_ids=eos_token_ids,
        constraint=constraint,
        **{"max_new_tokens": 200, **options},
    )
    engine = tiny.ScriptedEngine(script or noise, limit=600)
    records = list(decode(Job(engine, tokenizer, request)))
    (finish,) = [record for record in records if isinstance(record, Finish)]
    steps = tuple(record for record in records if isinstance(record, Step))
    return Ran("".join(record.text for record in records), finish.reason, steps)
