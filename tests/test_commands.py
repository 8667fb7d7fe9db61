"""tokenglass inspect, tokens, --help and --version."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import version

import pytest
from shell import ENVIRONMENT, generate, tokenglass
from tokenizers import Tokenizer

from tokenglass.model.checkpoint.store import bundled_folder


def test_version_is_the_installed_version() -> None:
    for done in (generate("--version"), tokenglass("--version")):
        assert done.stdout.decode() == f"tokenglass {version('tokenglass')}\n"


def test_tokenglass_alone_shows_its_commands_and_is_a_usage_error() -> None:
    done = tokenglass()
    assert done.returncode == 2
    for command in (b"generate", b"inspect", b"tokens"):
        assert command in done.stdout


@pytest.mark.parametrize(
    "arguments", [("generate", "--help"), ("--help",), ("inspect", "--help"), ("tokens", "--help")]
)
def test_help_imports_no_torch(arguments: tuple[str, ...]) -> None:
    program = (
        "import sys\nfrom tokenglass.cli.app import tokenglass_app, run\nimport atexit\n"
        "atexit.register(lambda: print('torch' in sys.modules or 'tokenizers' in sys.modules, file=sys.stderr))\n"
        "run(tokenglass_app(), 'tokenglass')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, env=ENVIRONMENT, check=False
    )
    assert done.returncode == 0
    assert done.stderr.strip() == b"False"
    assert b"Usage" in done.stdout


def test_inspect_counts_what_the_files_hold_without_loading_torch() -> None:
    facts = json.loads(tokenglass("inspect", "--json").stdout)
    config = json.loads((bundled_folder() / "config.json").read_text())
    assert facts["layers"] == config["num_hidden_layers"]
    assert facts["vocab_size"] == config["vocab_size"]
    assert facts["context"] == config["max_position_embeddings"]
    assert facts["nbytes"] == 2 * facts["parameters"]
    assert 5e6 <= facts["parameters"] <= 12e6
    run = json.loads(generate("fox", "-n", "1", "--jsonl").stdout.splitlines()[0])
    assert facts["cache_dtype"] == run["engine"]["cache_dtype"] == "float32"
    per_token = 2 * config["num_hidden_layers"] * config["num_key_value_heads"] * config["head_dim"] * 4
    assert facts["cache_bytes_per_token"] == per_token
    looking = "from tokenglass.cli.commands.inspect import inspect\ninspect()"
    program = f"import sys\n{looking}\nassert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, env=ENVIRONMENT)


def test_inspect_reads_for_people() -> None:
    text = tokenglass("inspect").stdout.decode()
    for word in ("llama", "parameters", "context", "cache", "bfloat16"):
        assert word in text


def test_tokens_prints_the_tokenizer_s_own_ids_and_bytes_that_join_to_the_text() -> None:
    text = "Once upon a café — 🦊\tthere"
    rows = json.loads(tokenglass("tokens", "--json", text).stdout)
    expected = Tokenizer.from_file(str(bundled_folder() / "tokenizer.json")).encode(text).ids
    assert [row["token_id"] for row in rows] == expected
    assert b"".join(bytes(row["bytes"]) for row in rows[1:]) == text.encode()


def test_tokens_reads_stdin_and_shows_one_row_per_token() -> None:
    lines = tokenglass("tokens", stdin=b"The fox\n").stdout.decode().splitlines()
    assert len(lines) == 1 + len(json.loads(tokenglass("tokens", "--json", "The fox").stdout))


def test_the_model_can_come_from_the_environment() -> None:
    done = tokenglass("inspect", TOKENGLASS_MODEL="/nonexistent")
    assert done.returncode == 1
    assert b"/nonexistent" in done.stderr
