"""Constraints hold for the text that is written, or the tokenizer is refused by the part of it that rewrites texts."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any

import pytest
import tiny
import tokenizers
import torch
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from tokenizers import decoders, models, pre_tokenizers, trainers

from tokenglass.model.decoding.autoregressive import decode
from tokenglass.model.decoding.job import Job
from tokenglass.model.decoding.request import Request
from tokenglass.model.errors import ParameterError
from tokenglass.model.records.steps import Finish
from tokenglass.model.sampling.constraints import Constraint
from tokenglass.model.sampling.parameters import SamplingParameters
from tokenglass.model.text.tokenizer import Tokenizer

PROMPT = "The fox said"
REGEX = r"(the|fox|bear| and| é|\n|,|[a-c]| ){1,12}\."


def word_piece() -> tokenizers.Tokenizer:
    tokenizer = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.train_from_iterator(
        tiny.TEXTS, trainers.WordPieceTrainer(vocab_size=200, special_tokens=["[UNK]"], show_progress=False)
    )
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer


def word_ends() -> tokenizers.Tokenizer:
    tokenizer = tokenizers.Tokenizer(models.BPE(unk_token="<unk>", end_of_word_suffix="</w>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.BpeTrainer(
        vocab_size=200, special_tokens=["<unk>"], end_of_word_suffix="</w>", show_progress=False
    )
    tokenizer.train_from_iterator(tiny.TEXTS, trainer)
    tokenizer.decoder = decoders.BPEDecoder(suffix="</w>")
    return tokenizer


def words() -> tokenizers.Tokenizer:
    tokenizer = tokenizers.Tokenizer(models.WordLevel(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.train_from_iterator(tiny.TEXTS, trainers.WordLevelTrainer(special_tokens=["<unk>"], show_progress=False))
    return tokenizer


def unigram() -> tokenizers.Tokenizer:
    tokenizer = tokenizers.Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=150, special_tokens=["<unk>"], unk_token="<unk>", show_progress=False)
    tokenizer.train_from_iterator(tiny.TEXTS, trainer)
    tokenizer.decoder = decoders.Metaspace()
    return tokenizer


def with_added() -> tokenizers.Tokenizer:
    tokenizer = tiny.byte_level_tokenizer()
    tokenizer.add_tokens(["é", " and", "\n\n", "bear bear", "Ġthe", "▁fox"])
    return tokenizer


def decoding(decoder: Any) -> tokenizers.Tokenizer:
    tokenizer = tiny.byte_fallback_tokenizer()
    tokenizer.decoder = decoder
    return tokenizer


def sequence(*parts: Any) -> Callable[[], tokenizers.Tokenizer]:
    return lambda: decoding(decoders.Sequence(list(parts)))


SPACES = decoders.Replace("▁", " ")
ACCEPTED: dict[str, Callable[[], tokenizers.Tokenizer]] = {
    "GPT-2": tiny.byte_level_tokenizer,
    "GPT-2 with added tokens": with_added,
    "Llama 2": tiny.byte_fallback_tokenizer,
    "Gemma": sequence(SPACES, decoders.ByteFallback(), decoders.Fuse()),
    "Metaspace": tiny.metaspace_tokenizer,
    "Metaspace that puts nothing in front": lambda: decoding(decoders.Metaspace(prepend_scheme="never")),
    "T5": unigram,
}
REFUSED: dict[str, tuple[Callable[[], tokenizers.Tokenizer], str]] = {
    "BERT": (word_piece, "WordPiece"),
    "CLIP": (word_ends, "BPEDecoder"),
    "words": (words, "there is none"),
    "no decoder": (lambda: decoding(decoders.Sequence([])), "there is none"),
    "CTC": (sequence(decoders.CTC()), "CTC"),
    "every token stripped": (sequence(SPACES, decoders.ByteFallback(), decoders.Strip(" ", 1, 0)), "Strip"),
    "ends stripped": (sequence(SPACES, decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 1)), "Strip"),
    "letters replaced": (sequence(SPACES, decoders.Replace("a", "b"), decoders.Fuse()), "Replace"),
    "spaces last": (sequence(decoders.ByteFallback(), SPACES), "Replace"),
    "other marks": (lambda: decoding(decoders.Metaspace(replacement="_")), "Metaspace"),
    "marks stay": (sequence(decoders.Fuse()), "spaces"),
}


@functools.cache
def tokenizer_of(name: str) -> Tokenizer:
    return Tokenizer(ACCEPTED[name]())


def random_text(tokenizer: Tokenizer, constraint: Constraint, seed: int, rows: int, **options: Any) -> tuple[str, str]:
    """The text and the reason of a run with random logits of so many tokens."""

    def noise(length: int) -> torch.Tensor:
        return 3 * torch.randn(rows, generator=torch.Generator().manual_seed(1000 * seed + length))

    request = Request(
        tuple(token_id for token_id in tokenizer.encode(PROMPT) if token_id < rows),
        seed,
        SamplingParameters(temperature=1, top_p=1),
        constraint=constraint,
        **{"max_new_tokens": 90, "eos_token_ids": frozenset({2}), **options},
    )
    engine = tiny.ScriptedEngine(noise, limit=600)
    engine.vocab_size = rows
    *steps, finish = decode(Job(engine, tokenizer, request))
    assert isinstance(finish, Finish)
    ids = [choice.token_id for step in steps for choice in step.choices]
    assert all(token_id < rows for token_id in ids)
    return "".join(step.text for step in steps) + finish.text, finish.reason


@pytest.mark.parametrize("name", ACCEPTED)
@settings(max_examples=8)
@given(
    seed=st.integers(0, 10**6),
    constraint=st.sampled_from(
        [Constraint("regex", (REGEX,)), Constraint("choice", ("fox and bear", " and é", "\n\nfox", "the bear bear"))]
    ),
)
def test_what_is_written_fits(name: str, seed: int, constraint: Constraint) -> None:
    tokenizer = tokenizer_of(name)
    try:
        text, reason = random_text(tokenizer, constraint, seed, tokenizer.vocab_size)
    except ParameterError:  # no text that this tokenizer can write fits
        reject()
    if reason == "eos":
        assert text in constraint.source if constraint.name == "choice" else re.fullmatch(REGEX, text)


@pytest.mark.parametrize("name", ACCEPTED)
@settings(max_examples=60)
@given(data=st.data())
def test_the_text_behind_a_prompt_is_the_pieces_of_its_tokens(name: str, data: st.DataObject) -> None:
    tokenizer = tokenizer_of(name)
    ids = data.draw(
        st.lists(st.integers(0, tokenizer.vocab_size - 1).filter(lambda k: not tokenizer.is_hidden(k)), max_size=9)
    )
    prompt = tokenizer.encode(PROMPT)
    pieces = b"".join(map(tokenizer.piece, ids))
    known, whole = tokenizer.decode(prompt), tokenizer.decode((*prompt, *ids))
    try:
        text = pieces.decode()
    except UnicodeDecodeError:
        return
    assert whole == known + text


@pytest.mark.parametrize("name", REFUSED)
def test_a_tokenizer_whose_decoder_rewrites_texts_is_refused_by_the_name_of_its_part(name: str) -> None:
    make, part = REFUSED[name]
    tokenizer = Tokenizer(make())
    with pytest.raises(ParameterError, match=part) as raised:
        Constraint("regex", ("a+",)).begin(tokenizer, frozenset())
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 300


@pytest.mark.parametrize("rows", [300, 700])
@pytest.mark.parametrize("ends", [{0}, {0, 290}, {290}, set()])
@pytest.mark.parametrize("source", ["the fox and the bear", "( and| fox){2,4}"])
def test_only_tokens_that_the_model_has_are_forced_or_allowed(rows: int, ends: set[int], source: str) -> None:
    """With logits fewer or more than the tokenizer has tokens, 512."""
    constraint = Constraint("regex", (source,))
    for seed in range(2):
        text, reason = random_text(tokenizer_of("GPT-2"), constraint, seed, rows, eos_token_ids=frozenset(ends))
        assert re.fullmatch(source, text)
        assert reason == ("eos" if ends else "constraint")


def test_an_end_token_beyond_the_tokenizer_ends_the_text() -> None:
    tokenizer = tokenizer_of("GPT-2")
    for ends in ({tokenizer.vocab_size + 3}, {tokenizer.vocab_size + 90}):
        text, reason = random_text(
            tokenizer, Constraint("regex", ("ab",)), 1, tokenizer.vocab_size + 9, eos_token_ids=frozenset(ends)
        )
        assert (text, reason) == ("ab", "eos" if min(ends) < tokenizer.vocab_size + 9 else "constraint")
