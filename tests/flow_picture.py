"""The picture of `tokenglass flow` in the README: a real run of smollm2, kept as JSON and drawn from it.

    python tests/flow_picture.py

makes the run anew (`tokenglass pull smollm2` first) and writes tests/picture/flow.json and tests/picture/flow.svg.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tokenglass.cli.views.flow_picture import flow_picture
from tokenglass.model.inspection.records import Flow
from tokenglass.model.records.codec import from_dict

FOLDER = Path(__file__).parent / "picture"
RUN, PICTURE = FOLDER / "flow.json", FOLDER / "flow.svg"
TEXT = "The wizard Zorbak met the queen. Later that day, the wizard Zorbak"
ROWS = 9


def main() -> None:
    RUN.write_bytes(fresh_run())
    PICTURE.write_text(draw(RUN.read_text()), encoding="utf-8")


def fresh_run() -> bytes:
    command = [Path(sys.executable).parent / "tokenglass", "flow", TEXT, "-m", "smollm2", "--total", "--jsonl"]
    return subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=True).stdout


def draw(line: str) -> str:
    return flow_picture(read_flow(line), limit=ROWS)


def read_flow(line: str) -> Flow:
    flow = from_dict(Flow, json.loads(line))
    assert isinstance(flow, Flow)
    return flow


if __name__ == "__main__":
    main()
