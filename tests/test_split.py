"""Several processes that hold parts of one model compute what one computes. They are real, started by torchrun."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import shell
import tiny
import torch
from closeness import assert_close
from families import CASES, save

from tokenglass.model.checkpoint.blueprint import Blueprint
from tokenglass.model.config.config import ModelConfig
from tokenglass.model.engine.processes import Processes
from tokenglass.model.errors import ParameterError
from tokenglass.model.loading import load_model
from tokenglass.model.torch_engine.split import Split

TORCHRUN = (sys.executable, "-W", "ignore", "-m", "torch.distributed.run", "--nproc-per-node", "2")
RANKS = Path(__file__).parent / "split_ranks.py"
FAMILIES = ("llama", "qwen2, window by layer types", "qwen3", "gemma2", "gpt2", "phi3", "olmo2")
ENVIRONMENT = {**shell.ENVIRONMENT, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}


def run(*command: object, **options: object) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [str(part) for part in command],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=300,
        check=False,
        env=ENVIRONMENT,
        **options,  # type: ignore[call-overload]
    )


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Small random models with a tokenizer, and their logits from one process and from two."""
    paths = {}
    for name in FAMILIES:
        folder = tmp_path_factory.mktemp("split")
        save(folder, *CASES[name])
        paths[name] = folder
    for program in ((sys.executable,), TORCHRUN):
        done = run(*program, RANKS, "logits", *paths.values())
        assert done.returncode == 0, done.stderr.decode()
    return paths


@pytest.mark.parametrize("name", FAMILIES)
def test_logits_are_those_of_one_process_whatever_is_done_to_the_rows_of_the_cache(
    name: str, folders: dict[str, Path]
) -> None:
    one, two = (np.load(folders[name] / f"logits{count}.npz") for count in (1, 2))
    assert one.files == two.files
    assert len(one.files) == 10
    for part in one.files:
        assert_close(torch.from_numpy(two[part]), torch.from_numpy(one[part]))


@pytest.mark.parametrize(
    ("name", "options"), [("llama", ()), ("gemma2", ("--num-samples", "3")), ("gpt2", ("--beams", "3"))]
)
def test_the_greedy_text_is_that_of_one_process(name: str, options: tuple[str, ...], folders: dict[str, Path]) -> None:
    script = [shell.SCRIPTS / "generate", "-m", folders[name], "abc", "-n", "12", "--backend", "torch", "--quiet"]
    draws = ("--temperature", "0") if not options else ("--seed", "1")
    one, two = (run(*program, *script, *options, *draws) for program in ((), (*TORCHRUN, "--no-python")))
    assert two.stdout == one.stdout != b""
    assert two.returncode == 0, two.stderr.decode()
    assert b"split over 2 processes" in two.stderr


def test_only_the_first_process_reads_stdin_and_what_needs_no_model_ends_at_once(folders: dict[str, Path]) -> None:
    script = f"{shell.SCRIPTS / 'generate'} -m {folders['llama']} -n 5 --temperature 0 --backend torch"
    launch = " ".join(map(str, (*TORCHRUN, "--no-python")))
    piped = subprocess.run(
        ["bash", "-c", f"printf abc | {launch} {script}"],
        capture_output=True,
        check=False,
        timeout=120,
        env=ENVIRONMENT,
    )
    assert piped.returncode == 0, piped.stderr.decode()
    assert piped.stdout == run(*script.split(), "abc").stdout
    helped = run(*TORCHRUN, "--no-python", shell.SCRIPTS / "generate", "--help")
    assert helped.returncode == 0
    assert helped.stdout.count(b"Usage:") == 1


