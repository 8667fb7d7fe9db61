"""export: one page that holds a run, fetches nothing, and that no text of a model can become markup in."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import math
import re
import stat
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted_run import choice
from shell import assert_one_line_error, tokenglass
from test_chat import CHATML, chat_checkpoint
from test_hostile_traces import NASTY, traces
from test_trace import RUN, STEP
from test_trace_files import FINISH, MODES

from tokenglass.cli.export.page import page
from tokenglass.model.runs.trace import to_line

MARKUP = "</script><script>document.title='owned'</script><!--<script>\u2028\u2029 &lt; <img src=x onerror=alert(1)>"


class Scripts(HTMLParser):
    """The text of each script element by its attributes, and every tag."""

    def __init__(self, html: str):
        super().__init__()
        self.tags: list[str] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self._inside = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self._inside = tag == "script"
        if self._inside:
            self.scripts.append((dict(attrs), ""))

    def handle_endtag(self, tag: str) -> None:
        self._inside = False

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.scripts[-1] = (self.scripts[-1][0], data)


def data_of(html: str) -> Any:
    return json.loads(Scripts(html).scripts[0][1])


def nasty_page(text: str = MARKUP) -> str:
    piece = text.encode()
    nasty = dataclasses.replace(choice(piece), piece=piece)
    run = dataclasses.replace(RUN, prompt=text, model=text)
    return page([(run, [dataclasses.replace(STEP, choices=(nasty,)), FINISH])])


@pytest.mark.parametrize("text", [MARKUP, NASTY, "PAGE_DATA SCRIPT_HASH", "\u2028</SCRIPT >"])
def test_no_text_becomes_markup(text: str) -> None:
    plain, hostile = Scripts(nasty_page("plain")), Scripts(nasty_page(text))
    assert hostile.tags == plain.tags
    assert [attributes for attributes, _ in hostile.scripts] == [{"id": "data", "type": "application/json"}, {}]
    assert hostile.scripts[1] == plain.scripts[1]
    assert not re.search("[<>&\u2028\u2029\x1b\u202e]", hostile.scripts[0][1])
    assert "owned" in data_of(nasty_page())["texts"][0]["prompt"]


def test_the_page_may_fetch_nothing_and_run_its_own_script_alone() -> None:
    html = nasty_page()
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', html)
    digest = base64.b64encode(hashlib.sha256(Scripts(html).scripts[1][1].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'")
    assert not re.search(r"(?:src|href)=|url\(|@import", re.sub(r'(?s)<script id="data".*?</script>', "", html))


@settings(max_examples=15)
@given(trace=traces)
def test_any_records_make_a_page(trace: Any) -> None:
    run, steps, finishes = trace
    data = data_of(page([(run, [*steps, *finishes])]))
    assert len(data["texts"]) == len({finish.sequence for finish in finishes})


@given(cut=st.integers(0, 4))
def test_characters_of_several_tokens_are_whole(cut: int) -> None:
    content = "a日🦊".encode()
    pieces = [content[:cut], content[cut : cut + 2], content[cut + 2 :]]
    steps = [
        dataclasses.replace(STEP, choices=(dataclasses.replace(choice(piece), position=at),))
        for at, piece in enumerate(pieces)
    ]
    tokens = data_of(page([(RUN, [*steps, FINISH])]))["texts"][0]["tokens"]
    assert "".join(token["text"] for token in tokens) == "a日🦊"


@pytest.mark.parametrize("mode", ["plain", "beams", "samples", "parallel"])
def test_the_page_has_the_numbers_of_the_trace(mode: str, tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    text = tokenglass(*MODES[mode], "--trace", str(path)).stdout.decode()
    done = tokenglass("export", str(path), "--html")
    assert done.returncode == 0, done.stderr.decode()
    texts = data_of(done.stdout.decode())["texts"]
    contents = ["".join(token["text"] for token in each["tokens"]) for each in texts]
    assert "\n".join(contents) == text if mode == "samples" else contents[0] == text
    for token in texts[0]["tokens"]:
        chosen = next(each for each in token["candidates"] if each["id"] == token["id"])
        assert (chosen["prob"], chosen["logprob"]) == (token["prob"], token["logprob"])
        assert math.exp(token["logprob"]) <= 1
    passes = [token["pass"] for token in texts[0]["tokens"]]
    assert {*passes} == {*range(texts[0]["passes"])}


@pytest.mark.parametrize(
    "command", [("generate", "The fox", "-n", "8", "--seed", "1"), ("chat", "--seed", "1", "-n", "4")]
)
def test_a_page_in_one_go_is_the_page_of_the_trace(command: tuple[str, ...], tmp_path: Path) -> None:
    trace, html = tmp_path / "run.jsonl", tmp_path / "run.html"
    if command[0] == "chat":
        chat_checkpoint(tmp_path / "model", CHATML)
        command = (*command, "-m", str(tmp_path / "model"))
    done = tokenglass(*command, "--trace", str(trace), "--html", str(html), stdin=b"hello\nand you?\n")
    assert done.returncode == 0, done.stderr.decode()
    assert html.read_bytes() == tokenglass("export", str(trace), "--html").stdout
    assert stat.S_IMODE(html.stat().st_mode) == 0o600
    assert len(data_of(html.read_text())["texts"]) == (2 if command[0] == "chat" else 1)


def test_no_page_is_written_over(tmp_path: Path) -> None:
    path = tmp_path / "run.html"
    path.write_text("mine")
    for command in (("generate", "The fox"), ("flow", "The fox and")):
        assert_one_line_error(tokenglass(*command, "--html", str(path)), 2, "a page is never overwritten")
    assert path.read_text() == "mine"


def test_a_page_of_the_flow_has_what_the_command_prints(tmp_path: Path) -> None:
    done = tokenglass("flow", "The fox met the hen", "--html", str(tmp_path / "flow.html"))
    assert done.returncode == 0, done.stderr.decode()
    tokens = data_of((tmp_path / "flow.html").read_text())["texts"][0]["tokens"]
    assert "".join(token["text"] for token in tokens) == "The fox met the hen"
    for token in tokens[-2:]:
        at = str(token["position"])
        flow = json.loads(tokenglass("flow", "The fox met the hen", "--at", at, "--jsonl").stdout)
        assert token["logprob"] == pytest.approx(flow["logprob"], rel=1e-4)
        (sums,) = (row for row in token["flow"] if row["row"] == "sums")
        assert sums["difference"] == pytest.approx(flow["difference"], rel=1e-4)
        hidden = [row["kl_bits"] for row in token["flow"] if row["row"] == "position"]
        assert hidden == pytest.approx(
            [each["direct"]["kl_bits"] for each in flow["positions"][:-1]], rel=1e-3, abs=1e-6
        )
        assert {row["row"] for row in token["flow"]} == {"layer", "position", "sums"}


def test_errors_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "bad").write_text("hello")
    assert_one_line_error(tokenglass("export", str(tmp_path / "bad"), "--html"), 1, "not a JSON line")
    assert_one_line_error(tokenglass("export", str(tmp_path / "bad")), 2, "--html")


def test_a_trace_with_text_that_is_markup_goes_through_the_command(tmp_path: Path) -> None:
    path = tmp_path / "run"
    nasty = dataclasses.replace(choice(MARKUP.encode()), piece=MARKUP.encode())
    records = (RUN, dataclasses.replace(STEP, choices=(nasty,)), FINISH)
    path.write_text("".join(to_line(record) + "\n" for record in records))
    html = tokenglass("export", str(path), "--html").stdout.decode()
    assert Scripts(html).tags == Scripts(nasty_page("plain")).tags
