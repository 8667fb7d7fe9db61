"""Text and token ids, for each kind of tokenizer: byte-true pieces, one start token, and text that streams."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

import pytest
import tiny
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tokenglass.model.errors import TokenizerError
from tokenglass.model.text.tokenizer import REPLACEMENT, StreamingDetokenizer, Tokenizer

BACKENDS = {
    "byte-level": tiny.byte_level_tokenizer(),
    "byte-fallback": tiny.byte_fallback_tokenizer(),
    "metaspace": tiny.metaspace_tokenizer(),
}
TOKENIZERS = {name: Tokenizer(backend) for name, backend in BACKENDS.items()}
LOSSLESS = {name: TOKENIZERS[name] for name in ("byte-level", "byte-fallback")}

every_kind = pytest.mark.parametrize("tokenizer", TOKENIZERS.values(), ids=TOKENIZERS)
lossless = pytest.mark.parametrize("tokenizer", LOSSLESS.values(), ids=LOSSLESS)

WORDS = st.sampled_from(
    ["The", "fox said:", "日本語", "été", "👩‍👩‍👧‍👦", "🏳️‍🌈", "שלום", "नमस्ते", "", " ", "\n\t", "\r\n", "\0"]
)
TEXT = (st.text() | st.lists(WORDS).map(" ".join)).filter(lambda text: "▁" not in text and REPLACEMENT not in text)


def streamed(tokenizer: Tokenizer, prompt: tuple[int, ...], ids: list[int]) -> list[str]:
    """What is printed token by token, and at the end."""
    detokenizer = StreamingDetokenizer(tokenizer, prompt)
    return [*(detokenizer.add(token_id) for token_id in ids), detokenizer.flush()]


@every_kind
@settings(max_examples=80)
@given(prompt=TEXT, data=st.data())
def test_streamed_text_is_what_any_ids_add_to_the_decoded_prompt(
    tokenizer: Tokenizer, prompt: str, data: st.DataObject
) -> None:
    """Random ids: invalid UTF-8, half characters, special tokens in the middle, ids without a token.

    The prompt's last character is complete and cannot be spoilt: a letter ends it.
    """
    prompt_ids = tokenizer.encode(prompt + "a")
    ids = data.draw(st.lists(st.integers(0, tokenizer.vocab_size + 3), max_size=30))
    whole, known = tokenizer.decode([*prompt_ids, *ids]), tokenizer.decode(prompt_ids)
    assert whole.startswith(known)
    assert "".join(streamed(tokenizer, prompt_ids, ids)) == whole[len(known) :]


@lossless
@settings(max_examples=80)
@given(prompt=TEXT, text=TEXT)
def test_streamed_text_never_shows_half_a_character(tokenizer: Tokenizer, prompt: str, text: str) -> None:
    ids = tokenizer.encode(text)[1:]
    assert all(REPLACEMENT not in part for part in streamed(tokenizer, tokenizer.encode(prompt + "a"), list(ids)))


@lossless
@settings(max_examples=80)
@given(text=TEXT, cut=st.integers(0, 60))
def test_text_split_between_prompt_and_stream_comes_out_whole(tokenizer: Tokenizer, text: str, cut: int) -> None:
    """The prompt may end anywhere between two tokens, where a character is complete."""
    ids = tokenizer.encode(text)
    cut = min(cut, len(ids))
    prompt = tokenizer.decode(ids[:cut])
    if text.startswith(prompt):
        assert prompt + "".join(streamed(tokenizer, ids[:cut], list(ids[cut:]))) == text


def test_a_prompt_that_ends_inside_a_character_loses_nothing_after_it() -> None:
    for tokenizer in LOSSLESS.values():
        ids = tokenizer.encode("ab😀xy")
        cut = next(count for count in range(len(ids)) if tokenizer.decode(ids[:count]).endswith(REPLACEMENT))
        assert "".join(streamed(tokenizer, ids[:cut], list(ids[cut:]))) == "😀xy"


@pytest.mark.parametrize("marks", [8, 20])
def test_special_tokens_at_the_prompts_end_do_not_cost_a_leading_space(marks: int) -> None:
    tokenizer = TOKENIZERS["byte-fallback"]
    space_fox = tokenizer.encode("the fox")[len(tokenizer.encode("the")) :]
    prompt = (*tokenizer.encode("the"), *[1] * marks)
    assert "".join(streamed(tokenizer, prompt, list(space_fox))) == " fox"


def first_space_only() -> tokenizers.Tokenizer:
    """Mistral's newer kind: a space goes before the first text only, and its decoder takes one from any text."""
    backend = tiny.byte_fallback_tokenizer()
    backend.normalizer = None
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    return backend


@pytest.mark.parametrize("kind", ["byte-fallback", "metaspace", "first"])
@pytest.mark.parametrize("answer", ["    the fox", "  the", " the", "the", "the\n    fox"])
def test_an_answer_keeps_its_indentation_behind_a_prompt_that_ends_in_control(kind: str, answer: str) -> None:
    """As transformers decodes prompt and answer, less the prompt; the answer alone would lose a space."""
    tokenizer = Tokenizer(first_space_only()) if kind == "first" else TOKENIZERS[kind]
    prompt = (1, *tokenizer.encode_bare("the"), 2)
    token_ids = [token for part in re.findall(r" ?[^ ]+| ", answer) for token in spelt(tokenizer, part)]
    oracle = PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend)
    whole, known = (oracle.decode(ids, skip_special_tokens=True) for ids in ([*prompt, *token_ids], list(prompt)))
    text = "".join(streamed(tokenizer, prompt, token_ids))
    assert text == whole[len(known) :]
    assert text == (answer if kind != "metaspace" else answer.replace("\n", ""))


