"""Several texts at once on a pipe and on a terminal: in order, each once, in the room there is."""

from __future__ import annotations

import io
import re
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import scripted_run
import scripted_several
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from terminal import Terminal
from test_live_view import Screen, pinned, wrap

from tokenglass.cli.views.jsonl import JsonlView
from tokenglass.cli.views.live_several import SeveralLive
from tokenglass.cli.views.several import Counted, SeveralPipe, SeveralPlain, best, in_turn
from tokenglass.cli.widgets.beams import SeveralPanel, one_line, tail
from tokenglass.cli.widgets.texts import Texts
from tokenglass.cli.widgets.widget import ASCII, UNICODE
from tokenglass.model.checkpoint.store import bundled_folder
from tokenglass.model.decoding.beam_search import BeamParameters
from tokenglass.model.decoding.beams import decode_beams
from tokenglass.model.decoding.job import Job
from tokenglass.model.decoding.request import Request
from tokenglass.model.decoding.samples import decode_samples, derived_seeds
from tokenglass.model.errors import EngineError
from tokenglass.model.loading import load_model
from tokenglass.model.records.steps import Finish, Record, Step, Totals
from tokenglass.model.runs.run import Run, Search
from tokenglass.model.sampling.parameters import SamplingParameters

TALE = bundled_folder()
PROMPT = "Once upon a time"
COUNT = 4


@pytest.fixture(scope="module")
def samples() -> tuple[Run, list[Record]]:
    return record_run(count=COUNT)


@pytest.fixture(scope="module")
def beams() -> tuple[Run, list[Record]]:
    return record_run(beams=COUNT)


def record_run(count: int = 1, beams: int = 1) -> tuple[Run, list[Record]]:
    """A real run of tale and its description."""
    loaded = load_model(TALE)
    prompt_ids = loaded.tokenizer.encode(PROMPT)
    request = Request(prompt_ids, 3, SamplingParameters(), 40, loaded.eos_token_ids)
    fields: dict[str, Any] = {"eos_token_ids": loaded.eos_token_ids, "max_new_tokens": 40}
    if beams > 1:
        run = scripted_run.run(PROMPT, len(prompt_ids), Search(beams=beams), **fields)
        parameters = BeamParameters(beams, 0.0)
        return run, list(decode_beams(Job(loaded.engine, loaded.tokenizer, request), parameters))
    seeds = derived_seeds(3, count)
    run = scripted_run.run(PROMPT, len(prompt_ids), Search(count, seeds), **fields)
    return run, list(decode_samples(Job(loaded.engine, loaded.tokenizer, request), count))


def texts_of(records: list[Record]) -> list[str]:
    """Of samples in order, of beams in rank."""
    ends = [record for record in records if isinstance(record, Finish)]
    if any(finish.score is not None for finish in ends):
        return [finish.text for finish in ends]
    return ["".join(record.text for record in records if record.sequence == number) for number in range(len(ends))]


@given(st.lists(st.integers(0, 3), max_size=30), st.permutations(range(4)))
def test_sequences_come_one_after_another_whatever_their_order(mixed: list[int], ends: list[int]) -> None:
    numbered = [Step(index, index, number, "decode", 1, (), "", None, 0.0) for index, number in enumerate(mixed)]
    records: list[Record] = [*numbered, *(Finish(number, "eos", "", Totals()) for number in ends)]

    turns = list(in_turn(records))

    assert sorted(map(id, turns)) == sorted(map(id, records))
    assert [record.sequence for record in turns] == sorted(record.sequence for record in records)
    for number in range(4):
        own = [record for record in records if record.sequence == number]
        assert [record for record in turns if record.sequence == number] == own


def test_the_first_sample_streams_while_the_others_wait(samples: tuple[Run, list[Record]]) -> None:
    _, records = samples
    taken: list[Record] = []

    def watched() -> Any:
        for record in records:
            taken.append(record)
            yield record

    for record in in_turn(watched()):
        if record.sequence == 0:
            assert taken[-1] is record


