"""A saved tree of branches grows again as it was; what is no such file is one error; a trace holds every step."""

from __future__ import annotations

import copy
import json
import math
import tempfile
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from test_branches import EOS, PROMPT, TOKENIZER, TOP, begin, draw, engine_of, force, look

from tokenglass.model.decoding.branches import Branches
from tokenglass.model.decoding.request import Request
from tokenglass.model.errors import TokenglassError, TraceError
from tokenglass.model.records.codec import to_dict
from tokenglass.model.records.steps import Finish, Step
from tokenglass.model.runs.branch_file import SavedTree, as_json, branch_records, read_tree, write
from tokenglass.model.runs.playback import Texts, split_runs
from tokenglass.model.runs.run import Run
from tokenglass.model.runs.schema import trace_schema
from tokenglass.model.runs.trace import from_line, to_line
from tokenglass.model.runs.walk_trace import WalkTrace

ENGINE = engine_of(tiny.CONFIG)
RUN = Run("tiny", "", "", "Once", Request(PROMPT, 7, top=TOP, eos_token_ids=frozenset({EOS})))
WAYS = st.lists(st.sampled_from(["draw", "first", "fox", "back", "root", "mark", "end"]), max_size=14)


class Lines(list[str]):
    """A trace in memory."""

    def add(self, record: Run | Step | Finish) -> None:
        self.append(to_line(record))


def go(branches: Branches, way: str) -> None:
    """One thing that a user does."""
    match way:
        case "back":
            branches.back()
        case "root":
            branches.switch(branches.root)
        case "mark":
            branches.here.marked = branches.here.depth > 0
        case _ if branches.here.offer is None:
            pass
        case "draw":
            draw(branches)
        case "first":
            branches.pick(0)
        case "fox":
            force(branches, *TOKENIZER.encode_bare(" fox"))
        case "end":
            force(branches, EOS)
    look(branches)


def walk(ways: list[str]) -> Branches:
    branches = begin(ENGINE)
    for way in ways:
        go(branches, way)
    return branches


@settings(max_examples=25)
@given(ways=WAYS)
def test_a_tree_comes_back_from_its_file_and_goes_on_as_it_would_have(ways: list[str]) -> None:
    branches = walk(ways)
    trail = list(branches.nodes())[::2]
    content = as_json(branches, RUN, trail)
    again = begin(ENGINE)
    restored = saved_tree(content).restore(again)
    assert is_close(as_json(again, RUN, restored), content)
    look(again)
    for tree in (branches, again):
        go(tree, "draw")
        go(tree, "draw")
    assert is_close(as_json(again, RUN), as_json(branches, RUN))


def is_close(here: Any, there: Any) -> bool:
    """Whether two JSON values are the same but for rounding."""
    if isinstance(here, dict) and isinstance(there, dict):
        return here.keys() == there.keys() and all(is_close(here[key], there[key]) for key in here)
    if isinstance(here, list) and isinstance(there, list):
        return len(here) == len(there) and all(map(is_close, here, there))
    if isinstance(here, float) and isinstance(there, float):
        return math.isclose(here, there, rel_tol=1e-4, abs_tol=1e-4)
    return bool(here == there)


def saved_tree(content: dict[str, Any]) -> SavedTree:
    """What `read_tree` makes of a file with this content."""
    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / "tree.json"
        write(content, file, new=True)
        return read_tree(file)


@settings(max_examples=150)
@given(data=st.data())
def test_a_damaged_tree_is_one_error_or_a_tree(data: st.DataObject) -> None:
    content = copy.deepcopy(TREE)
    for _ in range(data.draw(st.integers(1, 3))):
        place: Any = content
        while isinstance(place, dict | list) and place:
            key = data.draw(st.sampled_from(list(place) if isinstance(place, dict) else range(len(place))))
            if not isinstance(place[key], dict | list) or not place[key] or data.draw(st.integers(0, 5)) == 0:
                junk = st.sampled_from([None, -1, 0, 1, 10**30, 1e300, "", "\x1b[2J", [], {}, [[]], True, "x" * 99])
                if isinstance(place, dict) and data.draw(st.booleans()):
                    del place[key]
                else:
                    place[key] = data.draw(junk)
                break
            place = place[key]
    try:
        branches = begin(ENGINE)
        saved_tree(content).restore(branches)
        look(branches)
        branches.text(branches.here)
    except TokenglassError as error:
        message = str(error)
    else:
        message = ""
    assert not message or message.isprintable()


TREE = as_json(walk(["draw", "draw", "mark", "back", "fox", "first", "root", "first", "draw"]), RUN)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not valid JSON"),
        (b"[]", "expected a JSON object"),
        (b"[" * 9999, "nested too deeply"),
        (b"{}", "no tree of `tokenglass pick`"),
        (b'{"branches_version": 1}', "expected an object for Run"),
        (json.dumps({**TREE, "nodes": []}).encode(), "do not make a tree"),
        (json.dumps({**TREE, "here": 99}).encode(), "do not make a tree"),
        (json.dumps({**TREE, "trail": [-1]}).encode(), "do not make a tree"),
    ],
)
def test_what_is_no_tree_is_told_with_the_name_of_the_file(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "tree.json"
    file.write_bytes(content)
    with pytest.raises(TraceError, match=message) as refused:
        read_tree(file)
    assert str(file) in str(refused.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"token_id": tiny.VOCAB_SIZE + 500}, "is no token of this model"),
        ({"logprob": None}, "is no token of this model"),
        ({"token_id": EOS}, "its text has ended before"),
    ],
)
def test_nodes_that_this_model_cannot_have_are_refused(change: dict[str, Any], message: str) -> None:
    content = copy.deepcopy(TREE)
    (content["nodes"][content["nodes"][2]["parent"]] if content["nodes"][2]["parent"] else content["nodes"][1]).update(
        change
    )
    with pytest.raises(TraceError, match=message):
        saved_tree(content).restore(begin(ENGINE))


@settings(max_examples=25)
@given(ways=WAYS)
def test_a_trace_of_any_way_holds_the_text_that_stands_at_its_end(ways: list[str]) -> None:
    validator, lines = jsonschema.Draft202012Validator(trace_schema()), Lines()
    branches = begin(ENGINE)
    trace = WalkTrace(lines, RUN, branches)
    for way in ways:
        go(branches, way)
        trace.follow()
    trace.finish()
    for line in lines:
        validator.validate(json.loads(line))
    ((run, records),) = ((run, list(records)) for run, records in split_runs(map(from_line, lines)))
    texts, finish = Texts(), records[-1]
    for step in records[:-1]:
        assert isinstance(step, Step)
        texts.add(step)
    path = [node.choice for node in branches.here.path()]
    assert texts.choices.get(0, []) == path
    assert isinstance(finish, Finish)
    assert finish.text == branches.text(branches.here)
    assert finish.totals.new_tokens == len(path)
    assert finish.totals.positions_computed <= branches.cache.computed
    assert to_dict(run) == to_dict(RUN)


@settings(max_examples=25)
@given(ways=WAYS)
def test_the_records_of_one_branch_are_a_run_that_writes_its_text(ways: list[str]) -> None:
    branches = walk(ways)
    records = list(branch_records(branches, RUN))
    assert "".join(record.text for record in records) == branches.text(branches.here)
    choices = [choice for record in records if isinstance(record, Step) for choice in record.choices]
    assert choices == [node.choice for node in branches.here.path()]
    assert [from_line(to_line(record)) for record in records] == records
