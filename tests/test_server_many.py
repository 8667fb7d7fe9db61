"""Many prompts of a server: the lines of a run here, from stand-ins and from llama.cpp's own server on loopback."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import responses
from responses import TEXT
from served_gguf import write_model
from server_stand_in import SERVERS, Reply, StandIn, events, json_reply, serve
from shell import ENVIRONMENT, SCRIPTS, assert_one_line_error, generate
from terminal import Terminal

from tokenglass.model.decoding.request import Request
from tokenglass.model.errors import ParameterError, TokenglassError, UnreachableError
from tokenglass.model.records.steps import Finish, Record
from tokenglass.model.runs.answers import derive_seed
from tokenglass.model.sources.concurrent import ConcurrentTexts, SourceText

sys.path.insert(0, str(Path(__file__).parent / "peers"))

Line = dict[str, Any]
LOGPROBS = {"logprobs", "top_logprobs", "n_probs"}


def lines_of(content: bytes) -> list[Line]:
    return [json.loads(line) for line in content.splitlines()]


def ask(address: str, entries: Sequence[Any], *arguments: str) -> subprocess.CompletedProcess[bytes]:
    text = "".join(json.dumps(entry) + "\n" for entry in entries)
    return generate("-m", address, "--prompts", "-", "--seed", "7", *arguments, stdin=text.encode())


def bodies_of(stand_in: StandIn) -> list[Line]:
    """Of the texts that were asked for."""
    return [body for path, body in stand_in.asked if path not in ("/v1/models", "/tokenize", "/api/version")]


@pytest.mark.parametrize("name", SERVERS)
def test_every_kind_of_server_answers_lines_and_tells_candidates_only_where_they_are_wanted(name: str) -> None:
    with serve(SERVERS[name]()) as stand_in:
        done = generate("-m", stand_in.address, "--each-line", "--seed", "7", stdin=b"The fox\nThe hen\n\nThe bear\n")
        assert done.returncode == 0, done.stderr
        answers, bodies = lines_of(done.stdout), bodies_of(stand_in)
        assert [answer["id"] for answer in answers] == [1, 2, 4]
        for answer in answers:
            assert (answer["text"], answer["run_seed"], answer["new_tokens"]) == (TEXT, 7, 3)
            assert answer["prompt_tokens"] == (4 if name == "ollama" else 5), "as the server counts them"
            assert "choices" not in answer
        assert sorted(body["prompt"] for body in bodies) == ["The bear", "The fox", "The hen"]
        assert not any(LOGPROBS & body.keys() for body in bodies)
        chat = ask(stand_in.address, [{"messages": [{"role": "user", "content": "Hi"}]}], "--candidates", "2")
        assert [len(choice["candidates"]) for choice in lines_of(chat.stdout)[0]["choices"]] == [2, 2, 2]
        assert bodies_of(stand_in)[-1]["messages"] == [{"role": "user", "content": "Hi"}]
        assert bodies_of(stand_in)[-1].keys() >= {"logprobs"}


def test_a_seed_is_derived_from_the_id_and_fits_the_server() -> None:
    with serve(SERVERS["ollama"]()) as stand_in:
        done = ask(stand_in.address, [{"id": f"n{number}", "prompt": "x"} for number in range(4)], "--slots", "1")
        seeds = [derive_seed(7, f"n{number}") % 2**31 for number in range(4)]
        assert [answer["seed"] for answer in lines_of(done.stdout)] == seeds
        assert [body["options"]["seed"] for body in bodies_of(stand_in)] == seeds
        assert max(derive_seed(7, f"n{number}") for number in range(4)) >= 2**31
        refused = ask(stand_in.address, [{"prompt": "x", "seed": 2**40}])
        assert refused.returncode == 1
        assert b"takes seeds up to" in refused.stderr


def test_a_line_that_this_server_refuses_or_cannot_do_is_told_by_its_number_and_stops_no_other() -> None:
    refused = json_reply({"error": {"message": "the prompt is too long"}}, status=400)
    broken = Reply([b'data: {"choices": [{"index": 0, "text": " fox"}]}\n\n', b"data: hello\n\n"])
    written = events(responses.COMPLETION_STREAM)
    entries = [
        *({"id": name, "prompt": "The fox"} for name in "abc"),
        {"id": "d", "prompt": "The fox", "regex": "a+"},
        {"id": "e", "prompt": ""},
        {"id": "f", "prompt": "The fox", "top_k": 5},
        {"id": "g", "prompt": "The fox", "max_new_tokens": 10},
    ]
    with serve(SERVERS["openai"](**{"/v1/completions": [refused, broken, written]})) as stand_in:
        done = ask(stand_in.address, entries, "--slots", "1")
        assert done.returncode == 1
        answers = {answer["id"]: answer for answer in lines_of(done.stdout)}
        assert [*answers] == [*"abcdefg"]
        assert [name for name in answers if answers[name]["finish_reason"] != "error"] == ["c", "g"]
        assert "the prompt is too long" in answers["a"]["error"]
        assert (answers["b"]["text"], "cannot be read" in answers["b"]["error"]) == (" fox", True)
        assert "--regex is not for a server" in answers["d"]["error"]
        assert "--top-k is nothing that openai can be asked for" in answers["f"]["error"]
        lines = done.stderr.decode().splitlines()
        assert [line.split(":")[0] for line in lines[:-1]] == [f"line {number}" for number in (1, 2, 4, 5, 6)]
        assert "2 prompts answered, 5 could not be" in lines[-1]
        assert bodies_of(stand_in)[-1]["max_tokens"] == 10


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (events(responses.COMPLETION_STREAM[:2], breaks=True), "broke off"),
        (json_reply({"error": {"message": "no"}}, status=401), "TOKENGLASS_API_KEY"),
        (Reply(status=429, headers={"Retry-After": "3600"}), "asks to wait 3,600 s"),
    ],
    ids=["broken off", "no key", "busy"],
)
def test_a_server_that_answers_nobody_ends_the_run_and_the_same_command_goes_on(
    reply: Reply, words: str, tmp_path: Path
) -> None:
    file, written = tmp_path / "answers.jsonl", events(responses.COMPLETION_STREAM)
    entries = [{"id": number, "prompt": "The fox"} for number in range(6)]
    with serve(SERVERS["openai"](**{"/v1/completions": [written, written, reply]})) as stand_in:
        done = ask(stand_in.address, entries, "--slots", "1", "--output", str(file))
        assert_one_line_error(done, 1, words)
        assert [answer["id"] for answer in lines_of(file.read_bytes())] == [0, 1], "nothing is answered by an error"
        stand_in.replies["/v1/completions"] = written
        done = ask(stand_in.address, entries, "--output", str(file))
        assert done.returncode == 0, done.stderr
        assert b"2 were before" in done.stderr
    assert [answer["id"] for answer in lines_of(file.read_bytes())] == list(range(6))


def test_a_busy_server_is_asked_again_and_every_prompt_is_answered() -> None:
    busy, written = Reply(status=429, headers={"Retry-After": "0"}), events(responses.COMPLETION_STREAM)
    with serve(SERVERS["openai"](**{"/v1/completions": [written, busy, busy, written, busy, written]})) as stand_in:
        done = ask(stand_in.address, [{"prompt": "x"}] * 4, "--slots", "1")
        assert done.returncode == 0, done.stderr
        assert [answer["finish_reason"] for answer in lines_of(done.stdout)] == ["length"] * 4
        assert len(bodies_of(stand_in)) == 4 + 3


def test_options_that_no_server_honours_are_refused_before_anything_is_read() -> None:
    for arguments in (("--heal",), ("--quantize", "int8"), ("--regex", "a"), ("--truncate", "left")):
        assert_one_line_error(
            generate("-m", "http://127.0.0.1:9", "--each-line", *arguments, stdin=b"x\n"), 2, arguments[0]
        )
    done = generate("--each-line", "--remote-model", "a", stdin=b"x\n")
    assert_one_line_error(done, 2, "-m http://")


class Gates:
    """Prompts whose texts wait until they are let go."""

    def __init__(self, count: int):
        self.begun: list[int] = []
        self.gates = [threading.Event() for _ in range(count)]

    @property
    def are_left(self) -> bool:
        return len(self.begun) < len(self.gates)

    def take(self, *, wait: bool) -> SourceText:
        number = len(self.begun)
        self.begun.append(number)
        return SourceText(Gate(self.gates[number], number), Request((-1,), 1), number)


class Gate:
    def __init__(self, gate: threading.Event, number: int):
        self.gate, self.number = gate, number

    def records(self, _: Request, interrupt: Any) -> Iterator[Record]:
        while not self.gate.wait(0.01) and not interrupt.is_set():
            pass
        if self.number == 1:
            raise ParameterError("not this one")
        if self.number == 4:
            raise UnreachableError("gone")
        yield from ()


def test_as_many_texts_are_open_as_there_are_slots_and_an_end_of_the_server_begins_no_more() -> None:
    prompts, failures, flag = Gates(9), dict[int, TokenglassError](), threading.Event()
    records = ConcurrentTexts(prompts, 3, flag, failures).records()
    ends = []
    for number in (2, 1, 0, 4, 3, 5):
        prompts.gates[number].set()
        ends.append(next(records))
        assert len(prompts.begun) - len(ends) < 3
    with pytest.raises(UnreachableError, match="gone"):
        next(records)
    assert [end.sequence for end in ends] == [2, 1, 0, 4, 3, 5]
    assert failures.keys() == {1}
    assert len(prompts.begun) == 6


def test_an_interrupt_lets_the_texts_end_that_have_begun() -> None:
    prompts, flag = Gates(9), threading.Event()
    prompts.gates[0].set()
    records = ConcurrentTexts(prompts, 2, flag, {}).records()
    assert isinstance(next(records), Finish)
    flag.set()
    for gate in prompts.gates:
        gate.set()
    assert all(isinstance(record, Finish) for record in records)
    assert len(prompts.begun) <= 3


# llama.cpp's server


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    pytest.importorskip("xllamacpp", reason="xllamacpp is not installed: pip install xllamacpp")
    from llama_cpp import LlamaCpp  # noqa: PLC0415  (a peer that may be absent)

    served = LlamaCpp(write_model(tmp_path_factory.mktemp("gguf")), context=512, slots=4)
    yield str(served.server.listening_address)
    del served  # it ends with the last who knows it


def story(number: int) -> Line:
    return {"id": f"n{number}", "prompt": f"The fox number {number}", "ignore_eos": True, "max_new_tokens": 8}


@pytest.mark.slow
def test_two_hundred_prompts_are_answered_in_order_whatever_slots_there_are(address: str) -> None:
    entries = [story(number) for number in range(200)]
    answers = lines_of(ask(address, entries).stdout)
    assert [answer["id"] for answer in answers] == [f"n{number}" for number in range(200)]
    assert all(answer["finish_reason"] == "length" and answer["new_tokens"] == 8 for answer in answers)
    for answer in answers[::90]:
        arguments = ("-m", address, f"The fox number {answer['id'][1:]}", "-n", "8", "--ignore-eos")
        alone = generate(*arguments, "--seed", str(answer["seed"]))
        assert alone.stdout.decode() == answer["text"]
    assert len({answer["text"] for answer in answers}) > 100
    unordered = lines_of(ask(address, entries, "--slots", "9", "--unordered").stdout)
    assert sorted(unordered, key=lambda answer: int(answer["id"][1:])) == answers


@pytest.mark.slow
def test_candidates_of_a_line_are_those_of_its_single_run(address: str) -> None:
    done = ask(address, [{**story(1), "seed": 5}], "--candidates", "3")
    (answer,) = lines_of(done.stdout)
    arguments = ("-m", address, "The fox number 1", "-n", "8", "--ignore-eos", "--seed", "5", "--candidates", "3")
    steps = [line for line in lines_of(generate(*arguments, "--jsonl").stdout) if line["record"] == "step"]
    single = [choice for step in steps for choice in step["choices"]]
    for one, other in zip(answer["choices"], single, strict=True):
        assert (one["position"], one["token_id"]) == (other["position"], other["token_id"])
        assert one["logprob"] == pytest.approx(other["logprob"], abs=1e-3)
        assert len(one["candidates"]) == 3 + (one["rank"] is None)


@pytest.mark.slow
def test_a_killed_run_over_a_server_goes_on_and_a_ctrl_c_lets_texts_end(address: str, tmp_path: Path) -> None:
    prompts, file = tmp_path / "prompts.jsonl", tmp_path / "answers.jsonl"
    prompts.write_text("".join(json.dumps({**story(number), "max_new_tokens": 200}) + "\n" for number in range(60)))
    command = [SCRIPTS / "generate", "-m", address, "--prompts", prompts, "--seed", "7", "--output", file]
    for stop in (signal.SIGKILL, signal.SIGINT):
        before = file.read_bytes().count(b"\n") if file.exists() else 0
        with subprocess.Popen(command, stderr=subprocess.PIPE, env=ENVIRONMENT) as running:
            while file.read_bytes().count(b"\n") < before + 5 if file.exists() else True:
                assert running.poll() is None
                threading.Event().wait(0.01)
            running.send_signal(stop)
            _, errors = running.communicate(timeout=60)
    assert running.returncode == 130
    assert f"the same command goes on with {file}" in errors.decode()
    done = subprocess.run(command, capture_output=True, check=False, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    answers = lines_of(file.read_bytes())
    assert [answer["id"] for answer in answers] == [f"n{number}" for number in range(60)]
    assert {answer["new_tokens"] for answer in answers} == {200}


@pytest.mark.slow
def test_the_slots_of_a_server_show_whose_text_is_in_each_and_that_no_cache_is_reported(
    address: str, tmp_path: Path
) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({**story(number), "max_new_tokens": 300}) + "\n" for number in range(12)))
    program = f"exec {shlex.quote(str(SCRIPTS / 'generate'))} -m {address} --prompts {prompts} --view live"
    terminal = Terminal(program=f"{program} --output {tmp_path / 'answers.jsonl'}", columns=100, lines=24)
    frames = [*terminal.frames()]
    panels = [[line for line in frame if line.startswith(" ▸")] for frame in frames]
    assert max(map(len, panels)) == 4
    assert any("/300 " in line for panel in panels for line in panel)
    assert any("cache" in line and "not reported" in line for frame in frames for line in frame)
