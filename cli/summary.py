"""The summary of a run in words."""

from __future__ import annotations

from typing import Any

from model.steps import Finish, Reason, Totals
from model.trace import Run


def summary(run: Run, finish: Finish) -> str:
    """Three lines: what was computed and how fast, why it ended, and with which settings."""
    totals = finish.totals
    speeds = (
        speed("prefill", totals.prefill_tokens, totals.prefill_seconds, totals.prefill_rate),
        speed("decode", totals.decode_tokens, totals.decode_seconds, totals.decode_rate),
        f"{totals.positions_computed:,} positions computed",
    )
    setting = (f"{run.model} {run.dtype} on {run.device}", f"{run.threads} threads", *settings(run.parameters))
    lines = (
        ", ".join(speeds),
        f"{totals.new_tokens:,} new tokens, finished by {finish.reason}: {in_words(finish.reason, totals)}",
        ", ".join((*setting, f"seed {run.seed}")),
    )
    return "\n".join(lines)


def speed(name: str, tokens: int, seconds: float, rate: float | None) -> str:
    told = f", {rate:,.0f} tok/s" if rate is not None else ""
    return f"{name} {tokens:,} tokens in {seconds:.2f} s{told}"


def in_words(reason: Reason, totals: Totals) -> str:
    """Why a run ended."""
    return {
        "eos": "the model chose to end",
        "stop": "a stop string came",
        "length": f"{totals.new_tokens:,} new tokens were asked for",
        "context": "the context is full",
        "time": "the time is up",
        "interrupt": "stopped by hand",
        "constraint": "nothing fits the constraint",
        "error": "an error came",
    }[reason]


def settings(parameters: dict[str, Any]) -> tuple[str, ...]:
    """The sampling settings that are on."""
    if parameters["temperature"] == 0:
        return ("temperature 0 (greedy)",)
    off = {"top_k": 0, "top_p": 1, "min_p": 0}
    on = (f"{name} {parameters[name]:g}" for name, value in off.items() if parameters[name] != value)
    return (f"temperature {parameters['temperature']:g}", *on)
