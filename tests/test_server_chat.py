"""A chat with the model of a server: what is sent at each turn, and what is shown and kept of the answer."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import responses
from responses import CONTENT, SAID, TEXT
from served_gguf import CONTEXT, write_model
from server_stand_in import SERVERS, Reply, StandIn, events, ndjson, serve
from shell import assert_one_line_error, generate, tokenglass
from test_chat_looks import DIM, Talk, assert_lines

sys.path.insert(0, str(Path(__file__).parent / "peers"))

CHATS = {"ollama": "/api/chat"}  # others: /v1/chat/completions


def talk(address: str, *lines: str, options: tuple[str, ...] = ()) -> subprocess.CompletedProcess[bytes]:
    return tokenglass(
        "chat", "-m", address, "--seed", "1", *options, stdin="".join(f"{line}\n" for line in lines).encode()
    )


def sent_turns(stand_in: StandIn) -> list[list[tuple[str, str]]]:
    """The messages of each turn."""
    return [
        [(message["role"], message["content"]) for message in body["messages"]]
        for _, body in stand_in.asked
        if "max_tokens" in body or "options" in body
    ]


@pytest.mark.parametrize("name", SERVERS)
def test_every_turn_sends_all_messages_and_the_answer_is_the_next_of_them(name: str, tmp_path: Path) -> None:
    saved, trace = tmp_path / "talk.json", tmp_path / "run.jsonl"
    lines = ("Hello", "And?", "/retry", "/undo", "Well?", f"/save {saved}", "/tokens")
    with serve(SERVERS[name]()) as stand_in:
        done = talk(stand_in.address, *lines, options=("--system", "Be kind", "--stats", "--trace", str(trace)))
    assert done.returncode == 0, done.stderr
    assert done.stdout.decode() == f"{TEXT}\n" * 4
    first = [("system", "Be kind"), ("user", "Hello")]
    second = [*first, ("assistant", TEXT), ("user", "And?")]
    assert sent_turns(stand_in) == [first, second, second, [*first, ("assistant", TEXT), ("user", "Well?")]]
    errors = done.stderr.decode()
    assert f"({name})" in errors
    assert "reused" not in errors, "nobody reports it"
    assert [message["content"] for message in json.loads(saved.read_text())] == [
        "Be kind",
        "Hello",
        TEXT,
        "Well?",
        TEXT,
    ]
    runs = [json.loads(line) for line in trace.read_text().splitlines() if '"record":"run"' in line]
    assert [run["request"]["seed"] for run in runs] == [1, 1, 2, 2], "the next seed for another answer"


def thought_of(name: str) -> Reply:
    """A stream whose first token is a thought, which the server tells apart: vLLM as `reasoning`, SGLang as
    `reasoning_content` (docs.vllm.ai and docs.sglang.io, "Reasoning Outputs" and "Reasoning Parser"), Ollama as
    `thinking` (docs.ollama.com, "Thinking")."""
    field = {"ollama": "thinking", "sglang": "reasoning_content"}.get(name, "reasoning")
    if name == "ollama":
        chunk: Any = {
            **responses.OLLAMA_CHAT_STREAM[0],
            "message": {"role": "assistant", field: " fox", "content": ""},
        }
        return ndjson([chunk, *responses.OLLAMA_CHAT_STREAM[1:]])
    choice = {"index": 0, "delta": {field: " fox"}, "logprobs": {"content": [CONTENT[0]]}, "finish_reason": None}
    return events([{**responses.CHAT_STREAM[0], "choices": [choice]}, *responses.CHAT_STREAM[1:]])


@pytest.mark.parametrize("name", SERVERS)
def test_a_thought_that_is_told_apart_stands_in_tags_and_is_never_sent_back(name: str, tmp_path: Path) -> None:
    saved, answer = tmp_path / "talk.json", "".join(SAID[1:])
    path = CHATS.get(name, "/v1/chat/completions")
    with serve(SERVERS[name](**{path: thought_of(name)})) as stand_in:
        done = talk(stand_in.address, "Hello", "/thoughts", f"/save {saved}", "And?")
        assert done.returncode == 0, done.stderr
        written = generate("-m", stand_in.address, "--chat", "Hello", "--jsonl")
    assert done.stdout.decode() == f"<think> fox</think>\n\n{answer}\n" * 2
    assert " fox" in done.stderr.decode()
    assert json.loads(saved.read_text())[-1] == {"role": "assistant", "content": answer, "reasoning_content": " fox"}
    assert sent_turns(stand_in)[1] == [("user", "Hello"), ("assistant", answer), ("user", "And?")]
    assert not any(" fox" in json.dumps(body) for _, body in stand_in.asked)
    *steps, finish = [json.loads(line) for line in written.stdout.splitlines()[1:]]
    assert [len(step["choices"]) for step in steps] == [1, 1, 1], "a tag is no token"
    assert finish["whole_text"] == f"<think> fox</think>\n\n{answer}"


def test_an_answer_that_breaks_off_leaves_the_conversation_as_it_was(tmp_path: Path) -> None:
    saved, path = tmp_path / "talk.json", "/v1/chat/completions"
    whole = events(responses.CHAT_STREAM)
    replies: list[Reply] = [whole, events(responses.CHAT_STREAM[:2], breaks=True), whole]
    with serve(SERVERS["openai"](**{path: replies})) as stand_in:
        terminal = Talk(stand_in.address, "--view", "plain")
        terminal.ask("Hello")
        assert "broke off the connection" in " ".join(terminal.ask("And?"))
        terminal.ask("And now?")
        terminal.ask(f"/save {saved}")
        terminal.leave()
    assert [message["content"] for message in json.loads(saved.read_text())] == ["Hello", TEXT, "And now?", TEXT]


def test_what_a_chat_over_a_server_cannot_do_is_refused_by_name() -> None:
    with serve(SERVERS["vllm"]()) as stand_in:
        for option in (("--regex", "a"), ("--no-cache",), ("--ban", "x"), ("--quantize", "int8")):
            assert_one_line_error(talk(stand_in.address, "x", options=option), 2, option[0])
        done = talk(stand_in.address, "Hello", "/set regex a", "/set top_k 5", "/continue", "/flow", "More")
        lines = done.stderr.decode().splitlines()
        expected = ("--regex is not for a server", "top_k 5", "try /retry", "/flow looks into a model that is here")
        for words, line in zip(expected, lines, strict=True):
            assert words in line
        assert stand_in.body["top_k"] == 5
    assert_one_line_error(tokenglass("chat", "--remote-model", "a", stdin=b""), 2, "-m http://")


# llama.cpp's server


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    pytest.importorskip("xllamacpp", reason="xllamacpp is not installed: pip install xllamacpp")
    from llama_cpp import LlamaCpp  # noqa: PLC0415  (a peer that may be absent)

    served = LlamaCpp(write_model(tmp_path_factory.mktemp("gguf")), context=CONTEXT)
    yield str(served.server.listening_address)
    del served  # it ends with the last who knows it


GREEDY = ("-n", "6", "--temperature", "0")


def write(address: str, prompt: str) -> str:
    return generate("-m", address, prompt, *GREEDY).stdout.decode()


@pytest.mark.slow
def test_the_text_of_a_conversation_is_what_the_server_s_template_makes_of_it(address: str) -> None:
    done = talk(address, "Hello", "And?", "/continue", "/undo", "/continue", options=GREEDY)
    assert done.returncode == 0, done.stderr
    first = write(address, asked := "<user>Hello\n<assistant>")
    second = write(address, behind := f"{asked}{first}\n<user>And?\n<assistant>")
    more = write(address, behind + second)
    assert done.stdout.decode() == f"{first}\n{second}\n{more}\n{write(address, asked + first)}\n"


@pytest.mark.slow
@pytest.mark.parametrize("view", ["live", "plain"])
def test_roles_stand_apart_and_a_ctrl_c_closes_the_request_and_keeps_the_chat(address: str, view: str) -> None:
    terminal = Talk(address, "--view", view, "-n", "4", "--ignore-eos", columns=120)
    assert_lines(terminal.lines(), "a.gguf, seed 1. /help names the commands, Ctrl-D ends.", "", ">")
    terminal.ask("Is it?")
    facts = r"4 tokens(, [\d,]+ tok/s)?, cache not reported, stopped at -n: /continue goes on"
    assert_lines(terminal.ask("Is it?")[-2:], facts, "")
    assert any("cache not reported" in dim for dim in DIM.findall(terminal.output))
    panel = re.compile(r"raw [\d.]+ %   entropy [\d.]+ bits or more   cache not reported")
    assert bool(panel.search(terminal.output)) == (view == "live"), "what is reported, and a bound"
    terminal.ask(f"/set n {CONTEXT - 200}")
    before, length = terminal.num_prompts(), len(terminal.output)
    terminal.child.sendline("Go on!")
    terminal.wait_for(lambda: len(terminal.output) > length + 200)
    assert is_busy(address)
    terminal.child.sendintr()
    terminal.wait_for_prompt(before)
    assert "stopped: /continue goes on" in terminal.text()
    terminal.wait_for(lambda: not is_busy(address))
    terminal.ask("/set n 3")
    assert_lines(terminal.ask("/continue")[-2:], facts.replace("4 tok", "3 tok"), "")
    terminal.leave()


def is_busy(address: str) -> bool:
    with urllib.request.urlopen(f"{address}/slots", timeout=60) as answer:
        return any(slot["is_processing"] for slot in json.load(answer))
