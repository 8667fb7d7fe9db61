"""The probability of an answer: the product of single steps, no text counted twice, whatever the batch or the seam."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pairs import load_pair

from tokenglass.model.checkpoint.store import bundled_folder
from tokenglass.model.errors import ParameterError, PromptError
from tokenglass.model.loaded_model import LoadedModel
from tokenglass.model.loading import load_model
from tokenglass.model.measuring import choosing
from tokenglass.model.measuring.choosing import Chooser, Choosing, Encode, EncodedQuestion, mean_of, shares
from tokenglass.model.measuring.decisions import TypedQuestion, decide
from tokenglass.model.measuring.quality import log_softmax
from tokenglass.model.measuring.rotations import rotations
from tokenglass.model.text.tokenizer import Tokenizer

PROMPT = "Once upon a time there was a little"
ANSWERS = [" girl", " boy", " boy named Tim", " frog who said hello to the bear", " fox — naïve 日本"]


@pytest.fixture(scope="module", params=["llama", "gemma2", "tale"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, LoadedModel]:
    return load_pair(request.param, tmp_path_factory.mktemp("chosen"))


@pytest.fixture(scope="module")
def tale() -> LoadedModel:
    return load_model(bundled_folder(), backend="auto")


@pytest.fixture(scope="module")
def small(saved_checkpoint: Path) -> LoadedModel:
    return load_model(saved_checkpoint, backend="auto")


def behind(tokenizer: Tokenizer, prompt: str) -> Encode:
    return lambda answer: tokenizer.encode(prompt + answer)


def from_ids(context: tuple[int, ...], answers: dict[str, tuple[int, ...]]) -> Encode:
    """A tokenizer that cuts these answers so, and joins nothing."""
    return lambda answer: (*context, *answers[answer]) if answer else context


def choose(loaded: LoadedModel, prompt: str, answers: list[str], **options: Any) -> Choosing:
    chooser = Chooser(loaded.engine, loaded.tokenizer)
    return chooser.choose(behind(loaded.tokenizer, prompt), answers, **options)


def test_joint_probabilities_are_the_products_of_transformers_single_steps(pair: tuple[Any, LoadedModel]) -> None:
    reference, loaded = pair
    prompt = PROMPT * 4  # beyond the sliding window
    choosing = choose(loaded, prompt, ANSWERS)
    prompt_ids = loaded.tokenizer.encode(prompt)
    assert choosing.prompt_tokens == len(prompt_ids)
    for answer in choosing.answers:
        ids = loaded.tokenizer.encode(prompt + answer.text)
        with torch.inference_mode():
            logprobs = reference(torch.tensor([ids])).logits[0].double().log_softmax(-1)
        steps = [float(logprobs[place - 1, ids[place]]) for place in range(len(prompt_ids), len(ids))]
        assert [token.logprob for token in answer.tokens] == pytest.approx(steps, rel=1e-4, abs=1e-4)
        assert answer.logprob == pytest.approx(sum(steps), rel=1e-4, abs=1e-4)
        assert answer.mean_logprob == pytest.approx(sum(steps) / len(steps), rel=1e-4, abs=1e-4)
        assert tuple(token.token_id for token in answer.tokens) == ids[len(prompt_ids) :]


def test_batches_copies_and_a_cache_that_is_there_change_no_number(
    tale: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = choose(tale, PROMPT, ANSWERS)
    monkeypatch.setattr(choosing, "MOST_ROWS", 1)
    chooser = Chooser(tale.engine, tale.tokenizer, chunk=3)
    chooser.choose(behind(tale.tokenizer, PROMPT + " red and"), [" a", " b"])
    assert chooser.choose(behind(tale.tokenizer, PROMPT), ANSWERS) == together


def test_one_prefill_serves_all_answers_and_the_prompts_that_begin_alike(
    tale: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: list[int] = []
    forward = tale.engine.forward

    def counted(token_ids: Any, *arguments: Any, **options: Any) -> Any:
        passes.append(sum(map(len, token_ids)))
        return forward(token_ids, *arguments, **options)

    monkeypatch.setattr(tale.engine, "forward", counted)
    chooser = Chooser(tale.engine, tale.tokenizer)
    choosing = chooser.choose(behind(tale.tokenizer, PROMPT), ANSWERS)
    further = sum(len(answer.tokens) - 1 for answer in choosing.answers)
    assert passes == [choosing.prompt_tokens, further]
    passes.clear()
    chooser.choose(behind(tale.tokenizer, PROMPT), [" girl", " boy"])
    assert passes == [1]


VOCABULARY = st.integers(0, tiny.VOCAB_SIZE - 1)


@given(
    context=st.lists(VOCABULARY, min_size=1, max_size=8).map(tuple),
    answers=st.lists(st.lists(VOCABULARY, min_size=1, max_size=4).map(tuple), min_size=2, max_size=8, unique=True),
    stems=st.integers(0, 3),
)
@settings(max_examples=40)
def test_the_mass_of_disjoint_answers_never_passes_one(
    small: LoadedModel, context: tuple[int, ...], answers: list[tuple[int, ...]], stems: int
) -> None:
    grown = dict.fromkeys([*answers, *((*answers[0], *more) for more in answers[:stems])])  # some begin others
    named = {str(ids): ids for ids in grown}
    chooser = Chooser(small.engine, small.tokenizer)
    choosing = chooser.choose(from_ids(context, named), list(named))
    by_ids = {named[answer.text]: answer for answer in choosing.answers}
    free = [ids for ids in by_ids if not any(ids != other and ids[: len(other)] == other for other in by_ids)]
    mass = sum(math.exp(by_ids[ids].logprob) for ids in free)
    assert mass <= 1 + 1e-9
    assert choosing.outside == pytest.approx(max(0.0, 1 - mass), abs=1e-9)
    assert sum(answer.prob for answer in choosing.answers) == pytest.approx(1)
    assert sum(answer.mean_prob for answer in choosing.answers) == pytest.approx(1)


def test_answers_that_are_all_there_is_leave_nothing_outside(small: LoadedModel) -> None:
    named = {str(token_id): (token_id,) for token_id in range(tiny.VOCAB_SIZE)}
    choosing = Chooser(small.engine, small.tokenizer).choose(from_ids((1, 2), named), list(named))
    assert choosing.outside == pytest.approx(0, abs=1e-9)
    assert [answer.prob for answer in choosing.answers] == pytest.approx(
        [math.exp(a.logprob) for a in choosing.answers]
    )


def test_an_answer_that_begins_another_keeps_what_the_longer_one_leaves(tale: LoadedModel) -> None:
    choosing = choose(tale, PROMPT, [" boy", " boy named Tim", " girl"])
    boy, tim, girl = (math.exp(answer.logprob) for answer in choosing.answers)
    mass = boy + girl
    assert [answer.prob for answer in choosing.answers] == pytest.approx([(boy - tim) / mass, tim / mass, girl / mass])
    assert choosing.outside == pytest.approx(1 - mass)
    assert choosing.parting(choosing.answers[0], choosing.answers[1]) == 1


def test_long_answers_have_shares_where_their_probabilities_round_to_nothing(tale: LoadedModel) -> None:
    choosing = choose(tale, PROMPT, [" Zq gh" * 60, " Zq gh" * 60 + " x", " Wv" * 180])
    assert all(math.exp(answer.logprob) == 0 for answer in choosing.answers)
    assert sum(answer.prob for answer in choosing.answers) == pytest.approx(1)
    assert shares([-math.inf, -math.inf]) == [0.5, 0.5]


@pytest.mark.parametrize("answers", [["girl", "boy"], ["girl", "boy", "dog who ran"]])
def test_a_prompt_that_ends_in_a_space_is_healed(tale: LoadedModel, answers: list[str]) -> None:
    """Its last token is taken back: given that the next token begins with a space, the answers are as without it."""
    choosing = choose(tale, PROMPT + " ", answers)
    plain = choose(tale, PROMPT, [" " + answer for answer in answers])
    ids = tale.tokenizer.encode(PROMPT)
    before = log_softmax(tale.engine.forward([ids], None)[0])[-1]
    spaces = [k for k in range(tale.tokenizer.vocab_size) if tale.tokenizer.piece(k).startswith(b" ")]
    mass = math.log(np.exp(before[spaces]).sum())
    assert choosing.tail == b" "
    for healed, answer in zip(choosing.answers, plain.answers, strict=True):
        assert healed.logprob == pytest.approx(answer.logprob - mass, abs=1e-5)
        assert healed.prob == pytest.approx(answer.prob)
    assert sum(math.exp(answer.logprob) for answer in choosing.answers) <= 1


def test_an_answer_is_cut_together_with_its_prompt(tmp_path: Path) -> None:
    """A SentencePiece tokenizer puts a space before a text; cut by itself, the answer would begin with it."""
    for make in (tiny.metaspace_tokenizer, tiny.byte_fallback_tokenizer):
        tokenizer = Tokenizer(make())
        question = EncodedQuestion.encode(tokenizer, behind(tokenizer, "the fox,"), ["the", " bear"])
        assert tokenizer.piece(question.answers[0][0])[:1] != b" "
        assert tokenizer.encode_bare("the")[:1] != question.answers[0][:1]
        assert question.apart == ()


def test_where_more_than_one_token_would_be_cut_otherwise_the_answer_is_cut_by_itself(tokenizer: Tokenizer) -> None:
    prompt, whole = (5, 6, 7), {"x": (5, 9, 8), "y": (5, 6, 7, 4)}
    encode: Encode = lambda answer: whole[answer] if answer else prompt  # noqa: E731
    question = EncodedQuestion.encode(tokenizer, encode, ["x", "y"])
    assert question.context == prompt
    assert question.answers == (tokenizer.encode_bare("x"), (4,))
    assert question.apart == ("x",)


def test_a_prior_divides_by_what_an_empty_prompt_gives(tale: LoadedModel) -> None:
    answers = [" girl", " boy named Tim", " Once"]
    choosing = choose(tale, PROMPT, answers, prior=tale.tokenizer.encode(""))
    empty = Chooser(tale.engine, tale.tokenizer).choose(
        from_ids(tale.tokenizer.start_ids, {a: tale.tokenizer.encode_bare(a) for a in answers}), answers
    )
    priors = [answer.logprob for answer in empty.answers]
    assert [answer.prior_logprob for answer in choosing.answers] == pytest.approx(priors)
    expected = shares([a.logprob - prior for a, prior in zip(choosing.answers, priors, strict=True)])
    assert [answer.prob for answer in choosing.answers] == pytest.approx(expected)
    assert choosing.outside == choose(tale, PROMPT, answers).outside


def test_turning_puts_every_answer_in_every_place_once() -> None:
    turned = rotations("Is it red, green or blue? red-", ["green", " blue", "Is"])
    assert turned[0] == "Is it red, green or blue? red-"
    assert turned[1:] == ["green it red, blue or Is? red-", "blue it red, Is or green? red-"]
    for prompt, answers in (("a or b", ["a", "c"]), ("a a b", ["a", "b"]), ("big bigger", ["big", "bigger", "ger"])):
        with pytest.raises(ParameterError, match=r"stands there \d times, not once"):
            rotations(prompt, answers)


def test_means_over_orders_are_means_of_probabilities(tale: LoadedModel) -> None:
    one, other = (choose(tale, text, [" girl", " boy"]) for text in (PROMPT, "The name of the"))
    mean = mean_of([one, other])
    assert mean.orders == 2
    assert mean.outside == pytest.approx((one.outside + other.outside) / 2)
    for answers in zip(mean.answers, one.answers, other.answers, strict=True):
        assert answers[0].prob == pytest.approx((answers[1].prob + answers[2].prob) / 2)
        assert math.exp(answers[0].logprob) == pytest.approx(
            (math.exp(answers[1].logprob) + math.exp(answers[2].logprob)) / 2
        )


@pytest.mark.parametrize(
    ("answers", "words"),
    [([" a"], "at least two"), ([" a", " a"], "stands there twice"), ([" a", ""], "is no token behind this prompt")],
)
def test_answers_that_cannot_be_told_apart_are_refused(tale: LoadedModel, answers: list[str], words: str) -> None:
    with pytest.raises(ParameterError, match=words):
        choose(tale, PROMPT, answers)


def test_what_does_not_fit_in_the_context_is_refused(tale: LoadedModel) -> None:
    with pytest.raises(PromptError, match="do not fit in a context of 1,024"):
        choose(tale, " fox" * 1020, [" a" * 6, " b"])
    assert choose(tale, " fox" * 1020, [" a" * 4, " b"]).prompt_tokens == 1021  # the last token is never read


def test_typed_decisions_have_the_shape_that_servers_share(tale: LoadedModel) -> None:
    request = {
        "model": "any",
        "state": {"message": "The card was charged twice."},
        "questions": {
            "billing": {"type": "noul", "instructions": "Is it about money?", "criteria": {"true": "a charge"}},
            "team": {"type": "choice", "instructions": "Who?", "criteria": {"billing": "charges", "sales": None}},
            "urgency": {"type": "score", "criteria": ["calm", "angry", "furious"]},
        },
    }
    chooser = Chooser(tale.engine, tale.tokenizer)
    prompts = []

    def ask(prompt: str, labels: Any) -> Choosing:
        prompts.append(prompt)
        return chooser.choose(behind(tale.tokenizer, prompt), [f" {label}" for label in labels])

    reply = json.loads(json.dumps(decide(request, ask, "tale")))
    assert set(reply) == {"model", "answers", "usage"}
    assert all(prompt.startswith('{"message": "The card was charged twice."}\n') for prompt in prompts)
    billing, team, urgency = reply["answers"].values()
    assert set(billing) == {"type", "noul"}
    assert 0 <= billing["noul"] <= 1
    assert team["choice"] == max(team["probabilities"], key=team["probabilities"].get)
    assert team["confidence"] == pytest.approx(2 * max(team["probabilities"].values()) - 1)
    assert urgency["legend"] == {"0": "calm", "1": "angry", "2": "furious"}
    assert urgency["score"] == pytest.approx(sum(int(k) * prob for k, prob in urgency["probabilities"].items()))
    assert sum(urgency["probabilities"].values()) == pytest.approx(1)


@pytest.mark.parametrize(
    ("question", "words"),
    [
        (3, "expected an object"),
        ({"type": "vote"}, "expected choice, score or noul"),
        ({"type": "choice", "criteria": ["a", "b"]}, "criteria of a choice are an object"),
        ({"type": "choice", "criteria": {"a": None}}, "1 options; give 2 to 255"),
        ({"type": "score", "criteria": {"a": None}}, "criteria of a score are a list"),
        ({"type": "noul", "criteria": {"maybe": ""}}, "object with true and false"),
    ],
)
def test_a_question_of_another_shape_is_refused_by_name(question: Any, words: str) -> None:
    with pytest.raises(ParameterError, match=words) as caught:
        TypedQuestion.read("why\n\x1b", question)
    assert "why" in str(caught.value)
    assert "\x1b" not in str(caught.value)
