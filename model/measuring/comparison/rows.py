"""The rows of a comparison: every metric of every mode and reference, each a ratio of sums over texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tokenglass.model.measuring.comparison.bootstrap import Estimate, estimate
from tokenglass.model.measuring.comparison.runs import TimedRuns
from tokenglass.model.measuring.comparison.texts import (
    Share,
    agreement,
    distinct,
    repetition,
    shared_length,
    unigram_entropy,
)

Grouped = Sequence[Sequence[Share]]  # the shares of each prompt's texts
Bits = Callable[[int, str], Share]  # of a continuation of the prompt with that number


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table; None is what has no meaning here, such as the passes of a human."""

    name: str
    is_mode: bool
    metrics: dict[str, Estimate | None]
    rates: tuple[float, ...] = ()  # tokens per second of each round


COST = ("forwards", "tokens_per_pass", "positions_per_token", "tokens_per_second", "seconds_to_first_token")
COHERENCE = ("bits_per_byte", "distinct_1", "distinct_2", "repeated_4grams", "unigram_entropy")
LIKENESS = ("same_tokens", "shared_tokens")
TASK = ("task_errors",)
METRICS = (*COST, *COHERENCE, *LIKENESS, *TASK)


def mode_row(
    runs: TimedRuns, expected: TimedRuns, prompts: Sequence[Sequence[int]], bits: Bits, task: Sequence[Sequence[bool]]
) -> Row:
    """`prompts` are the numbers of each prompt's requests, `expected` the autoregressive runs of the same requests,
    `task` for each prompt of the task whether its texts were right."""

    def over(share: Callable[[int], Share]) -> Grouped:
        return [[share(request) for request in requests] for requests in prompts]

    first = [rounds[0] for rounds in runs.by_request]
    base = [rounds[0].token_ids for rounds in expected.by_request]
    prompt_of = {request: number for number, requests in enumerate(prompts) for request in requests}
    shares: dict[str, Grouped] = {
        "forwards": over(lambda r: Share(first[r].forwards, 1)),
        "tokens_per_pass": over(lambda r: Share(len(first[r].token_ids), first[r].forwards)),
        "positions_per_token": over(lambda r: Share(first[r].positions, len(first[r].token_ids))),
        "tokens_per_second": over(lambda r: Share(len(first[r].token_ids), runs.seconds(r))),
        "seconds_to_first_token": over(lambda r: Share(runs.first_seconds(r), 1)),
        **coherence(over, lambda r: first[r].text, lambda r: bits(prompt_of[r], first[r].text)),
        "same_tokens": over(lambda r: agreement(first[r].token_ids, base[r])),
        "shared_tokens": over(lambda r: Share(shared_length(first[r].token_ids, base[r]), 1)),
        "task_errors": errors(task),
    }
    return Row(runs.mode.name, True, estimates(shares), tuple(runs.rates))


def reference_row(name: str, texts: Sequence[Sequence[str]], bits: Bits, task: Sequence[Sequence[bool]]) -> Row:
    """A row of texts that no mode wrote, for each prompt; nothing is known of passes and seconds."""
    places = [(number, text) for number, of_prompt in enumerate(texts) for text in of_prompt]
    groups: list[list[int]] = [[] for _ in texts]
    for place, (number, _) in enumerate(places):
        groups[number].append(place)

    def over(share: Callable[[int], Share]) -> Grouped:
        return [[share(place) for place in group] for group in groups]

    shares = coherence(over, lambda place: places[place][1], lambda place: bits(*places[place]))
    return Row(name, False, estimates({**shares, "task_errors": errors(task)}))


def coherence(
    over: Callable[[Callable[[int], Share]], Grouped], text: Callable[[int], str], bits: Callable[[int], Share]
) -> dict[str, Grouped]:
    return {
        "bits_per_byte": over(bits),
        "distinct_1": over(lambda place: distinct(text(place), 1)),
        "distinct_2": over(lambda place: distinct(text(place), 2)),
        "repeated_4grams": over(lambda place: repetition(text(place), 4)),
        "unigram_entropy": over(lambda place: unigram_entropy(text(place))),
    }


def errors(task: Sequence[Sequence[bool]]) -> Grouped:
    """The sequence error rate: whole texts that are wrong."""
    return [[Share(not right, 1) for right in answers] for answers in task]


def estimates(shares: dict[str, Grouped]) -> dict[str, Estimate | None]:
    return {name: estimate(shares[name]) if name in shares else None for name in METRICS}
