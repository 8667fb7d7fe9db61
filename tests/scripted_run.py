"""A run made by hand, with no model: its records, and a program that shows them on a real terminal.

`python tests/scripted_run.py --delay 0.01 --panel slim` plays it.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tokenglass.cli.terminal.console import make_console
from tokenglass.cli.terminal.interrupts import soft_interrupt
from tokenglass.cli.terminal.terminal import supports_live
from tokenglass.cli.views.chat import in_chat
from tokenglass.cli.views.live import LiveView
from tokenglass.cli.views.pace import MAX, Pace
from tokenglass.cli.views.plain import PlainView
from tokenglass.cli.views.view import View
from tokenglass.model.decoding.request import Request
from tokenglass.model.errors import EngineError
from tokenglass.model.records.steps import CacheUsage, Candidate, Choice, Finish, Record, Step, Totals
from tokenglass.model.runs.run import EngineSettings, Run, Search
from tokenglass.model.sampling.parameters import SamplingParameters
from tokenglass.model.text.thoughts import Thoughts

PROMPT = "Once upon a time"
STORY = (
    ",", " there", " was", " a", " little", " fox", " who", " lived", " in", " the", " forest", ".", " Every", " day",
    ",", " he", " ran", " to", " the", " river", " to", " look", " at", " the", " big", ",", " blue", " sky", ".",
    "\n", "\n", "One", " day", ",", " he", " saw", " a", " bird", " with", " a", " broken", " wing", ".", " \"", "Can",
    " you", " help", " me", "?\"", " asked", " the", " bird", ".",
)  # fmt: skip
OTHERS = (" forest", " woods", " big", " river", " house", "\n", "\t", " 日本", "é", " 👩‍👩‍👧")
RAW = (0.312, 0.14, 0.091, 0.044, 0.039)
FINAL = (0.532, 0.232, 0.145, 0.065)


def run(prompt: str = PROMPT, prompt_tokens: int = 5, search: Search | None = None, **fields: Any) -> Run:
    """`fields` are those of the request."""
    prompt_ids = tuple(range(prompt_tokens))
    request = Request(prompt_ids, **{"seed": 1, "sampling": SamplingParameters(temperature=0.8, top_k=4), **fields})
    engine = EngineSettings(dtype="float32", device="cpu", threads=1)
    return Run("tale", "0" * 16, "0" * 16, prompt, request, search=search or Search(), engine=engine)


def choice(piece: bytes, index: int = 0) -> Choice:
    """One of several made-up distributions in turn: the first, the second, or a token beyond the shown ones."""
    place = (0, 0, 1, 0, 5, 2)[index % 6]
    others = [text.encode() for text in OTHERS if text.encode() != piece][index % 3 :][:5]
    pieces = [*others[:place], piece, *others[place:]][: max(5, place + 1)]
    raw, final = (*RAW, 0.004), (*FINAL, 0.0, 0.021)
    candidates = tuple(
        Candidate(300 + k, token, math.log(raw[k]), final[k], "top-k" if k == 4 else None)
        for k, token in enumerate(pieces)
    )
    return Choice(
        position=5 + index,
        token_id=300 + place,
        piece=piece,
        logprob=math.log(raw[place]),
        prob=final[place],
        rank=place + 1 if place < 5 else 37,
        entropy=(0.4, 3.2, 2.1, 4.4, 6.3, 1.7)[index % 6],
        draw=(0.37, 0.12, 0.61, 0.04, 0.99, 0.83)[index % 6],
        candidates=candidates,
    )


def usage(length: int) -> CacheUsage:
    held = -(-length // 64) * 64
    return CacheUsage(length, 1024, held, length * 3072, held * 3072, 3072, 0)


def steps(pieces: Sequence[str], prompt_tokens: int = 5, chunk: int = 256, *, cached: bool = True) -> Iterator[Step]:
    """A prefill in chunks, then one token a step."""
    done = index = 0
    while done < prompt_tokens - chunk:
        done += chunk
        yield Step(index, index, 0, "prefill", chunk, (), "", usage(done), 0.01)
        index += 1
    for number, piece in enumerate(pieces):
        length = prompt_tokens + number
        inputs = (prompt_tokens - done if number == 0 else 1) if cached else length
        phase = "prefill" if number == 0 else "decode"
        seconds = 0.004 if number == 0 else 0.0005
        cache = usage(length) if cached else None
        yield Step(index, index, 0, phase, inputs, (choice(piece.encode(), number),), piece, cache, seconds)
        index += 1


def records(
    pieces: Sequence[str] = STORY,
    prompt_tokens: int = 5,
    *,
    cached: bool = True,
    fail_after: int | None = None,
    delay: float = 0.0,
    interrupt: threading.Event | None = None,
    hold: Hold | None = None,
) -> Iterator[Record]:
    """The steps and a Finish; `fail_after` so many steps an EngineError, as the real loop has it."""
    totals = Totals()
    for step in steps(pieces, prompt_tokens, cached=cached):
        if interrupt is not None and interrupt.is_set():
            yield Finish(0, "interrupt", "", totals)
            return
        if fail_after is not None and totals.new_tokens >= fail_after:
            yield Finish(0, "error", "", totals)
            raise EngineError("the engine broke")
        time.sleep(delay)
        if hold is not None:
            hold.at(totals.new_tokens)
        totals = totals.plus(step)
        yield step
    yield Finish(0, "eos", "", totals)


class Hold:
    """Stops at these tokens, says so in a file, and goes on when the terminal's size has changed.

    A frame that is on its way while a terminal wraps its text anew lands where nobody can foresee.
    """

    def __init__(self, tokens: Sequence[int], file: Path):
        self._tokens = tokens
        self._file = file

    def at(self, token: int) -> None:
        if token not in self._tokens:
            return
        size = os.get_terminal_size()
        self._file.write_text(str(token), encoding="utf-8")
        while os.get_terminal_size() == size:
            time.sleep(0.01)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--panel", default="full")
    parser.add_argument("--color-by", default="none")
    parser.add_argument("--color", default="auto")
    parser.add_argument("--speed", type=Pace.parse, default=MAX)
    parser.add_argument("--no-cache", action="store_true")
    parser.add_argument("--delay", type=float, default=0.0)
    parser.add_argument("--fail-after", type=int)
    parser.add_argument("--prompt", default=PROMPT)
    parser.add_argument("--prompt-tokens", type=int, default=5)
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--hold", type=int, nargs="*", default=())
    parser.add_argument("--hold-file", type=Path)
    parser.add_argument("--chat", action="store_true", help="the view of an answer in a chat")
    parser.add_argument("--pieces", help="a Python literal: the texts of the tokens")
    options = parser.parse_args()
    pieces = __import__("ast").literal_eval(options.pieces) if options.pieces else STORY
    console = make_console(sys.stdout, color=options.color)
    with soft_interrupt() as interrupt:
        view: View = PlainView(console)
        if supports_live(sys.stdout, sys.stderr):
            view = LiveView(console, options.panel, options.color_by, options.speed, interrupt)
        if options.chat:
            view = in_chat(view, Thoughts())
        stream = records(
            list(pieces) * options.repeat,
            options.prompt_tokens,
            cached=not options.no_cache,
            fail_after=options.fail_after,
            delay=options.delay,
            interrupt=interrupt,
            hold=Hold(options.hold, options.hold_file) if options.hold else None,
        )
        try:
            finish = view.show(run(options.prompt, options.prompt_tokens), stream)
        except EngineError as error:
            print(f"scripted: {error}", file=sys.stderr)
            sys.exit(1)
    print(f"reason {finish.reason}", file=sys.stderr)


if __name__ == "__main__":
    main()
