"""tokenglass compare: every way of decoding on the same prompts, and how it is told."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import tiny
from rich.console import Console
from shell import assert_one_line_error, tokenglass

from tokenglass.cli.terminal.console import make_console
from tokenglass.cli.widgets.comparison import notes, show
from tokenglass.cli.widgets.comparison_columns import COLUMNS
from tokenglass.cli.widgets.plot import Plot, Point
from tokenglass.cli.widgets.widget import ASCII, UNICODE
from tokenglass.model.checkpoint.store import bundled_folder
from tokenglass.model.decoding.autoregressive import decode
from tokenglass.model.decoding.job import Job
from tokenglass.model.decoding.request import Request
from tokenglass.model.errors import ParameterError
from tokenglass.model.loaded_model import LoadedModel
from tokenglass.model.loading import load_model
from tokenglass.model.measuring.comparison.comparison import Comparison, Plan
from tokenglass.model.measuring.comparison.divergence import divergence
from tokenglass.model.measuring.comparison.facts import facts_of
from tokenglass.model.measuring.comparison.modes import NAMES, Variants
from tokenglass.model.measuring.comparison.passages import read_passages
from tokenglass.model.measuring.comparison.references import references
from tokenglass.model.measuring.comparison.rows import METRICS
from tokenglass.model.measuring.comparison.runs import TimedRuns, interleave, time_run
from tokenglass.model.measuring.comparison.scorer import Scorer
from tokenglass.model.measuring.comparison.speech import TOKENS, closes_speech
from tokenglass.model.records.steps import Choice, Step
from tokenglass.model.sampling.parameters import SamplingParameters
from tokenglass.model.text.tokenizer import Tokenizer

SAMPLED = SamplingParameters(temperature=0.7, top_p=0.9)
GREEDY = SamplingParameters(temperature=0)
PROMPTS = ("The fox said", "The bear and the fox")


@pytest.fixture(scope="module")
def plain(saved_checkpoint: Path) -> LoadedModel:
    return load_model(saved_checkpoint)


@pytest.fixture(scope="module")
def masked_folder(saved_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("masked") / "tiny"
    shutil.copytree(saved_checkpoint, folder)
    tiny.edit_json(folder / "config.json", mask_token_id=1)
    return folder


@pytest.fixture(scope="module")
def loaded(masked_folder: Path) -> LoadedModel:
    return load_model(masked_folder)


def request_of(loaded: LoadedModel, tokens: int, sampling: SamplingParameters = SAMPLED, seed: int = 1) -> Request:
    ids = loaded.tokenizer.encode(PROMPTS[1])
    return Request(ids, seed, sampling, tokens, loaded.eos_token_ids, ignore_eos=True)


# The modes


@pytest.mark.parametrize("name", [name for name in NAMES if name != "speculative-model"])
def test_every_mode_writes_as_many_tokens_as_were_asked_for_and_lossless_ones_the_same(
    loaded: LoadedModel, name: str
) -> None:
    mode, request = Variants(loaded).find(name), request_of(loaded, 21)
    actual, expected = time_run(mode, request), time_run(Variants(loaded).find("autoregressive"), request)
    assert len(actual.token_ids) == 21
    assert actual.text == loaded.tokenizer.decode([*request.prompt_ids, *actual.token_ids])[len(PROMPTS[1]) :]
    assert 0 < actual.first_seconds <= actual.seconds
    if mode.lossless:
        assert actual.token_ids == expected.token_ids
        assert actual.forwards <= 2 * expected.forwards
    if not name.startswith("parallel"):
        assert mode.lossless or actual.token_ids == expected.token_ids


def test_passes_are_those_of_the_prompt_and_of_every_block(loaded: LoadedModel) -> None:
    make, request = Variants(loaded, block_size=8), request_of(loaded, 24)
    assert time_run(make.find("autoregressive"), request).forwards == 24
    assert time_run(make.find("parallel-1"), request).forwards == 1 + 3
    assert time_run(make.find("parallel-2"), request).forwards == 1 + 3 * 2
    assert time_run(make.find("parallel-3"), request).forwards == 1 + 3 * 3


def test_passes_of_a_draft_model_are_not_those_of_the_model(loaded: LoadedModel, plain: LoadedModel) -> None:
    mode = Variants(loaded, draft=plain, draft_length=4).find("speculative-model")
    timing = time_run(mode, request_of(loaded, 21))
    assert timing.forwards == 1 + 4  # the draft model has the same weights: 4 guesses and one token more each time


def test_a_name_that_is_no_mode_is_refused(loaded: LoadedModel) -> None:
    for name in ("parallel", "parallel-0", "beam", ""):
        with pytest.raises(ParameterError, match="no mode is called"):
            Variants(loaded).find(name)


def test_runs_are_interleaved_and_their_median_counts(loaded: LoadedModel) -> None:
    modes = [Variants(loaded).find(name) for name in ("autoregressive", "jacobi")]
    requests = [request_of(loaded, 3, seed=seed) for seed in (1, 2)]
    counts = [
        [len(one_run) for runs in every for one_run in runs.by_request] for every in interleave(modes, requests, 2)
    ]
    assert counts[:5] == [[1, 0, 0, 0], [1, 0, 1, 0], [1, 1, 1, 0], [1, 1, 1, 1], [2, 1, 1, 1]]
    assert len(counts) == 8
    one = time_run(modes[0], requests[0])
    timings = [replace(one, seconds=seconds, first_seconds=seconds / 2) for seconds in (1.0, 9.0, 2.0)]
    runs = TimedRuns(modes[0], [timings])
    assert (runs.seconds(0), runs.first_seconds(0)) == (2.0, 1.0)
    assert runs.rates == [3.0, 3 / 9, 1.5]


# Divergences


def choices_of(loaded: LoadedModel, request: Request) -> list[Choice]:
    records = decode(Job(loaded.engine, loaded.tokenizer, request))
    return [choice for record in records if isinstance(record, Step) for choice in record.choices]


def test_a_greedy_divergence_is_told_with_the_margin_of_the_top_two(loaded: LoadedModel) -> None:
    request = replace(request_of(loaded, 8, GREEDY), top=5)
    choices = choices_of(loaded, request)
    expected = [choice.token_id for choice in choices]
    parting = divergence(loaded, request, expected, [*expected[:3], expected[3] + 1, *expected[4:]])
    first, second = [c.logprob for c in choices[3].candidates if c.token_id not in request.eos_token_ids][:2]
    assert parting is not None
    assert (parting.index, parting.expected, parting.found) == (3, expected[3], expected[3] + 1)
    assert parting.margin == pytest.approx(first - second, abs=1e-4)


def test_a_sampled_divergence_is_told_with_the_distance_of_the_draw(loaded: LoadedModel) -> None:
    request = replace(request_of(loaded, 8), top=tiny.VOCAB_SIZE)
    choices = choices_of(loaded, request)
    expected = [choice.token_id for choice in choices]
    for index, choice in enumerate(choices):
        parting = divergence(loaded, request, expected, [*expected[:index], -1, *expected[index + 1 :]])
        ordered = sorted(choice.candidates, key=lambda c: (-c.prob, c.token_id))
        place = [c.token_id for c in ordered].index(choice.token_id)
        below, own = math.fsum(c.prob for c in ordered[:place]), ordered[place].prob
        edges = ([choice.draw - below] if place else []) + (
            [below + own - choice.draw] if below + own < 1 - 1e-9 else []
        )
        assert parting is not None
        assert parting.margin == pytest.approx(min(edges, default=math.inf), abs=1e-4)
        assert parting.margin > 0


def test_equal_texts_do_not_diverge_and_a_shorter_one_has_no_margin(loaded: LoadedModel) -> None:
    request = request_of(loaded, 4)
    assert divergence(loaded, request, [5, 6], [5, 6]) is None
    parting = divergence(loaded, request, [5, 6], [5])
    assert parting is not None
    assert (parting.index, parting.expected, parting.found, parting.margin) == (1, 6, None, None)


# The whole


def compared(loaded: LoadedModel, names: tuple[str, ...], **plan: Any) -> tuple[Comparison, int]:
    plan = {"sampling": SAMPLED, "prompts": PROMPTS, "seeds": (1, 2), "tokens": 24, "rounds": 1, **plan}
    comparison = Comparison(
        loaded, Scorer(loaded), Plan(**plan), [Variants(loaded, block_size=8).find(name) for name in names]
    )
    comparison.try_modes()
    return comparison, sum(1 for _ in comparison.measure())


@pytest.fixture(scope="module")
def comparison(loaded: LoadedModel) -> Comparison:
    result, steps = compared(loaded, ("autoregressive", "parallel-1", "speculative-ngram", "speculative-model"))
    assert steps == result.steps
    return result


def test_every_row_has_every_metric_and_references_only_those_of_texts(comparison: Comparison) -> None:
    assert [row.name for row in comparison.rows] == [
        *("autoregressive", "parallel-1", "speculative-ngram"),
        *("human", "shuffled words", "unigram sampler"),
    ]
    for row in comparison.rows:
        assert tuple(row.metrics) == METRICS
        assert {name for name, estimate in row.metrics.items() if estimate is None} == (
            set() if row.is_mode else set(METRICS[:5]) | {"same_tokens", "shared_tokens"}
        )


def test_passes_tokens_and_likeness_are_counted(comparison: Comparison) -> None:
    plain, parallel, guessed = (row.metrics for row in comparison.rows[:3])
    assert plain["tokens_per_pass"].value == 1
    assert parallel["tokens_per_pass"].value == 24 / 4  # a pass of the prompt, and three of the blocks
    assert parallel["forwards"].value == 4
    for name in ("same_tokens", "bits_per_byte", "distinct_2", "task_errors"):
        assert plain[name] == guessed[name]
    assert (plain["same_tokens"].value, plain["shared_tokens"].value) == (1, 24)
    assert parallel["same_tokens"].value < 1


def test_a_person_makes_no_errors_in_the_task_with_the_bundled_vocabulary() -> None:
    speech = read_passages("speech")
    human = references(Tokenizer.from_folder(bundled_folder()), speech, TOKENS)["human"]
    assert all(closes_speech(human(passage, 1)) for passage in speech)


def test_a_mode_that_the_checkpoint_cannot_do_is_left_out_with_its_own_reason(plain: LoadedModel) -> None:
    comparison, _ = compared(plain, ("autoregressive", "parallel-4", "speculative-parallel"), prompts=PROMPTS[:1])
    assert [refused.mode for refused in comparison.refused] == ["parallel-4", "speculative-parallel"]
    assert all("mask token" in refused.reason for refused in comparison.refused)
    assert [row.name for row in comparison.rows if row.is_mode] == ["autoregressive"]


def test_greedy_texts_need_one_seed(loaded: LoadedModel) -> None:
    comparison, _ = compared(loaded, ("autoregressive",), sampling=GREEDY)
    assert comparison.seeds == (1,)
    assert len(comparison.requests) == len(PROMPTS)


def test_a_parted_text_is_listed(comparison: Comparison, loaded: LoadedModel) -> None:
    mode = Variants(loaded).find("jacobi")
    written = [[time_run(mode, request)] for request in comparison.requests]
    wrong = [[replace(written[0][0], token_ids=(*written[0][0].token_ids[:-1], 7))], *written[1:]]
    (parting,) = comparison.find_divergences(TimedRuns(mode, wrong), TimedRuns(mode, written), comparison.requests)
    assert (parting.mode, parting.prompt, parting.seed, parting.divergence.index) == ("jacobi", 0, 1, 23)


# JSON

NUMBER_OR_NULL = {"type": ["number", "null"]}
ESTIMATE = {
    "type": ["object", "null"],
    "required": ["value", "low", "high"],
    "properties": {"value": {"type": "number"}, "low": NUMBER_OR_NULL, "high": NUMBER_OR_NULL},
    "additionalProperties": False,
}
ROW = {
    "type": "object",
    "required": ["name", "kind", "metrics", "tokens_per_second_by_round"],
    "properties": {
        "name": {"type": "string"},
        "kind": {"enum": ["mode", "reference"]},
        "metrics": {"required": list(METRICS), "additionalProperties": ESTIMATE},
        "tokens_per_second_by_round": {"type": "array", "items": {"type": "number", "exclusiveMinimum": 0}},
    },
    "additionalProperties": False,
}
SCHEMA = {
    "type": "object",
    "required": ["model", "scorer", "prompts", "seeds", "rounds", "new_tokens", "sampling", "rows", "left_out"],
    "properties": {
        "model": {"type": "string"},
        "parameters": {"type": "integer"},
        "scorer": {"required": ["model", "parameters", "weights", "backend", "is_the_model"]},
        "prompts": {"type": "array", "items": {"type": "string"}},
        "seeds": {"type": "array", "items": {"type": "integer"}},
        "rows": {"type": "array", "items": ROW},
        "divergences": {"items": {"required": ["mode", "prompt", "seed", "index", "expected", "found", "margin"]}},
        "left_out": {"items": {"required": ["mode", "reason"]}},
    },
}


@pytest.fixture(scope="module")
def facts(comparison: Comparison) -> dict[str, Any]:
    return facts_of(comparison, threads=1)


def test_the_facts_are_json_of_one_schema(facts: dict[str, Any]) -> None:
    content = json.loads(json.dumps(facts, allow_nan=False))
    jsonschema.validate(content, SCHEMA)
    assert content == facts
    assert facts["lossless_texts"] == len(PROMPTS) * 2


# What is shown


def show_lines(facts: dict[str, Any], width: int, *, ascii_only: bool = False) -> list[str]:
    out = StringIO()
    console = Console(file=out, width=width, highlight=False, markup=False, no_color=True)
    if ascii_only:
        out.encoding = "ascii"  # type: ignore[misc]  # what Rich asks for
    show(facts, console)
    return [line.rstrip() for line in out.getvalue().splitlines()]


@pytest.mark.parametrize("width", [20, 40, 60, 80, 120, 200])
def test_every_width_holds_the_table(facts: dict[str, Any], width: int) -> None:
    lines = show_lines(facts, width)
    assert max(len(line) for line in lines) <= width
    assert "bits/byte" in "".join(lines)


def test_a_narrow_table_keeps_the_columns_that_matter_most(facts: dict[str, Any]) -> None:
    def headings(width: int) -> list[str]:
        return next(line for line in show_lines(facts, width) if line.split()[:1] == ["mode"]).split()[1:]

    assert headings(150) == [column.heading for column in COLUMNS]
    assert {"tok/pass", "tok/s", "bits/byte", "errors", "rep-4", "same"} <= set(headings(80)) < set(headings(120))
    assert headings(50) == ["tok/pass", "tok/s", "bits/byte"]


def test_every_column_that_is_shown_is_explained_and_no_other(facts: dict[str, Any]) -> None:
    for width in (80, 150):
        lines = show_lines(facts, width)
        headings = next(line for line in lines if line.split()[:1] == ["mode"]).split()[1:]
        explained = [column.heading for column in COLUMNS if any(line.startswith(column.heading) for line in lines)]
        assert explained == headings


def test_in_a_pipe_every_column_and_every_meaning_is_there_on_one_line(facts: dict[str, Any]) -> None:
    out = StringIO()
    show(facts, make_console(out, color="never"))
    lines = [line.rstrip() for line in out.getvalue().splitlines()]
    assert next(line for line in lines if line.split()[:1] == ["mode"]).split()[1:] == [c.heading for c in COLUMNS]
    meanings = [line.split(maxsplit=1)[-1] for line in lines if line]
    assert all(column.meaning in meanings for column in COLUMNS)


def test_a_reference_has_no_passes_and_no_letter(facts: dict[str, Any]) -> None:
    human = next(line for line in show_lines(facts, 80) if "human" in line)
    assert human.split()[:3] == ["human", "-", "-"]


def test_what_was_left_out_and_what_differs_is_told(facts: dict[str, Any]) -> None:
    one = {"mode": "jacobi", "prompt": 0, "seed": 2, "index": 6, "expected": 5, "found": 6, "margin": 3.2e-5}
    lines = [str(line) for line in notes({**facts, "divergences": [one]}, ascii_only=False)]
    assert lines[0] == "lossless modes: 3 of 4 texts hold exactly the autoregressive tokens"
    assert lines[1] == "  jacobi, prompt 1, seed 2, token 7: the draw's distance to the edge is 3.2e-05"
    assert lines[2].startswith("left out: speculative-model: it needs a smaller model")


def test_one_prompt_gives_no_intervals(facts: dict[str, Any]) -> None:
    assert "One prompt gives no intervals; try a few." in show_lines({**facts, "prompts": ["x"]}, 80)


def lines_of(plot: Plot, width: int, glyphs: Any = UNICODE) -> list[str]:
    return ["".join(segment.text for segment in row) for row in plot.rows(width, glyphs)]


def test_a_point_stands_where_its_numbers_are_and_beside_one_that_covers_it() -> None:
    points = [Point("a", 0, 1), Point("b", 100, 3), Point("c", 0, 1), Point("d", 100, 3)]
    lines = lines_of(Plot("x", "y", points, level=2, level_title="level"), 30)
    assert lines[0] == "y"
    assert lines[1] == "3.00 │ " + " " * 21 + "db"
    assert lines[6] == "     │ " + "·" * 23
    assert lines[11] == "1.00 │ ac"
    assert lines[13] == "       0         x         100"
    assert lines[14].strip() == "level"


@pytest.mark.parametrize("width", [10, 20, 33, 100])
def test_a_plot_in_ascii_keeps_to_ascii_and_to_the_width(width: int) -> None:
    points = [Point("a", 1234.5, 1.0), Point("b", 1234.5, 1.0)]
    lines = lines_of(Plot("tok/s", "bits/byte", points, level=1.0, level_title="human"), width, ASCII)
    assert all(line.isascii() and len(line) <= width for line in lines)
    assert (lines == []) == (width < 19)


# The command

QUICK = ("--seeds", "1", "--rounds", "1", "-n", "4", "--threads", "1")


def test_the_command_prints_json_and_says_what_it_left_out(saved_checkpoint: Path) -> None:
    model = str(saved_checkpoint)
    options = ("--model", model, "--scorer", model, "--modes", "parallel-2, jacobi", *QUICK, "--json")
    done = tokenglass("compare", *PROMPTS, *options)
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    jsonschema.validate(facts, SCHEMA)
    assert [row["name"] for row in facts["rows"]][:2] == ["autoregressive", "jacobi"]
    assert [out["mode"] for out in facts["left_out"]] == ["parallel-2"]
    assert b"note: parallel-2 is left out: this checkpoint has no mask token" in done.stderr
    assert facts["scorer"]["is_the_model"] is True
    assert facts["prompts"] == list(PROMPTS)
    assert facts["divergences"] == []


def test_a_pipe_gets_a_table_without_a_colour_or_a_bar_of_progress(masked_folder: Path) -> None:
    model = str(masked_folder)
    options = ("--model", model, "--scorer", model, "--modes", "parallel-1", *QUICK)
    done = tokenglass("compare", "-", *options, stdin=b"The fox\n", NO_COLOR="1")
    assert done.returncode == 0, done.stderr
    text = done.stdout.decode()
    assert "\x1b" not in text
    assert b"comparing" not in done.stderr
    for word in ("autoregressive", "parallel-1", "human", "shuffled words", "unigram sampler", "bits/byte"):
        assert word in text


def test_what_cannot_be_compared_is_one_line(saved_checkpoint: Path) -> None:
    model = str(saved_checkpoint)
    assert_one_line_error(tokenglass("compare", "--model", model, "--modes", "beam"), 2, "beam", "parallel-N")
    assert_one_line_error(tokenglass("compare", "x", "--model", model, "--scorer", "/nonexistent"), 1, "/nonexistent")
    long = tokenglass("compare", "fox " * 400, "--model", model, "--scorer", model)
    assert_one_line_error(long, 2, "256")
