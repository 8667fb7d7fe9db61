"""Gated DeltaNet in the place of attention: what it leaves behind, and how a row goes back; see test_mixers.py."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import shell
import tiny
import torch
from cache_machine import CacheMachine
from closeness import assert_close
from families import CASES, random_ids, save
from hypothesis import given, settings
from hypothesis import strategies as st
from native_parts import native
from safetensors.torch import load_file, save_file
from torch_parts import as_tensor, load_engine

from tokenglass.cli.run.many import room
from tokenglass.model.checkpoint.folder import Checkpoint
from tokenglass.model.config.layer_kinds import DeltaNet, LayerKind
from tokenglass.model.config.layer_states import RecurrentState
from tokenglass.model.engine.engine import Engine
from tokenglass.model.engine.keys_values import Storage
from tokenglass.model.engine.memory import snapshot_bytes
from tokenglass.model.engine.recurrent import MOST_SNAPSHOTS, Recurrent
from tokenglass.model.loading import load_model
from tokenglass.model.torch_engine.engine import TorchEngine

MIXED = (LayerKind(None, delta=DeltaNet(1, 2, 8, 12, taps=3)), tiny.CONFIG.layers[0])
MODEL = tiny.random_transformer(replace(tiny.CONFIG, layers=MIXED))


pytestmark = pytest.mark.usefixtures("unwritten_memory_is_nan")


class Rows(CacheMachine):
    model, limit, most_new, most_ids = MODEL, 64, 4, 40
    has_snapshots = True

    def goes_back(self, count: int, _held: int) -> bool:
        return count == 0


TestRows = Rows.TestCase
TestRows.settings = settings(max_examples=60, stateful_step_count=20)


@given(counts=st.lists(st.integers(1, 40), min_size=1, max_size=60))
def test_a_row_goes_back_to_its_last_passes_exactly_and_elsewhere_not_much_too_far(counts: list[int]) -> None:
    state, ends = Recurrent(RecurrentState(3), 2, Storage(torch.zeros)), [0]
    for count in counts:
        state.reserve(ends[-1], count)
        ends.append(ends[-1] + count)
        state.advance(ends[-1])
    assert len(state.snapshots) <= MOST_SNAPSHOTS
    assert state.reach(ends[-1]) == ends[-1]
    assert state.reach(ends[-2]) == ends[-2]
    for back in (4, 16, 64, 256):
        if len(counts) > 1 and max(counts) <= back < ends[-1]:
            assert ends[-1] - state.reach(ends[-1] - back) <= 8 * back


def test_a_copy_shares_what_was_and_both_go_on_by_themselves() -> None:
    engines: list[Engine] = [TorchEngine(MODEL, torch.device("cpu"), torch.float32), native(MODEL)]
    for engine in engines:
        ids, ways = [1, 2, 3, 4, 5], ([6, 7, 8], [9, 10, 11])
        cache = engine.new_cache()
        engine.forward([ids], cache)
        cache.select([0, 0])
        first, second = cache.rows[0].states[0], cache.rows[1].states[0]
        assert isinstance(first, Recurrent)
        assert isinstance(second, Recurrent)
        assert first.current is second.current
        for step in range(3):
            logits = engine.forward([[way[step]] for way in ways], cache)
        for way, row in zip(ways, logits, strict=True):
            assert_close(as_tensor(row), as_tensor(engine.forward([[*ids, *way]], None)[0]))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("delta")
    save(path, *CASES["qwen3_5_text"])
    return path


@pytest.mark.parametrize("backend", ["native", "torch"])
def test_the_cache_tells_the_kinds_of_state_apart(folder: Path, backend: Any) -> None:
    loaded = load_model(folder, dtype="float32", device="cpu", backend=backend)
    cache = loaded.engine.new_cache()
    loaded.engine.forward([[1, 2, 3, 4, 5]], cache)
    usage = cache.usage()
    channels = 2 * 2 * 8 + 4 * 12
    recurrent = 2 * 4 * (channels + 4 * 8 * 12)  # layers, bytes, an input of the convolution and the matrices
    assert usage.states is not None
    assert {state.name: state.nbytes_used for state in usage.states} == {
        "recurrent states": recurrent,
        "keys and values": 5 * usage.bytes_per_token,
    }
    assert usage.nbytes_used == recurrent + 5 * usage.bytes_per_token
    assert usage.nbytes_held >= usage.nbytes_used


def test_many_texts_leave_room_for_the_snapshots_of_each(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = load_model(folder, dtype="float32", device="cpu", backend="native")
    config = loaded.checkpoint.config
    positions = 100 * config.cache_bytes_per_token("float32")
    monkeypatch.setattr(room, "free_memory", lambda _: room.SHARE * (5 * snapshot_bytes(config) + positions))
    assert room.free_positions(loaded, slots=5) == 100
    assert room.free_positions(loaded, slots=None) == 0


def test_each_of_many_texts_is_what_it_is_alone(folder: Path) -> None:
    common = ("-m", str(folder), "-n", "8", "--temperature", "0", "--dtype", "float32")
    prompts = ["The fox", "The fox and", "A hen"]
    done = shell.generate(*common, "--each-line", stdin="\n".join(prompts).encode())
    assert done.returncode == 0, done.stderr
    texts = [json.loads(line)["text"] for line in done.stdout.splitlines()]
    assert texts == [shell.generate(*common, prompt).stdout.decode().removesuffix("\n") for prompt in prompts]


@pytest.mark.parametrize("wrapper", ["qwen3_5", "qwen3_5_moe"])
def test_the_text_part_of_its_wrapper_runs(wrapper: str, tmp_path: Path) -> None:
    from transformers import AutoConfig, AutoModelForImageTextToText  # noqa: PLC0415  (takes seconds)

    _, text = CASES[f"{wrapper}_text"]
    vision = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 32}
    torch.manual_seed(0)
    config = AutoConfig.for_model(wrapper, text_config=text, vision_config=vision, image_token_id=1, video_token_id=2)
    reference = AutoModelForImageTextToText.from_config(config).eval()
    reference.save_pretrained(tmp_path)
    engine = load_engine(Checkpoint.open(tmp_path), dtype="float32", device="cpu")
    ids = random_ids(30).clamp(min=5)  # none that stands for an image
    with torch.inference_mode():
        expected = reference(input_ids=ids).logits
    assert_close(as_tensor(engine.forward(ids.tolist(), None, last=None)), expected)


@pytest.mark.parametrize("family", ["qwen3_5_moe_text", "qwen3_next"])
def test_what_releases_hold_for_drafting_is_named_and_left_alone(family: str, tmp_path: Path) -> None:
    plain = save(tmp_path, *CASES[family]).num_parameters()
    file = tmp_path / "model.safetensors"
    drafts = {"mtp.fc.weight": torch.ones(32, 64), "mtp.layers.0.mlp.experts.0.up_proj.weight": torch.ones(20, 32)}
    save_file({**load_file(file), **drafts}, file, {"format": "pt"})
    done = shell.generate("-m", str(tmp_path), "The fox", "-n", "2")
    assert done.returncode == 0, done.stderr
    assert b"mtp" not in done.stderr
    facts = json.loads(shell.tokenglass("inspect", str(tmp_path), "--json").stdout)
    assert facts["other_parts"] == {"mtp": {"tensors": 2, "nbytes": 4 * (32 * 64 + 20 * 32)}}
    assert facts["parameters"] == plain
    assert b"mtp (2 tensors" in shell.tokenglass("inspect", str(tmp_path)).stdout


@pytest.mark.parametrize("command", [("flow",), ("generate", "--flow", "--ignore-eos")])
def test_flow_refuses_it_in_one_line_that_says_what_shows_its_choices(folder: Path, command: tuple[str, ...]) -> None:
    text = ("-m", str(folder), "The fox and the hen", "-n", "2")
    done = shell.tokenglass(*command, *text)
    shell.assert_one_line_error(done, 2, "generate --stages shows how each token was chosen")
    instead = shell.tokenglass("generate", "--stages", "--ignore-eos", *text)
    assert instead.returncode == 0, instead.stderr
