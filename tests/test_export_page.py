"""The page in a real browser: what hover, keys and the slider show, at any size, and what it asks the net for."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import Browser, needs_browser
from scripted_run import choice, run, steps
from test_export import MARKUP

from tokenglass.cli.export.page import page
from tokenglass.cli.terminal.terminal import visible_piece
from tokenglass.model.records.steps import Finish, Record, Step, Totals

pytestmark = [pytest.mark.slow, needs_browser]
LONG = 2000  # tokens
ROLES = ("button", "slider", "combobox", "group", "image")
CELLS = "[...row.cells].map(cell => cell.textContent)"
SLIDE_TO_4 = """(() => {
  const slider = document.getElementById("upto");
  slider.value = 4;
  slider.dispatchEvent(new Event("input"));
})()"""
UNDERLINED = "[...document.querySelectorAll('#text .unsure, #text .doubt')].map(span => Number(span.dataset.number))"
UNTIL_PLAYED = """new Promise(done => {
  const ask = () => document.getElementById("play").textContent === "Play" ? done() : setTimeout(ask, 20);
  ask();
})"""
TEXT = [" fox", "\n", " Überraschung", " 日本", "x" * 90]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser
        assert not browser.console


def run_of(count: int = 12, candidates: int = 6) -> list[Record]:
    """A run of so many tokens, each with so many candidates."""
    records: list[Record] = [*steps([TEXT[number % len(TEXT)] for number in range(count)])]
    if candidates > 6:
        records = [with_more(step, candidates) for step in records if isinstance(step, Step)]
    return [*records, Finish(0, "length", "", Totals())]


def with_more(step: Step, count: int) -> Step:
    (chosen,) = step.choices
    more = tuple(dataclasses.replace(chosen.candidates[-1], token_id=900 + number) for number in range(count - 6))
    return dataclasses.replace(step, choices=(dataclasses.replace(chosen, candidates=chosen.candidates + more),))


def open_page(browser: Browser, path: Path, records: list[Record], width: int = 1000, *, dark: bool = False) -> float:
    path.write_text(page([(run(), records)]), encoding="utf-8")
    browser.size(width, dark=dark)
    return browser.open(path)


def test_the_mouse_shows_the_numbers_of_a_token(browser: Browser, tmp_path: Path) -> None:
    records = run_of()
    open_page(browser, tmp_path / "page.html", records)
    for number in (3, 7, 0):
        browser.point(f'[data-number="{number}"]')
        step = records[number]
        assert isinstance(step, Step)
        (choice,) = step.choices
        assert choice.prob is not None
        assert choice.logprob is not None
        about = browser.text("#about")
        assert about.startswith(f"Token {number + 1}: “{visible_piece(choice.piece)}”")
        assert f"{100 * choice.prob:.1f} % final" in about
        assert f"{100 * math.exp(choice.logprob):.1f} % raw" in about
        assert f"rank {choice.rank}" in browser.text("#numbers")
        rows = browser.run(f"[...document.querySelectorAll('#candidates tr')].map(row => {CELLS})")
        assert [row[0] for row in rows] == [visible_piece(candidate.piece) for candidate in choice.candidates]
        assert [row[3] for row in rows].count("chosen") == 1
        cut = [candidate.removed_by for candidate in choice.candidates if candidate.removed_by]
        assert [row[3] for row in rows if row[3].startswith("cut by")] == [f"cut by {name}" for name in cut]


def test_keys_go_through_the_tokens_and_to_those_that_are_underlined(browser: Browser, tmp_path: Path) -> None:
    open_page(browser, tmp_path / "page.html", run_of())
    browser.run("document.getElementById('text').focus()")

    def after(*keys: str) -> int:
        for key in keys:
            browser.press(key)
        return int(browser.run("document.querySelector('[aria-current]').dataset.number"))

    assert after("ArrowRight", "ArrowRight") == 2
    assert after("ArrowLeft") == 1
    assert after("End") == 11
    assert after("ArrowRight") == 11
    assert after("Home") == 0
    assert after("ArrowLeft") == 0
    underlined = browser.run(UNDERLINED)
    unsure = [number for number in range(12) if (choice(b"x", number).prob or 0) < 0.5]
    assert underlined == unsure
    assert [after("ArrowDown") for _ in unsure] == unsure
    assert after("ArrowUp") == unsure[-2]


def test_the_slider_replays_the_passes(browser: Browser, tmp_path: Path) -> None:
    open_page(browser, tmp_path / "page.html", run_of())
    assert browser.text("#count") == "12 of 12 passes"
    assert browser.run("Number(document.getElementById('upto').value)") == 12
    browser.run(SLIDE_TO_4)
    assert browser.run("[...document.querySelectorAll('#text .token')].filter(span => !span.hidden).length") == 4
    assert browser.text("#about").startswith("Token 4:")
    browser.run("document.getElementById('play').click()")
    browser.run(UNTIL_PLAYED)
    assert browser.text("#count") == "12 of 12 passes"
    assert browser.text("#about").startswith("Token 12:")


@pytest.mark.parametrize("dark", [False, True])
def test_the_page_fits_a_narrow_screen_and_has_two_faces(browser: Browser, tmp_path: Path, dark: bool) -> None:
    open_page(browser, tmp_path / "page.html", run_of(60, 30), 400, dark=dark)
    assert browser.run("document.documentElement.scrollWidth") <= 400
    background = browser.run("getComputedStyle(document.body).backgroundColor")
    red = int(background.removeprefix("rgb(").split(",")[0])
    assert (red < 64) == dark
    ink = browser.run("getComputedStyle(document.body).color")
    assert (int(ink.removeprefix("rgb(").split(",")[0]) > 192) == dark


def test_it_asks_the_net_for_nothing_and_text_stays_text(browser: Browser, tmp_path: Path) -> None:
    nasty = dataclasses.replace(run_of()[0], choices=(dataclasses.replace(choice(MARKUP.encode()), position=5),))
    open_page(browser, tmp_path / "page.html", [nasty, run_of()[-1]])
    assert browser.requests == [(tmp_path / "page.html").as_uri()]
    assert browser.run("document.title") == "A kept run"
    assert browser.run("document.querySelectorAll('#text img, #candidates img').length") == 0
    assert MARKUP.split("\u2028")[0] in browser.run("document.querySelector('#text .token').textContent")


def test_print_shows_the_whole_text_and_no_controls(browser: Browser, tmp_path: Path) -> None:
    open_page(browser, tmp_path / "page.html", run_of())
    browser.run(SLIDE_TO_4)
    browser.size(1000, media="print")
    assert browser.run("getComputedStyle(document.querySelector('.controls')).display") == "none"
    assert browser.run("[...document.querySelectorAll('#text .token')].every(span => span.getClientRects().length)")


def test_every_control_has_a_name_for_a_screen_reader(browser: Browser, tmp_path: Path) -> None:
    open_page(browser, tmp_path / "page.html", run_of(12, 30))
    nodes = browser.call("Accessibility.getFullAXTree")["nodes"]
    controls = [node for node in nodes if node.get("role", {}).get("value") in ROLES]
    assert len(controls) >= 6
    assert all(node.get("name", {}).get("value") for node in controls), controls


def test_a_text_of_2000_tokens_is_there_soon(browser: Browser, tmp_path: Path) -> None:
    """1.5 s is what a reader may wait, on a machine that is not busy; on any, it grows no faster than the text."""
    few, many = (
        min(open_page(browser, tmp_path / "page.html", run_of(count, 20), 400) for _ in range(3))
        for count in (LONG // 10, LONG)
    )
    assert browser.run("document.querySelectorAll('#text .token').length") == LONG
    assert many < max(1.5, 2 * 10 * few)
    assert browser.run("document.documentElement.scrollWidth") <= 400
