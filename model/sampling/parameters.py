"""How a token is picked from the distribution: what each sampler is set to, and their order. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from tokenglass.model.config.fields import quote
from tokenglass.model.errors import ParameterError, did_you_mean
from tokenglass.model.sampling.penalties import PENALTIES
from tokenglass.model.sampling.processor import Processor
from tokenglass.model.sampling.repeats import REPEATS
from tokenglass.model.sampling.rescaling import RESCALINGS, Guidance, Temperature
from tokenglass.model.sampling.settings import Number, Setting
from tokenglass.model.sampling.truncation import TRUNCATIONS

IN_CHAIN: tuple[type[Processor], ...] = (*PENALTIES, *REPEATS, *RESCALINGS, *TRUNCATIONS)
"""The default order: what moves single tokens, then temperature, then what truncates (as transformers has it)."""

SAMPLERS = tuple(kind.name for kind in IN_CHAIN)

KINDS: tuple[type[Processor], ...] = (*IN_CHAIN, Guidance)  # which always comes first
LISTED = sorted(KINDS, key=lambda kind: not kind.only_for_draws)
"""The order of help, traces and summaries: temperature and truncations first."""

SETTINGS: dict[str, Setting] = {setting.name: setting for kind in LISTED for setting in kind.settings()}

P = TypeVar("P", bound=Processor)


@dataclass(frozen=True, slots=True, init=False)
class SamplingParameters:
    """The samplers with their settings (SETTINGS by name), and in `samplers` the names of those that may act, in order.

    Temperature 0 takes the most probable token. The repetition penalty, no-repeat n-grams and DRY count the prompt
    (as transformers does); presence and frequency count new tokens only.
    """

    processors: tuple[Processor, ...]  # one of each of KINDS, on or off
    samplers: tuple[str, ...]

    def __init__(self, *, samplers: tuple[str, ...] = SAMPLERS, **values: Any) -> None:
        """What is not named has its default. Raises ParameterError for a value out of its range."""
        for name in values.keys() - SETTINGS.keys():
            raise TypeError(f"there is no sampling parameter {name!r}; expected one of {', '.join(SETTINGS)}")
        every = {name: values.get(name, setting.default) for name, setting in SETTINGS.items()}
        object.__setattr__(self, "processors", tuple(kind.of(every) for kind in KINDS))
        object.__setattr__(self, "samplers", samplers)
        unknown = [name for name in samplers if name not in SAMPLERS]
        doubled = [name for name in SAMPLERS if samplers.count(name) > 1]
        for wrong, names in (("unknown", unknown), ("given twice", doubled)):
            if names:
                meant = did_you_mean(names[0], SAMPLERS) if names is unknown else ""
                expected = meant or f"; expected each once of {', '.join(SAMPLERS)}"
                raise ParameterError(f"samplers: {quote(names[0])} is {wrong}{expected}")

    @property
    def values(self) -> dict[str, Any]:
        """Every parameter by its name: what the parameters can be made of again."""
        values = {name: value for processor in self.processors for name, value in processor.values.items()}
        return {**{name: values[name] for name in SETTINGS}, "samplers": self.samplers}

    def __getattr__(self, name: str) -> Any:
        """A parameter by its name; `get` is the typed way."""
        if name not in SETTINGS:
            raise AttributeError(f"there is no sampling parameter {name!r}")
        return next(processor.values[name] for processor in self.processors if name in processor.values)

    @staticmethod
    def field_types() -> dict[str, Any]:
        """The parameters with their types, as JSON has them."""
        types = {name: hint for kind in KINDS for name, hint in kind.setting_types().items()}
        return {**{name: types[name] for name in SETTINGS}, "samplers": tuple[str, ...]}

    def idle(self, settings: Mapping[str, Any]) -> tuple[str, str] | None:
        """The first of the settings that were given which does nothing, by its option, and what it needs.

        A setting that switches its sampler off, or greedy sampling on, does what it says.
        """
        for name, value in settings.items():
            setting = SETTINGS[name]
            owners = [kind for kind in IN_CHAIN if setting in kind.settings()]
            if not owners or value == setting.off or (name == "temperature" and value == 0):
                continue
            listed = [kind for kind in owners if kind.name in self.samplers]
            if not listed:
                return setting.flags[-1], f"{' or '.join(kind.name for kind in owners)} among --samplers"
            if not any(setting is kind.settings()[0] or self.get(kind).is_on for kind in listed):
                return setting.flags[-1], " or ".join(kind.settings()[0].flags[-1] for kind in listed)
        return None

    @property
    def in_effect(self) -> dict[str, float]:
        """The first setting of each sampler that acts, where it is a number; temperature is left out."""
        acting = {type(processor) for processor in self.processors if processor.acts(self.is_greedy)}
        firsts = (kind.settings()[0] for kind in LISTED if kind in acting and kind is not Temperature)
        return {setting.name: getattr(self, setting.name) for setting in firsts if isinstance(setting, Number)}

    @property
    def is_greedy(self) -> bool:
        return self.get(Temperature).temperature == 0

    def get(self, kind: type[P]) -> P:
        """The sampler of this kind, on or off."""
        return next(processor for processor in self.processors if isinstance(processor, kind))

    def replace(self, **values: Any) -> SamplingParameters:
        """The same but for these. Raises ParameterError."""
        return SamplingParameters(**{**self.values, **values})
