"""How a token is picked from the distribution. No torch here."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from model.errors import ParameterError


@dataclass(frozen=True, slots=True)
class SamplingParameters:
    """Temperature 0 takes the most probable token; top_k 0, top_p 1 and min_p 0 are off."""

    temperature: float = 0.8
    top_k: int = 0
    top_p: float = 0.95
    min_p: float = 0.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise ParameterError(f"temperature is {self.temperature}; expected 0 (greedy) or more")
        if self.top_k < 0:
            raise ParameterError(f"top_k is {self.top_k}; expected 0 (off) or more")
        if not 0 < self.top_p <= 1:
            raise ParameterError(f"top_p is {self.top_p}; expected more than 0, at most 1 (off)")
        if not 0 <= self.min_p <= 1:
            raise ParameterError(f"min_p is {self.min_p}; expected between 0 (off) and 1")

    @property
    def is_greedy(self) -> bool:
        return self.temperature == 0


NEUTRAL = {
    "repetition_penalty": (1, 1.0),
    "encoder_repetition_penalty": (1, 1.0),
    "no_repeat_ngram_size": (0,),
    "typical_p": (1, 1.0),
    "epsilon_cutoff": (0, 0.0),
    "eta_cutoff": (0, 0.0),
    "num_beams": (1,),
    "penalty_alpha": (0, 0.0),
    "guidance_scale": (1, 1.0),
}


def defaults_from(generation_config: Mapping[str, Any]) -> SamplingParameters:
    """What a checkpoint's generation_config.json recommends, or this program's defaults if it says nothing.

    A file that names a sampling field, or do_sample, is followed whole: what it leaves out is off.
    Raises ParameterError.
    """
    names = ("temperature", "top_k", "top_p", "min_p")
    named = {name: generation_config[name] for name in names if generation_config.get(name) is not None}
    do_sample = generation_config.get("do_sample")
    if do_sample is False:
        return SamplingParameters(temperature=0.0, top_p=1.0)
    if not named and do_sample is None:
        return SamplingParameters()
    for name, value in named.items():
        whole = name == "top_k"
        if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
            raise ParameterError(f"generation_config.json: {name} is {value!r}; expected a number")
        if abs(value) > 2**63:
            raise ParameterError(f"generation_config.json: {name} is too large a number")
    try:
        return SamplingParameters(**{"temperature": 1.0, "top_p": 1.0, **named})
    except ParameterError as error:
        raise ParameterError(f"generation_config.json: {error}") from None


def not_applied(generation_config: Mapping[str, Any]) -> dict[str, Any]:
    """Fields that would change the text and are not implemented: to be told, never silently dropped."""
    return {
        name: generation_config[name]
        for name, neutral in NEUTRAL.items()
        if generation_config.get(name) is not None and generation_config[name] not in neutral
    }
