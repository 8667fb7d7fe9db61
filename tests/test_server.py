"""A server as a source of records, against stand-ins that speak as vLLM, SGLang, Ollama and OpenAI do."""

from __future__ import annotations

import json
import math
from pathlib import Path

import jsonschema
import pytest
import responses
from responses import LOGPROBS, TEXT
from served_records import RAW, choices_of, records_of
from server_stand_in import SERVERS, Reply, cut_short, events, json_reply, models, serve
from shell import assert_one_line_error, generate, tokenglass

from tokenglass.model.decoding.request import Request
from tokenglass.model.errors import ParameterError
from tokenglass.model.importers.responses import ReportedToken, num_asked_for
from tokenglass.model.records.steps import Finish, Step
from tokenglass.model.runs.schema import trace_schema
from tokenglass.model.runs.trace import from_line
from tokenglass.model.sampling.parameters import SamplingParameters
from tokenglass.model.sources.server.address import Address
from tokenglass.model.sources.server.client import find_key

SCHEMA = jsonschema.Draft202012Validator(trace_schema())


@pytest.mark.parametrize("chat", [False, True], ids=["text", "chat"])
@pytest.mark.parametrize("name", SERVERS)
def test_each_server_streams_its_text_and_its_numbers(name: str, chat: bool, tmp_path: Path) -> None:
    trace = tmp_path / "run.jsonl"
    with serve(SERVERS[name]()) as stand_in:
        arguments = ["-m", stand_in.address, "The quick brown", "-n", "10", "--temperature", "1", "--top-p", "1"]
        done = generate(*arguments, "--trace", str(trace), *(["--chat"] if chat else []))
        assert done.returncode == 0, done.stderr.decode()
        assert done.stdout.decode() == TEXT
        run, *records = [from_line(line) for line in trace.read_text().splitlines()]
    for line in trace.read_text().splitlines():
        SCHEMA.validate(json.loads(line))
    assert (run.engine.backend, run.engine.server) == (name, stand_in.address.removeprefix("http://"))
    assert run.engine.logprobs == (None if name == "openai" else "raw")
    choices = choices_of(records)
    assert [choice.logprob for choice in choices] == [chosen for chosen, _ in LOGPROBS]
    assert [[each.logprob for each in choice.candidates] for choice in choices] == [[*pair] for pair in LOGPROBS]
    assert [choice.rank for choice in choices] == [1, 1, 1]
    for choice in choices:
        assert choice.prob is choice.entropy is choice.draw is None
    assert all(record.cache is None for record in records if isinstance(record, Step))
    finish = records[-1]
    assert isinstance(finish, Finish)
    assert (finish.whole_text, finish.totals.new_tokens) == (TEXT, 3)
    replayed = tokenglass("replay", str(trace))
    assert replayed.stdout.decode() == TEXT


def test_nothing_is_recomputed_from_what_a_server_does_not_report(tmp_path: Path) -> None:
    trace = tmp_path / "run.jsonl"
    with serve(SERVERS["vllm"]()) as stand_in:
        assert generate("-m", stand_in.address, "The fox", "-n", "10", "--trace", str(trace)).returncode == 0
    other = tokenglass("replay", str(trace), "--temperature", "0.5")
    assert other.returncode == 0, other.stderr
    assert "what it was drawn from is not reported" in other.stdout.decode() + other.stderr.decode()
    for view in ("--html", "--svg", "--md", "--csv"):
        assert tokenglass("export", str(trace), view).returncode == 0


def test_a_server_is_asked_in_its_own_names() -> None:
    options = ("-n", "7", "--seed", "5", "--stop", "END", "--temperature", "0.5", "--top-p", "0.9", "--top-k", "40")
    more = ("--min-p", "0.1", "--repetition-penalty", "1.2", "--presence-penalty", "0.5", "--candidates", "3")
    common = {"temperature": 0.5, "top_p": 0.9, "presence_penalty": 0.5, "frequency_penalty": 0.0, "seed": 5}
    openai = {**common, "max_tokens": 7, "stop": ["END"], "logprobs": 3, "stream": True, "prompt": "The fox"}
    expected = {
        "vllm": {**openai, "top_k": 40, "min_p": 0.1, "repetition_penalty": 1.2, "return_token_ids": True},
        "sglang": {**openai, "top_k": 40, "min_p": 0.1, "repetition_penalty": 1.2},
        "ollama": {"prompt": "The fox", "raw": True, "logprobs": True, "top_logprobs": 3, "stream": True},
    }
    for name, body in expected.items():
        with serve(SERVERS[name]()) as stand_in:
            assert generate("-m", stand_in.address, "The fox", *options, *more).returncode == 0
            assert body.items() <= stand_in.body.items()
            if name == "ollama":
                own = {"num_predict": 7, "stop": ["END"], "top_k": 40, "min_p": 0.1, "repeat_penalty": 1.2}
                assert {**common, **own}.items() <= stand_in.body["options"].items()
    with serve(SERVERS["sglang"]()) as stand_in:
        assert generate("-m", stand_in.address, "The fox").returncode == 0
        assert stand_in.body["top_k"] == -1, "0 is no value of SGLang's"
    with serve(SERVERS["openai"]()) as stand_in:
        biases = ("--logit-bias", "id:31=-5", "--logit-bias", "id:31=2")
        assert generate("-m", f"{stand_in.address}/v1/", "Hi", "--chat", "--system", "Be kind", *biases).returncode == 0
        messages = [{"role": "system", "content": "Be kind"}, {"role": "user", "content": "Hi"}]
        assert stand_in.body["messages"] == messages
        assert stand_in.body["logit_bias"] == {"31": -3.0}
        assert {"logprobs": True, "top_logprobs": 5}.items() <= stand_in.body.items()


