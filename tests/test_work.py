"""Work that is done once, or only for what is new: calls, ids and bytes are counted, never seconds."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import tiny
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import decoders, models, pre_tokenizers

from tokenglass.model.checkpoint import headers
from tokenglass.model.decoding import healing
from tokenglass.model.decoding.drafts import NgramDrafter
from tokenglass.model.decoding.gate import Gate
from tokenglass.model.decoding.ngrams import NgramIndex
from tokenglass.model.decoding.request import Request
from tokenglass.model.decoding.sequence import Sequence as Text
from tokenglass.model.errors import TokenizerError
from tokenglass.model.loading import load_model
from tokenglass.model.sampling.parameters import SamplingParameters
from tokenglass.model.text import chat_process
from tokenglass.model.text.chat import ChatTemplate, Message
from tokenglass.model.text.tokenizer import MAX_VOCABULARY, Tokenizer, byte_alphabet


class Counting:
    """A backend of the tokenizers library that counts its calls, and the ids that it decodes."""

    def __init__(self, backend: tokenizers.Tokenizer):
        self._backend = backend
        self.calls: dict[str, int] = {}
        self.decoded = 0

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._backend, name)
        self.calls[name] = self.calls.get(name, 0) + 1
        return attribute

    def decode(self, token_ids: Sequence[int], **options: Any) -> str:
        self.decoded += len(token_ids)
        return str(self._backend.decode(token_ids, **options))


def counting_tokenizer(backend: tokenizers.Tokenizer) -> tuple[Tokenizer, Counting]:
    counting = Counting(backend)
    return Tokenizer(counting), counting  # type: ignore[arg-type]


def large_tokenizer(size: int = 128_000) -> tokenizers.Tokenizer:
    """A byte-level vocabulary of random pieces, with holes, a special token and one that is beyond the alphabet."""
    generator = random.Random(1)
    alphabet = byte_alphabet()
    names = dict.fromkeys(alphabet)
    while len(names) < size:
        names["".join(generator.choices(alphabet, k=generator.randint(2, 9)))] = None
    ids = {name: 2 * place for place, name in enumerate(names)}
    backend = tokenizers.Tokenizer(models.BPE(ids, []))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(), decoders.ByteLevel()
    backend.add_special_tokens(["<|end é|>"])
    backend.add_tokens(["two words\u00ad"])
    return backend


def test_a_tokenizer_is_made_without_a_look_at_its_vocabulary() -> None:
    _, counting = counting_tokenizer(large_tokenizer(2000))
    assert "get_vocab" not in counting.calls
    assert "id_to_token" not in counting.calls


def test_the_vocabulary_is_read_once_and_at_once() -> None:
    tokenizer, counting = counting_tokenizer(large_tokenizer(2000))
    for _ in range(3):
        assert tokenizer.vocab_size == len(tokenizer.pieces)
    assert counting.calls["get_vocab"] == 1
    assert "id_to_token" not in counting.calls


@pytest.mark.parametrize(
    "backend",
    [
        large_tokenizer(),
        tiny.byte_level_tokenizer(),
        tiny.byte_fallback_tokenizer(),
        tiny.metaspace_tokenizer(),
    ],
    ids=["large", "byte level", "byte fallback", "metaspace"],
)
def test_the_table_of_pieces_holds_what_each_piece_is_alone(backend: tokenizers.Tokenizer) -> None:
    tokenizer = Tokenizer(backend)
    assert tokenizer.pieces == [tokenizer.piece(token_id) for token_id in range(tokenizer.vocab_size)]
    assert tokenizer.piece(tokenizer.vocab_size) == b""
    assert tokenizer.vocab_size == max(backend.get_vocab(with_added_tokens=True).values()) + 1


def test_a_vocabulary_with_an_absurd_id_is_refused_where_it_is_read() -> None:
    tokenizer = Tokenizer(tokenizers.Tokenizer(models.WordLevel({"a": 0, "b": MAX_VOCABULARY}, "a")))
    with pytest.raises(TokenizerError, match="more than 4,194,304"):
        _ = tokenizer.pieces


@pytest.mark.parametrize("phrases", [((), ()), (("never said",), ("nor this",))], ids=["no phrases", "stops and bans"])
def test_the_gate_keeps_and_decodes_no_more_of_a_long_text_than_of_a_short_one(
    phrases: tuple[tuple[str, ...], tuple[str, ...]],
) -> None:
    tokenizer, counting = counting_tokenizer(tiny.byte_level_tokenizer())
    word = tokenizer.encode_bare(" fox never")
    gate = Gate(tokenizer, (), *phrases)
    for token_id in word * 100:
        gate.add(token_id)
    before, ids = counting.decoded, word * 4000
    tracemalloc.start()
    try:
        for token_id in ids:
            gate.add(token_id)
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert counting.decoded - before <= 4 * len(ids)
    assert held < 2**12
    assert peak < 2**14  # the text has 40,000 characters


def test_what_a_ban_takes_back_is_not_decoded_from_the_beginning() -> None:
    tokenizer, counting = counting_tokenizer(tiny.byte_level_tokenizer())
    gate = Gate(tokenizer, (), (), ("fox said",))
    word = tokenizer.encode_bare(" the")
    for token_id in word * 300:
        gate.add(token_id)
    for token_id in tokenizer.encode_bare(" fox said"):
        gate.add(token_id)
    assert gate.banned_from is not None
    before = counting.decoded
    gate.rewind(gate.banned_from)
    assert gate.add(word[0]) + gate.flush() == tokenizer.decode(word[:1])
    assert counting.decoded - before < 10


def test_a_fork_of_a_gate_and_the_gate_itself_go_on_apart() -> None:
    tokenizer = Tokenizer(tiny.byte_level_tokenizer())
    gate = Gate(tokenizer, (), ("fox said",))
    for token_id in tokenizer.encode_bare("the fox"):
        gate.add(token_id)
    other = gate.fork()
    assert gate.add(tokenizer.encode_bare(" said")[0]) + gate.flush() == ""
    assert "".join([other.add(token_id) for token_id in tokenizer.encode_bare(" sat")]) == "fox sat"
    assert (gate.stopped, other.stopped) == (True, False)


def test_no_mask_is_made_for_healing_once_the_healed_bytes_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = Tokenizer(tiny.byte_level_tokenizer())
    calls: list[int] = []
    mask = healing.Healing.mask

    def watched(self: healing.Healing, new_ids: Sequence[int]) -> Any:
        calls.append(len(new_ids))
        return mask(self, new_ids)

    monkeypatch.setattr(healing.Healing, "mask", watched)
    request = Request((5, 6), 1, SamplingParameters(temperature=0), max_new_tokens=200, healed=b" fo")
    text = Text(tokenizer, request, limit=500)
    for token_id in tokenizer.encode_bare(" fox" + " the" * 60):
        text.context()
        text.token_ids.append(token_id)

    assert calls
    assert max(calls) < 3
    assert len(calls) <= 3


def scanned(token_ids: list[int], longest: int) -> int:
    """The plain scan: the end of the latest earlier place of the longest run that the ids end with."""
    size = len(token_ids)
    for length in range(min(longest, size - 1), 0, -1):
        for start in range(size - length - 1, -1, -1):
            if token_ids[start : start + length] == token_ids[size - length :]:
                return start + length
    return size


@settings(max_examples=300, deadline=None)
@given(
    longest=st.integers(1, 5),
    edits=st.lists(st.tuples(st.integers(0, 6), st.lists(st.integers(0, 3), max_size=8)), min_size=1, max_size=12),
)
def test_the_index_of_ngrams_finds_what_a_scan_of_the_whole_text_finds(
    longest: int, edits: list[tuple[int, list[int]]]
) -> None:
    """Also where a ban takes tokens back, and others come in their place."""
    index, token_ids = NgramIndex(longest), [0]
    for taken_back, added in edits:
        token_ids = [*token_ids[: max(1, len(token_ids) - taken_back)], *added]
        index.follow(token_ids)
        assert index.latest(token_ids) == scanned(token_ids, longest)


def test_each_token_is_put_into_the_index_of_ngrams_once(monkeypatch: pytest.MonkeyPatch) -> None:
    token_ids: list[int] = []
    plain = NgramIndex._read

    def watched(self: NgramIndex, token_id: int) -> None:
        token_ids.append(token_id)
        plain(self, token_id)

    monkeypatch.setattr(NgramIndex, "_read", watched)
    text = Text(Tokenizer(tiny.byte_level_tokenizer()), Request((5, 6, 7), 1), limit=500)
    drafter = NgramDrafter()
    for token_id in [5, 6, 8] * 50:
        drafter.draft(text, 4)
        text.token_ids.append(token_id)
    assert token_ids == text.token_ids[:-2]
    assert drafter.draft(text, 4).token_ids == (5, 6, 8)


def test_a_load_parses_the_header_of_a_file_once(saved_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[Path] = []
    plain = headers.parse

    def watched(file: Path, limit: int) -> tuple[dict[str, Any], int]:
        parsed.append(file)
        return plain(file, limit)

    monkeypatch.setattr(headers, "parse", watched)
    load_model(saved_checkpoint)
    assert parsed == [saved_checkpoint / "model.safetensors"]


def test_a_conversation_starts_one_process_for_all_its_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[int] = []
    plain = chat_process.start

    def watched() -> Any:
        started.append(1)
        return plain()

    monkeypatch.setattr(chat_process, "start", watched)
    template = ChatTemplate("{{ messages[-1].content }}", {})
    assert [template.render([Message("user", text)]) for text in ("a", "b", "c")] == ["a", "b", "c"]
    assert len(started) == 1
    template.process.close()
