"""Options about the model and how it runs."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any

import typer

from tokenglass.cli.options.completion import model_names

PANEL = "Model"


class Dtype(StrEnum):
    auto = "auto"
    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


class CacheDtype(StrEnum):
    auto = "auto"
    float32 = "float32"
    bfloat16 = "bfloat16"
    int8 = "int8"


class Device(StrEnum):
    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"
    mps = "mps"


class Quantize(StrEnum):
    none = "none"
    int8 = "int8"
    int4 = "int4"


class Backend(StrEnum):
    auto = "auto"
    native = "native"
    torch = "torch"


Keep = Annotated[
    bool,
    typer.Option(
        "--keep", help="Keep the 4-bit matrices of a GGUF file that int4 holds as they are: smaller, and read faster."
    ),
]


def model_option(what: str) -> Any:
    """`--model`, which takes what these words say."""
    return typer.Option(
        "-m",
        "--model",
        metavar="MODEL",
        autocompletion=model_names,
        envvar="TOKENGLASS_MODEL",
        help=f"{what}; else tale.",
        rich_help_panel=PANEL,
    )


ModelName = Annotated[str | None, model_option("A folder, a GGUF file, or a name of `tokenglass models`")]
ModelOrServer = Annotated[
    str | None,
    model_option("A folder, a GGUF file, a name of `tokenglass models`, or a server at http://HOST:PORT"),
]
RemoteModel = Annotated[
    str | None,
    typer.Option(
        "--remote-model",
        metavar="NAME",
        help="The model of a server that serves several.",
        rich_help_panel=PANEL,
    ),
]
ModelArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="MODEL",
        autocompletion=model_names,
        envvar="TOKENGLASS_MODEL",
        help="A folder, a GGUF file, or a name of `tokenglass models`; else tale.",
    ),
]
DtypeOption = Annotated[
    Dtype,
    typer.Option("--dtype", help="auto: float32 for tale on a CPU, else the checkpoint's.", rich_help_panel=PANEL),
]
CacheDtypeOption = Annotated[
    CacheDtype,
    typer.Option(
        "--cache-dtype",
        help="auto: bfloat16 beside int8 and int4 weights, else the weights' dtype.",
        rich_help_panel=PANEL,
    ),
]
DeviceOption = Annotated[Device, typer.Option("--device", help="auto: cuda, mps, cpu.", rich_help_panel=PANEL)]
QuantizeOption = Annotated[
    Quantize,
    typer.Option("--quantize", help="Weights in 8 or 4 bits: faster, a little less exact.", rich_help_panel=PANEL),
]
BackendOption = Annotated[
    Backend,
    typer.Option("--backend", help="auto: this program's own kernels on a CPU, else torch.", rich_help_panel=PANEL),
]
Threads = Annotated[
    int | None,
    typer.Option(
        "--threads", min=1, help="CPU threads; else one for each core, or OMP_NUM_THREADS.", rich_help_panel=PANEL
    ),
]


def lora(help_text: str) -> Any:
    """The option that names adapters."""
    return typer.Option("--lora", metavar="DIR[=SCALE]", help=help_text, rich_help_panel=PANEL)


Lora = Annotated[
    list[str] | None,
    lora("A LoRA adapter that is merged into the model; repeat for more. Without a model, the one it was made for."),
]


@dataclass(frozen=True, slots=True)
class ModelOptions:
    """None: the bundled model; as many threads as there are cores."""

    model: ModelName = None
    lora: Lora = None
    dtype: DtypeOption = Dtype.auto
    device: DeviceOption = Device.auto
    quantize: QuantizeOption = Quantize.none
    backend: BackendOption = Backend.auto
    threads: Threads = None
    cache_dtype: CacheDtypeOption = CacheDtype.auto

    @property
    def are_given(self) -> bool:
        """Whether more is said than which model."""
        return self != type(self)(self.model)


@dataclass(frozen=True, slots=True)
class NamedModelOptions(ModelOptions):
    """Where the model is what the command is about: an argument."""

    model: ModelArgument = None


@dataclass(frozen=True, slots=True)
class ServedModelOptions(ModelOptions):
    """Where a server may be meant, too."""

    model: ModelOrServer = None
    remote_model: RemoteModel = None
