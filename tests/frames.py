"""Frames of real runs beside the records that were kept of them: an oracle that knows nothing of the views."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from terminal import Terminal

from tokenglass.cli.terminal.terminal import visible_piece

Json = dict[str, Any]
OPEN = ("rejected", "guessed", "masked", "pruned")
PROMPT = "Once upon a time"
PERCENT = r"[<>]?[\d.]+ %"


def frames_of(arguments: str, trace: Path, speed: str) -> tuple[list[list[str]], list[Json]]:
    """The frames that a user sees of a run of `generate`, and the lines of its trace."""
    program = f"exec generate {shlex.quote(PROMPT)} --trace {shlex.quote(str(trace))} --speed {speed} {arguments}"
    terminal = Terminal(program=program, columns=100, lines=44)
    frames = list(terminal.frames())
    assert terminal.finish() == 0, terminal.text()
    return frames, [json.loads(line) for line in trace.read_text(encoding="utf-8").splitlines()]


def settled_choices(step: Json) -> list[Json]:
    return [choice for choice in step["choices"] if choice["status"] not in OPEN and choice["token_id"] is not None]


def piece_of(record: Json) -> str:
    exact = record.get("bytes")
    return visible_piece(bytes(exact) if exact else str(record["piece"]).encode())


def without_blanks(text: str) -> str:
    return "".join(text.split())


def is_percent(text: str, probability: float) -> bool:
    """Whether a percentage says what a probability is, as exactly as it can."""
    value = 100 * probability
    number = float(text.removesuffix(" %").lstrip("<>"))
    if text.startswith("<"):
        return value < number
    return value > number if text.startswith(">") else abs(value - number) <= 0.0501


@dataclass(frozen=True, slots=True)
class Moment:
    """A run of one text after one of its steps."""

    step: Json
    text: str
    tokens: int
    choice: Json | None  # the newest

    def assert_shown(self, lines: list[str]) -> None:
        """A frame shows this moment, in all its parts."""
        assert self.choice is not None
        top = next(k for k, line in enumerate(lines) if line.startswith("─ token "))
        assert without_blanks("".join(lines[:top])) == without_blanks(self.text)
        panel = "\n".join(lines[top:])
        chosen = re.search(
            rf"^ chosen (.+?)   raw ({PERCENT}) → final ({PERCENT})   rank ([\d,]+)", panel, re.MULTILINE
        )
        assert chosen is not None, panel
        assert chosen[1] == piece_of(self.choice)
        assert is_percent(chosen[2], 2.718281828459045 ** self.choice["logprob"])
        assert is_percent(chosen[3], self.choice["prob"])
        assert int(chosen[4].replace(",", "")) == self.choice["rank"]
        self.assert_candidates(panel)
        cache = self.step["cache"]
        assert f"{cache['length']:,} of {cache['limit']:,} positions" in panel
        self.assert_flow(panel)
        if "\n verify " in panel:
            counts = [sum(c["status"] == status for c in self.step["choices"]) for status in ("accepted", "rejected")]
            assert "{} accepted, {} rejected".format(*counts) in panel
        if "\n block " in panel:
            counts = [sum(c["status"] == status for c in self.step["choices"]) for status in ("revealed", "masked")]
            assert "{} revealed, {} still masked".format(*counts) in panel

    def assert_candidates(self, panel: str) -> None:
        """Each candidate with its raw probability and what became of it: the possible above those that were cut."""
        assert self.choice is not None
        rows = re.findall(rf"^ [▸ ] +([\d,]+)  (.+?) +({PERCENT})(.*)$", panel, re.MULTILINE)
        candidates = self.choice["candidates"]
        first = sorted(range(len(candidates)), key=lambda k: candidates[k]["removed_by"] is not None)
        assert [row[1] for row in rows] == [piece_of(candidates[k]) for k in first]
        for (rank, _, raw, fate), place in zip(rows, first, strict=True):
            candidate = candidates[place]
            is_chosen = candidate["token_id"] == self.choice["token_id"]
            known = self.choice["rank"] if is_chosen else place + 1
            assert int(rank.replace(",", "")) == candidate.get("rank", known)
            assert is_percent(raw, 2.718281828459045 ** candidate["logprob"])
            if candidate["removed_by"] is not None:
                assert f"cut by {candidate['removed_by']}" in fate
            else:
                final = re.match(rf" +({PERCENT})", fate)
                assert final is not None
                assert is_percent(final[1], candidate["prob"])

    def assert_flow(self, panel: str) -> None:
        """The flow is that of this very step, or there is none."""
        rows = self.step["flow"]
        if rows is None:
            assert "\n from " not in panel
            return
        positions = sorted((row for row in rows if row["row"] == "position"), key=lambda row: -row["kl_bits"])
        lines = re.findall(r"^ from .*$", panel, re.MULTILINE)
        assert [visible_piece(row["piece"].encode()) for row in positions[:5]] == re.findall(
            rf"  (\S+) {PERCENT}", lines[0]
        )


def moments_of(lines: list[Json], *, forced_too: bool = False) -> Iterator[Moment]:
    text, tokens, choice = PROMPT, 0, None
    for step in lines[1:]:
        if step["record"] != "step":
            continue
        text += step["text"]
        tokens += len(settled_choices(step))
        real = [each for each in settled_choices(step) if forced_too or each["status"] != "forced"]
        choice = real[-1] if real else choice
        yield Moment(step, text, tokens, choice)


def number_in(title: str) -> int:
    match = re.search(r"token ([\d,]+) of", title)
    return int(match[1].replace(",", "")) if match else 0


def title_of(lines: list[str]) -> str:
    return next((line for line in lines if line.startswith("─ ") and "token " in line), "")


@dataclass(slots=True)
class Passes:
    """Several texts, pass by pass, by their records alone."""

    texts: dict[int, list[Json]] = field(default_factory=dict)

    def after(self, lines: list[Json]) -> Iterator[dict[int, list[Json]]]:
        """The texts that go on after each pass, as their choices, in the order of the pass."""
        steps = [line for line in lines if line["record"] == "step"]
        for forward in sorted({step["forward"] for step in steps}):
            running: dict[int, list[Json]] = {}
            before = dict(self.texts)
            for step in (step for step in steps if step["forward"] == forward):
                own = before.get(step["parent"], []) if step["parent"] is not None else before.get(step["sequence"], [])
                self.texts[step["sequence"]] = [*own, *step["choices"]]
                if all(choice["status"] != "pruned" for choice in step["choices"]):
                    running[step["sequence"]] = self.texts[step["sequence"]]
            yield running
