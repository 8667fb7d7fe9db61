"""A kept run as a tree that `tokenglass pick` goes on with."""

from __future__ import annotations

from pathlib import Path

from tokenglass.model.records.steps import Choice, Finish
from tokenglass.model.runs.branch_file import SavedTree
from tokenglass.model.runs.playback import Texts, split_runs
from tokenglass.model.runs.trace_reader import open_trace


def tree_of_trace(path: Path) -> SavedTree:
    """The texts of a trace's first run, at the end of the first or best one; what they begin with in common is one way.

    Raises TraceError.
    """
    texts, finished = Texts(), list[int]()
    with open_trace(path) as trace:
        run, records = next(split_runs(trace))
        for record in records:
            if isinstance(record, Finish):
                finished.append(record.sequence)
            else:
                texts.add(record)
    parents, choices, ends = list[int](), list[Choice](), list[int]()
    numbers: dict[tuple[int, int | None], int] = {}
    for sequence in finished or texts.choices:
        node = 0
        for choice in texts.choices.get(sequence, []):
            place = node, choice.token_id
            if place not in numbers:
                parents.append(node)
                choices.append(choice)
                numbers[place] = len(choices)
            node = numbers[place]
        ends.append(node)
    count = len(choices) + 1
    here = ends[0] if ends else 0
    return SavedTree(path, run, tuple(parents), tuple(choices), (0,) * count, (False,) * count, here, ())
