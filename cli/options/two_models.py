"""Options about two models that read the same text."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

import typer

from tokenglass.cli.options.model import (
    PANEL,
    Backend,
    CacheDtype,
    Dtype,
    ModelOptions,
    ModelOrServer,
    Quantize,
)

Lora = Annotated[
    list[str] | None,
    typer.Option(
        "--lora",
        metavar="DIR[=SCALE]",
        help="A LoRA adapter of the second model; repeat for more. The first is without.",
        rich_help_panel=PANEL,
    ),
]
Against = Annotated[
    str | None,
    typer.Option("--against", metavar="MODEL", help="The second model; else the same.", rich_help_panel=PANEL),
]
AgainstDtype = Annotated[Dtype, typer.Option("--against-dtype", help="Of the second model.", rich_help_panel=PANEL)]
AgainstQuantize = Annotated[
    Quantize, typer.Option("--against-quantize", help="Of the second model.", rich_help_panel=PANEL)
]
AgainstBackend = Annotated[
    Backend, typer.Option("--against-backend", help="Of the second model.", rich_help_panel=PANEL)
]
AgainstCacheDtype = Annotated[
    CacheDtype, typer.Option("--against-cache-dtype", help="Of the second model.", rich_help_panel=PANEL)
]


@dataclass(frozen=True, slots=True)
class FirstModelOptions(ModelOptions):
    """`lora` is of the second."""

    model: ModelOrServer = None
    lora: Lora = None


@dataclass(frozen=True, slots=True)
class SecondModelOptions:
    """What is another in the second model."""

    against: Against = None
    against_dtype: AgainstDtype = Dtype.auto
    against_quantize: AgainstQuantize = Quantize.none
    against_backend: AgainstBackend = Backend.auto
    against_cache_dtype: AgainstCacheDtype = CacheDtype.auto


def two_models(model: FirstModelOptions, against: SecondModelOptions) -> tuple[ModelOptions, ModelOptions]:
    """The first and the second. Where adapters are all that is another, the second is the first with these."""
    first = replace(model, lora=None)
    second = replace(
        first,
        model=against.against or model.model,
        dtype=against.against_dtype,
        quantize=against.against_quantize,
        backend=against.against_backend,
        cache_dtype=against.against_cache_dtype,
    )
    if not model.lora:
        return first, second
    is_first = second == FirstModelOptions(model.model, device=model.device, threads=model.threads)
    return first, replace(first if is_first else second, lora=model.lora)
