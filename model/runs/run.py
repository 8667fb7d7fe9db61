"""The description of a run: everything that decides what it writes, typed, and what it ran on."""

from __future__ import annotations

import platform
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from tokenglass.model.checkpoint.store import name_of
from tokenglass.model.decoding.modes import ModeSettings
from tokenglass.model.decoding.request import UNKNOWN_PROMPT, Request
from tokenglass.model.errors import ParameterError
from tokenglass.model.records.steps import ABSENT

if TYPE_CHECKING:
    from tokenglass.model.loaded_model import LoadedModel

SCHEMA_VERSION = 2
SERVERS = ("openai", "vllm", "sglang", "llama.cpp", "ollama")  # they answer over HTTP
Logprobs = Literal["raw", "processed"]


@dataclass(frozen=True, slots=True)
class Search:
    """How many texts there are, and how they come: samples, each with its seed, or the best of some beams."""

    num_samples: int = 1
    seeds: tuple[int, ...] = ()  # of the samples, where there are several
    beams: int = 1
    length_penalty: float = 1.0
    early_stopping: bool = False

    def __post_init__(self) -> None:
        if min(self.num_samples, self.beams) < 1:
            raise ParameterError(f"num_samples is {self.num_samples} and beams {self.beams}; expected 1 or more")

    @property
    def has_beams(self) -> bool:
        return self.beams > 1

    @property
    def is_several(self) -> bool:
        return self.has_beams or self.num_samples > 1


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """What computed the run. None: not reported."""

    backend: str | None = None
    dtype: str | None = None  # of the weights where they are not quantised
    quantize: str = "none"
    device: str | None = None
    threads: int | None = None
    cache_dtype: str | None = None
    server: str | None = field(default=None, metadata=ABSENT)  # its address, where the run was asked of one
    logprobs: Logprobs | None = field(default=None, metadata=ABSENT)  # what its log-probabilities are of
    adapters: tuple[str, ...] | None = field(
        default=None, metadata=ABSENT
    )  # merged into the model, as --lora takes them

    @staticmethod
    def of(loaded: LoadedModel) -> EngineSettings:
        return EngineSettings(
            *(loaded.backend, loaded.dtype, loaded.quantize, loaded.device, loaded.threads, loaded.cache_dtype),
            adapters=tuple(adapter.argument for adapter in loaded.checkpoint.adapters) or None,
        )

    @property
    def weights_in(self) -> str | None:
        """A dtype, or a quantised format."""
        return self.dtype if self.quantize == "none" else self.quantize


@dataclass(frozen=True, slots=True)
class Run:
    """Everything that a run depends on. `prompt` is the text, as it is shown; `request` has what the model reads.

    Fingerprints are "" and versions empty where nobody keeps the description.
    """

    version: int = field(default=SCHEMA_VERSION, kw_only=True)
    model: str
    model_fingerprint: str
    tokenizer_fingerprint: str
    prompt: str
    request: Request
    negative_prompt: str | None = None
    search: Search = field(default_factory=Search)
    mode: ModeSettings = field(default_factory=ModeSettings)
    engine: EngineSettings = field(default_factory=EngineSettings)
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def seed(self) -> int:
        return self.request.seed

    @property
    def is_remote(self) -> bool:
        """Whether another program wrote the text, which reports less than this one."""
        return self.engine.backend in SERVERS

    @property
    def is_imported(self) -> bool:
        """Whether it did so with settings that are not reported either."""
        return self.is_remote and self.engine.server is None

    @property
    def prompt_length(self) -> int:
        """In tokens; 1 where nobody reports it."""
        return len(self.request.prompt_ids)

    @property
    def reported_prompt_length(self) -> int | None:
        return None if self.request.prompt_ids == UNKNOWN_PROMPT else self.prompt_length


def describe_run(
    loaded: LoadedModel,
    request: Request,
    prompt: str,
    *,
    negative_prompt: str | None = None,
    search: Search | None = None,
    mode: ModeSettings | None = None,
    identify: bool = True,
) -> Run:
    """The description of a run of this model, here and now.

    To `identify` the model and the libraries takes as long as many tokens: for a run that is only watched, do without.
    """
    return Run(
        model=name_of(loaded.checkpoint.folder),
        model_fingerprint=loaded.checkpoint.fingerprint if identify else "",
        tokenizer_fingerprint=loaded.tokenizer_fingerprint if identify else "",
        prompt=prompt,
        request=request,
        negative_prompt=negative_prompt,
        search=search or Search(),
        mode=mode or ModeSettings(),
        engine=EngineSettings.of(loaded),
        versions=versions() if identify else {},
    )


def versions() -> dict[str, str]:
    """Of the program, of Python and of the libraries that decide numbers; torch is not imported for it."""
    from importlib.metadata import version  # noqa: PLC0415  (it reads mail, sockets and zip files in)

    return {
        "tokenglass": version("tokenglass"),
        "python": platform.python_version(),
        "torch": version("torch"),
        "tokenizers": version("tokenizers"),
    }
