"""Every command of the README does what it says, in its order, in one folder and with pipes as in a script.

smollm2 stands here for a small random chat model under its name, as tests have no network.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from families import EXPERTS, SIZES, save
from responses import CHAT
from shell import ENVIRONMENT, bash, generate
from test_chat import CHATML, chat_checkpoint
from test_lora import adapter, low_rank
from tiny import edit_json

README = Path(__file__).parents[1] / "README.md"
TEXT = README.read_text(encoding="utf-8")
BLOCKS = re.findall(r"```sh\n(.*?)```", TEXT, flags=re.DOTALL)
LINES = [line for block in BLOCKS for line in block.splitlines() if line.strip()]
ELSEWHERE = {  # lines that other tests or nobody can run here
    "pip install": "an installation: .ci/run begins with it",
    "uv pip install .": "an installation",
    "python -m tokenglass.weights.recipe": "a training of days; tests/test_recipe*.py run it small",
    "python tests/renew.py": "measures for minutes; tests/test_renew.py",
    "tokenglass pull": "needs the network; tests/test_pull.py has an index of its own",
    "tokenglass pick": "needs a terminal; tests/test_pick*.py",
    "tokenglass chat": "needs a terminal; tests/test_chat_sessions.py",
    "generate -m http://": "needs a server; tests/test_server*.py have some",
    "tokenglass score story.txt -m http://": "needs a server; tests/test_server*.py have some",
    "generate --pause": "needs a terminal; tests/test_pace.py",
    "tokenglass replay fox.jsonl --pause": "needs a terminal; tests/test_replay*.py",
}


def names(line: str) -> str:
    return line.split("  #", maxsplit=1)[0].strip()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the README's reader has: a text or two, a checkpoint, and a chat model that was pulled."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "notes.txt").write_text("The fox met the hen.\n")
    (folder / "story.txt").write_text("Once upon a time there was a fox. It met a hen.\n")
    (folder / "prompts.txt").write_text("The fox\nThe hen\n")
    questions = [{"id": "a", "prompt": "The fox", "max_new_tokens": 9}, {"id": "b", "prompt": "The hen", "seed": 4}]
    (folder / "questions.jsonl").write_text("".join(json.dumps(question) + "\n" for question in questions))
    (folder / "response.json").write_text(json.dumps(CHAT))
    (folder / "letter.txt").write_text("Dear fox, come and see the hen.\n")
    other = generate("The fox", "-n", "40", "--seed", "2", "--trace", str(folder / "other.jsonl"))
    assert other.returncode == 0, other.stderr
    pulled = folder / "store" / "models" / "smollm2"
    pulled.mkdir(parents=True)
    chat_checkpoint(pulled, CHATML)
    (pulled / "tokenglass.json").write_text("{}")
    edit_json(pulled / "generation_config.json", min_new_tokens=1)  # a random model may end at once
    shutil.copytree(pulled, folder / "my-checkpoint")
    save(folder / "my-mixture", "qwen3_moe", {**SIZES, **EXPERTS})
    adapter(
        folder / "my-adapter",
        low_rank("model.layers.1.self_attn.q_proj", 32, 32),
        base_model_name_or_path=str(folder / "my-checkpoint"),
    )
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("line", LINES, ids=names)
def test_a_command_of_the_readme_runs(folder: Path, line: str) -> None:
    for beginning, reason in ELSEWHERE.items():
        if line.startswith(beginning):
            pytest.skip(reason)
    for program in ("jq", "xargs"):
        if f"| {program} " in line and not shutil.which(program):
            pytest.skip(f"{program} is not installed")
    done = bash(f'cd "{folder}" && export TOKENGLASS_HOME="{folder / "store"}" && {line}')
    errors = done.stderr.decode()
    assert done.returncode == 0, errors
    assert "Traceback" not in errors
    assert done.stdout or "--trace" in line or "--output" in line or "> " in line


def test_the_same_seed_gives_the_same_text_as_it_says() -> None:
    line = next(line for line in LINES if "the same seed, the same text" in line)
    assert bash(line).stdout == bash(line).stdout != b""


def test_the_example_in_python_prints_a_story() -> None:
    (example,) = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)
    done = subprocess.run(["python", "-c", example], capture_output=True, check=False, timeout=120, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) > 20


def test_every_link_within_the_readme_has_a_heading_or_a_file() -> None:
    titles = re.findall(r"^#+ (.+)$", TEXT, re.MULTILINE)
    headings = {"#" + re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}
    for target in re.findall(r"\]\(([^)]+)\)", TEXT):
        assert target in headings or (README.parent / target).exists(), target
