"""A tree of branches as JSON: every token with its numbers, and every text that was kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenglass.model.decoding.branches import Branches, Node
from tokenglass.model.files import write_whole
from tokenglass.model.records.codec import to_dict
from tokenglass.model.runs.run import Run

VERSION = 1


def as_json(branches: Branches, run: Run) -> dict[str, Any]:
    """The run, all nodes (the root, which is the prompt's end, first; a node after its parent), and the branches.

    A branch is a text that ends or was marked. `logprob` is raw, a natural logarithm; of a branch it is the sum.
    """
    numbers = {node: number for number, node in enumerate(branches.nodes())}
    ends = [node for node in numbers if node.is_branch or node is branches.here]
    return {
        "branches_version": VERSION,
        "run": to_dict(run),
        "nodes": [node_as_json(node, numbers) for node in numbers],
        "branches": [branch_as_json(branches, node, numbers[node]) for node in ends],
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


def finite(number: float) -> float | None:
    """JSON has no infinity."""
    return number if abs(number) < float("inf") else None


def write(content: dict[str, Any], path: Path, *, new: bool) -> None:
    """Write the file whole or not at all. Raises OSError; FileExistsError where a `new` one is there already."""
    write_whole(json.dumps(content, ensure_ascii=False, allow_nan=False, indent=1) + "\n", path, new=new)