def test_of_beams_the_best_alone_are_read(beams: tuple[Run, list[Record]]) -> None:
    _, records = beams
    assert [finish.text for finish in best(records, 2)] == texts_of(records)[:2]


@pytest.mark.parametrize("echo", [True, False])
def test_a_pipe_gets_the_samples_in_order_with_a_newline_between(echo: bool, samples: tuple[Run, list[Record]]) -> None:
    run, records = samples
    out = io.BytesIO()

    SeveralPipe(out, echo).show(run, records)

    prompt = PROMPT if echo else ""
    assert out.getvalue().decode() == "\n".join(prompt + text for text in texts_of(records))


@pytest.mark.parametrize("count", [1, 3])
def test_a_pipe_gets_the_best_beam_or_as_many_as_were_asked_for(count: int, beams: tuple[Run, list[Record]]) -> None:
    run, records = beams
    out = io.BytesIO()

    SeveralPipe(out, shown=count).show(run, records)

    assert out.getvalue().decode() == "\n".join(texts_of(records)[:count])


def test_a_plain_terminal_gets_each_text_below_a_rule(
    samples: tuple[Run, list[Record]], beams: tuple[Run, list[Record]]
) -> None:
    for (run, records), titles in (
        (samples, [f"sample {k + 1} of 4" for k in range(COUNT)]),
        (beams, [f"beam {k + 1} of 4" for k in range(COUNT)]),
    ):
        out = io.StringIO()
        SeveralPlain(Console(file=out, width=60, color_system=None, _environ={}), COUNT).show(run, records)

        head, parts = out.getvalue().partition("─ ")[0], split_at_rules(out.getvalue())
        assert head == PROMPT + "\n"
        assert [title for title, _ in parts] == titles
        assert [text for _, text in parts] == [text + "\n" * (not text.endswith("\n")) for text in texts_of(records)]
    assert f"seed {derived_seeds(3, 2)[1]}" in plain(samples)


def split_at_rules(told: str) -> list[tuple[str, str]]:
    """Title and text below each rule."""
    parts: list[tuple[str, str]] = []
    for line in told.splitlines(keepends=True):
        if line.startswith("─ "):
            parts.append((line.removeprefix("─ ").split("  ")[0].split(" ─")[0], ""))
        elif parts:
            title, text = parts[-1]
            parts[-1] = title, text + line
    return parts


def plain(recorded_run: tuple[Run, list[Record]]) -> str:
    out = io.StringIO()
    SeveralPlain(Console(file=out, width=60, color_system=None, _environ={})).show(*recorded_run)
    return out.getvalue()


def test_any_view_returns_the_finish_of_the_whole_run(samples: tuple[Run, list[Record]]) -> None:
    run, records = samples
    finish = Counted(JsonlView(io.BytesIO())).show(run, records)
    assert finish.totals.new_tokens == sum(r.totals.new_tokens for r in records if isinstance(r, Finish))
    assert finish.totals.prefill_tokens == run.prompt_length


@pytest.mark.parametrize(("width", "height"), [(80, 24), (40, 10), (30, 24), (120, 40)])
@pytest.mark.parametrize("kind", ["samples", "beams"])
def test_the_live_view_ends_with_every_text_once_and_the_panel(
    kind: str, width: int, height: int, request: pytest.FixtureRequest
) -> None:
    run, records = request.getfixturevalue(kind)
    screen = Screen(width, height)

    SeveralLive(pinned(screen, width, height), COUNT).show(run, records)

    lines = screen.lines()
    assert lines[0] == PROMPT
    texts = texts_of(records)
    rules = [place for place, line in enumerate(lines) if line.startswith("─ ")]
    assert len(rules) == len(texts) + 1
    for start, end, text in zip(rules[:-1], rules[1:], texts, strict=True):
        content = "".join(line.ljust(width) for line in lines[start + 1 : end])
        assert content.rstrip() == "".join(line.ljust(width) for line in wrap(text, width)).rstrip()
    assert sum(line.startswith(" ■") for line in lines[rules[-1] :]) == COUNT


