"""tokenglass bench: what it measures, and how it is shown."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
import tiny
import torch
from rich.console import Console
from shell import assert_one_line_error, tokenglass
from torch_parts import quantize_model, weights_of

from tokenglass.cli.commands.bench import describe, show
from tokenglass.cli.terminal.console import make_console
from tokenglass.cli.widgets.rates import Rate, Rates
from tokenglass.cli.widgets.widget import ASCII, UNICODE
from tokenglass.model.checkpoint.weights import step_bytes
from tokenglass.model.errors import ParameterError
from tokenglass.model.loading import load_model
from tokenglass.model.measuring.bench import (
    Memory,
    Plan,
    Reading,
    Spread,
    measure,
    measure_decode,
    peak_memory,
    prefill,
    prompt_of,
)
from tokenglass.model.torch_engine.engine import TorchEngine
from tokenglass.model.torch_engine.transformer import Transformer

TINY = Plan(contexts=(8, 20), rows=(1, 3), tokens=4, runs=2)
SPREAD = Spread((30.0, 10.0, 20.0))


def engine_of(tied: bool = False) -> TorchEngine:
    model = tiny.random_transformer(replace(tiny.CONFIG, tie_word_embeddings=tied))
    return TorchEngine(model, torch.device("cpu"), torch.float32)


def test_a_spread_is_the_median_and_both_ends() -> None:
    assert (SPREAD.median, SPREAD.low, SPREAD.high) == (20, 10, 30)


def test_the_share_is_of_the_steps_that_reading_the_bytes_would_allow() -> None:
    reading = Reading("decode", SPREAD, context=128, nbytes=100, bandwidth=Spread((4000.0, 4000.0, 4000.0)))
    assert reading.share == pytest.approx(0.5)  # 40 steps a second are possible
    assert replace(reading, rows=4).share == pytest.approx(0.125)
    assert replace(reading, bandwidth=None).share is None


def test_each_run_is_held_against_the_memory_of_its_time() -> None:
    steady = Reading("decode", SPREAD, nbytes=100, bandwidth=Spread((6000.0, 2000.0, 4000.0)))
    assert steady.share == pytest.approx(0.5)  # 30 of 60, 10 of 20, 20 of 40


def test_a_plan_stays_within_the_context() -> None:
    assert Plan((128, 512, 1024)).within(256).contexts == (128, 224)
    assert Plan((128, 512)).within(4096).contexts == (128, 512)
    with pytest.raises(ParameterError, match="32 positions"):
        Plan().within(32)


def test_the_readings_are_those_of_the_plan_in_its_order() -> None:
    engine = engine_of()
    readings = list(measure(engine, TINY))
    assert len(readings) == TINY.steps
    assert [(r.kind, r.context, r.rows) for r in readings] == [
        ("bandwidth", 0, 1),
        ("prefill", 8, 1),
        ("decode", 8, 1),
        ("prefill", 20, 1),
        ("decode", 20, 1),
        ("batch", 8, 1),
        ("batch", 8, 3),
    ]
    for reading in readings:
        assert reading.rate.low > 0
        assert len(reading.rate.values) >= TINY.runs
        assert (reading.first_token is not None) is (reading.kind == "prefill")


def test_a_step_reads_the_weights_and_the_cache_of_every_row() -> None:
    engine = engine_of()
    reading = measure_decode(engine, TINY, prompt_of(engine.vocab_size, 3, 8), 1000, Memory(engine, 1000), "batch")
    assert reading.nbytes == 1000 + 3 * 8 * tiny.CONFIG.cache_bytes_per_token("float32")


def test_decoding_leaves_the_cache_at_the_prompt_for_the_next_run() -> None:
    engine = engine_of()
    cache, seconds, token_ids = prefill(engine, prompt_of(engine.vocab_size, 2, 8))
    assert cache.lengths == [8, 8]
    assert seconds > 0
    assert token_ids.shape == (2, 1)


def bytes_of_a_step(model: Transformer) -> int:
    """What both engines say."""
    engine = TorchEngine(model, torch.device("cpu"), torch.float32)
    assert engine.step_bytes == step_bytes(model.blueprint, weights_of(model))
    return engine.step_bytes


def test_weights_read_are_all_but_an_embedding_of_its_own() -> None:
    model = engine_of().model
    everything = sum(weight.nbytes for weight in model.parameters())
    assert bytes_of_a_step(model) == everything - model.model.embed_tokens.weight.nbytes
    tied = engine_of(tied=True).model
    assert bytes_of_a_step(tied) == sum(weight.nbytes for weight in tied.parameters())  # the head reads all of it


def test_quantised_weights_count_as_what_they_are() -> None:
    model = engine_of(tied=True).model
    quantize_model(model, "int8")
    matrices = {id(module.weight): module.weight for module in model.modules() if hasattr(module, "in_features")}
    norms = sum(weight.nbytes for weight in model.state_dict().values())
    assert bytes_of_a_step(model) == norms + sum(weight.nbytes for weight in matrices.values())


def test_peak_memory_is_no_less_than_a_block_that_was_filled() -> None:
    block = torch.ones(2**24)
    peak = peak_memory()
    assert peak is None or peak > block.nbytes


# What is shown


@pytest.fixture(scope="module")
def readings() -> list[Reading]:
    engine = engine_of()
    return list(measure(engine, TINY))


@pytest.fixture
def facts(readings: list[Reading], saved_checkpoint: Path) -> Iterator[dict[str, object]]:
    loaded = load_model(saved_checkpoint, device="cpu", threads=2)
    return describe(loaded, readings, tokens=4, peak=123 * 2**20)


def show_lines(facts: dict[str, object], width: int) -> list[str]:
    out = StringIO()
    show(facts, Console(file=out, width=width, highlight=False, markup=False, no_color=True))
    return out.getvalue().splitlines()


@pytest.mark.parametrize("width", [20, 40, 60, 80, 200])
def test_every_width_holds_the_rows(facts: dict[str, object], width: int) -> None:
    lines = show_lines(facts, width)
    assert max(len(line.rstrip()) for line in lines) <= width
    assert "123.0 MiB" in " ".join(line.strip() for line in lines)


def test_in_a_pipe_lines_are_as_long_as_their_content_and_bars_as_on_a_usual_terminal(facts: dict[str, object]) -> None:
    out = StringIO()
    show({**facts, "model": "m" * 300}, make_console(out, color="never"))
    lines = out.getvalue().splitlines()
    assert lines[0].startswith("m" * 300 + ":")
    assert sum(len(re.findall(r"\(\S+ to \S+\)", line)) == 2 for line in lines) == 2  # a row for each context
    assert max(len(line) for line in lines if "█" in line) <= 80


def test_the_spread_is_told_where_there_is_room(facts: dict[str, object]) -> None:
    wide, narrow = "\n".join(show_lines(facts, 120)), "\n".join(show_lines(facts, 50))
    assert len(re.findall(r"\(\S+ to \S+\)", wide)) == 1 + 2 * 2  # of the bandwidth, and two for each context
    assert len(re.findall(r"\(\S+ to \S+\)", narrow)) <= 1


def test_what_the_system_does_not_tell_is_not_reported(facts: dict[str, object]) -> None:
    assert show_lines({**facts, "peak_memory_nbytes": None}, 80)[-1] == "peak memory not reported"


def test_bars_are_on_one_scale_and_show_the_fastest_run_behind_the_median() -> None:
    rates = Rates("speed", [Rate("128", 50, 100), Rate("1,024", 25, 25)])
    title, *rows = ["".join(segment.text for segment in row) for row in rates.rows(40, UNICODE)]
    assert title == "speed"
    assert rows == ["  128  50.0  " + "█" * 13 + "▌" + "░" * 13, "1,024  25.0  " + "█" * 6 + "▊"]


@pytest.mark.parametrize("width", [5, 12, 30])
def test_bars_in_ascii_keep_to_ascii_and_to_the_width(width: int) -> None:
    rows = Rates("speed", [Rate("1,024", 1234.5, 2000.0)]).rows(width, ASCII)
    texts = ["".join(segment.text for segment in row) for row in rows]
    assert all(text.isascii() and len(text) <= width for text in texts)


# The command


def test_the_command_prints_json_that_holds_every_reading(saved_checkpoint: Path) -> None:
    done = tokenglass("bench", str(saved_checkpoint), "--quick", "--quantize", "int4", "--threads", "1", "--json")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["weights"] == "int4"
    assert facts["threads"] == 1
    assert [row["context"] for row in facts["prefill"]] == [row["context"] for row in facts["decode"]] == [128, 224]
    assert [row["rows"] for row in facts["batch"]] == [1, 4]
    for row in [*facts["prefill"], *facts["decode"], *facts["batch"]]:
        assert 0 < row["lowest"] <= row["tokens_per_second"] <= row["highest"]
    assert all(row["share_of_limit"] > 0 for row in facts["decode"])
    assert all(row["seconds_to_first_token"] > 0 for row in facts["prefill"])


def test_a_pipe_gets_a_table_without_a_colour_or_a_bar_of_progress(saved_checkpoint: Path) -> None:
    done = tokenglass("bench", str(saved_checkpoint), "--quick", "--threads", "1")
    assert done.returncode == 0, done.stderr
    text = done.stdout.decode()
    assert "\x1b" not in text
    assert b"measuring" not in done.stderr
    for word in ("context", "prefill", "first", "decode", "limit", "peak memory"):
        assert word in text


def test_a_model_that_is_not_there_is_one_line() -> None:
    assert_one_line_error(tokenglass("bench", "/nonexistent"), 1, "/nonexistent")
