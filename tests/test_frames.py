"""Every frame shows one record and nothing of another: real runs on pseudo-terminals at several paces."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from frames import PERCENT, PROMPT, Passes, frames_of, moments_of, number_in, piece_of, title_of, without_blanks
from terminal import Terminal

from tokenglass.cli.terminal.screen import LEAVE

COUNT = 12
ROW = r"^ ([▸■]) +(\d+) +(-[\d.]+) +(?:-[\d.]+ +)?(?:length +)?(.*)$"  # of one of several texts: running, or ended
SPEEDS = ["default", "40", "max"]
SINGLE = {
    "live": "",
    "flow": "--flow",
    "parallel": "--mode parallel",
    "speculative": "--mode speculative",
    "a constraint": "--regex '[a-z ]+'",
}


@pytest.mark.parametrize("speed", SPEEDS)
@pytest.mark.parametrize("way", SINGLE)
def test_every_frame_of_one_text_shows_the_step_that_it_names(way: str, speed: str, tmp_path: Path) -> None:
    arguments = f"-n {COUNT} --seed 1 --candidates 4 --trace-top 4 {SINGLE[way]}"
    frames, lines = frames_of(arguments, tmp_path / "trace.jsonl", speed)
    moments = {moment.tokens: moment for moment in moments_of(lines)}
    numbers = [number_in(title_of(frame)) for frame in frames]
    assert numbers == sorted(numbers)
    for number, frame in zip(numbers, frames, strict=True):
        if number:
            moments[number].assert_shown(frame)
    assert numbers[-1] == max(moments)
    if speed == "default":
        assert len(set(numbers) - {0}) >= 0.9 * len(set(moments) - {0}), "a frame of their own"


@pytest.mark.parametrize("speed", ["default", "max"])
def test_the_panel_that_stays_has_the_flow_of_its_token(speed: str) -> None:
    command = f"exec generate '{PROMPT}' -n 5 --seed 1 --flow --speed {speed}"
    terminal = Terminal(program=command, columns=100, lines=44)
    assert terminal.finish() == 0
    panel = terminal.text().rpartition("─ token 5 of 5 ─")[2]
    assert re.search(rf"^ from +without ( \S+ {PERCENT})", panel, re.MULTILINE), panel
    assert "\n layers lens " in panel


@pytest.mark.parametrize("speed", SPEEDS)
@pytest.mark.parametrize("way", ["--num-samples 3", "--beams 3"])
def test_every_frame_of_several_texts_shows_all_of_them_after_one_pass(way: str, speed: str, tmp_path: Path) -> None:
    frames, lines = frames_of(f"-n {COUNT} --seed 1 {way}", tmp_path / "trace.jsonl", speed)
    passes = {max(map(len, running.values())): running for running in Passes().after(lines) if running}
    first = 0 if "beams" in way else 1
    sequences = set()
    for frame in frames[:-1]:  # the last shows all texts in full
        number = number_in(title_of(frame))
        if not number:
            continue
        sequences.add(number)
        rows = re.findall(ROW, "\n".join(frame), re.MULTILINE)
        row_of = {int(row[1]) - first: row for row in rows}
        assert set(passes[number]) <= set(row_of)
        assert {sequence for sequence, row in row_of.items() if row[0] == "▸"} <= set(passes[number])
        for sequence, choices in passes[number].items():
            _, _, logprob, end = row_of[sequence]
            assert float(logprob) == pytest.approx(sum(choice["logprob"] for choice in choices), abs=0.0051)
            text = "".join(str(choice["piece"]) for choice in choices)
            assert without_blanks(text).endswith(without_blanks(end.removeprefix("…")))
            assert end.strip()
    if speed == "default":
        assert len(sequences) >= 0.9 * COUNT


def test_every_page_of_pick_shows_the_choice_that_generate_makes_at_that_place(tmp_path: Path) -> None:
    _, lines = frames_of("-n 6 --seed 1 --candidates 9", tmp_path / "trace.jsonl", "max")
    moments = [moment for moment in moments_of(lines) if moment.choice is not None]
    terminal = Terminal(program=f"exec tokenglass pick '{PROMPT}' --seed 1", columns=100, lines=44)
    for place, moment in enumerate(moments):
        assert moment.choice is not None
        terminal.wait_for_words(f"─ token {place + 1} ─")
        terminal.drain()
        page = terminal.text().rpartition(f"─ token {place + 1} ─")
        assert without_blanks(page[0]).endswith(without_blanks(moments[place - 1].text if place else PROMPT))
        pieces = re.findall(r"^ [1-9]  (\S+) ", page[2], re.MULTILINE)
        assert pieces == [piece_of(candidate) for candidate in moment.choice["candidates"][:9]]
        if place:
            before = moments[place - 1].choice
            assert before is not None
            last = next(line for line in page[2].splitlines() if line.startswith(" last "))
            assert last.split()[1] == piece_of(before)
            assert f"draw {before['draw']:.2f}" in last
        terminal.child.send("\r")
    terminal.child.send("q")
    assert terminal.finish() == 0
    assert without_blanks(terminal.output.rpartition(LEAVE)[2]).endswith(
        without_blanks(moments[-1].text[len(PROMPT) :])
    )