def test_ids_that_vllm_tells_are_kept() -> None:
    with serve(SERVERS["vllm"]()) as stand_in:
        records = records_of(stand_in, Request((785, 38835), 1, RAW, max_new_tokens=10))
        finish = records[-1]
        assert isinstance(finish, Finish)
        assert (finish.reason, finish.totals.prefill_tokens) == ("stop", 5), "a string stopped it; the usage counts"
        assert [(choice.position, choice.token_id) for choice in choices_of(records)] == [
            (2, 38835),
            (3, 127),
            (4, 102),
        ]


def test_numbers_after_the_temperature_are_never_called_raw() -> None:
    """SGLang scales by the temperature and cuts later: where nothing is cut they are what was drawn from."""
    scaled = SamplingParameters(temperature=0.5, top_p=1.0)
    with serve(SERVERS["sglang"]()) as stand_in:
        for sampling, has_final in ((scaled, True), (scaled.replace(top_p=0.9), False)):
            records = records_of(stand_in, Request((-1,), 1, sampling, max_new_tokens=10))
            for choice, (logprob, _) in zip(choices_of(records), LOGPROBS, strict=True):
                assert choice.logprob is choice.rank is None
                assert choice.prob == (pytest.approx(math.exp(logprob)) if has_final else None)
                assert all(math.isnan(each.logprob) for each in choice.candidates)


def test_a_server_without_log_probabilities_still_gives_its_text() -> None:
    plain = [{**chunk, "choices": [{**choice, "logprobs": None} for choice in chunk["choices"]]} for chunk in
             responses.COMPLETION_STREAM]  # fmt: skip
    for completions in (events(plain), [json_reply({"detail": "logprobs: unknown"}, status=422), events(plain)]):
        with serve(SERVERS["openai"](**{"/v1/completions": completions})) as stand_in:
            records = records_of(stand_in)
            assert "".join(record.text for record in records) == TEXT
            assert all(choice.logprob is None for choice in choices_of(records))
            assert isinstance(records[-1], Finish)
            assert records[-1].totals.new_tokens == 3, "the server's own count: a message may hold several tokens"


def test_the_key_is_sent_and_never_shown(tmp_path: Path) -> None:
    refused = json_reply({"error": {"message": "Incorrect API key provided: sk-fox-secret"}}, status=401)
    with serve(SERVERS["openai"]()) as stand_in:
        trace = tmp_path / "run.jsonl"
        done = generate(
            "-m", stand_in.address, "x", "--stats", "--trace", str(trace), TOKENGLASS_API_KEY="sk-fox-secret"
        )
        assert stand_in.headers[-1]["Authorization"] == "Bearer sk-fox-secret"
        assert "sk-fox" not in done.stderr.decode() + trace.read_text()
        stand_in.replies["/v1/completions"] = refused
        done = generate("-m", stand_in.address, "x", "--debug", OPENAI_API_KEY="sk-fox-secret")
        assert stand_in.headers[-1]["Authorization"] == "Bearer sk-fox-secret"
        assert "TOKENGLASS_API_KEY" in done.stderr.decode()
        assert "sk-fox" not in done.stderr.decode()
        stand_in.replies["/v1/completions"] = cut_short(b'data: {"error": "no sk-fox-secret here"}\n')
        done = generate("-m", stand_in.address, "x", "--trace", str(tmp_path / "b"), TOKENGLASS_API_KEY="sk-fox-secret")
        assert b"no [key] here" in done.stderr
        assert "sk-fox" not in (tmp_path / "b").read_text()
        stand_in.replies["/v1/models"] = refused
        assert_one_line_error(generate("-m", stand_in.address, "x"), 1, "put its key into TOKENGLASS_API_KEY")


