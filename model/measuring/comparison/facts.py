"""A comparison by the names that JSON uses."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

from tokenglass.model.loaded_model import LoadedModel
from tokenglass.model.measuring.comparison.bootstrap import CONFIDENCE, RESAMPLES
from tokenglass.model.measuring.comparison.comparison import Comparison
from tokenglass.model.measuring.comparison.passages import read_passages
from tokenglass.model.measuring.comparison.speech import TOKENS

DRAWN = ("temperature", "top_k", "top_p", "min_p")


def facts_of(comparison: Comparison, threads: int) -> dict[str, Any]:
    """Everything that was asked and found. Shares are of 1; None has no meaning there or cannot be told."""
    plan, loaded, scorer = comparison.plan, comparison.loaded, comparison.scorer.loaded
    lossless = sum(mode.lossless for mode in comparison.modes)
    return {
        **describe_model(loaded),
        "threads": threads,
        "scorer": {**describe_model(scorer), "is_the_model": scorer.checkpoint.folder == loaded.checkpoint.folder},
        "prompts": list(comparison.prompts),
        "prompts_are_fixed": plan.prompts is None,
        "seeds": list(comparison.seeds),
        "rounds": plan.rounds,
        "new_tokens": plan.tokens,
        "sampling": {name: getattr(plan.sampling, name) for name in DRAWN},
        "task": {"prompts": len(read_passages("speech")), "new_tokens": TOKENS},
        "confidence": CONFIDENCE,
        "resamples": RESAMPLES,
        "rows": [
            {
                "name": row.name,
                "kind": "mode" if row.is_mode else "reference",
                "metrics": {name: estimate and asdict(estimate) for name, estimate in row.metrics.items()},
                "tokens_per_second_by_round": list(row.rates),
            }
            for row in comparison.rows
        ],
        "lossless_texts": lossless * len(comparison.requests),
        "divergences": [
            {
                "mode": parting.mode,
                "prompt": parting.prompt,
                "seed": parting.seed,
                **asdict(parting.divergence),
                "margin": finite(parting.divergence.margin),
            }
            for parting in comparison.divergences
        ],
        "left_out": [asdict(refused) for refused in comparison.refused],
    }


def describe_model(loaded: LoadedModel) -> dict[str, Any]:
    return {
        "model": loaded.name,
        "parameters": loaded.checkpoint.num_parameters,
        "weights": loaded.weights_in,
        "backend": loaded.backend,
    }


def finite(number: float | None) -> float | None:
    return number if number is not None and math.isfinite(number) else None
