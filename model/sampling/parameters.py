"""How a token is picked from the distribution. No torch here."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from tokenglass.model.config.fields import shown
from tokenglass.model.errors import ParameterError

SAMPLERS = (
    "logit-bias",
    "repetition-penalty",
    "presence-penalty",
    "frequency-penalty",
    "dry",
    "no-repeat-ngram",
    "temperature",
    "top-n-sigma",
    "top-k",
    "top-p",
    "min-p",
    "typical-p",
    "xtc",
)
"""The default order: what moves single tokens, then temperature, then what truncates (as transformers has it)."""

MOST = sys.float_info.max
RANGES: dict[str, tuple[float, float, str]] = {
    "temperature": (0, MOST, "0 (greedy) or more"),
    "top_k": (0, MOST, "0 (off) or more"),
    "top_p": (0, 1, "between 0 (the most probable token alone) and 1 (off)"),
    "min_p": (0, 1, "between 0 (off) and 1"),
    "typical_p": (0, 1, "between 0 (the most typical token alone) and 1 (off)"),
    "top_n_sigma": (0, MOST, "0 (off) or more"),
    "repetition_penalty": (1e-3, 1e3, "between 0.001 and 1000; 1 is off, more discourages"),
    "presence_penalty": (-1e3, 1e3, "between -1000 and 1000; 0 is off, more discourages"),
    "frequency_penalty": (-1e3, 1e3, "between -1000 and 1000; 0 is off, more discourages"),
    "penalty_window": (0, MOST, "0 (all tokens) or more"),
    "no_repeat_ngram_size": (0, MOST, "0 (off) or more"),
    "dry_multiplier": (0, 1e3, "between 0 (off) and 1000"),
    "dry_base": (1, 1e3, "between 1 and 1000"),
    "dry_allowed_length": (1, MOST, "1 or more"),
    "xtc_probability": (0, 1, "between 0 (off) and 1"),
    "xtc_threshold": (0, 1, "between 0 and 1 (more than 0.5 never cuts)"),
    "guidance_scale": (-1e3, 1e3, "between -1000 and 1000; 1 is off"),
}
WHOLE = frozenset({"top_k", "penalty_window", "no_repeat_ngram_size", "dry_allowed_length"})


@dataclass(frozen=True, slots=True)
class SamplingParameters:
    """What each processor is set to, and their order. Raises ParameterError for a value out of its range.

    `penalty_window` is how many of the last tokens the three penalties and DRY look at, 0 for all. The repetition
    penalty, no-repeat n-grams and DRY count the prompt (as transformers does); presence and frequency count new
    tokens only. `logit_bias` holds (token ids, what is added to each). Temperature 0 takes the most probable token.
    """

    temperature: float = 0.8
    top_k: int = 0
    top_p: float = 0.95
    min_p: float = 0.0
    typical_p: float = 1.0
    top_n_sigma: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    penalty_window: int = 0
    no_repeat_ngram_size: int = 0
    dry_multiplier: float = 0.0
    dry_base: float = 1.75
    dry_allowed_length: int = 2
    dry_sequence_breakers: tuple[int, ...] = ()
    xtc_probability: float = 0.0
    xtc_threshold: float = 0.1
    logit_bias: tuple[tuple[tuple[int, ...], float], ...] = ()
    guidance_scale: float = 1.0
    samplers: tuple[str, ...] = SAMPLERS

    def __post_init__(self) -> None:
        for name, (least, most, expected) in RANGES.items():
            value = getattr(self, name)
            if not least <= value <= most:
                raise ParameterError(f"{name} is {value}; expected {expected}")
        for token_ids, bias in self.logit_bias:
            if not abs(bias) <= 1e3:
                raise ParameterError(f"logit_bias is {bias}; expected between -1000 and 1000")
            if not token_ids or min(token_ids) < 0:
                raise ParameterError(f"logit_bias names the token ids {list(token_ids)}; expected 0 or more, and one")
        unknown = [name for name in self.samplers if name not in SAMPLERS]
        doubled = [name for name in SAMPLERS if self.samplers.count(name) > 1]
        for wrong, names in (("unknown", unknown), ("given twice", doubled)):
            if names:
                raise ParameterError(
                    f"samplers: {shown(names[0])} is {wrong}; expected each once of {', '.join(SAMPLERS)}"
                )

    @property
    def is_greedy(self) -> bool:
        return self.temperature == 0
