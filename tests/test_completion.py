"""What a shell completes, asked as bash asks."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from shell import bash, script


def complete(line: str, **environment: str) -> list[str]:
    """What the program offers behind a line that ends where the cursor is."""
    words = line.split(" ")
    name = words[0]
    done = script(
        name,
        stdin=b"",
        **{f"_{name.upper()}_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)},
        **environment,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    return done.stdout.decode().split()


@pytest.mark.parametrize(
    ("line", "offers"),
    [
        ("generate -m t", ["tale"]),
        ("generate --draft-model ta", ["tale"]),
        ("generate --samplers top-k,top-", ["top-k,top-n-sigma", "top-k,top-p"]),
        ("generate --view l", ["live"]),
        ("generate --temperat", ["--temperature"]),
        ("tokenglass sco", ["score"]),
        ("tokenglass pull sm", ["smollm2"]),
        ("tokenglass pull Qwen/Qwen3", ["Qwen/Qwen3-0.6B"]),
        ("tokenglass inspect ta", ["tale"]),
        ("tokenglass models rm nothing", []),
    ],
)
def test_names_are_offered_that_can_stand_there(line: str, offers: list[str]) -> None:
    assert complete(line) == offers


def test_models_of_the_store_are_offered(tmp_path: Path) -> None:
    for name in ("fox", "org/den"):
        folder = tmp_path / "models" / name
        folder.mkdir(parents=True)
        (folder / "tokenglass.json").write_text("{}")
    assert complete("generate -m ", TOKENGLASS_HOME=str(tmp_path)) == ["tale", "fox", "org/den"]


def test_bash_takes_the_script_that_the_program_prints(tmp_path: Path) -> None:
    script_of = "generate --show-completion bash"
    done = bash(f'cd "{tmp_path}" && source <({script_of}) && complete -p generate && echo "$BASH_VERSION" > /dev/null')
    assert done.returncode == 0, done.stderr
    assert b"generate" in done.stdout


def test_completion_imports_neither_torch_nor_tokenizers(tmp_path: Path) -> None:
    for name in ("torch", "tokenizers", "safetensors"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError")
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    assert complete("generate -m t", PYTHONPATH=path) == ["tale"]
