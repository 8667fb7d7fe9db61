"""Options about two models that read the same text."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any

import typer

from tokenglass.cli.options.model import (
    PANEL,
    Backend,
    CacheDtype,
    Dtype,
    ModelOptions,
    ModelOrServer,
    Quantize,
    lora,
)

Lora = Annotated[list[str] | None, lora("A LoRA adapter of the second model; repeat for more. The first is without.")]
Against = Annotated[
    str | None,
    typer.Option("--against", metavar="MODEL", help="The second model; else the same.", rich_help_panel=PANEL),
]


def of_second(name: str) -> Any:
    """An option that the first model has too, by another name."""
    return typer.Option(name, help="Of the second model.", rich_help_panel=PANEL)


AgainstDtype = Annotated[Dtype, of_second("--against-dtype")]
AgainstQuantize = Annotated[Quantize, of_second("--against-quantize")]
AgainstBackend = Annotated[Backend, of_second("--against-backend")]
AgainstCacheDtype = Annotated[CacheDtype, of_second("--against-cache-dtype")]


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
