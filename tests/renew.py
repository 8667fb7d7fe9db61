"""Renew everything in this repository that shows what tale writes, after its weights have changed.

    python tests/renew.py                 # the picture, and the samples in the card
    python tests/renew.py --tables        # and the README's tables: families, formats, `compare`,
                                          # `tests/peers/structure.py`

No other test holds a text of tale: the rest compare it with an oracle. The tables take minutes on an idle machine, and
want smollm2 (`tokenglass pull smollm2`). The card's numbers come from the recipe:
`python -m tokenglass.weights.recipe --export`.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import picture

from tokenglass.model.checkpoint.store import bundled_folder
from tokenglass.model.loading import load_model
from tokenglass.weights.recipe.card import write_samples

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
BIN = Path(sys.executable).parent
COLUMNS = ("tokens_per_pass", "tokens_per_second", "bits_per_byte", "repeated_4grams", "same_tokens", "task_errors")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", action="store_true", help="measure the README's tables, too")
    options = parser.parse_args()
    picture.main()
    write_samples(bundled_folder(), load_model(bundled_folder(), dtype="float32", device="cpu"))
    if options.tables:
        tables = {
            "| family |": family_rows,
            "| format |": format_rows,
            "| | tokens per pass |": compare_rows,
            "| simple structure |": structure_rows,
        }
        for heading, rows_of in tables.items():
            if heading in README.read_text():
                README.write_text(replace_table(README.read_text(), heading, rows_of()))


def replace_table(text: str, heading: str, rows: str) -> str:
    """The text with other rows in the Markdown table whose first line begins with `heading`."""
    renewed, count = re.subn(
        rf"^({re.escape(heading)}.*\n\|[-:| ]*\n)(?:\|.*\n)*", lambda match: match[1] + rows, text, flags=re.MULTILINE
    )
    if count != 1:
        raise ValueError(f"{count} tables begin with {heading!r}; there should be one")
    return renewed


def family_rows() -> str:
    return run("python", str(ROOT / "tests/test_random_configs.py"), "20")


def format_rows() -> str:
    return run("python", str(ROOT / "tests/format_rows.py"))


def compare_rows() -> str:
    with tempfile.TemporaryDirectory() as folder:
        draft = Path(folder) / "tale-int4"
        run("tokenglass", "quantize", "tale", str(draft), "--format", "int4")
        facts = json.loads(run("tokenglass", "compare", "--quantize", "int8", "--draft-model", str(draft), "--json"))
    return "".join(f"{compare_row(row)}\n" for row in facts["rows"])


def compare_row(row: Mapping[str, Any]) -> str:
    return f"| {row['name']} | {' | '.join(cell(name, row['metrics'].get(name)) for name in COLUMNS)} |"


def cell(name: str, estimate: Mapping[str, float] | None) -> str:
    if estimate is None:
        return ""
    if name == "bits_per_byte":
        return f"{estimate['value']:.2f} ({estimate['low']:.2f} to {estimate['high']:.2f})"
    if name == "tokens_per_second":
        return f"{estimate['value']:,.0f}"
    if name == "tokens_per_pass":
        return f"{estimate['value']:.2f}"
    return f"{100 * estimate['value']:.{0 if name == 'same_tokens' else 1}f} %"


def structure_rows() -> str:
    out = run("python", str(ROOT / "tests/peers/structure.py"), "--quantize", "int8")
    return "".join(line + "\n" for line in out.splitlines()[3:])


def run(program: str, *arguments: str) -> str:
    command = [BIN / program, *arguments]
    return subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=True, text=True).stdout


if __name__ == "__main__":
    main()
