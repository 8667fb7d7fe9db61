"""An untrusted tokenizer.json ends in a tokenizer or in one line, soon and with little memory."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import tiny
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, decoders, normalizers, pre_tokenizers

from tokenglass.model.errors import TokenizerError
from tokenglass.model.text.tokenizer import Tokenizer
from tokenglass.model.text.tokenizer_limits import is_vouched, read_parts
from tokenglass.model.text.tokenizer_patterns import NotSure, form_of

LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
O200K = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
REAL = [
    LLAMA_3,
    LLAMA_3.replace("{1,3}", ""),  # Qwen 2
    O200K,
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",  # GPT-2
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*",
    r" ?[^(\s|[.,!?…。，、।۔،])]+",  # BLOOM
    r"[\p{Han}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}&&[^\p{Han}]]*[\p{Ll}&&[^\p{Han}]]+(?i:'s|'t)?",  # Kimi
    r"\s?[A-Za-zµÀ-ÖØ-öø-ƺ]+|\s+$|[一-龥]+|[0-9][0-9][0-9]| {2,}",
]
SLOW = [
    *(r"(a+)+$", r"(a|a)*b", r"(a|aa)+$", r"(\w+\s?)*x", r"a*a*b", r"(.)\1+", r"(a?){30}a{30}", r"(a|a){40}b"),
    *(r"\s*\s*\s*x", r"(?:a?a?a?a?a?){9}x", r"(?=(a+)+b)c", r"a{0,60}a{0,60}a{0,60}b", r"(?<n>a|\g<n>b)", "(", "[a"),
]


@pytest.mark.parametrize("pattern", REAL)
def test_patterns_of_real_tokenizers_are_vouched_for(pattern: str) -> None:
    form_of(pattern)


@pytest.mark.parametrize("pattern", SLOW)
def test_patterns_that_can_look_for_ever_are_not(pattern: str) -> None:
    with pytest.raises(NotSure):
        form_of(pattern)


PARTS = st.sampled_from([*"ab|()?*+", "{2}", "{1,3}", "{0,50}", "(?:", "(?=", "[ab]", r"\w", "[^a]"])


@settings(max_examples=300)
@given(st.lists(PARTS, max_size=10).map("".join))
def test_a_pattern_that_is_vouched_for_is_quick_on_its_worst_texts(pattern: str) -> None:
    try:
        form_of(pattern)
        splitter = pre_tokenizers.Split(Regex(pattern), "isolated")
    except Exception:  # not vouched for, or not a pattern: the library's errors have no type of their own
        return
    started = time.process_time()
    for text in ("a" * 600 + "\x00", "ab" * 300 + "\x00", "b" * 600):
        splitter.pre_tokenize_str(text)
    assert time.process_time() - started < 2


def save(folder: Path, backend: tokenizers.Tokenizer, **parts: Any) -> Path:
    content = {**json.loads(backend.to_str()), **parts}
    (folder / "tokenizer.json").write_text(json.dumps(content))
    return folder


USUAL = {
    "byte-level": tiny.byte_level_tokenizer,
    "byte-fallback": tiny.byte_fallback_tokenizer,
    "metaspace": tiny.metaspace_tokenizer,
}


@pytest.mark.parametrize("kind", USUAL)
@pytest.mark.parametrize("indent", [None, 2])
def test_usual_tokenizers_need_no_trial(kind: str, indent: int | None) -> None:
    backend = USUAL[kind]()
    assert is_vouched(backend.to_str(pretty=indent is not None).encode())
    assert is_vouched(json.dumps(json.loads(backend.to_str()), indent=indent).encode())


def test_with_the_pattern_of_llama_3_none_is_needed_either() -> None:
    backend = tiny.byte_level_tokenizer()
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(LLAMA_3), "isolated"), pre_tokenizers.ByteLevel(use_regex=False)]
    )
    assert is_vouched(backend.to_str().encode())


@pytest.mark.parametrize(
    "behind",
    [
        '"normalizer": {"type": "Evil"}',
        '"norm\\u0061lizer": {"type": "Evil"}',
        '"pre_tokenizer" :\n\t{"type": "Evil"}',
        '"model": {"type": "BPE"}, "normalizer": {"type": "Evil"}',
    ],
)
def test_a_part_behind_the_vocabulary_is_seen(behind: str) -> None:
    content = '{"normalizer": null, "model": {"type": "BPE", "vocab": {"model": 0, "decoder": 1}}, ' + behind + "}"
    with suppress(TokenizerError):  # two models, where it is refused as it should be
        assert "Evil" in json.dumps(read_parts(content.encode()))


def test_a_part_that_stands_there_twice_is_refused(tmp_path: Path) -> None:
    """Python reads the last of them; the library might read the other."""
    content = tiny.byte_level_tokenizer().to_str()
    evil = {"type": "Replace", "pattern": {"String": "q"}, "content": "y" * 10**6}
    for first, second in ((json.dumps(evil), "null"), ("null", json.dumps(evil))):
        doubled = content.replace('"normalizer":null', f'"normalizer":{first},"normalizer":{second}', 1)
        assert doubled != content
        (tmp_path / "tokenizer.json").write_text(doubled)
        with pytest.raises(TokenizerError, match="twice"):
            Tokenizer.from_folder(tmp_path)


def doubling(times: int) -> dict[str, Any]:
    replace = {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}
    return {"type": "Sequence", "normalizers": [replace] * times, "decoders": [replace] * times}


def sequence(*parts: Any) -> dict[str, Any]:
    return {"type": "Sequence", "normalizers": parts, "pretokenizers": parts, "decoders": parts}


MANY_IDS = {
    "type": "TemplateProcessing",
    "single": [{"SpecialToken": {"id": "x", "type_id": 0}}] * 20_000 + [{"Sequence": {"id": "A", "type_id": 0}}],
    "pair": [],
    "special_tokens": {"x": {"id": "x", "ids": [0] * 2_000, "tokens": ["x"] * 2_000}},
}
TWICE = {**MANY_IDS, "single": [{"Sequence": {"id": "A", "type_id": 0}}] * 2, "special_tokens": {}}
HOSTILE: dict[str, dict[str, Any]] = {
    "doubling normaliser": {"normalizer": doubling(40)},
    "doubling decoder": {"decoder": doubling(40)},
    "doubling by bytes": {"pre_tokenizer": sequence(*[{"type": "ByteLevel", "add_prefix_space": False}] * 40)},
    "doubling without a type": {
        "normalizer": sequence(*[{"pattern": {"String": "a"}, "content": "aa"}] * 40),
    },
    "doubling by a pattern": {
        "normalizer": sequence(*[{"type": "Replace", "pattern": {"Regex": "[a-z]"}, "content": "aa"}] * 40)
    },
    "growing at empty places": {"normalizer": {"type": "Replace", "pattern": {"Regex": ""}, "content": "y" * 10**6}},
    "a long replacement": {"normalizer": {"type": "Replace", "pattern": {"String": "x"}, "content": "y" * 3 * 10**6}},
    "a long prefix": {"normalizer": {"type": "Prepend", "prepend": "y" * 3 * 10**6}},
    "many parts": {"normalizer": sequence(*[{"type": "NFC"}] * 100_000)},
    "many ids": {"post_processor": MANY_IDS},
    "the text over and over": {"post_processor": {"type": "Sequence", "processors": [TWICE] * 40}},
    "a pattern that looks for ever": {
        "pre_tokenizer": {"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated", "invert": False}
    },
    "a normaliser that looks for ever": {
        "normalizer": {"type": "Replace", "pattern": {"Regex": "(a|aa)+$"}, "content": ""}
    },
    "a decoder that cuts twice": {"decoder": {"type": "Strip", "content": "a", "start": 1, "stop": 1}},
    "a damaged table": {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}},
    "ids of four thousand millions": {"model": {"type": "BPE", "vocab": {"a": 0, "b": 4_000_000_000}, "merges": []}},
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_tokenizer_is_one_line_and_nothing_else_is_printed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], kind: str
) -> None:
    save(tmp_path, tiny.byte_level_tokenizer(), **HOSTILE[kind])
    started = time.process_time()
    with pytest.raises(TokenizerError) as caught:
        Tokenizer.from_folder(tmp_path).pieces  # noqa: B018  (the vocabulary is read when it is asked for)
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 700
    assert time.process_time() - started < 5  # of this process; a trial has its own limits
    assert capfd.readouterr() == ("", "")


def test_what_is_unusual_but_harmless_is_tried_and_loaded(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    backend = tiny.byte_level_tokenizer()
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(r"(?=(\d{3})+(?!\d))"), "isolated"), pre_tokenizers.ByteLevel()]
    )
    assert not is_vouched(backend.to_str().encode())
    backend.save(str(tmp_path / "tokenizer.json"))
    assert Tokenizer.from_folder(tmp_path).encode_bare("12345") == tuple(
        backend.encode("12345", add_special_tokens=False).ids
    )
    assert capfd.readouterr() == ("", "")


def test_parts_that_shrink_or_keep_a_text_may_stand_in_a_row(tmp_path: Path) -> None:
    backend = tiny.byte_level_tokenizer()
    backend.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), *[normalizers.Replace("``", '"'), normalizers.Replace(Regex(" {2,}"), " ")] * 20]
    )
    backend.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Replace("▁", " "), decoders.Fuse()])
    assert is_vouched(backend.to_str().encode())


@pytest.mark.skipif(sys.platform == "win32", reason="signals to a process are POSIX")
def test_ctrl_c_ends_a_trial(tmp_path: Path) -> None:
    save(tmp_path, tiny.byte_level_tokenizer(), **HOSTILE["a pattern that looks for ever"])
    program = (
        "import pathlib, sys; from tokenglass.model.text.tokenizer import Tokenizer; print(1, flush=True); "
        "Tokenizer.from_folder(pathlib.Path(sys.argv[1]))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ
    )
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert b"KeyboardInterrupt" in errors or b"TokenizerError" in errors
