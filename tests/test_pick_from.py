"""pick --from: a kept run is a tree to branch off, whatever number of texts it has."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from shell import generate
from terminal import assert_restored
from test_export import data_of
from test_pick_kept import Loader, quoted

from tokenglass.cli.commands.pick import PickPromptOptions, check_files
from tokenglass.cli.options.control import TextOptions
from tokenglass.cli.options.sampling import SamplingOptions
from tokenglass.model.errors import ParameterError, TraceError
from tokenglass.model.records.steps import Step
from tokenglass.model.runs.trace_reader import open_trace
from tokenglass.model.runs.trace_tree import tree_of_trace

PROMPT = "Once upon a time"


def test_the_texts_of_a_run_are_the_ways_of_a_tree(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    done = generate(
        PROMPT, "-n", "8", "--seed", "4", "--num-samples", "4", "--temperature", "0.5", "--trace", str(path)
    )
    assert done.returncode == 0, done.stderr
    tree = tree_of_trace(path)
    ids: dict[int, list[int | None]] = {}
    with open_trace(path) as trace:
        for record in trace:
            if isinstance(record, Step):
                ids.setdefault(record.sequence, []).extend(choice.token_id for choice in record.settled)

    def way(node: int) -> list[int | None]:
        return [] if node == 0 else [*way(tree.parents[node - 1]), tree.choices[node - 1].token_id]

    ways = [way(node) for node in range(len(tree.choices) + 1)]
    prefixes = {tuple(text[:count]) for text in ids.values() for count in range(len(text) + 1)}
    assert {tuple(each) for each in ways} == prefixes
    assert len(ways) == len(prefixes), "what texts have in common is there once"
    assert ways[tree.here] == ids[0]


def test_what_is_no_trace_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "bad").write_text("hello")
    with pytest.raises(TraceError, match="bad: line 1"):
        tree_of_trace(tmp_path / "bad")


def test_a_kept_run_is_opened_at_its_end_and_goes_on_otherwise(tmp_path: Path) -> None:
    trace, html = tmp_path / "run.jsonl", tmp_path / "page.html"
    text = generate(PROMPT, "-n", "6", "--seed", "1", "--trace", str(trace)).stdout.decode()
    terminal = Loader(f"--from {quoted(trace)} --html {quoted(html)}")
    terminal.wait_for_page("token 7 ", f"{PROMPT}{text}")
    terminal.press("\x7f\x7f", "token 5 ")
    terminal.press("2", "token 6 ", "by hand")
    terminal.child.send("q")
    assert terminal.finish() == 0
    assert_restored(terminal)
    pieces = [json.loads(line)["choices"][0]["piece"] for line in trace.read_text().splitlines()[1:-1]]
    assert terminal.plain_text().startswith(f"{PROMPT}{''.join(pieces[:4])}")
    assert not terminal.plain_text().startswith(f"{PROMPT}{''.join(pieces[:5])}")
    assert data_of(html.read_text())["texts"]


def test_a_run_brings_its_own_settings_and_is_opened_alone() -> None:
    plain = (PickPromptOptions(), SamplingOptions(), TextOptions(), None, 1.0)
    check_files(None, None, Path("run.jsonl"), plain)
    with pytest.raises(ParameterError, match="--from brings its own"):
        check_files(None, None, Path("run.jsonl"), (PickPromptOptions(prompt=["x"]), *plain[1:]))
    with pytest.raises(ParameterError, match="exclude each other"):
        check_files(None, Path("tree.json"), Path("run.jsonl"), plain)
