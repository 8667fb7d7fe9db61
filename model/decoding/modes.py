"""The ways of decoding: each a name, its settings, and a function from a job to records.

A mode is added by its own file and an entry here; the options of the command line and `compare` are derived from it.
What a mode needs is imported when it runs: help and traces read this file alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from tokenglass.model.errors import ParameterError

if TYPE_CHECKING:
    from tokenglass.model.decoding.drafts import Drafter
    from tokenglass.model.decoding.job import Job
    from tokenglass.model.decoding.request import Request
    from tokenglass.model.decoding.reveal import ParallelParameters
    from tokenglass.model.records.steps import Record

AUTOREGRESSIVE = "autoregressive"
THRESHOLD = 0.9  # of a parallel block for which no rule is given


@dataclass(frozen=True, slots=True)
class ModeSettings:
    """The way of decoding, and the settings of those that guess or fill blocks."""

    name: str = AUTOREGRESSIVE
    block_size: int = 16
    reveal: int | None = None
    passes: int | None = None
    threshold: float | None = None
    entropy_bound: float | None = None
    draft: str = "ngram"
    draft_model: str | None = None
    draft_length: int = 8

    def with_rule(self) -> ModeSettings:
        """The same with the rule that a parallel block is filled by, where none is given."""
        rules = (self.reveal, self.passes, self.threshold, self.entropy_bound)
        is_open = self.name == "parallel" and all(rule is None for rule in rules)
        return replace(self, threshold=THRESHOLD) if is_open else self


def check_nothing(request: Request, settings: ModeSettings, mask_id: int | None) -> None:
    """Every request can be met."""


Variants = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Mode:
    """A way of decoding. `decode` raises ParameterError for what the job or the settings do not allow; `check` finds of
    it what needs no weights, from the request, the settings and the checkpoint's mask token.

    `help` goes on behind the name. `variants` are settings that are worth comparing, by what their names end with. A
    lossless mode promises the autoregressive text.
    """

    name: str
    help: str
    decode: Callable[[Job, ModeSettings], Iterator[Record]]
    check: Callable[[Request, ModeSettings, int | None], None] = check_nothing
    variants: Variants = field(default_factory=dict)
    is_lossless: bool = False


def decode_job(job: Job, settings: ModeSettings) -> Iterator[Record]:
    """The records of a job in the mode that the settings name. Raises what the mode raises."""
    if settings.name not in MODES:
        raise ParameterError(f"no mode is called {settings.name!r}; there are {', '.join(MODES)}")
    return MODES[settings.name].decode(job, settings)


def autoregressive(job: Job, _: ModeSettings) -> Iterator[Record]:
    from tokenglass.model.decoding.autoregressive import decode

    return decode(job)


def parallel(job: Job, settings: ModeSettings) -> Iterator[Record]:
    from tokenglass.model.decoding.parallel import decode_parallel

    return decode_parallel(job, parallel_parameters(settings))


def speculative(job: Job, settings: ModeSettings) -> Iterator[Record]:
    from tokenglass.model.decoding.speculative import decode_speculative

    job = job.with_cache()
    return decode_speculative(job, new_drafter(job, settings.draft), settings.draft_length)


def jacobi(job: Job, settings: ModeSettings) -> Iterator[Record]:
    from tokenglass.model.decoding.speculative import decode_jacobi

    return decode_jacobi(job, settings.block_size)


def check_parallel(request: Request, settings: ModeSettings, mask_id: int | None) -> None:
    from tokenglass.model.decoding.parallel import checked_mask

    parallel_parameters(settings)
    checked_mask(request, mask_id)


def check_guesses(request: Request, settings: ModeSettings, _: int | None) -> None:
    if not request.use_cache:
        raise ParameterError(f"--mode {settings.name} verifies guesses over the cache; leave out --no-cache")
    if settings.name == "speculative" and settings.draft == "model" and settings.draft_model is None:
        raise ParameterError("--draft model needs --draft-model MODEL")


def parallel_parameters(settings: ModeSettings) -> ParallelParameters:
    """Raises ParameterError for two rules."""
    from tokenglass.model.decoding.reveal import ParallelParameters

    rule = settings.with_rule()
    return ParallelParameters(rule.block_size, rule.reveal, rule.passes, rule.threshold, rule.entropy_bound)


def new_drafter(job: Job, draft: str) -> Drafter:
    """Where guesses come from. Raises ParameterError."""
    from tokenglass.model.decoding.drafts import ModelDrafter, NgramDrafter, ParallelDrafter

    if draft == "parallel":
        return ParallelDrafter(job)
    return ModelDrafter(job) if draft == "model" or job.draft_engine is not None else NgramDrafter()


MODES: Mapping[str, Mode] = MappingProxyType(
    {
        mode.name: mode
        for mode in (
            Mode(AUTOREGRESSIVE, "writes one token after the other", autoregressive),
            Mode(
                "parallel",
                "fills blocks of masks in a few passes",
                parallel,
                check_parallel,
                {
                    **{f"-{passes}": {"passes": passes} for passes in (1, 2, 4, 8)},
                    "-threshold": {"threshold": THRESHOLD},
                    "-entropy": {"entropy_bound": 0.1},
                },
            ),
            Mode(
                "speculative",
                "verifies guesses: the autoregressive text in fewer passes",
                speculative,
                check_guesses,
                {f"-{draft}": {"draft": draft} for draft in ("ngram", "parallel", "model")},
                is_lossless=True,
            ),
            Mode("jacobi", "improves its own guesses to the same text", jacobi, check_guesses, is_lossless=True),
        )
    }
)