def test_openai_s_key_goes_to_nobody_whom_others_can_hear() -> None:
    environment = {"OPENAI_API_KEY": "sk-1"}
    for text, key in (
        ("https://api.openai.com/v1", "sk-1"),
        ("http://localhost:1", "sk-1"),
        ("http://10.0.0.7:1", None),
    ):
        assert find_key(Address.parse(text), environment) == key
    assert find_key(Address.parse("http://10.0.0.7:1"), {"TOKENGLASS_API_KEY": " own "}) == "own"
    with pytest.raises(ParameterError, match="TOKENGLASS_API_KEY"):
        find_key(Address.parse("http://localhost"), {"TOKENGLASS_API_KEY": "a\nb"})


@pytest.mark.parametrize(
    ("text", "root"),
    [
        ("http://localhost:8000", "http://localhost:8000"),
        ("http://localhost:8000/v1/", "http://localhost:8000"),
        ("https://host/prefix/v1", "https://host/prefix"),
        ("http://[::1]:80", "http://[::1]:80"),
    ],
)
def test_addresses(text: str, root: str) -> None:
    assert Address.parse(text).root == root


@pytest.mark.parametrize(
    "text", ["http://", "http://a:b", "http://u:secret@host", "http://h?key=secret", "http://h:99999"]
)
def test_what_is_no_address_is_one_line_without_secrets(text: str) -> None:
    done = generate("-m", text, "x")
    assert_one_line_error(done, 2, "http://HOST:PORT")
    assert b"secret" not in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        *(("--no-cache",), ("--beams", "2"), ("--num-samples", "2"), ("--flow",), ("--mode", "parallel"), ("--heal",)),
        *(("--json",), ("--regex", "a"), ("--choice", "a"), ("--stages",), ("--forks", "1"), ("--quantize", "int8")),
        *(("--ban", "a"), ("--negative", "a", "--guidance", "2"), ("--truncate", "left"), ("--threads", "1")),
        *(("--samplers", "top-k"), ("--dry-multiplier", "1"), ("--top-n-sigma", "1"), ("--save-cache", "a")),
    ],
    ids=lambda arguments: arguments[0],
)
def test_what_a_server_cannot_do_is_refused_by_name(arguments: tuple[str, ...]) -> None:
    with serve(SERVERS["vllm"]()) as stand_in:
        assert_one_line_error(generate("-m", stand_in.address, "x", *arguments), 2, arguments[0])
        assert all(path in {"/v1/models", "/tokenize"} for path, _ in stand_in.asked), "nothing was written"


def test_what_one_server_cannot_do_is_refused_for_that_one() -> None:
    with serve(SERVERS["openai"]()) as stand_in:
        for arguments in (("--top-k", "5"), ("--ignore-eos",), ("--min-new-tokens", "2")):
            assert_one_line_error(generate("-m", stand_in.address, "x", *arguments), 2, arguments[0], "openai")
    with serve(SERVERS["ollama"]()) as stand_in:
        assert_one_line_error(generate("-m", stand_in.address, "x", "--logit-bias", "id:1=2"), 2, "--logit-bias")
        assert_one_line_error(generate("-m", stand_in.address, "x", "--seed", str(2**40)), 2, "--seed")
    with serve(SERVERS["vllm"]()) as stand_in:
        assert_one_line_error(generate("-m", stand_in.address, "x", "--logit-bias", "fox=2"), 2, "id:NUMBER")


def test_one_of_several_models_is_named() -> None:
    with serve(SERVERS["vllm"](**{"/v1/models": models("vllm", "fox-7b", "hen-1b\x1b[31m")})) as stand_in:
        assert_one_line_error(generate("-m", stand_in.address, "x"), 2, "--remote-model", "fox-7b", "\\x1b")
        assert_one_line_error(
            generate("-m", stand_in.address, "x", "--remote-model", "fox-7"), 2, "did you mean fox-7b"
        )
        assert generate("-m", stand_in.address, "x", "--remote-model", "fox-7b").returncode == 0
        assert stand_in.body["model"] == "fox-7b"
    with serve(SERVERS["ollama"]()) as stand_in:
        assert generate("-m", stand_in.address, "x", "--remote-model", "gemma3").returncode == 0
        assert stand_in.body["model"] == "gemma3:latest"
    assert_one_line_error(generate("x", "--remote-model", "a"), 2, "-m http://")


def test_other_commands_say_that_they_need_the_model_here() -> None:
    for command in (("flow", "x"), ("inspect",), ("tokens", "x")):
        arguments = [command[0], *(["http://127.0.0.1:9"] if command == ("inspect",) else ["-m", "http://127.0.0.1:9"])]
        assert_one_line_error(tokenglass(*arguments, *command[1:]), 2, "server")


def test_without_httpx_one_line_names_the_extra(tmp_path: Path) -> None:
    (tmp_path / "httpx.py").write_text("raise ImportError")
    done = generate("-m", "http://127.0.0.1:9", "x", PYTHONPATH=str(tmp_path))
    assert_one_line_error(done, 1, 'pip install "tokenglass[server]"')


