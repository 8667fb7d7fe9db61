"""The probability of a given text: equal to transformers', each token once, whatever the windows."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import tokenizers
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pairs import load_pair

from tokenglass.model.checkpoint.store import bundled_folder
from tokenglass.model.errors import EngineError, ParameterError, PromptError
from tokenglass.model.loaded_model import LoadedModel
from tokenglass.model.loading import load_model
from tokenglass.model.measuring import scoring
from tokenglass.model.measuring.completions import completion
from tokenglass.model.measuring.quality import log_softmax
from tokenglass.model.measuring.scoring import GivenText, Score, score_of, score_tokens, windows
from tokenglass.model.native_engine.engine import NativeEngine
from tokenglass.model.native_engine.measure import MeasureRows as MeasureTokens
from tokenglass.model.records.steps import Choice
from tokenglass.model.sampling.raw import MeasureRows, Raw, measure_rows
from tokenglass.model.text.tokenizer import Tokenizer

TEXT = "Once upon a time there was a fox — naïve, 日本 👩‍👩‍👧‍👦 — who lived in the forest. The fox said hello.\n" * 3
FAMILIES = ("llama", "gemma2", "gpt2")
TOKENIZERS = {
    "byte level": tiny.byte_level_tokenizer,
    "byte fallback": tiny.byte_fallback_tokenizer,
    "metaspace": tiny.metaspace_tokenizer,
}


@pytest.fixture(scope="module", params=[*FAMILIES, "tale"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, LoadedModel]:
    return load_pair(request.param, tmp_path_factory.mktemp("scored"))


@pytest.fixture(scope="module")
def tale() -> LoadedModel:
    return load_model(bundled_folder(), backend="auto")


def bits_of(choices: list[Choice]) -> list[float]:
    return [scoring.surprise(choice.logprob) for choice in choices if choice.logprob is not None]


def test_the_mean_is_the_loss_of_transformers(pair: tuple[Any, LoadedModel]) -> None:
    reference, loaded = pair
    text = GivenText.encode(loaded.tokenizer, TEXT)
    score = score_of(text, score_tokens(loaded.engine, loaded.tokenizer, text.token_ids, chunk=37))
    ids = torch.tensor([text.token_ids])
    with torch.inference_mode():
        loss = float(reference(ids, labels=ids).loss)
    assert score.scored == score.tokens == len(text.token_ids) - 1
    assert score.bits_per_token == pytest.approx(loss / math.log(2), rel=1e-4)
    assert score.perplexity == pytest.approx(math.exp(loss), rel=1e-3)
    assert score.nbytes == len(TEXT.encode())
    assert score.bits_per_byte == pytest.approx(score.bits / len(TEXT.encode()))


@pytest.mark.parametrize(("size", "stride"), [(64, 32), (50, 49), (33, 1), (64, 20)])
def test_windows_give_the_loss_of_the_loop_in_transformers_documentation(
    pair: tuple[Any, LoadedModel], size: int, stride: int
) -> None:
    reference, loaded = pair
    text = GivenText.encode(loaded.tokenizer, TEXT)
    ids = torch.tensor([text.token_ids])[:, :150]
    nats, previous, length = 0.0, 0, ids.shape[1]
    for begin in range(0, length, stride):
        end = min(begin + size, length)
        labels = ids[:, begin:end].clone()
        labels[:, : previous - begin] = -100
        with torch.inference_mode():
            loss = reference(ids[:, begin:end], labels=labels).loss
        nats += float(loss) * int((labels[:, 1:] != -100).sum())
        previous = end
        if end == length:
            break
    choices = list(score_tokens(loaded.engine, loaded.tokenizer, ids[0].tolist(), window=size, stride=stride, chunk=17))
    assert [choice.position for choice in choices] == list(range(length))
    assert sum(bits_of(choices)) == pytest.approx(nats / math.log(2), rel=1e-4)


@pytest.mark.parametrize("backend", ["native", "torch"])
def test_rank_entropy_and_the_most_probable_are_those_of_the_whole_distribution(backend: Any) -> None:
    loaded = load_model(bundled_folder(), backend=backend)
    text = GivenText.encode(loaded.tokenizer, "Once upon a time there was a big — naïve — fox.")
    choices = list(score_tokens(loaded.engine, loaded.tokenizer, text.token_ids, top=3))
    logprobs = log_softmax(loaded.engine.forward([text.token_ids], None, last=None)[0])
    for choice in choices[1:]:
        before, token_id = logprobs[choice.position - 1], choice.token_id
        assert token_id == text.token_ids[choice.position]
        assert choice.piece == loaded.tokenizer.piece(token_id)
        order = np.argsort(-before, kind="stable").tolist()  # of equal ones the lower id first
        assert choice.rank == 1 + order.index(token_id)
        assert [candidate.token_id for candidate in choice.candidates] == np.argsort(-before, kind="stable")[
            :3
        ].tolist()
        assert choice.logprob == pytest.approx(float(before[token_id]), rel=1e-4, abs=1e-4)
        assert choice.entropy == pytest.approx(float(-(np.exp(before) * before).sum() / math.log(2)), abs=1e-4)
        assert choice.prob is choice.draw is None


LOGIT = st.one_of(st.floats(-40, 40, width=32), st.sampled_from([0.0, 1.0, -math.inf]))  # ties, and the impossible


@pytest.fixture(scope="module", params=["numpy", "kernels"])
def measure(request: pytest.FixtureRequest, tale: LoadedModel) -> MeasureRows:
    """Both ways, the kernels with two threads."""
    if request.param == "numpy":
        return measure_rows
    if not isinstance(tale.engine, NativeEngine):
        pytest.skip(f"no native kernels: {tale.notes}")
    return partial(MeasureTokens(tale.engine.machine), threads=2)


@given(rows=st.lists(st.lists(LOGIT, min_size=37, max_size=37), min_size=1, max_size=6), data=st.data())
def test_rows_together_have_the_numbers_that_each_has_alone(
    measure: MeasureRows, rows: list[list[float]], data: st.DataObject
) -> None:
    logits = np.array([[*row, 0.5] for row in rows], np.float32)
    token_ids = np.array(data.draw(st.lists(st.integers(0, 37), min_size=len(rows), max_size=len(rows))))
    measures = measure(logits, token_ids)
    for row, token_id in enumerate(token_ids.tolist()):
        raw = Raw.of(logits[row], 1)
        assert measures.logprobs[row] == pytest.approx(raw.logprobs(np.array([token_id]))[0], abs=1e-12)
        assert measures.entropies[row] == pytest.approx(raw.entropy, abs=1e-12)
        assert measures.ranks[row] == raw.rank(token_id)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_logits_that_are_no_numbers_are_refused(measure: MeasureRows, bad: float) -> None:
    with pytest.raises(EngineError, match="not numbers"):
        measure(np.array([[0.0, 1.0], [0.0, bad]], np.float32), np.array([0, 0]))


@given(length=st.integers(0, 200), size=st.integers(2, 50), data=st.data())
def test_every_token_but_the_first_is_scored_once_and_sees_what_the_stride_leaves_it(
    length: int, size: int, data: st.DataObject
) -> None:
    stride = data.draw(st.integers(1, size - 1))
    scored: list[int] = []
    for window in windows(length, size, stride):
        assert window.end - window.start <= size
        assert window.start == 0 or window.first - window.start >= size - stride
        scored += range(window.first, window.end)
    assert scored == list(range(1, length))


@pytest.mark.parametrize("make", TOKENIZERS.values(), ids=TOKENIZERS)
@given(text=st.text(max_size=40))
@settings(max_examples=60)
def test_what_the_tokens_say_is_the_text_cut_in_pieces(make: Callable[[], tokenizers.Tokenizer], text: str) -> None:
    encoded = GivenText.encode(tokenizer_of(make), text)
    assert "".join(map(encoded.span, range(encoded.added, len(encoded.token_ids)))) == text
    assert encoded.token_ids == tokenizer_of(make).encode(text)
    assert list(encoded.offsets) == sorted(encoded.offsets)


KNOWN: dict[Any, Tokenizer] = {}


def tokenizer_of(make: Callable[[], tokenizers.Tokenizer]) -> Tokenizer:
    return KNOWN.setdefault(make, Tokenizer(make()))


def test_an_empty_text_and_a_first_token_with_nothing_before_it_have_no_numbers(saved_checkpoint: Path) -> None:
    loaded = load_model(saved_checkpoint, backend="auto")
    engine, tokenizer = loaded.engine, loaded.tokenizer
    assert list(score_tokens(engine, tokenizer, ())) == []
    (only,) = score_tokens(engine, tokenizer, (65,))
    assert only.token_id == 65
    assert only.logprob is only.rank is only.entropy is None
    bare = GivenText("a fox", tokenizer.encode_bare("a fox"), tokenizer.encode_offsets("a fox")[1], 0)
    score = score_of(bare, score_tokens(engine, tokenizer, bare.token_ids))
    assert (score.tokens, score.scored) == (len(bare.token_ids), len(bare.token_ids) - 1)
    assert score.nbytes == len("a fox") - len(bare.span(0))  # bits and bytes are those of the same tokens
    nothing = Score(1)
    assert nothing.perplexity is nothing.bits_per_byte is nothing.bits_per_token is None


def test_a_start_token_gives_the_first_token_a_probability_and_takes_no_part(tale: LoadedModel) -> None:
    text = GivenText.encode(tale.tokenizer, "a")
    assert text.added == 1
    score = score_of(text, score_tokens(tale.engine, tale.tokenizer, text.token_ids))
    assert (score.tokens, score.scored, score.nbytes) == (1, 1, 1)


def test_the_logits_of_a_long_text_are_never_held_together(tale: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "LOGITS", 10 * 4 * tale.engine.vocab_size)
    sizes = []
    forward = tale.engine.forward

    def watched(*arguments: Any, **options: Any) -> Any:
        logits = forward(*arguments, **options)
        sizes.append(sum(rows.nbytes for rows in logits))
        return logits

    monkeypatch.setattr(tale.engine, "forward", watched)
    text = GivenText.encode(tale.tokenizer, TEXT)
    few = score_of(text, score_tokens(tale.engine, tale.tokenizer, text.token_ids, window=100, stride=50))
    assert max(sizes) == scoring.LOGITS
    monkeypatch.undo()
    many = score_of(text, score_tokens(tale.engine, tale.tokenizer, text.token_ids, window=100, stride=50))
    assert few.bits == pytest.approx(many.bits, rel=1e-6)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"window": 1}, "--window 1 does not fit; give 2 to 1,024"),
        ({"window": 2000}, "--window 2,000 does not fit"),
        ({"window": 8, "stride": 8}, "--stride 8 does not fit a window of 8; give 1 to 7"),
        ({"stride": 0}, "--stride 0 does not fit"),
    ],
)
def test_windows_that_do_not_fit_are_refused(tale: LoadedModel, options: dict[str, int], words: str) -> None:
    with pytest.raises(ParameterError, match=words):
        list(score_tokens(tale.engine, tale.tokenizer, (1, 2, 3), **options))


def test_a_token_without_a_row_is_refused_wherever_it_stands(tale: LoadedModel) -> None:
    with pytest.raises(PromptError, match="token 9,999"):
        list(score_tokens(tale.engine, tale.tokenizer, (1, 2, 9999)))


def test_a_completion_has_the_shape_that_clients_read(tale: LoadedModel) -> None:
    text = GivenText.encode(tale.tokenizer, "A 日 fox.")
    choices = list(score_tokens(tale.engine, tale.tokenizer, text.token_ids, top=2))
    answer = json.loads(json.dumps(completion("tale", [(text, choices)], 7)))
    assert answer["object"] == "text_completion"
    (choice,) = answer["choices"]
    logprobs = choice["logprobs"]
    assert choice["text"] == text.text
    assert len({len(values) for values in logprobs.values()}) == 1
    assert logprobs["token_logprobs"][0] is logprobs["top_logprobs"][0] is None
    assert all(len(top) == 2 for top in logprobs["top_logprobs"][1:])
    assert all(list(top.values()) == sorted(top.values(), reverse=True) for top in logprobs["top_logprobs"][1:])
    assert any(token.startswith("bytes:\\x") for token in logprobs["tokens"])
    spelt = zip(logprobs["tokens"], logprobs["text_offset"], strict=True)
    assert all(text.text.startswith(token, offset) for token, offset in list(spelt)[1:] if "\\x" not in token)
    assert answer["usage"]["prompt_tokens"] == len(text.token_ids)