@pytest.mark.parametrize(("option", "value"), [("backend", "native"), ("quantize", "int8")])
def test_what_one_process_alone_can_do_is_refused_by_name(
    option: str, value: str, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, said in {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}.items():
        monkeypatch.setenv(name, said)
    with pytest.raises(ParameterError, match=f"--{option} {value} is for one process"):
        load_model(folders["llama"], **{option: value})  # type: ignore[arg-type]


def start(rank: int, port: int, *command: object) -> subprocess.Popen[bytes]:
    """One of two processes, without torchrun, which would end the others by itself."""
    place = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    return subprocess.Popen(
        [str(part) for part in command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**ENVIRONMENT, **place, "MASTER_PORT": str(port)},
    )


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--flow", "--view", "jsonl"), "look into the model without torchrun"),
        (("-m", "{odd}"), "2 processes cannot share the model's 3 attention heads; 1, 3 can"),
    ],
)
def test_what_cannot_be_split_is_refused_in_one_line(
    arguments: tuple[str, ...], words: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    sizes = {"hidden_size": 24, "intermediate_size": 48, "num_attention_heads": 3, "num_key_value_heads": 3}
    odd = tiny.save_llama(tmp_path, **sizes)
    tiny.byte_level_tokenizer().save(str(odd / "tokenizer.json"))
    options = [part.format(odd=odd) for part in arguments]
    command, port = [shell.SCRIPTS / "generate", "-m", folders["llama"], "abc", "-n", "3", *options], free_port()
    first, second = (start(rank, port, *command) for rank in range(2))
    _, errors = first.communicate(timeout=120)
    second.communicate(timeout=60)
    assert first.returncode == 2
    assert words in errors.decode().strip().splitlines()[-1]
    assert b"Traceback" not in errors


@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_is_lost_ends_the_other_with_a_message(rank: int, folders: dict[str, Path]) -> None:
    port = free_port()
    command = [shell.SCRIPTS / "generate", "-m", folders["llama"], "abc", "-n", "100000", "--backend", "torch"]
    command += ["--ignore-eos", "--temperature", "0", "--jsonl"]
    ranks = [start(number, port, *command) for number in range(2)]
    stdout = ranks[0].stdout
    assert stdout is not None
    for _ in range(4):  # the run has begun
        stdout.readline()
    ranks[rank].send_signal(signal.SIGKILL)
    began = time.monotonic()
    output, errors = ranks[1 - rank].communicate(timeout=60)
    assert time.monotonic() - began < 30
    assert ranks[1 - rank].returncode == 1
    (line,) = errors.decode().strip().splitlines()[-1:]
    assert "a process of the group is gone" in line
    if rank == 1:
        assert json.loads(output.splitlines()[-1])["reason"] == "error"
    ranks[rank].communicate()


def test_each_of_two_processes_holds_half_of_the_weights_and_the_cache(tmp_path: Path) -> None:
    sizes = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 9, "vocab_size": 16384}
    heads = {"num_attention_heads": 16, "num_key_value_heads": 8, "max_position_embeddings": 4096}
    tiny.save_llama(tmp_path, dtype=torch.bfloat16, **sizes, **heads)
    whole = sum(file.stat().st_size for file in tmp_path.glob("*.safetensors"))
    assert whole >= 500e6
    done = run(*TORCHRUN, RANKS, "sizes", tmp_path)
    assert done.returncode == 0, done.stderr.decode()
    for rank in (0, 1):
        found = json.loads((tmp_path / f"sizes{rank}.json").read_text())
        assert found["weights"] == pytest.approx(whole / 2, rel=0.01)
        per_token = 2 * 9 * 8 * (1280 // 16) * 2  # keys and values of 9 layers with 8 heads, in bfloat16
        assert found["cache"] == 64 * per_token / 2


def test_norms_of_single_heads_are_refused_by_name() -> None:
    sizes = {"hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 4}
    config = ModelConfig.from_hf({"model_type": "stablelm", **sizes, "qk_layernorm": True})
    with pytest.raises(ParameterError, match="norms of single heads are not split over several processes; use one"):
        Split(Blueprint.of(config), 0, 2)


def test_a_process_knows_its_place_from_what_torchrun_says() -> None:
    environ = {"RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "MASTER_ADDR": "host"}
    assert Processes.of(environ) == Processes(1, 4, 1)
    assert not Processes(1, 4, 1).leads
    for wrong in ({"WORLD_SIZE": "1", "RANK": "0"}, {"RANK": "x"}, {"WORLD_SIZE": ""}):
        assert Processes.of({**environ, **wrong}) is None
    assert Processes.of({name: value for name, value in environ.items() if name != "MASTER_ADDR"}) is None
    assert Processes.of(os.environ) is None
