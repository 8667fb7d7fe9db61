"""Stops, bans, constraints and guidance in a tree of texts: everywhere in it, what a run would have there."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenglass.model.decoding.autoregressive import decode
from tokenglass.model.decoding.branches import Branches
from tokenglass.model.decoding.job import Job
from tokenglass.model.decoding.request import Request
from tokenglass.model.errors import NothingPossible, ParameterError, PromptError
from tokenglass.model.records.steps import Choice, Finish, Step
from tokenglass.model.sampling.constraints import Constraint
from tokenglass.model.sampling.parameters import SamplingParameters
from tokenglass.model.text.tokenizer import Tokenizer
from tokenglass.model.torch_engine.engine import TorchEngine

TOKENIZER = Tokenizer(tiny.byte_level_tokenizer())
PROMPT = TOKENIZER.encode("Once upon a time")
PLAIN = SamplingParameters(temperature=1, top_p=1)
OFTEN = PLAIN.replace(logit_bias=((TOKENIZER.encode_bare("abc"), 9.0),))  # a text of these letters, mostly
GUIDED = PLAIN.replace(guidance_scale=2.0)
CONTROLS: dict[str, dict[str, Any]] = {
    "a stop": {"sampling": OFTEN, "stops": ("ab", "ccc")},
    "a ban": {"sampling": OFTEN, "bans": ("ab", "cc", "ba")},
    "a stop and a ban": {"sampling": OFTEN, "stops": ("cb",), "bans": ("abc", "a b", "bbb")},
    "a regex": {"constraint": Constraint("regex", (r" [a-z]{3,9}, [0-9]+\.",))},
    "a choice and a ban": {"constraint": Constraint("choice", ("abc", "abd", "xyz")), "bans": ("ab",)},
    "guidance": {"sampling": GUIDED, "negative_ids": TOKENIZER.encode("A bear said")},
    "all of it": {
        "sampling": GUIDED,
        "negative_ids": TOKENIZER.encode("A bear said so, and then"),
        "constraint": Constraint("regex", (r" [abc ]{4,20}\.",)),
        "stops": ("cab",),
        "bans": ("aa", "b b"),
    },
}


@functools.cache
def engine() -> TorchEngine:
    return TorchEngine(tiny.random_transformer(tiny.CONFIG), torch.device("cpu"), torch.float32)


def request_of(name: str, seed: int, **options: Any) -> Request:
    fields = {"sampling": PLAIN, "max_new_tokens": 16, "eos_token_ids": frozenset({0}), **CONTROLS[name], **options}
    return Request(PROMPT, seed, **fields)


def begin(request: Request) -> Branches:
    branches = Branches(Job(engine(), TOKENIZER, request))
    look(branches)
    return branches


def look(branches: Branches) -> None:
    for _ in branches.look():
        pass


def numbers(choice: Choice) -> Any:
    """What was possible, what was drawn, and how."""
    candidates = [(c.token_id, c.removed_by, c.prob == pytest.approx(0, abs=0)) for c in choice.candidates]
    return choice.token_id, choice.draw, pytest.approx(choice.prob, rel=1e-3), candidates


@pytest.mark.parametrize("name", CONTROLS)
@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 2**20))
def test_drawing_alone_gives_the_candidates_the_text_and_the_end_of_a_run(name: str, seed: int) -> None:
    request = request_of(name, seed)
    expected: list[Choice] = []
    text, finish = "", None
    for record in decode(Job(engine(), TOKENIZER, request)):
        text += record.text
        if isinstance(record, Step):
            if record.rewound_to is not None:
                del expected[record.rewound_to - len(PROMPT) :]
            expected += record.settled
        else:
            finish = record
    assert isinstance(finish, Finish)

    branches = begin(request)
    while branches.here.depth < request.max_new_tokens and branches.here.reason is None:
        try:
            look(branches)
        except NothingPossible:
            assert finish.reason == "constraint"
            break
        branches.draw()
    chosen = [node.choice for node in branches.here.path() if node.choice is not None]
    assert [choice.token_id for choice in chosen] == [choice.token_id for choice in expected]
    assert branches.here.reason == (None if finish.reason in ("length", "constraint") else finish.reason)
    assert branches.text(branches.here) == text
    for actual, wanted in zip(chosen, expected, strict=True):
        if wanted.status != "forced":  # what is forced has no numbers
            assert numbers(actual) == numbers(wanted)


@pytest.mark.parametrize("name", CONTROLS)
@settings(max_examples=6, deadline=None)
@given(data=st.data())
def test_a_place_offers_the_same_whichever_way_led_there(name: str, data: st.DataObject) -> None:
    request = request_of(name, data.draw(st.integers(0, 2**20)))
    branches = begin(request)
    for _ in range(data.draw(st.integers(1, 12))):
        match data.draw(st.sampled_from(["draw", "draw", "draw", "pick", "back", "switch"])):
            case "back":
                branches.back()
            case "switch":
                branches.switch(data.draw(st.sampled_from(list(branches.nodes()))))
            case "draw" if branches.here.offer is not None:
                branches.draw()
            case "pick" if branches.here.offer is not None:
                branches.pick(data.draw(st.integers(0, len(branches.candidates()) - 1)))
        try:
            look(branches)
            first_offer = possible(branches)
        except NothingPossible:
            first_offer = None

        path = branches.here.path()
        again = begin(request)
        try:
            for node in path:
                force(again, node.token_id)
            again.here.banned, again.here.offer = branches.here.banned, None
            look(again)
            wanted = possible(again)
        except NothingPossible:
            wanted = None
        assert again.here.reason == branches.here.reason
        assert first_offer == wanted
        assert again.text(again.here) == branches.text(branches.here)


def force(branches: Branches, token_id: int) -> None:
    for _ in branches.force((token_id,)):
        pass


def possible(branches: Branches) -> Any:
    return [(c.token_id, c.removed_by, pytest.approx(c.prob, rel=1e-3, abs=1e-9)) for c in branches.candidates()]


def test_a_stop_ends_the_text_before_it_and_going_back_opens_it_again() -> None:
    branches = begin(request_of("a stop", 1, stops=("dog!",)))
    for _ in branches.force(TOKENIZER.encode_bare(" a dog! and more")):
        pass
    assert branches.here.reason == "stop"
    assert branches.text(branches.here) == " a "
    assert branches.candidates() == ()
    branches.back()
    look(branches)
    assert branches.here.reason is None
    assert branches.candidates() != ()


def test_a_banned_phrase_by_hand_leads_back_to_where_it_began_and_excludes_its_first_token() -> None:
    branches = begin(request_of("a ban", 1, bans=("bear",)))
    before, first = TOKENIZER.encode_bare(" a "), TOKENIZER.encode_bare("bear")
    for _ in branches.force((*before, *first, 50)):
        pass
    assert branches.is_rewound
    assert tuple(node.token_id for node in branches.here.path()) == before
    assert branches.here.banned == first[:1]
    look(branches)
    for _ in range(20):
        assert branches.draw().token_id != first[0]
        branches.back()
        look(branches)


def test_what_a_constraint_does_not_allow_can_be_taken_by_hand_and_nothing_follows_it() -> None:
    branches = begin(request_of("a regex", 1))
    (digit,) = TOKENIZER.encode_bare("7")
    for _ in branches.force((digit,)):
        pass
    with pytest.raises(NothingPossible, match="regex"):
        look(branches)
    branches.back()
    look(branches)
    assert branches.draw().token_id != digit


def test_a_request_that_cannot_be_met_is_refused_at_once() -> None:
    with pytest.raises(ParameterError, match="regex"):
        begin(request_of("a regex", 1, constraint=Constraint("regex", ("(",))))
    with pytest.raises(PromptError, match="context"):
        begin(request_of("guidance", 1, negative_ids=(5,) * engine().limit))
