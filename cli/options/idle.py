"""Options that would have no effect beside the others, which are refused by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Values = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Rule:
    """Options by the names of their parameters, what they need, and whether it is there."""

    options: tuple[str, ...]
    need: str
    is_met: Callable[[Values], bool]


def is_mode(*names: str) -> Callable[[Values], bool]:
    return lambda values: values["mode"] in names


def is_several(values: Values) -> bool:
    return bool(values["num_samples"] > 1)


def may_be_live(values: Values) -> bool:
    """The view is live where there is a terminal; a script may be piped, and its options stay."""
    return not values["jsonl"] and values["view"] in ("auto", "live")


def has_many_prompts(values: Values) -> bool:
    return bool(values.get("each_line") or values.get("prompts"))


def has_one_prompt(values: Values) -> bool:
    return not has_many_prompts(values)


OF_ONE_PROMPT = (
    *("prompt", "prompt_option", "prompt_file", "keep_newline", "echo"),
    *("num_samples", "separator", "null", "beams", "length_penalty", "early_stopping"),
    *("negative", "guidance", "forks", "mode"),
    *("panel", "color_by", "speed", "pause", "flow", "experts", "stages", "stats"),
    *("trace", "html", "trace_top", "no_cache", "save_cache", "load_cache"),
)

RULES = (
    Rule(OF_ONE_PROMPT, "a single prompt, without --each-line and --prompts", has_one_prompt),
    Rule(("slots", "unordered", "output", "fail_fast"), "--each-line or --prompts", has_many_prompts),
    Rule(("length_penalty", "early_stopping"), "--beams", lambda values: values["beams"] > 1),
    Rule(("reveal", "threshold", "entropy_bound", "passes"), "--mode parallel", is_mode("parallel")),
    Rule(("block_size",), "--mode parallel or jacobi", is_mode("parallel", "jacobi")),
    Rule(("draft", "draft_model", "draft_length"), "--mode speculative", is_mode("speculative")),
    Rule(("panel", "color_by", "pause", "stages"), "the live view", may_be_live),
    Rule(("echo",), "another view than jsonl, which holds the prompt", lambda values: not values["jsonl"]),
    Rule(("separator", "null"), "several texts (--num-samples)", is_several),
)


def idle_option(names: set[str], values: Values) -> tuple[str, str] | None:
    """The first parameter that was given and does nothing, and what it needs."""
    for rule in RULES:
        idle = [name for name in rule.options if name in names]
        if idle and not rule.is_met(values):
            return idle[0], rule.need
    return None
