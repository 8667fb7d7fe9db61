"""export --csv, --md and --svg: the numbers of the trace, and text that stays text."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from responses import CHAT
from scripted_run import choice, run, steps
from shell import ENVIRONMENT, assert_one_line_error, tokenglass
from test_export import MARKUP
from test_hostile_traces import NASTY, traces
from test_trace import STEP
from test_trace_files import FINISH, MODES

from tokenglass.cli.export.kept_text import kept_texts
from tokenglass.cli.export.markdown import markdown
from tokenglass.cli.export.picture import picture
from tokenglass.cli.export.table import COLUMNS, NAMES, table
from tokenglass.model.records.steps import Finish, Record
from tokenglass.model.runs.trace import to_line

FORMULAS = ("=", "+", "-", "@", "\t", "\r")
PIECES = (
    "=1+1",
    "+1",
    "-2",
    "@SUM(A1)",
    "\tx",
    "\r\n=1",
    'a,"b"',
    "`code`",
    "|",
    "\\",
    "# x",
    "<b>",
    "[a](b)",
    "~~~~",
    "````",
)


def records_of(*pieces: bytes) -> list[Record]:
    steps = [
        dataclasses.replace(STEP, index=at, choices=(dataclasses.replace(choice(piece), piece=piece, position=at),))
        for at, piece in enumerate(pieces)
    ]
    return [*steps, FINISH]


def rows_of(text: str) -> list[dict[str, str]]:
    return [*csv.DictReader(io.StringIO(text, newline=""))]


@pytest.mark.parametrize("mode", ["plain", "beams", "speculative", "parallel"])
def test_the_table_has_every_choice_of_the_trace_with_exact_numbers(mode: str, tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    assert tokenglass(*MODES[mode], "--trace", str(path)).returncode == 0
    done = tokenglass("export", str(path), "--csv")
    assert done.returncode == 0, done.stderr.decode()
    rows = iter(rows_of(done.stdout.decode()))
    for line in map(json.loads, path.read_text().splitlines()):
        for fields in line.get("choices", []):
            row = next(rows)
            assert {name: row[name] for name in NAMES} == {name: cell(fields[name]) for name in NAMES}
            assert bytes.fromhex(row["bytes"]) == bytes(fields.get("bytes", fields["piece"].encode()))
            assert (row["step"], row["seconds"]) == (cell(line["index"]), cell(line["seconds"]))
    assert next(rows, None) is None


def cell(value: Any) -> str:
    return "" if value is None else str(value)


@given(st.lists(st.sampled_from(PIECES).map(str.encode) | st.binary(min_size=1, max_size=6), min_size=1, max_size=4))
def test_no_cell_is_a_formula_and_no_byte_is_lost(pieces: list[bytes]) -> None:
    rows = rows_of("".join(table([(run(), records_of(*pieces))])))
    assert [bytes.fromhex(row["bytes"]) for row in rows] == pieces
    for row, piece in zip(rows, pieces, strict=True):
        assert tuple(row) == COLUMNS
        assert not row["piece"].startswith(FORMULAS)
        text = piece.decode("utf-8", "replace")
        assert row["piece"] in (text, f"'{text}")


@given(st.lists(st.sampled_from([*PIECES, MARKUP, NASTY, "\n\n# a\n", "\n```\n"]), min_size=1, max_size=5))
def test_no_text_becomes_markup_of_markdown(texts: list[str]) -> None:
    """As CommonMark with tables has it (markdown-it-py)."""
    parser = MarkdownIt("commonmark", {"html": True}).enable("table")
    texts_with_run = [(run(prompt="".join(texts)), records_of(*[text.encode() for text in texts]))]
    plain = [(run(prompt="plain"), records_of(*[b"plain"] * len(texts)))]
    actual, expected = (parser.parse("".join(markdown(each))) for each in (texts_with_run, plain))
    assert [token.type for token in actual] == [token.type for token in expected]
    inside = [[child.type for child in token.children or ()] for token in actual]
    assert inside == [[child.type for child in token.children or ()] for token in expected]
    (text,) = kept_texts(texts_with_run)
    fences = [token.content for token in actual if token.type == "fence"]
    assert len(fences) == 2
    assert "plain" not in fences[1]
    assert fences[1].count("\n") == text.text.count("\n") + 1


def test_markdown_tells_every_token_with_its_numbers() -> None:
    records: list[Record] = [*steps([" fox", " ran"]), FINISH]
    rows = [line for line in "".join(markdown([(run(), records)])).splitlines() if line.startswith("| ")][2:]
    assert rows[0].startswith("| 1 | `·fox` | 31.2 % | 53.2 % | 1 | 0.40 |")
    assert len(rows) == 2


@settings(max_examples=15)
@given(trace=traces)
def test_any_records_make_a_table_a_text_and_a_picture(trace: Any) -> None:
    described, steps, finishes = trace
    records = [*steps, *finishes]
    assert len(rows_of("".join(table([(described, records)])))) == sum(len(step.choices) for step in steps)
    assert "".join(markdown([(described, records)])).startswith("# A kept run")
    ET.fromstring(picture([(described, records)]))


def test_the_picture_shows_the_text_and_fetches_nothing() -> None:
    records: list[Record] = [*steps([" fox", " 日本", MARKUP[:20]]), FINISH]
    drawn = picture([(run(), records)])
    text = "".join(ET.fromstring(drawn).itertext()).replace("\xa0", " ")
    assert "Once upon a time fox 日本</script>" in text
    assert "url(#" in drawn
    assert "http" not in drawn.replace("http://www.w3.org/2000/svg", "").replace("https://www.textualize.io", "")


def test_a_picture_of_several_texts_names_each() -> None:
    records: list[Record] = []
    for sequence in range(2):
        records += [dataclasses.replace(step, sequence=sequence) for step in steps([" fox"])]
    drawn = picture([(run(), [*records, FINISH, dataclasses.replace(FINISH, sequence=1)])])
    text = "".join(ET.fromstring(drawn).itertext()).replace("\xa0", " ")
    assert "text 0" in text
    assert "text 1" in text


@pytest.mark.parametrize("name", ["--svg", "--md", "--csv"])
def test_a_damaged_trace_is_one_line(name: str, tmp_path: Path) -> None:
    (tmp_path / "bad").write_text("hello")
    done = tokenglass("export", str(tmp_path / "bad"), name)
    assert_one_line_error(done, 1, "not a JSON line")
    assert_one_line_error(tokenglass("export", "-", name, "--html", stdin=b""), 2, "one format")


def test_finishes_are_no_choices() -> None:
    assert [*table([(run(), [Finish(0, "error", "", FINISH.totals)])])] == [",".join(COLUMNS) + "\n"]


WITHOUT = """
import sys
for name in ("torch", "tokenizers", "numpy"):
    sys.modules[name] = None
sys.argv = ["tokenglass", *sys.argv[1:]]
from tokenglass.cli.__main__ import tokenglass
tokenglass()
"""


@pytest.mark.parametrize("name", ["--html", "--svg", "--md", "--csv", "import-trace"])
def test_export_and_import_need_no_engine(name: str, tmp_path: Path) -> None:
    command, content = (
        ["export", "-", name],
        "".join(to_line(each) + "\n" for each in (run(), *steps([" fox"]), FINISH)),
    )
    if name == "import-trace":
        command, content = [name, "-"], json.dumps(CHAT)
    program = [sys.executable, "-c", WITHOUT, *command]
    done = subprocess.run(program, input=content.encode(), capture_output=True, check=False, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr.decode()
    assert b"fox" in done.stdout