def echo(ids: list[int]) -> Reply:
    """What vLLM answers to echo with logprobs: the prompt's tokens, then one more (docs.vllm.ai, "Completions API")."""
    count = len(ids) + 1
    logprobs = {
        "text_offset": [2 * at for at in range(count)],
        "tokens": [f" {at}" for at in range(count)],
        "token_logprobs": [None, *(-0.5 * at for at in range(1, count))],
        "top_logprobs": [None, *({" x": -0.1, f" {at}": -0.5 * at} for at in range(1, count))],
    }
    return json_reply({**responses.COMPLETION, "choices": [{"index": 0, "text": "", "logprobs": logprobs}]})


def test_a_given_text_is_scored_from_an_echo(tmp_path: Path) -> None:
    (tmp_path / "text").write_text(" 0 1 2")
    ids = json_reply({"count": 3, "max_model_len": 4096, "tokens": [7, 8, 9]})
    with serve(SERVERS["vllm"](**{"/tokenize": ids, "/v1/completions": echo([7, 8, 9])})) as stand_in:
        done = tokenglass("score", str(tmp_path / "text"), "-m", stand_in.address, "--jsonl", "--candidates", "2")
        *tokens, score = map(json.loads, done.stdout.splitlines())
        assert [token["token_id"] for token in tokens] == [7, 8, 9]
        assert [token["logprob"] for token in tokens] == [None, -0.5, -1.0]
        assert [token["rank"] for token in tokens] == [None, 2, 2]
        assert [token["offset"] for token in tokens] == [0, 2, 4]
        assert score["bytes"] == 4
        assert score["bits"] == pytest.approx(1.5 / math.log(2))
        assert {"echo": True, "prompt": [7, 8, 9], "logprobs": 2}.items() <= stand_in.body.items()
        one = tokenglass("score", str(tmp_path / "text"), "-m", stand_in.address, "--jsonl", "--candidates", "1")
        ranks = [json.loads(line).get("rank") for line in one.stdout.splitlines()[:3]]
        assert ranks == [None, None, None], "a token behind the one that was asked for has no rank"
        stand_in.replies["/v1/completions"] = echo([7])
        cut = tokenglass("score", str(tmp_path / "text"), "-m", stand_in.address, "--json")
        assert_one_line_error(cut, 1, "2 of 3 tokens")
    for name in ("openai", "ollama"):
        with serve(SERVERS[name]()) as stand_in:
            for command in (("score", str(tmp_path / "text")), ("choose", "-p", "x", "a", "b")):
                assert_one_line_error(tokenglass(*command, "-m", stand_in.address), 2, "vLLM, SGLang and llama.cpp")


@pytest.mark.parametrize(
    ("counts", "last", "asked_for"),
    [
        ((3, 4, 4), (False, True, True), 3),
        ((3, 3), (False, True), 3),
        ((3, 4), (True, True), 3),
        ((4, 4), (True, True), 3),
        ((1, 1), (True, True), 1),
        ((0, 0), (True, True), 0),
    ],
)
def test_how_many_candidates_a_completion_was_asked_for_is_never_guessed_too_high(
    counts: tuple[int, ...], last: tuple[bool, ...], asked_for: int
) -> None:
    tokens = []
    for count, is_last in zip(counts, last, strict=True):
        top = tuple(ReportedToken(str(place).encode(), None, -float(place)) for place in range(count))
        tokens.append(ReportedToken(top[-1 if is_last else 0].piece if top else b"x", None, -1.0, None, top))
    assert num_asked_for(tokens) == asked_for


def test_a_token_of_vllm_s_chat_that_took_the_place_of_a_candidate_has_no_rank() -> None:
    """Of three candidates that are asked for it reports the token, however improbable, and the first two (seen of
    version 0.32)."""
    beside = [{"token": token, "logprob": logprob} for token, logprob in (("Yet", -13.0), ("A", -0.25), ("The", -2.0))]
    content = [{**beside[0], "top_logprobs": beside}, {**beside[1], "top_logprobs": beside[1:]}]
    choices = [{"index": 0, "delta": {"content": "YetA"}, "logprobs": {"content": content}, "finish_reason": "stop"}]
    stream = events([{**responses.CHAT_STREAM[0], "choices": choices}])
    with serve(SERVERS["vllm"](**{"/v1/chat/completions": stream})) as stand_in:
        done = generate("-m", stand_in.address, "--chat", "Hello", "--jsonl", "--top", "3")
    steps = [json.loads(line) for line in done.stdout.splitlines()[1:-1]]
    assert [[choice["rank"] for choice in step["choices"]] for step in steps] == [[None], [1]]
