"""What a start does without: each of these was a tenth of the time to the first token, or more."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from shell import ENVIRONMENT

PROGRAM = """
import atexit, json, sys
sys.argv = {argv!r}
atexit.register(lambda: print(json.dumps(sorted(sys.modules)), file=sys.stderr))
from tokenglass.cli.__main__ import generate
generate()
"""


def modules_after(*arguments: str) -> set[str]:
    """What is imported at the end of a run whose stdout is a pipe."""
    code = PROGRAM.format(argv=["generate", *arguments])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=120, check=True, env=ENVIRONMENT)
    assert done.stdout
    return set(json.loads(done.stderr.decode().splitlines()[-1]))


def test_a_token_in_a_pipe_needs_no_console_and_no_other_way_of_decoding() -> None:
    imported = modules_after("Once upon a time", "-n", "1", "--seed", "1")
    without = {"rich", "pydantic", "importlib.metadata", "llguidance", "safetensors", "huggingface_hub", "gguf"}
    ways = {"beams", "samples", "parallel", "speculative", "drafts", "conversation", "branches"}
    assert imported.isdisjoint(without | {f"tokenglass.model.decoding.{way}" for way in ways})


def test_only_a_description_that_is_kept_names_the_libraries_and_the_files() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "tokenglass.cli", "generate", "Once", "-n", "1", "--seed", "1", "--jsonl"],
        capture_output=True,
        timeout=120,
        check=True,
        env=ENVIRONMENT,
    ).stdout.splitlines()[0]
    described = json.loads(run)
    assert set(described["versions"]) == {"tokenglass", "python", "torch", "tokenizers"}
    assert len(described["model_fingerprint"]) == len(described["tokenizer_fingerprint"]) == 64


UNLOADABLE = """
import sys
for name in ("torch", "tokenglass.model.native_engine.shared_library", "tokenglass.model.native_engine.build"):
    sys.modules[name] = None  # whoever imports it fails
sys.argv = {argv!r}
from tokenglass.model.checkpoint import weights
weights.read_weights = None
from tokenglass.cli.__main__ import generate
generate()
"""


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--samplers", "nope"), "nope"),
        (("--regex", "(a"), "unclosed group"),
        (("--json-schema", '{"type": "nope"}'), "nope"),
        (("--grammar", __file__), "grammar"),
        (("--regex", "a", "--json"), "exclude each other"),
        (("--beams", "2", "--mode", "jacobi"), "exclude each other"),
        (("--beams", "2", "--ban", "a"), "ban"),
        (("--beams", "2", "--length-penalty", "1000"), "length_penalty"),
        (("--num-samples", "2", "--temperature", "0"), "temperature 0"),
        (("--mode", "speculative", "--no-cache"), "--no-cache"),
        (("--mode", "speculative", "--draft", "model"), "--draft-model"),
        (("--mode", "parallel", "--reveal", "2", "--passes", "3"), "reveal and passes"),
        (("--mode", "parallel", "--json"), "block"),
        (("--flow", "--no-cache"), "--flow"),
        (("--guidance", "2"), "--negative"),
        (("-m", "nowhere"), "nowhere"),
        (("--view", "live"), "terminal"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_what_needs_no_weights_is_refused_before_they_torch_or_kernels_are_touched(
    arguments: tuple[str, ...], complaint: str
) -> None:
    code = UNLOADABLE.format(argv=["generate", "Once", *arguments])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=120, check=False, env=ENVIRONMENT)
    (line,) = done.stderr.decode().splitlines()
    assert complaint in line
    assert "internal error" not in line
    assert done.returncode in (1, 2)
    assert not done.stdout
