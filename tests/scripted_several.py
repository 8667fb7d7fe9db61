"""Several texts made by hand, with no model, shown on a real terminal: samples, or beams of which some are pruned.

`python tests/scripted_several.py --beams --delay 0.01` plays them.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import scripted_run
from scripted_run import PROMPT, STORY

from tokenglass.cli.terminal.console import make_console
from tokenglass.cli.terminal.interrupts import soft_interrupt
from tokenglass.cli.terminal.terminal import supports_live
from tokenglass.cli.views.live_several import SeveralLive
from tokenglass.cli.views.pace import MAX, Pace
from tokenglass.cli.views.several import SeveralPlain
from tokenglass.cli.views.view import View
from tokenglass.model.records.steps import Choice, Finish, Record, Step, Totals
from tokenglass.model.runs.run import Search

COUNT = 3
SEEDS = (1, 22, 333)


def pieces(number: int) -> list[str]:
    """A text of its own for each."""
    return [f" ({number})", *STORY[number * 2 :]]


def choice_at(number: int, place: int) -> Choice:
    piece = pieces(number)[place].encode()
    return replace(scripted_run.choice(piece, place), position=5 + place)


def samples(delay: float, interrupt: threading.Event) -> Iterator[Record]:
    totals, index = [Totals()] * COUNT, 0
    for place in range(len(STORY) + 1):
        time.sleep(delay)
        for number in range(COUNT):
            if place < len(pieces(number)):
                step = new_step(index, place, number, choice_at(number, place), pieces(number)[place])
                totals[number] = totals[number].plus(step)
                index += 1
                yield step
        if interrupt.is_set():
            break
    for number in range(COUNT):
        yield Finish(number, "interrupt" if interrupt.is_set() else "eos", "", totals[number])


def beams(delay: float, interrupt: threading.Event) -> Iterator[Record]:
    """In every fifth pass the last beam is pruned, and another branches off the first."""
    numbers, index, last = list(range(COUNT)), 0, COUNT - 1
    for place in range(len(STORY) - 3):
        time.sleep(delay)
        for number in numbers:
            yield new_step(index, place, number, choice_at(0, place), "", 0 if place == 0 < number else None)
            index += 1
        if place % 5 == 4:
            last += 1
            dropped = replace(choice_at(0, place + 1), status="pruned")
            yield new_step(index, place + 1, numbers[-1], dropped, "")
            yield new_step(index + 1, place + 1, last, choice_at(1, place + 1), "", 0)
            numbers[-1], index = last, index + 2
        if interrupt.is_set():
            break
    reason = "interrupt" if interrupt.is_set() else "length"
    for rank, number in enumerate(numbers):
        yield Finish(number, reason, f"{PROMPT} {rank}", Totals(), -1.5 - rank)


def new_step(index: int, place: int, number: int, choice: Choice, text: str, parent: int | None = None) -> Step:
    phase = "prefill" if place == 0 else "decode"
    usage = scripted_run.usage(5 + place)
    return Step(index, place, number, phase, 1, (choice,), text, usage, 0.001, parent)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--beams", action="store_true")
    parser.add_argument("--speed", type=Pace.parse, default=MAX)
    parser.add_argument("--delay", type=float, default=0.0)
    parser.add_argument("--color", default="auto")
    options = parser.parse_args()
    console = make_console(sys.stdout, color=options.color)
    search = Search(beams=COUNT) if options.beams else Search(COUNT, SEEDS)
    with soft_interrupt() as interrupt:
        view: View = SeveralPlain(console, COUNT)
        if supports_live(sys.stdout, sys.stderr):
            view = SeveralLive(console, COUNT, pace=options.speed, interrupt=interrupt)
        records = (beams if options.beams else samples)(options.delay, interrupt)
        finish = view.show(scripted_run.run(search=search), records)
    print(f"reason {finish.reason}", file=sys.stderr)


if __name__ == "__main__":
    main()
