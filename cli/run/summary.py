"""The summary of a run in words."""

from __future__ import annotations

from tokenglass.cli.text import plural
from tokenglass.model.records.steps import Finish, Totals
from tokenglass.model.runs.run import EngineSettings, Run
from tokenglass.model.sampling.parameters import SamplingParameters

UNKNOWN = "not reported"
MOST_SEEDS = 8  # that a line shows


def summary(run: Run, finish: Finish) -> str:
    """Three lines: what was computed and how fast, why it ended, and with which settings."""
    totals = finish.totals
    lines = (
        ", ".join(remote_speeds(totals) if run.is_remote and not run.is_imported else speeds(totals)),
        f"{plural(totals.new_tokens, 'new token')}, finished by {finish.reason}: {in_words(finish)}",
        ", ".join(description(run)),
    )
    return "\n".join(lines)


def speeds(totals: Totals) -> tuple[str, ...]:
    return (
        speed("prefill", totals.prefill_tokens, totals.prefill_seconds, totals.prefill_rate),
        speed("decode", totals.decode_tokens, totals.decode_seconds, totals.decode_rate),
        f"{plural(totals.positions_computed, 'position')} computed",
    )


def remote_speeds(totals: Totals) -> tuple[str, ...]:
    """As they are seen from here: a server may have waited, or known the prompt, before it began."""
    prompt = plural(totals.prefill_tokens, "token") if totals.prefill_tokens else f"of {UNKNOWN} length"
    return (
        f"first token after {totals.prefill_seconds:.2f} s",
        speed("then", totals.decode_tokens, totals.decode_seconds, totals.decode_rate),
        f"prompt {prompt}",
    )


def description(run: Run) -> tuple[str, ...]:
    """What it was computed on, and the settings and the seed, where they are reported."""
    if run.is_imported:
        return (f"{run.model} ({run.engine.backend}), settings {UNKNOWN}",)
    return (*computed_on(run), *settings(run.request.sampling), seeds(run))


def seeds(run: Run) -> str:
    """The seed, or those of the samples: each gives its text alone, too. Of many, how to get them again."""
    derived = run.search.seeds
    if len(derived) > MOST_SEEDS:
        return f"seed {run.seed}; --seed {run.seed} with --num-samples {len(derived)} writes the same texts"
    return f"seeds {', '.join(map(str, derived))}" if derived else f"seed {run.seed}"


def computed_on(run: Run) -> tuple[str, str]:
    """The model and the device, and the number of threads; or the server, and what its log-probabilities are of."""
    engine, threads = run.engine, run.engine.threads
    if run.is_remote:
        about = f"{engine.logprobs} log-probabilities" if engine.logprobs else f"raw or processed {UNKNOWN}"
        return f"{run.model} on {engine.server} ({engine.backend})", about
    return (
        f"{' + '.join((run.model, *(engine.adapters or ())))} {in_numbers_of(engine)}",
        f"{threads or UNKNOWN} thread{'s' * (threads != 1)}",
    )


def in_numbers_of(engine: EngineSettings) -> str:
    """As in "int8, cache in bfloat16, on cpu (native)"; a cache of the weights' own dtype is not named."""
    cache = engine.cache_dtype
    beside = "" if cache in (None, engine.weights_in) else f", cache in {cache},"
    device = engine.device if engine.backend is None else f"{engine.device} ({engine.backend})"
    return f"{engine.weights_in or UNKNOWN}{beside} on {device or UNKNOWN}"


def speed(name: str, tokens: int, seconds: float, rate: float | None) -> str:
    per_second = f", {rate:,.0f} tok/s" if rate is not None else ""
    return f"{name} {plural(tokens, 'token')} in {seconds:.2f} s{per_second}"


def in_words(finish: Finish) -> str:
    """Why a run ended."""
    return {
        "eos": "the model chose to end",
        "stop": "a stop string came",
        "length": f"stopped after {plural(finish.totals.new_tokens, 'token')} (-n)",
        "context": "the context is full",
        "time": "the time is up",
        "interrupt": "stopped by hand",
        "constraint": "nothing fits the constraint",
        "error": "an error came",
    }[finish.reason]


def settings(sampling: SamplingParameters) -> tuple[str, ...]:
    """The sampling settings that are on."""
    temperature = "temperature 0 (greedy)" if sampling.is_greedy else f"temperature {sampling.temperature:g}"
    return (temperature, *(f"{name} {value:g}" for name, value in sampling.in_effect.items()))
