"""The columns of a comparison."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tokenglass.cli.widgets.rates import in_digits
from tokenglass.cli.widgets.widget import percent
from tokenglass.model.measuring.comparison.speech import TOKENS


@dataclass(frozen=True, slots=True)
class Column:
    """One metric: its heading, how a number is told, and what it means. A low rank goes last where room is short."""

    metric: str
    heading: str
    tell: Callable[[float], str]
    rank: int
    meaning: str


def seconds(value: float) -> str:
    return f"{value:.2f} s" if value >= 1 else f"{1000 * value:.0f} ms" if value >= 0.01 else f"{1000 * value:.1f} ms"


COLUMNS = (
    Column("forwards", "passes", "{:.1f}".format, 5, "Forward passes of the model for one text, the prompt's too."),
    Column("tokens_per_pass", "tok/pass", "{:.2f}".format, 11, "New tokens for each of those passes."),
    Column(
        *("tokens_per_second", "tok/s", in_digits, 12),
        "New tokens per second from the prompt to the end of the text: prefill, drafts and commits included.",
    ),
    Column("seconds_to_first_token", "first", seconds, 3, "Time until the first text could be printed."),
    Column(
        *("bits_per_byte", "bits/byte", "{:.3f}".format, 13),
        "How much the scorer is surprised by each byte of the text. Lower is more coherent, but a text that repeats "
        "itself is low too: look at rep-4 beside it.",
    ),
    Column("distinct_1", "dist-1", percent, 1, "Words of a text that it has not said before."),
    Column("distinct_2", "dist-2", percent, 7, "Pairs of words that the text has not said before. Low is monotonous."),
    Column("repeated_4grams", "rep-4", percent, 9, "Runs of four words that the text has said before."),
    Column(
        *("unigram_entropy", "entropy", "{:.2f}".format, 4),
        "Bits of a text's own frequencies of words. Falls where few words are used again and again.",
    ),
    Column("same_tokens", "same", percent, 8, "Places that hold the token of the autoregressive text."),
    Column(
        *("shared_tokens", "until", "{:.1f}".format, 2),
        "Tokens that it and the autoregressive text begin with in common.",
    ),
    Column(
        *("task_errors", "errors", percent, 10),
        f"Texts of the task that fail: a prompt ends inside a speech, and within {TOKENS} tokens the quotation marks "
        "up to the end of the line have to close it and to match. What the words say does not count; and none seen "
        "among few prompts is not none.",
    ),
)
SURE = ("tokens_per_pass", "tokens_per_second", "bits_per_byte", "distinct_2", "task_errors")  # with intervals
