"""What shows texts of tale is renewed by command: the samples of the card, and tables of the README."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from format_rows import GGUF_TYPES, KEPT, METHODS, gguf_file, measure, release, table_row
from releases import RELEASES
from renew import COLUMNS, README, cell, replace_table
from tiny_gguf import TYPES

from tokenglass.cli.widgets.comparison_columns import COLUMNS as MEASURED
from tokenglass.model.checkpoint.store import bundled_folder
from tokenglass.model.loading import load_model
from tokenglass.weights.recipe import card

TABLE = """Before.

| | a | b |
|---|---:|---:|
| old | 1 | 2 |
| older | 3 | 4 |

After, | with a bar |.
"""


def test_a_table_gets_other_rows_and_nothing_else_changes() -> None:
    renewed = replace_table(TABLE, "| | a |", "| new | 5 | 6 |\n")
    assert renewed == TABLE.replace("| old | 1 | 2 |\n| older | 3 | 4 |\n", "| new | 5 | 6 |\n")


@pytest.mark.parametrize("text", [TABLE * 2, "no table"])
def test_a_table_that_is_not_there_once_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="should be one"):
        replace_table(text, "| | a |", "")


def test_the_readme_has_the_table_and_compare_measures_its_columns() -> None:
    assert replace_table(README.read_text(), "| | tokens per pass |", "") != README.read_text()
    assert {*COLUMNS} <= {column.metric for column in MEASURED}
    assert cell("bits_per_byte", {"value": 1.154, "low": 1.06, "high": 1.242}) == "1.15 (1.06 to 1.24)"
    assert [cell(name, {"value": 0.5}) for name in ("tokens_per_pass", "task_errors")] == ["0.50", "50.0 %"]
    assert cell("task_errors", None) == ""


def test_the_readme_has_a_row_for_every_quantised_format() -> None:
    (table,) = re.findall(r"^\| format \|.*\n(?:\|.*\n)+", README.read_text(), flags=re.MULTILINE)
    released = {METHODS[name if name in METHODS else name.partition(",")[0]][0] for name in RELEASES}
    types = {f"GGUF, {kind.name}" for kind in GGUF_TYPES} | {f"GGUF, {kind.name} kept as int4" for kind in KEPT}
    assert {row.split(" | ")[0].removeprefix("| ") for row in table.splitlines()[2:]} == released | types


def test_a_row_of_formats_says_what_is_exact_and_what_is_not() -> None:
    exact = table_row("NVFP4", "its library", [release("nvfp4")])
    assert exact.startswith("| NVFP4 | 1 | its library | to the bit | ")
    assert exact.endswith(" of 384 |")
    weights, *_ = measure(gguf_file(TYPES.Q4_K, keep=True))
    assert 0 < weights < 2**-10, "scales are rounded to float16"


def test_the_samples_are_renewed_and_the_rest_of_the_card_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(bundled_folder(), tmp_path / "tale")
    monkeypatch.setattr(card, "SAMPLES", 2)
    monkeypatch.setattr(card, "SAMPLE_TOKENS", 4)
    monkeypatch.setattr(card, "RULES", card.RULES[:1])
    (folder / "README.md").write_text("# tale\n\nKept.\n\n## 2 samples, unedited\n\nOld.\n")
    card.write_samples(folder, load_model(folder, dtype="float32", device="cpu"))
    text = (folder / "README.md").read_text()
    assert text.startswith("# tale\n\nKept.\n\n## 2 samples, unedited\n\nThe program")
    assert "Old." not in text
    assert "2. **The fox and the hen**" in text
    assert "## 5 samples in parallel, unedited" in text
