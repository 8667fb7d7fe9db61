"""What choose prints: bars, the best answer, or JSON; one question, a file of them, or typed decisions."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import Any

from tokenglass.cli.run.json_prompt import read_id
from tokenglass.cli.run.numbered_lines import check_line
from tokenglass.cli.run.question import Asking, Chooses, read_question
from tokenglass.cli.say import say, write_json
from tokenglass.cli.terminal.console import ColorWhen, make_console
from tokenglass.cli.widgets.answers import AnswerBars, AnswerTokens, FirstDifference
from tokenglass.model.errors import ParameterError, TokenglassError
from tokenglass.model.files import parse_json
from tokenglass.model.measuring.choosing import Choosing
from tokenglass.model.measuring.decisions import decide
from tokenglass.model.records.codec import to_dict


def show(choosing: Choosing, *, by_mean: bool, color: ColorWhen) -> None:
    console = make_console(sys.stdout, color=color)
    console.print(AnswerBars(choosing, by_mean))
    console.print()
    console.print(AnswerTokens(choosing, by_mean))
    console.print(FirstDifference(choosing, by_mean))


def write_best(text: str) -> None:
    """The answer as it was given, and a newline."""
    sys.stdout.buffer.write(text.encode() + b"\n")
    sys.stdout.buffer.flush()


def write_facts(choosing: Choosing, model: str, *, by_mean: bool) -> None:
    write_json({"model": model, **facts_of(choosing, by_mean=by_mean)}, indent=2)


def facts_of(choosing: Choosing, *, by_mean: bool) -> dict[str, Any]:
    """All that is known of a question; `index` of the parting counts the tokens of the answers."""
    best, second = choosing.ranking(by_mean)[:2]
    return {
        "best": best.text,
        "by": "mean" if by_mean else "joint",
        "answers": [to_dict(answer) for answer in choosing.answers],
        "outside": choosing.outside,
        "parting": {"answers": [best.text, second.text], "index": choosing.parting(best, second)},
        "prompt_tokens": choosing.prompt_tokens,
        "orders": choosing.orders,
        "healed": choosing.tail.decode("utf-8", "replace"),
        "apart": list(choosing.apart),
    }


def answer_lines(
    lines: Iterator[tuple[int, bytes]], asking: Asking, chooser: Chooses, answers: Sequence[str], *, by_mean: bool
) -> bool:
    """A JSON line for each; one that cannot be answered has an error, and the rest goes on. Whether all were good."""
    all_good = True
    for number, line in lines:
        about: dict[str, Any] = {"id": None}
        try:
            content = parse_json(check_line(line), "it", ParameterError)
            about["id"] = read_id(content)
            prompt, own = read_question(content, answers)
            about |= facts_of(asking.ask(chooser, prompt, own), by_mean=by_mean)
        except TokenglassError as error:
            say(f"line {number:,}: {error}")
            about |= {"line": number, "error": str(error)}
            all_good = False
        write_json(about)
    return all_good


def answer_request(source: str, asking: Asking, chooser: Chooses) -> None:
    """Typed decisions, as JSON in and out. Raises ParameterError."""
    request = parse_json(source.encode(), "the request", ParameterError)

    def ask(prompt: str, labels: Sequence[str]) -> Choosing:
        if asking.manner.chat:
            return asking.ask(chooser, prompt, labels)
        return asking.ask(chooser, f"{prompt}\nAnswer:", [f" {label}" for label in labels])

    write_json(decide(request, ask, asking.name))
