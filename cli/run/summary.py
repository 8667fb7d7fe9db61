"""The summary of a run in words."""

from __future__ import annotations

from typing import Any

from tokenglass.model.records.steps import Finish, Reason
from tokenglass.model.records.trace import Run


def summary(run: Run, finish: Finish) -> str:
    """Three lines: what was computed and how fast, why it ended, and with which settings."""
    totals = finish.totals
    speeds = (
        speed("prefill", totals.prefill_tokens, totals.prefill_seconds, totals.prefill_rate),
        speed("decode", totals.decode_tokens, totals.decode_seconds, totals.decode_rate),
        f"{totals.positions_computed:,} positions computed",
    )
    weights = run.parameters.get("quantize", "none")
    kind = run.dtype if weights == "none" else weights
    backend = run.parameters.get("backend")
    where = run.device if backend is None else f"{run.device} ({backend})"
    setting = (f"{run.model} {kind} on {where}", f"{run.threads} threads", *settings(run.parameters))
    lines = (
        ", ".join(speeds),
        f"{totals.new_tokens:,} new tokens, finished by {finish.reason}: {in_words(finish.reason)}",
        ", ".join((*setting, seeds(run))),
    )
    return "\n".join(lines)


def seeds(run: Run) -> str:
    """The seed, or those of the samples: each gives its text alone, too."""
    derived = run.parameters.get("seeds")
    if isinstance(derived, list | tuple) and derived:
        return f"seeds {', '.join(map(str, derived))}"
    return f"seed {run.seed}"


def speed(name: str, tokens: int, seconds: float, rate: float | None) -> str:
    told = f", {rate:,.0f} tok/s" if rate is not None else ""
    return f"{name} {tokens:,} tokens in {seconds:.2f} s{told}"


def in_words(reason: Reason) -> str:
    """Why a run ended."""
    return {
        "eos": "the model chose to end",
        "stop": "a stop string came",
        "length": "as many new tokens came as were asked for",
        "context": "the context is full",
        "time": "the time is up",
        "interrupt": "stopped by hand",
        "constraint": "nothing fits the constraint",
        "error": "an error came",
    }[reason]


OFF = {
    **dict.fromkeys(("top_k", "min_p", "top_n_sigma", "presence_penalty", "frequency_penalty"), 0),
    **dict.fromkeys(("no_repeat_ngram_size", "dry_multiplier", "xtc_probability"), 0),
    **dict.fromkeys(("top_p", "typical_p", "repetition_penalty", "guidance_scale"), 1),
}


def settings(parameters: dict[str, Any]) -> tuple[str, ...]:
    """The sampling settings that are on."""
    on = [f"{name} {in_digits(parameters[name])}" for name, off in OFF.items() if parameters.get(name, off) != off]
    if parameters.get("temperature") == 0:
        moving = [told for told in on if told.split("_")[0] not in ("top", "min", "typical", "xtc")]
        return ("temperature 0 (greedy)", *moving)
    return (f"temperature {in_digits(parameters.get('temperature'))}", *on)


def in_digits(value: Any) -> str:
    """A setting's number, of which a foreign trace may have made anything."""
    return f"{value:g}" if isinstance(value, int | float) else "not reported"
