"""Numbers and names from odd places: locales, environment variables, options that nobody would type."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import shell

from tokenglass.cli.run.chat_commands import obey
from tokenglass.model.errors import ParameterError
from tokenglass.model.sampling.penalties import read_bias
from tokenglass.model.text.chat import Message
from tokenglass.model.text.tokenizer import Tokenizer

NOBODY = "~no-such-user-here/x"


@pytest.mark.parametrize(
    "environment",
    [
        {"LC_ALL": "de_DE.UTF-8", "LC_NUMERIC": "de_DE.UTF-8", "PYTHONIOENCODING": "cp1252"},
        {"LC_ALL": "C", "LANG": "xx_XX", "PYTHONIOENCODING": "utf-16", "TOKENGLASS_HOME": NOBODY},
    ],
    ids=["commas for points", "ASCII"],
)
def test_numbers_are_read_and_written_with_points_in_any_locale(environment: dict[str, str]) -> None:
    done = shell.generate("The fox", "-n", "1", "--jsonl", "-t", "0.25", "--min-p", "5e-2", **environment)
    assert done.returncode == 0, done.stderr
    parameters = json.loads(done.stdout.splitlines()[0])["request"]["sampling"]
    assert (parameters["temperature"], parameters["min_p"]) == (0.25, 0.05)


def test_a_number_with_a_comma_is_one_line() -> None:
    done = shell.generate("The fox", "-t", "0,8", LC_ALL="de_DE.UTF-8")
    shell.assert_one_line_error(done, 2, "--temperature")


@pytest.mark.parametrize(
    "name", [NOBODY, "/dev/null", "\x1b]0;x\x07", "a" * 50_000], ids=["user", "file", "esc", "long"]
)
def test_a_model_that_a_variable_names_and_nobody_has_is_one_short_line(name: str) -> None:
    done = shell.generate("The fox", TOKENGLASS_MODEL=name)
    shell.assert_one_line_error(done, 1)
    assert done.stderr.decode().strip().isprintable()
    assert len(done.stderr) < 1000


@pytest.mark.parametrize("home", [NOBODY, "/dev/null", "\x1b]0;x\x07"], ids=["user", "file", "esc"])
def test_a_home_that_is_none_holds_no_models(home: str) -> None:
    done = shell.tokenglass("models", TOKENGLASS_HOME=home, HF_HUB_CACHE=home)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize(
    "item",
    [
        f"id:{'9' * 5000}=1",
        "id:99999999999999999999=1",
        "id:5=1e400",
        "id:5=nan",
        "id:5=",
        "=1",
        "id:-1=1",
        "x" * 5000,
        "x" * 5000 + "=1",
    ],
    ids=lambda item: item[:12],
)
def test_a_bias_that_cannot_be_meant_is_one_short_line(item: str, tokenizer: Tokenizer) -> None:
    from tokenglass.model.sampling.parameters import SamplingParameters  # noqa: PLC0415

    with pytest.raises(ParameterError) as refusal:
        SamplingParameters(logit_bias=(read_bias(item, tokenizer, tokenizer.vocab_size),))
    assert len(str(refusal.value)) < 300


@pytest.mark.parametrize("place", [f"{NOBODY}/talk.json", "a\0b", "/dev/null/talk.json"])
def test_a_talk_that_cannot_be_saved_goes_on(place: str) -> None:
    conversation = SimpleNamespace(messages=[Message("user", "Hi")])
    chat: Any = SimpleNamespace(model=SimpleNamespace(conversation=conversation), files=set())
    with pytest.raises(ParameterError) as refusal:
        obey(chat, f"/save {place}")
    assert str(refusal.value).startswith(f"{place}: ")
    assert not chat.files
    assert not Path(place.split("/", maxsplit=1)[0]).exists() or place.startswith("/")
