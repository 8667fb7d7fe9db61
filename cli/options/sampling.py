"""Options about the distribution that a token is drawn from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import typer

from tokenglass.model.sampling.parameters import MOST, RANGES

PANEL = "Sampling"


def option(*names: str, help: str, **limits: Any) -> Any:  # noqa: A002  (Typer's own word)
    return typer.Option(*names, help=help, rich_help_panel=PANEL, **limits)


def number(parameter: str, *names: str, help: str) -> Any:  # noqa: A002  (Typer's own word)
    """An option for a parameter, in the parameter's own range."""
    least, most, _ = RANGES[parameter]
    return option(*names, help=help, min=least, max=most if most < MOST else None)


Temperature = Annotated[
    float | None, number("temperature", "-t", "--temperature", help="0 is greedy, higher is bolder.")
]
TopK = Annotated[int | None, number("top_k", "--top-k", help="Keep the k most probable tokens; 0 is off.")]
TopP = Annotated[float | None, number("top_p", "--top-p", help="Keep the best tokens that hold p together; 1 is off.")]
MinP = Annotated[
    float | None, number("min_p", "--min-p", help="Keep tokens p times as probable as the best; 0 is off.")
]
TypicalP = Annotated[
    float | None,
    number("typical_p", "--typical-p", help="Keep the tokens nearest to the expected surprise; 1 is off."),
]
TopNSigma = Annotated[
    float | None, number("top_n_sigma", "--top-n-sigma", help="Keep logits within n deviations of the best; 0 is off.")
]
RepetitionPenalty = Annotated[
    float | None,
    number(
        "repetition_penalty",
        "--repetition-penalty",
        help="Divide the logits of tokens already there, the prompt's and a template's too; 1 is off.",
    ),
]
PresencePenalty = Annotated[
    float | None,
    number(
        "presence_penalty", "--presence-penalty", help="Take this from the logits of tokens already there; 0 is off."
    ),
]
FrequencyPenalty = Annotated[
    float | None,
    number("frequency_penalty", "--frequency-penalty", help="Take this once for each time a token is there; 0 is off."),
]
PenaltyWindow = Annotated[
    int | None, number("penalty_window", "--penalty-window", help="Penalties look at the last n tokens; 0 is all.")
]
NoRepeatNgram = Annotated[
    int | None, number("no_repeat_ngram_size", "--no-repeat-ngram", help="No run of n tokens comes twice; 0 is off.")
]
DryMultiplier = Annotated[
    float | None,
    number("dry_multiplier", "--dry-multiplier", help="Penalise what would extend a repetition (DRY); 0 is off."),
]
DryBase = Annotated[float | None, number("dry_base", "--dry-base", help="DRY grows by this with each repeated token.")]
DryAllowedLength = Annotated[
    int | None, number("dry_allowed_length", "--dry-allowed-length", help="Repetitions up to this length are free.")
]
DryBreaker = Annotated[
    list[str] | None, option("--dry-breaker", metavar="TEXT", help="No repetition reaches across it (repeatable).")
]
XtcProbability = Annotated[
    float | None,
    number(
        "xtc_probability",
        "--xtc-probability",
        help="How often the top choices are left out, never a newline or an end token; 0 is off.",
    ),
]
XtcThreshold = Annotated[
    float | None, number("xtc_threshold", "--xtc-threshold", help="Top choices are those above this probability.")
]
LogitBias = Annotated[
    list[str] | None,
    option("--logit-bias", metavar="TOKEN=N", help="Add N to a token, by its text or its id (repeatable)."),
]
Samplers = Annotated[
    str | None, option("--samplers", metavar="A,B,C", help="The order of the processors; what is left out is off.")
]
ShowChain = Annotated[bool, option("--show-chain", help="Print the processors with their values, and go on.")]
Seed = Annotated[int | None, option("--seed", min=0, max=2**64 - 1, help="Same seed, same text; else chosen and told.")]


@dataclass(frozen=True, slots=True)
class SamplingOptions:
    """None: the checkpoint's default, or off."""

    temperature: Temperature = None
    top_k: TopK = None
    top_p: TopP = None
    min_p: MinP = None
    typical_p: TypicalP = None
    top_n_sigma: TopNSigma = None
    repetition_penalty: RepetitionPenalty = None
    presence_penalty: PresencePenalty = None
    frequency_penalty: FrequencyPenalty = None
    penalty_window: PenaltyWindow = None
    no_repeat_ngram: NoRepeatNgram = None
    dry_multiplier: DryMultiplier = None
    dry_base: DryBase = None
    dry_allowed_length: DryAllowedLength = None
    dry_breaker: DryBreaker = None
    xtc_probability: XtcProbability = None
    xtc_threshold: XtcThreshold = None
    logit_bias: LogitBias = None
    samplers: Samplers = None
    show_chain: ShowChain = False
    seed: Seed = None
