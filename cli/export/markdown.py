"""A kept run as Markdown: each text, and a table of its tokens. Nothing of it can become markup."""

from __future__ import annotations

import re
from collections.abc import Iterator

from tokenglass.cli.export.kept_text import KeptText, Runs, kept_texts
from tokenglass.cli.terminal.terminal import spelt_out, visible, visible_piece
from tokenglass.cli.widgets.widget import percent, probability
from tokenglass.model.records.steps import Choice

BESIDE = 3  # candidates named beside a token
HEADS = ("", "token", "raw", "final", "rank", "entropy", "beside it")
SPECIAL = re.compile(r"[`|\\]")  # what would end a code span or a cell


def markdown(runs: Runs) -> Iterator[str]:
    """The lines of every text of every run."""
    for number, text in enumerate(kept_texts(runs)):
        if number == 0:
            yield "# A kept run\n"
        yield f"\n## {text.title[0].upper()}{text.title[1:]}\n\n{code(text.about)}\n"
        if text.run.prompt:
            yield f"\nThe prompt:\n\n{code_block(visible(text.run.prompt))}\n"
        yield f"\nThe text:\n\n{code_block(visible(text.text))}\n\n"
        yield from rows(text)


def rows(text: KeptText) -> Iterator[str]:
    yield row(HEADS)
    yield row(("---:", "---", "---:", "---:", "---:", "---:", "---"))
    for number, token in enumerate(text.tokens, start=1):
        yield row((str(number), *cells(token.choice)))


def cells(choice: Choice) -> tuple[str, ...]:
    others = [candidate for candidate in choice.candidates if candidate.token_id != choice.token_id][:BESIDE]
    return (
        code(visible_piece(choice.piece)),
        percent(probability(choice.logprob)),
        percent(choice.prob),
        "" if choice.rank is None else str(choice.rank),
        "" if choice.entropy is None else f"{choice.entropy:.2f}",
        ", ".join(f"{code(visible_piece(other.piece))} {percent(other.prob)}" for other in others),
    )


def row(values: tuple[str, ...]) -> str:
    return f"| {' | '.join(values)} |\n"


def code(text: str) -> str:
    """One line as a code span; what could end it, or the cell around it, is spelt out."""
    spelt = SPECIAL.sub(lambda match: spelt_out(match[0]), " ".join(text.split()))
    return f"`{spelt}`" if spelt else ""


def code_block(text: str) -> str:
    """Any text as a block of code, between fences that are longer than those in it."""
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{fence}text\n{text}\n{fence}"
