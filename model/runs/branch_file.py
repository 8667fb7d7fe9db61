"""A tree of branches as JSON: every token with its numbers, and every text that was kept."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenglass.model.decoding.branches import Branches, Node
from tokenglass.model.errors import TraceError
from tokenglass.model.files import MIB, parse_json, read_bytes, write_whole
from tokenglass.model.records.codec import from_dict, to_dict
from tokenglass.model.records.steps import Choice, Finish, Phase, Step, Totals
from tokenglass.model.runs.run import Run
from tokenglass.model.text.tokenizer import REPLACEMENT

VERSION = 1
MAX_TREE = 64 * MIB


def as_json(branches: Branches, run: Run, trail: Sequence[Node] = ()) -> dict[str, Any]:
    """The run, all nodes (the root, which is the prompt's end, first; a node after its parent), and the branches.

    A branch is a text that ends or was marked. `logprob` is raw, a natural logarithm; of a branch it is the sum.
    `trail` are the places to go back to by undoing, the last one first to go to.
    """
    numbers = {node: number for number, node in enumerate(branches.nodes())}
    ends = [node for node in numbers if node.is_branch or node is branches.here]
    return {
        "branches_version": VERSION,
        "run": to_dict(run),
        "nodes": [node_as_json(node, numbers) for node in numbers],
        "branches": [branch_as_json(branches, node, numbers[node]) for node in ends],
        "here": numbers[branches.here],
        "trail": [numbers[node] for node in trail],
    }


def node_as_json(node: Node, numbers: dict[Node, int]) -> dict[str, Any]:
    content = {"node": numbers[node], "parent": None if node.parent is None else numbers[node.parent]}
    content |= {"marked": node.marked, "draws": node.draws}
    return content if node.choice is None else content | to_dict(node.choice)


def branch_as_json(branches: Branches, node: Node, number: int) -> dict[str, Any]:
    per_token = node.logprob_per_token
    return {
        "node": number,
        "text": branches.text(node),
        "token_ids": [place.token_id for place in node.path()],
        "logprob": finite(node.logprob),
        "logprob_per_token": None if per_token is None else finite(per_token),
        "ended": node.reason,
        "marked": node.marked,
        "here": node is branches.here,
    }


@dataclass(frozen=True, slots=True)
class SavedTree:
    """What a file of branches holds, before a model has looked at it: nodes by number, each with its parent's."""

    path: Path
    run: Run
    parents: tuple[int, ...]  # of all nodes but the root
    choices: tuple[Choice, ...]
    draws: tuple[int, ...]  # of all nodes
    marked: tuple[bool, ...]
    here: int
    trail: tuple[int, ...]

    def restore(self, branches: Branches) -> list[Node]:
        """Grow the tree in empty branches, and go to the place where it was left; the trail. Raises TraceError."""
        nodes = [branches.root]
        for number, (parent, choice) in enumerate(zip(self.parents, self.choices, strict=True), start=1):
            node = branches.graft(nodes[parent], choice)
            if node is None:
                raise TraceError(f"{self.path}: node {number} is no token of this model, or its text has ended before")
            nodes.append(node)
        for node, draws, marked in zip(nodes, self.draws, self.marked, strict=True):
            node.draws, node.marked, node.offer = draws, marked, None
        branches.switch(nodes[self.here])
        return [nodes[place] for place in self.trail]


def read_tree(path: Path) -> SavedTree:
    """A tree that `write` wrote. Raises TraceError for anything else."""
    content = parse_json(read_bytes(path, MAX_TREE, TraceError, needed_by=""), str(path), TraceError)
    if content.get("branches_version") != VERSION:
        raise TraceError(f"{path}: no tree of `tokenglass pick` of version {VERSION}; s in pick saves one")
    try:
        run = from_dict(Run, content.get("run"))
        nodes = [node for node in read_list(content, "nodes") if isinstance(node, dict)]
        choices = tuple(from_dict(Choice, node) for node in nodes[1:])
    except TraceError as error:
        raise TraceError(f"{path}: {error}") from None
    places = range(len(nodes))
    parents: tuple[Any, ...] = tuple(node.get("parent") for node in nodes[1:])
    draws = tuple(node.get("draws", 0) for node in nodes)
    here, trail = content.get("here", 0), tuple(read_list(content, "trail"))
    whole = all(type(number) is int for number in (*parents, *draws, here, *trail))
    if (
        not nodes
        or not whole
        or not all(0 <= parent <= number for number, parent in enumerate(parents))
        or not all(place in places for place in (here, *trail))
        or not all(0 <= drawn < 2**32 for drawn in draws)
    ):
        raise TraceError(f"{path}: its nodes do not make a tree")
    marked = tuple(node.get("marked") is True for node in nodes)
    return SavedTree(path, run, parents, choices, draws, marked, here, trail)


def read_list(content: dict[str, Any], name: str) -> list[Any]:
    """A list of the file, empty where it has none."""
    value = content.get(name)
    return value if isinstance(value, list) else []


def branch_records(branches: Branches, run: Run) -> Iterator[Step | Finish]:
    """The text up to this place as the records of a run that wrote nothing else; what it cost is not known."""
    here, written, totals = branches.here, "", Totals()
    for number, node in enumerate(here.path()):
        assert node.choice is not None
        phase: Phase = "decode" if number else "prefill"
        text = branches.text(node).rstrip(REPLACEMENT)
        inputs = 1 if number else run.prompt_length
        step = Step(number, number, 0, phase, inputs, (node.choice,), text[len(written) :], None, 0.0)
        written, totals = max(written, text, key=len), totals.plus(step)
        yield step
    yield Finish(0, here.reason or "interrupt", branches.text(here)[len(written) :], totals)


def finite(number: float) -> float | None:
    """JSON has no infinity."""
    return number if abs(number) < float("inf") else None


def write(content: dict[str, Any], path: Path, *, new: bool) -> None:
    """Write the file whole or not at all. Raises OSError; FileExistsError where a `new` one is there already."""
    write_whole(json.dumps(content, ensure_ascii=False, allow_nan=False, indent=1) + "\n", path, new=new)
