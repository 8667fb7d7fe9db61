"""A text that was looked into, as the records of a run: every token with its numbers and its flow."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from tokenglass.model.decoding.request import Request
from tokenglass.model.inspection.reading import as_rows
from tokenglass.model.measuring.scoring import score_tokens
from tokenglass.model.records.steps import Choice, Step
from tokenglass.model.runs.run import Run, describe_run
from tokenglass.model.runs.trace_writer import watch

if TYPE_CHECKING:
    from tokenglass.cli.run.page_file import PageFile
    from tokenglass.model.inspection.records import Flow
    from tokenglass.model.loaded_model import LoadedModel

TOP = 20  # candidates beside each token


def flow_run(
    loaded: LoadedModel, text: str, request: Request | None, choices: Iterable[Choice], token_ids: Sequence[int]
) -> tuple[Run, Iterable[Choice]]:
    """The run that continued the text, with its choices; without a request the text itself, behind its first token,
    which nothing made."""
    if request is not None:
        return describe_run(loaded, request, text), choices
    run = describe_run(loaded, Request(tuple(token_ids[:1]), 0, top=TOP), loaded.tokenizer.decode(token_ids[:1]))
    choices = score_tokens(loaded.engine, loaded.tokenizer, token_ids, window=loaded.engine.limit, top=TOP)
    return run, (choice for choice in choices if choice.position > 0)


def keep_flow(
    page: PageFile, run: tuple[Run, Iterable[Choice]], look: Callable[[int], Flow], positions: Collection[int]
) -> None:
    """Put a run and its flow on a page."""
    described, choices = run
    for _ in watch(described, with_flow(choices, look, positions), page.add):
        pass


def with_flow(choices: Iterable[Choice], look: Callable[[int], Flow], positions: Collection[int]) -> Iterator[Step]:
    """A step for each choice, with what made it where its position is among those."""
    for index, choice in enumerate(choices):
        flow = as_rows(look(choice.position)) if choice.position in positions else None
        text = choice.piece.decode("utf-8", "replace")
        yield Step(index, index, 0, "prefill", 1, (choice,), text, None, 0.0, flow=flow)
