"""A tree of texts over one cache: any walk through it shows what computing everything anew would show."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from torch_parts import as_tensor

from tokenglass.model.config.layer_kinds import LayerKind
from tokenglass.model.config.rope_config import Rope
from tokenglass.model.decoding.autoregressive import decode
from tokenglass.model.decoding.branches import Branches, Node
from tokenglass.model.decoding.job import Job
from tokenglass.model.decoding.request import Request
from tokenglass.model.engine.engine import Ids, Logits
from tokenglass.model.errors import PromptError
from tokenglass.model.loading import load_model
from tokenglass.model.records.steps import Step
from tokenglass.model.runs.branch_file import as_json, write
from tokenglass.model.runs.run import Run
from tokenglass.model.sampling.context import Context
from tokenglass.model.sampling.draw import uniform
from tokenglass.model.sampling.parameters import SamplingParameters
from tokenglass.model.sampling.sampler import Sampler
from tokenglass.model.text.tokenizer import Tokenizer
from tokenglass.model.torch_engine.engine import TorchEngine

TOKENIZER = Tokenizer(tiny.byte_level_tokenizer())
PROMPT = TOKENIZER.encode("Once upon a time")
EOS = 0
TOP = 5
ROPE = Rope(theta=10000.0, dim=8)
WINDOWED = replace(tiny.CONFIG, layers=(LayerKind(ROPE, 5), LayerKind(ROPE), LayerKind(ROPE, 5)))
RUN = Run("tiny", "f" * 8, "t" * 8, "Once", Request((1,), 7, top=TOP))


class Counting:
    """A real engine, and how many positions it was asked to compute."""

    def __init__(self, engine: Any):
        self.engine = engine
        self.limit, self.measure = engine.limit, engine.measure
        self.positions: list[int] = []

    @property
    def vocab_size(self) -> int:
        return self.engine.vocab_size

    def new_cache(self, rows: int = 1, *, planned_length: int | None = None) -> Any:
        return self.engine.new_cache(rows, planned_length=planned_length)

    def forward(self, token_ids: Ids, cache: Any, **options: Any) -> list[Logits]:
        self.positions.append(len(token_ids[0]))
        logits: list[Logits] = self.engine.forward(token_ids, cache, **options)
        return logits


def engine_of(config: Any) -> Counting:
    return Counting(TorchEngine(tiny.random_transformer(config), torch.device("cpu"), torch.float32))


def begin(engine: Any, prompt_ids: tuple[int, ...] = PROMPT, **options: Any) -> Branches:
    request = Request(prompt_ids, **{"seed": 7, "top": TOP, "eos_token_ids": frozenset({EOS}), **options})
    branches = Branches(Job(engine, TOKENIZER, request))
    look(branches)
    return branches


def look(branches: Branches) -> None:
    for _ in branches.look():
        pass


def force(branches: Branches, *token_ids: int) -> None:
    for _ in branches.force(token_ids):
        pass
    look(branches)


def draw(branches: Branches) -> Node:
    look(branches)
    node = branches.draw()
    look(branches)
    return node


@pytest.fixture(scope="module")
def engine(saved_checkpoint: Path) -> Counting:
    return Counting(load_model(saved_checkpoint).engine)


class Walk(RuleBasedStateMachine):
    """Any way through a tree, beside the plain ids of the text; each offer is compared with a pass over all of them."""

    engine: Callable[[], Counting] = staticmethod(lambda: engine_of(tiny.CONFIG))

    @initialize(chunk=st.integers(1, 8))
    def begin(self, chunk: int) -> None:
        self.running = type(self).engine()
        self.branches = begin(self.running, prefill_chunk=chunk)
        self.nodes: dict[Node, tuple[int, ...]] = {self.branches.root: ()}

    @property
    def ids(self) -> tuple[int, ...]:
        return self.nodes[self.branches.here]

    def can_go_on(self) -> bool:
        return self.branches.here.offer is not None

    def note(self, before: tuple[int, ...], token_id: int | None = None) -> None:
        here = self.branches.here
        assert token_id in (None, here.token_id)
        self.nodes[here] = (*before, here.token_id)

    @precondition(lambda self: self.can_go_on())
    @rule()
    def draw(self) -> None:
        before, attempt = self.ids, self.branches.here.draws
        choice = self.branches.draw().choice
        assert choice is not None
        assert choice.draw == uniform(7, len(PROMPT) + len(before), attempt=attempt)
        self.note(before)

    @precondition(lambda self: self.can_go_on())
    @rule(index=st.integers(0, TOP - 1))
    def pick(self, index: int) -> None:
        before, wanted = self.ids, self.branches.candidates()[index].token_id
        self.branches.pick(index)
        self.note(before, wanted)

    @precondition(lambda self: self.can_go_on())
    @rule(token_id=st.integers(1, tiny.VOCAB_SIZE - 1))
    def force(self, token_id: int) -> None:
        before = self.ids
        for _ in self.branches.force((token_id,)):
            pass
        self.note(before, token_id)

    @rule(count=st.integers(1, 4))
    def back(self, count: int) -> None:
        expected = self.ids[: max(0, len(self.ids) - count)]
        for _ in range(count):
            self.branches.back()
        assert self.ids == expected

    @rule()
    def forward(self) -> None:
        self.branches.forward()

    @rule(data=st.data())
    def switch(self, data: st.DataObject) -> None:
        self.branches.switch(data.draw(st.sampled_from(list(self.nodes))))

    @rule()
    def mark(self) -> None:
        self.branches.here.marked = True

    @invariant()
    def shows_what_computing_anew_shows(self) -> None:
        if not hasattr(self, "branches"):
            return
        look(self.branches)
        here, ids = self.branches.here, [*PROMPT, *self.ids]
        assert tuple(node.token_id for node in here.path()) == self.ids
        if here.offer is None:
            assert here.reason is not None
            return
        logits = as_tensor(self.running.engine.forward(torch.tensor([ids]), None))[0, -1]
        context = Context(ids, len(PROMPT), seed=7, attempt=here.draws)
        expected = Sampler(SamplingParameters(), TOKENIZER.piece, TOP).choose(logits, context)
        assert expected.draw == here.offer.draw
        raw = logits.double().log_softmax(0)
        for candidate in here.offer.candidates:
            assert candidate.logprob == pytest.approx(raw[candidate.token_id].item(), abs=1e-4)
        assert here.offer.entropy == pytest.approx(expected.entropy, abs=1e-3)

    @invariant()
    def keeps_every_position_once(self) -> None:
        if hasattr(self, "branches"):
            cache = self.branches.cache
            places = [place for tail in cache._tails.values() for place in tail.places]
            assert len(set(places)) == len(places)
            assert not set(places) & set(cache._held)


class WindowedWalk(Walk):
    engine = staticmethod(lambda: engine_of(WINDOWED))


@pytest.fixture(autouse=True)
def windows_are_tight(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """So that short walks leave them; memory that nobody wrote is NaN."""
    monkeypatch.setattr("tokenglass.model.engine.keys_values.SLACK", 2)
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


TestWalk = Walk.TestCase
TestWalk.settings = settings(max_examples=25, stateful_step_count=20)
TestWindowedWalk = WindowedWalk.TestCase
TestWindowedWalk.settings = settings(max_examples=25, stateful_step_count=20)


def test_drawing_alone_gives_the_text_of_a_run_with_the_same_seed(engine: Counting) -> None:
    request = Request(PROMPT, seed=7, max_new_tokens=24, ignore_eos=True, eos_token_ids=frozenset({EOS}))
    records = decode(Job(engine, TOKENIZER, request))
    expected = [choice for record in records if isinstance(record, Step) for choice in record.choices]
    branches = begin(engine, max_new_tokens=24, ignore_eos=True)
    for _ in range(24):
        draw(branches)
    drawn = [node.choice for node in branches.here.path()]
    assert [(c.token_id, c.draw) for c in drawn if c] == [(c.token_id, c.draw) for c in expected]
    assert branches.text(branches.here) == TOKENIZER.decode([*PROMPT, *new_ids(branches)])[len("Once upon a time") :]


def new_ids(branches: Branches) -> list[int]:
    return [node.token_id for node in branches.here.path()]


def test_every_return_draws_afresh_and_the_first_way_stays(engine: Counting) -> None:
    branches = begin(engine)
    drawn = []
    for attempt in range(6):
        drawn.append(draw(branches))
        assert drawn[-1].choice is not None
        assert drawn[-1].choice.draw == uniform(7, len(PROMPT), attempt=attempt)
        assert branches.back()
    assert set(branches.root.children.values()) == set(drawn)
    assert len(set(drawn)) > 1


def test_a_forced_token_has_its_real_numbers_however_improbable(engine: Counting) -> None:
    branches = begin(engine)
    logits = as_tensor(engine.engine.forward(torch.tensor([list(PROMPT)]), None))[0, -1]
    order = logits.sort(descending=True, stable=True).indices.tolist()
    token_id = order[400]
    force(branches, token_id)
    choice = branches.here.choice
    assert choice is not None
    assert choice.status == "forced"
    assert choice.draw is None
    assert choice.rank == 401
    assert choice.logprob == pytest.approx(logits.double().log_softmax(0)[token_id].item(), abs=1e-4)
    assert choice.candidates[-1].token_id == token_id
    assert choice.prob == 0
    assert choice.candidates[-1].removed_by == "top-p"
    assert len(choice.candidates) == TOP + 1


def test_going_back_on_and_elsewhere_computes_nothing_that_was_seen_before(engine: Counting) -> None:
    branches = begin(engine)
    force(branches, *TOKENIZER.encode_bare(" there was a fox"))
    first = branches.here
    for _ in range(3):
        branches.back()
        look(branches)
    force(branches, *TOKENIZER.encode_bare(" bear"))
    second = branches.here
    engine.positions.clear()
    for node in (first, second, first, branches.root, second):
        branches.switch(node)
        look(branches)
    while branches.back():
        look(branches)
    assert engine.positions == []
    branches.switch(first)
    branches.pick(0)
    look(branches)
    assert engine.positions == [1]  # the other branch's keys and values came back, only the new token was computed


def test_ten_branches_of_a_thousand_tokens_take_hardly_more_than_one() -> None:
    engine = engine_of(replace(tiny.CONFIG, max_positions=2048))
    prompt_ids = tuple(1 + k % (tiny.VOCAB_SIZE - 1) for k in range(1000))
    branches = begin(engine, prompt_ids, ignore_eos=True)
    sizes = []
    for number in range(10):
        branches.switch(branches.root)
        look(branches)
        force(branches, *(number + 1 + 11 * k for k in range(20)))
        sizes.append(branches.cache.nbytes)
    real = sum(state.array.nbytes for state in branches.cache.row.rows[0].states)
    assert branches.cache.nbytes_of_tails == 9 * 20 * branches.cache.row.usage().bytes_per_token
    assert branches.cache.nbytes == real + branches.cache.nbytes_of_tails
    assert sizes[-1] < 1.2 * sizes[0]
    again = 9  # the prompt's last position, for the logits of the tokens that are not among the candidates
    assert sum(engine.positions) == 1000 + 10 * 20 + again


def test_a_window_that_cannot_go_back_so_far_computes_anew_and_says_so() -> None:
    branches = begin(engine_of(WINDOWED))
    force(branches, *range(20, 40))
    assert branches.cache.recomputed == 0
    branches.switch(branches.root)
    assert [branches.cache.recomputed for _ in branches.force((50,))] == [len(PROMPT)]


def test_an_end_token_ends_the_text_and_going_back_opens_it_again(engine: Counting) -> None:
    branches = begin(engine)
    force(branches, EOS, 30)
    assert (new_ids(branches), branches.here.reason) == ([EOS], "eos")
    assert branches.candidates() == ()
    branches.back()
    assert branches.candidates() != ()


def test_the_context_ends_the_text_too() -> None:
    engine = engine_of(replace(tiny.CONFIG, max_positions=len(PROMPT) + 2))
    branches = begin(engine)
    force(branches, 30, 31, 32)
    assert (new_ids(branches), branches.here.reason) == ([30, 31], "context")
    with pytest.raises(PromptError, match="context"):
        begin(engine, (1,) * (len(PROMPT) + 2))


@pytest.mark.parametrize(
    "make",
    [tiny.byte_level_tokenizer, tiny.byte_fallback_tokenizer, tiny.metaspace_tokenizer],
    ids=lambda f: f.__name__,
)
def test_typed_text_is_added_as_it_is_typed(make: Any, engine: Counting) -> None:
    tokenizer = Tokenizer(make())
    branches = Branches(Job(engine, tokenizer, Request(tokenizer.encode("the fo"), seed=1)))

    @given(typed=st.text("abcdefox ", min_size=1, max_size=12))
    def adds(typed: str) -> None:
        before = [*tokenizer.encode("the fo")]
        assert tokenizer.decode([*before, *branches.tokens_for(typed)]) == tokenizer.decode(before) + typed

    adds()


def test_a_saved_tree_holds_every_token_and_every_text_with_their_numbers(engine: Counting, tmp_path: Path) -> None:
    branches = begin(engine)
    force(branches, *TOKENIZER.encode_bare(" fox é"))
    first = branches.here
    branches.here.marked = True
    draw(branches)
    branches.switch(branches.root)
    draw(branches)
    path = tmp_path / "tree.json"
    write(as_json(branches, RUN), path, new=True)
    content = json.loads(path.read_text(encoding="utf-8"))
    nodes = list(branches.nodes())
    assert [node["parent"] for node in content["nodes"]] == [
        None if node.parent is None else nodes.index(node.parent) for node in nodes
    ]
    assert [node.get("token_id") for node in content["nodes"]] == [
        None if node.choice is None else node.token_id for node in nodes
    ]
    texts = {branch["text"]: branch for branch in content["branches"]}
    marked = texts[" fox é"]
    assert marked["token_ids"] == [node.token_id for node in first.path()]
    logprobs = [node.choice.logprob for node in first.path() if node.choice and node.choice.logprob is not None]
    assert marked["logprob"] == pytest.approx(math.fsum(logprobs))
    assert marked["logprob_per_token"] == pytest.approx(math.fsum(logprobs) / len(logprobs))
    assert [branch["here"] for branch in content["branches"]].count(True) == 1
    assert content["run"]["request"]["seed"] == 7
    assert content["run"]["model_fingerprint"] == "f" * 8


def test_a_file_that_is_there_is_not_written_over_unless_it_is_our_own(tmp_path: Path) -> None:
    path = tmp_path / "tree.json"
    path.write_text("precious")
    with pytest.raises(FileExistsError):
        write({}, path, new=True)
    assert path.read_text() == "precious"
    write({"a": 1}, path, new=False)
    assert json.loads(path.read_text()) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]