def spelt(tokenizer: Tokenizer, text: str) -> list[int]:
    """The ids of a text within another, as a model writes it."""
    edge = list(tokenizer.encode_bare("x"))
    return list(tokenizer.encode_bare("x" + text))[len(edge) :]


def test_a_long_run_of_byte_tokens_before_the_first_new_one_is_seen_whole() -> None:
    tokenizer = TOKENIZERS["byte-fallback"]
    text = "日本語の日本語"
    ids = tokenizer.encode(text)
    assert "".join(streamed(tokenizer, ids[:-3], list(ids[-3:]))) == "語"


def test_a_long_stream_forgets_what_it_no_longer_needs_and_changes_nothing() -> None:
    for tokenizer in TOKENIZERS.values():
        ids = random.Random(1).choices(range(tokenizer.vocab_size), k=4000)
        parts = streamed(tokenizer, (), ids)
        assert "".join(parts) == tokenizer.decode(ids)
        assert sum(map(bool, parts)) > 1000  # it does not wait for the end


@lossless
@given(text=TEXT)
def test_pieces_joined_are_the_bytes_of_the_text(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)[1:]
    joined = b"".join(tokenizer.piece(token_id) for token_id in ids)
    lead = b" " if tokenizer is TOKENIZERS["byte-fallback"] and text else b""  # SentencePiece's dummy prefix
    assert joined == lead + text.encode()
    assert tokenizer.decode(ids) == text


def test_pieces_of_bytes_special_tokens_and_nothing() -> None:
    byte_level, fallback = LOSSLESS.values()
    assert b"\xf0" in {byte_level.piece(token_id) for token_id in range(byte_level.vocab_size)}
    assert {fallback.piece(3 + byte) for byte in range(256)} == {bytes([byte]) for byte in range(256)}
    assert (byte_level.piece(0), fallback.piece(1)) == (b"<|endoftext|>", b"<s>")
    assert [tokenizer.piece(10**6) for tokenizer in TOKENIZERS.values()] == [b"", b"", b""]


@pytest.mark.parametrize(("kind", "start"), [("byte-level", "<|endoftext|>"), ("byte-fallback", "<s>")])
def test_the_start_token_comes_from_the_post_processor_and_is_never_doubled(kind: str, start: str) -> None:
    tokenizer = TOKENIZERS[kind]
    (start_id,) = tokenizer.start_ids
    assert tokenizer.encode("fox")[0] == start_id
    assert tokenizer.encode("") == (start_id,)
    assert tokenizer.encode(f"{start}fox").count(start_id) == 1
    assert list(tokenizer.encode("fox")) == BACKENDS[kind].encode("fox").ids


def test_without_a_post_processor_there_is_no_start_token() -> None:
    backend = tiny.byte_level_tokenizer()
    ids = backend.encode("fox", add_special_tokens=False).ids
    content = json.loads(backend.to_str())
    content["post_processor"] = None
    assert Tokenizer(type(backend).from_str(json.dumps(content))).encode("fox") == tuple(ids)


@every_kind
def test_special_tokens_are_hidden_from_the_text(tokenizer: Tokenizer) -> None:
    (start_id,) = tokenizer.start_ids
    ids = list(tokenizer.encode("the fox"))
    assert "".join(streamed(tokenizer, (), [*ids, start_id, start_id])) == tokenizer.decode(ids) == "the fox"


def test_truncation_and_padding_of_the_file_are_switched_off(tmp_path: Path) -> None:
    backend = tiny.byte_level_tokenizer()
    backend.enable_truncation(2)
    backend.enable_padding(length=50)
    backend.save(str(tmp_path / "tokenizer.json"))
    tokenizer = Tokenizer.from_folder(tmp_path)
    assert tokenizer.decode(tokenizer.encode("Once upon a time")) == "Once upon a time"


def broken(**parts: Any) -> str:
    return json.dumps(
        {"version": "1.0", "added_tokens": [], "model": {"type": "BPE", "vocab": {}, "merges": []}, **parts}
    )


@pytest.mark.parametrize(
    "content",
    [
        "",
        "garbage",
        "{}",
        "[" * 100_000,
        broken(model={"type": "Unigram", "unk_id": None, "vocab": [["x", 0.0]]}),
        broken(model={"type": "WordLevel", "vocab": {"x": 0}, "unk_token": "?"}),
        broken(model={"type": "BPE", "vocab": {"x": 0}, "merges": [["a", "b"]]}),
        broken(normalizer={"type": "Precompiled", "precompiled_charsmap": "AAAA"}),  # the library panics
        broken(
            post_processor={  # the library panics
                "type": "TemplateProcessing",
                "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
                "pair": [],
                "special_tokens": {},
            }
        ),
    ],
)
def test_a_tokenizer_file_that_cannot_be_used_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(TokenizerError, match="cannot be used") as caught:
        Tokenizer.from_folder(tmp_path)
    assert len(str(caught.value).splitlines()) == 1


def test_a_missing_tokenizer_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match=r"tokenizer\.json: no such file"):
        Tokenizer.from_folder(tmp_path)


@pytest.mark.parametrize(
    ("named", "eos"),
    [("<|endoftext|>", (0,)), ({"content": "<|endoftext|>"}, (0,)), (None, ()), (7, ())],
)
def test_the_end_token_is_the_one_that_tokenizer_config_names(named: Any, eos: tuple[int, ...], tmp_path: Path) -> None:
    tiny.byte_level_tokenizer().save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": named}))
    assert Tokenizer.from_folder(tmp_path).eos_token_ids == eos