def test_after_an_error_the_texts_are_kept_and_the_panel_goes(samples: tuple[Run, list[Record]]) -> None:
    run, records = samples
    screen = Screen(80, 24)

    def broken() -> Any:
        yield from records[:60]
        raise EngineError("the engine broke")

    with pytest.raises(EngineError):
        SeveralLive(pinned(screen, 80, 24)).show(run, broken())

    text = "\n".join(screen.lines())
    assert "".join(r.text for r in records[:60] if r.sequence == 1).split("\n")[0][:60] in text
    assert "passes" not in text


def panel_after(recorded_run: tuple[Run, list[Record]], count: int | None, height: int = 20) -> SeveralPanel:
    run, records = recorded_run
    texts = Texts(run)
    for record in records[:count]:
        texts.add(record)
    texts.is_complete = count is None
    return SeveralPanel(texts, height)


def test_a_pruned_beam_is_struck_through_and_marked(beams: tuple[Run, list[Record]]) -> None:
    _, records = beams
    pruned = next(k for k, r in enumerate(records) if isinstance(r, Step) and r.choices[0].status == "pruned")

    rows = panel_after(beams, pruned + 1).rows(80, UNICODE)

    struck = [row for row in rows if any(segment.style and segment.style.strike for segment in row)]
    assert len(struck) == 1
    assert text_of(struck[0]).startswith(" x ")
    assert "pruned" in text_of(struck[0])
    assert text_of(struck[0]).rstrip().endswith(one_line(records[pruned].choices[0].piece.decode(), UNICODE).strip())


def test_a_branch_goes_on_with_its_parents_text(beams: tuple[Run, list[Record]]) -> None:
    run, records = beams
    texts = Texts(run)
    for record in records:
        texts.add(record)
    ended = {text.number: text for text in texts.by_state()["ended"]}
    for finish in (record for record in records if isinstance(record, Finish)):
        assert ended[finish.sequence].latest(run.request.eos_token_ids) == finish.text
        assert ended[finish.sequence].logprob == pytest.approx(finish.score)
    assert [text.number for text in ended.values()] == [finish.sequence for finish in texts.run_totals.finishes]


@pytest.mark.parametrize("kind", ["samples", "beams"])
def test_no_panel_is_wider_or_higher_than_its_room(kind: str, request: pytest.FixtureRequest) -> None:
    recorded_run = request.getfixturevalue(kind)
    for count in (1, 5, 40, 90, None):
        for height in (0, 1, 2, 4, 7, 30):
            panel = panel_after(recorded_run, count, height)
            for width in (1, 5, 20, 39, 60, 200):
                for glyphs in (UNICODE, ASCII):
                    rows = panel.rows(width, glyphs)
                    assert len(rows) <= height
                    assert all(sum(segment.cell_length for segment in row) <= width for row in rows)
                    assert glyphs is UNICODE or all(segment.text.isascii() for row in rows for segment in row)


def test_where_there_is_room_for_few_the_others_are_counted(samples: tuple[Run, list[Record]]) -> None:
    run, records = samples
    many = [replace(record, sequence=number) for number in range(30) for record in records if record.sequence == 0]
    panel = panel_after((run, many), None, 8)
    lines = [text_of(row) for row in panel.rows(80, UNICODE)]
    assert len(lines) == 8
    assert lines[-2].strip() == "and 25 more"


@given(st.text("ab日é\u0301👍", max_size=30), st.integers(0, 30))
def test_the_tail_of_a_text_is_its_end_in_that_many_cells(text: str, width: int) -> None:
    from rich.cells import cell_len  # noqa: PLC0415

    end = tail(text, width, UNICODE)

    assert sum(map(cell_len, end)) <= width
    assert end == text or (text.endswith(end.removeprefix("…")) and end.startswith("…"[:width]))


def text_of(row: Any) -> str:
    return "".join(segment.text for segment in row)


SCRIPT = Path(scripted_several.__file__)
SAMPLES = ["".join(scripted_several.pieces(number)) for number in range(scripted_several.COUNT)]


