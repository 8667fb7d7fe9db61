"""A choice unfolded on the screen: it fits every width, says the sampler's own numbers, and obeys its keys."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import shell
from hypothesis import given
from hypothesis import strategies as st
from terminal import Terminal, assert_restored
from test_stages import ids, keep_choice

from tokenglass.cli.views.unfolding import DRAWS, Unfolding
from tokenglass.cli.widgets.stages import Unfolded
from tokenglass.cli.widgets.widget import ASCII, UNICODE, Row, percent
from tokenglass.model.records.steps import Choice
from tokenglass.model.sampling.context import Context, Mask
from tokenglass.model.sampling.parameters import SamplingParameters
from tokenglass.model.sampling.sampler import Sampler
from tokenglass.model.sampling.stages import ChoiceLog

EVERYTHING = SamplingParameters(
    temperature=0.8, top_k=40, top_p=0.9, min_p=0.01, repetition_penalty=1.2, presence_penalty=0.1, typical_p=0.95
)
RUN = "generate 'Once upon a time' --seed 3 -n 9 --top-k 40 --ignore-eos"


def unfolding(parameters: SamplingParameters = EVERYTHING, *, has_stages: bool = True) -> tuple[Choice, Unfolding]:
    logits = np.random.default_rng(7).normal(size=500).astype(np.float32) * 3
    log = ChoiceLog(parameters)
    context = Context((3, 5), 1, seed=1, masks=(Mask("ban", removed=(9,)),))
    choice = Sampler(parameters, lambda token_id: b" word%d" % token_id, keep=log.keep).choose(logits, context)
    return choice, Unfolding(log, has_stages)


def lines(unfolded: Unfolded | None, width: int, room: int = 30) -> list[str]:
    assert unfolded is not None
    return ["".join(segment.text for segment in row).rstrip() for row in unfolded.rows(width, UNICODE, room)]


def cells(row: Row) -> int:
    return sum(segment.cell_length for segment in row)


@given(st.integers(20, 250), st.integers(1, 40), st.booleans(), st.sampled_from([UNICODE, ASCII]), st.booleans())
def test_its_rows_fit_every_width_and_height(width: int, room: int, draws: bool, glyphs: object, greedy: bool) -> None:
    choice, view = unfolding(EVERYTHING.replace(temperature=0.0) if greedy else EVERYTHING)
    if draws:
        view.obey("d", choice)
    unfolded = view.tables(choice)
    assert unfolded is not None

    rows = unfolded.rows(width, glyphs, room)  # type: ignore[arg-type]

    assert 1 <= len(rows) <= room
    assert all(cells(row) <= width for row in rows)


def test_the_stages_stand_in_their_order_from_raw_to_final_with_their_numbers() -> None:
    choice, view = unfolding()
    rows = lines(view.tables(choice), 120)
    names = [
        "raw",
        "ban",
        "repetition-penalty 1.2",
        "presence-penalty 0.1",
        "temperature 0.8",
        "top-k 40",
        "top-p 0.9",
        "min-p 0.01",
        "typical-p 0.95",
        "final",
    ]
    assert [next(name for name in names if row.strip().startswith(name)) for row in rows[1 : len(names) + 1]] == names
    for candidate in choice.candidates:
        assert percent(math.exp(candidate.logprob)) in rows[1]
        assert percent(candidate.prob) in rows[len(names)] or not candidate.prob
    assert rows[0].split()[-1] == "possible"
    assert rows[6].split()[-1] == "40"


def test_what_is_cut_at_every_temperature_has_no_row_there() -> None:
    choice, view = unfolding(EVERYTHING.replace(top_k=2))
    rows = lines(view.tables(choice), 100)
    start = next(number for number, row in enumerate(rows) if "temperature 0.2" in row)
    possible = [candidate for candidate in choice.candidates if candidate.prob]
    assert len(possible) < len(choice.candidates)
    assert len(rows[start + 1 :]) <= 3
    assert all(row.count("cut") < 3 for row in rows[start + 1 :])


def test_a_hundred_draws_stand_beside_the_probabilities_and_another_key_adds_a_hundred() -> None:
    choice, view = unfolding(has_stages=False)
    assert view.tables(choice) is None
    for presses in (1, 2):
        view.obey("d", choice)
        rows = lines(view.tables(choice), 80)
        assert f"drawn again {presses * DRAWS} times" in rows[0]
        assert sum(int(row.split()[-1]) for row in rows[1:]) == presses * DRAWS
    other, _ = unfolding()
    assert view.tables(other) is None
    view.obey("u", choice)
    assert "raw" in lines(view.tables(choice), 80)[1]
    view.obey("u", choice)
    assert view.tables(choice) is None


def test_what_is_no_longer_kept_is_not_unfolded() -> None:
    choice, entry = keep_choice(np.arange(9, dtype=np.float32), EVERYTHING, Context((1,), 1, 1))
    assert entry.stages(ids(choice))
    assert Unfolding(ChoiceLog(EVERYTHING), has_stages=True).tables(choice) is None
    assert Unfolding(None, has_stages=True).word(choice) == ""


def records() -> list[dict[str, object]]:
    done = shell.generate("Once upon a time", "--seed", "3", "-n", "9", "--top-k", "40", "--ignore-eos", "--jsonl")
    return [json.loads(line) for line in done.stdout.decode().splitlines()]


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_on_a_terminal_each_step_unfolds_to_what_its_record_says(columns: int) -> None:
    choices = [record["choices"][0] for record in records() if record.get("choices")]  # type: ignore[index]
    terminal = Terminal(columns=columns, lines=30, program=f"exec {RUN} --speed 0 --stages")
    for number, choice in enumerate(choices[:4], start=1):
        terminal.wait_for_words(f"token {number} of 9")
        terminal.wait_for_words("keys")
        terminal.drain()
        names = [line.split()[0] for line in terminal.lines() if line.strip()]
        start = names.index("raw")
        assert names[start : start + 6] == ["raw", "ignore-eos", "temperature", "top-k", "top-p", "final"]
        final = next(line for line in terminal.lines() if line.strip().startswith("final"))
        raw = next(line for line in terminal.lines() if line.strip().startswith("raw"))
        assert percent(choice["prob"]) in final
        assert percent(math.exp(choice["logprob"])) in raw
        terminal.child.send(" ")
    terminal.child.send("f")
    assert terminal.finish() == 0
    assert_restored(terminal)


def test_keys_unfold_fold_draw_again_and_look_back() -> None:
    terminal = Terminal(columns=100, lines=30, program=f"exec {RUN} --speed 0")
    terminal.wait_for_words("u unfold")
    terminal.child.send("u")
    terminal.wait_for_words("u fold")
    assert "temperature 1.5" in terminal.text()
    terminal.child.send("d")
    terminal.wait_for_words("drawn again 100 times")
    terminal.child.send("d")
    terminal.wait_for_words("drawn again 200 times")
    terminal.child.send(" ")
    terminal.wait_for_words("token 2 of 9")
    terminal.wait_for_words("u fold")
    terminal.child.send("h")
    terminal.wait_for_words("1 step back")
    assert "drawn again 200 times" in terminal.text()
    terminal.child.send("u")
    terminal.wait_for_words("u fold")
    assert "top-k 40" in terminal.text()
    terminal.child.send("u")
    terminal.wait_for_words("u unfold")
    assert "top-k 40" not in terminal.text()
    terminal.child.send("f")
    assert terminal.finish() == 0
    assert_restored(terminal)


def test_several_texts_and_pipes_have_no_stages() -> None:
    shell.assert_one_line_error(shell.generate("x", "--num-samples", "2", "--stages"), 2, "--stages")
    shell.assert_one_line_error(shell.generate("x", "--jsonl", "--stages"), 2, "--stages", "live")


def test_a_chat_refuses_to_unfold_and_names_what_does() -> None:
    for option in ("--stages", "--flow"):
        shell.assert_one_line_error(shell.tokenglass("chat", option), 2, option, "generate --chat")