def terminal(arguments: str, columns: int = 80, lines: int = 24, **environment: str) -> Terminal:
    program = f"exec {shlex.quote(sys.executable)} {shlex.quote(str(SCRIPT))} {arguments}"
    return Terminal("", columns, lines, program, **environment)


@pytest.mark.parametrize(("columns", "lines"), [(80, 24), (80, 10), (40, 12)])
def test_on_a_terminal_every_text_is_there_once_below_its_rule(columns: int, lines: int) -> None:
    session = terminal("", columns, lines)

    assert session.finish() == 0

    above = session.text().split("3 samples, token")[0]
    unwrapped = "".join(line.ljust(columns) for line in above.split("\n"))
    for number, text in enumerate(SAMPLES):
        assert f"sample {number + 1} of 3" in above
        for paragraph in text.split("\n"):
            assert paragraph in unwrapped
        assert above.count(f" ({number}),") + above.count(f" ({number}) ") == 1
    assert session.lines()[-1] == "reason eos"


def test_ctrl_c_keeps_what_there_is() -> None:
    session = terminal("--delay 0.05")
    session.wait_for_token(12)

    session.child.sendintr()

    assert session.finish() == 0
    told = session.text()
    assert told.endswith("reason interrupt")
    assert "sample 3 of 3" in told
    unwrapped = "".join(line.ljust(80) for line in told.split("\n"))
    assert all(text[:30] in unwrapped for text in SAMPLES)
    assert told.count("interrupt") == 4


def test_pruned_beams_are_struck_through_also_without_colour() -> None:
    session = terminal("--beams", NO_COLOR="1")

    assert session.finish() == 0

    assert re.search(r"\x1b\[(2;)?9m", session.output)
    assert not re.search(r"\x1b\[([0-9;]*;)?3[0-7]m", session.output)
    assert " x " in session.text()
    assert "score -1.5000" in session.text()


def test_an_ascii_terminal_gets_the_rows_in_ascii() -> None:
    session = terminal("--beams", LC_ALL="C")

    assert session.finish() == 0

    assert session.text().isascii()
    assert "- beam 1 of 3 ---" in session.text()


def test_texts_that_were_given_up_long_ago_are_forgotten(beams: tuple[Run, list[Record]]) -> None:
    run, records = beams
    texts = Texts(run)
    for record in records:
        texts.add(record)
        assert len(texts.by_state()["pruned"]) <= COUNT
    assert sum(isinstance(r, Step) and r.choices[0].status == "pruned" for r in records) > COUNT


def test_in_the_midst_of_a_pass_no_sample_is_called_ended_and_none_changes_its_place(
    samples: tuple[Run, list[Record]],
) -> None:
    run, records = samples
    texts, ended = Texts(run), set[int]()
    for record in records:
        texts.add(record)
        ended |= {record.sequence} if isinstance(record, Finish) else set()
        states = texts.by_state()
        assert {text.number for text in states["ended"]} == ended
        assert [text.number for text in states["running"]] == sorted(text.number for text in states["running"])


def test_in_the_midst_of_a_pass_a_beam_that_goes_on_is_not_called_ended(beams: tuple[Run, list[Record]]) -> None:
    run, records = beams
    texts = Texts(run)
    for place, record in enumerate(records):
        if isinstance(record, Finish):
            break
        texts.add(record)
        later = {other.sequence for other in records[place + 1 :] if isinstance(other, Step) and other.parent is None}
        assert not later & {text.number for text in texts.by_state()["ended"]}


def test_sums_and_scores_of_beams_have_columns_of_their_own_below_headings(beams: tuple[Run, list[Record]]) -> None:
    _, records = beams
    rows = [text_of(row) for row in panel_after(beams, None).rows(100, UNICODE)]
    place = next(k for k, row in enumerate(rows) if "log prob" in row)
    best = next(record for record in records if isinstance(record, Finish))
    assert rows[place].split() == ["beam", "log", "prob", "score", "end", "text"]
    assert rows[place + 1].split()[3] == f"{best.score:.4f}"
    assert rows[place + 1].index(f"{best.score:.4f}") + len(f"{best.score:.4f}") == rows[place].index("score") + len(
        "score"
    )
