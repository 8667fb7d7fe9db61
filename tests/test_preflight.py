"""A model that does not fit in memory is refused before it is loaded, with the numbers."""

from __future__ import annotations

import math
import shutil
import weakref
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny

from tokenglass.cli.app import generate_app
from tokenglass.model.checkpoint.folder import Checkpoint
from tokenglass.model.config.config import ModelConfig
from tokenglass.model.config.layer_kinds import LayerKind
from tokenglass.model.engine.cache import KVCache
from tokenglass.model.engine.keys_values import Storage
from tokenglass.model.engine.memory import Caches, available_memory, check_memory
from tokenglass.model.errors import EngineError
from tokenglass.model.loading import load_model
from tokenglass.model.text.tokenizer import Tokenizer

MEMINFO = "MemTotal:       16000 kB\nMemFree:        100 kB\nMemAvailable:   8000 kB\nHugePages_Total:       0\n"
V2, V1 = "0::/a/b\n", "12:cpu:/x\n5:memory:/a\n1:name=systemd:/y\n"
STAT = "anon 500\nactive_file 200\ninactive_file 300\ntotal_active_file 1\ntotal_inactive_file 2\n"


@pytest.mark.parametrize(
    ("files", "available"),
    [
        ({}, None),
        ({"proc/meminfo": "nonsense"}, None),
        ({"proc/meminfo": MEMINFO}, 8000 * 1024),
        ({"proc/meminfo": MEMINFO, "proc/self/cgroup": V2}, 8000 * 1024),
        ({"proc/meminfo": MEMINFO, "proc/self/cgroup": "::\nx\n"}, 8000 * 1024),
        ({"a/b/memory.max": "max\n", "a/b/memory.current": "7\n"}, 8000 * 1024),
        ({"a/b/memory.max": "5000\n", "a/b/memory.current": "1000\n"}, 4000),
        ({"a/b/memory.max": "5000\n", "a/b/memory.current": "1000\n", "a/b/memory.stat": STAT}, 4500),
        ({"a/memory.max": "5000\n", "a/memory.current": "6000\n"}, 0),
        ({"memory.max": "3000\n", "memory.current": "1000\n"}, 2000),
    ],
)
def test_the_least_of_all_limits_counts(files: Mapping[str, str], available: int | None, tmp_path: Path) -> None:
    if not files or any(name.startswith("proc") for name in files):
        write(tmp_path, files)
    else:
        inside = {f"sys/fs/cgroup/{name}": text for name, text in files.items()}
        write(tmp_path, {"proc/meminfo": MEMINFO, "proc/self/cgroup": V2, **inside})
    assert available_memory(tmp_path) == available


def test_version_1_of_cgroups_is_read_too(tmp_path: Path) -> None:
    top = "sys/fs/cgroup/memory"
    numbers = {f"{top}/a/memory.limit_in_bytes": "900", f"{top}/a/memory.usage_in_bytes": "300"}
    write(tmp_path, {"proc/meminfo": MEMINFO, "proc/self/cgroup": V1, **numbers, f"{top}/a/memory.stat": STAT})
    assert available_memory(tmp_path) == 900 - 300 + 3


def test_this_machine_has_memory() -> None:
    available = available_memory()
    assert available is None or available > 2**20


def test_weights_and_cache_are_weighed_against_it(saved_checkpoint: Path) -> None:
    checkpoint = Checkpoint.open(saved_checkpoint)
    weights = checkpoint.num_parameters * 4
    cache = (128 + 64) * tiny.CONFIG.cache_bytes_per_token("float32")  # the old storage is there until the new is full
    check_memory(checkpoint, "float32", "float32", Caches(100), weights + cache)
    check_memory(checkpoint, "float32", "float32", Caches(100), None)
    check_memory(checkpoint, "bfloat16", "bfloat16", Caches(100), (weights + cache) // 2)
    for available in (weights + cache - 1, weights - 1, 0):
        with pytest.raises(EngineError, match=r"need 0 MiB, and 0 MiB are free; try .*a smaller model"):
            check_memory(checkpoint, "float32", "float32", Caches(100), available)


def test_positions_beyond_the_context_are_not_counted(saved_checkpoint: Path) -> None:
    checkpoint = Checkpoint.open(saved_checkpoint)
    full = checkpoint.num_parameters * 4 + (256 + 128) * tiny.CONFIG.cache_bytes_per_token("float32")
    check_memory(checkpoint, "float32", "float32", Caches(10**9), full)


def test_loading_asks_first(saved_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tokenglass.model.loading.available_memory", lambda: 1000)
    with pytest.raises(EngineError, match="not enough memory"):
        load_model(saved_checkpoint, device="cpu")


WINDOWED = replace(tiny.CONFIG, max_positions=2048, layers=(LayerKind(rope=None, window=24), *tiny.CONFIG.layers))


@pytest.mark.parametrize("config", [replace(tiny.CONFIG, max_positions=2048), WINDOWED], ids=["plain", "windowed"])
@pytest.mark.parametrize("length", [1, 64, 65, 300, 1025, 2048])
def test_the_worst_moment_is_that_of_the_real_cache(config: ModelConfig, length: int) -> None:
    stores: list[np.ndarray] = []
    peaks = [0]

    def zeros(shape: tuple[int, ...]) -> np.ndarray:
        peaks.append(4 * math.prod(shape) + sum(store.nbytes for store in stores))
        return np.zeros(shape, np.float32)

    cache = KVCache(config, limit=2048, storage=Storage(zeros))
    for _ in range(length):
        stores[:] = [state.array for state in cache.rows[0].states]
        cache.reserve([1])
        cache.advance([[1]], [0])
    held = cache.usage().nbytes_held
    assert max(peaks) <= Caches(length).nbytes(config, "float32") <= max(peaks) + held / 2


@pytest.mark.parametrize("chunk", [None, 32], ids=["copied", "shared"])
@pytest.mark.parametrize("config", [replace(tiny.CONFIG, max_positions=2048), WINDOWED], ids=["plain", "windowed"])
def test_rows_that_branch_grow_and_end_are_never_more_than_promised(config: ModelConfig, chunk: int | None) -> None:
    """As samples and beams do it: one row becomes four, later two of them are each there twice."""
    alive: list[weakref.ref[Watched]] = []
    peaks = [0]

    def zeros(shape: tuple[int, ...]) -> Watched:
        array = np.zeros(shape, np.float32).view(Watched)
        alive.append(weakref.ref(array))
        peaks.append(sum(store.nbytes for known in alive if (store := known()) is not None))
        return array

    cache = KVCache(config, limit=2048, storage=Storage(zeros, chunk=chunk))
    for length in range(300):
        if length == 100:
            cache.select([0] * 4)
        if length == 250:
            cache.select([3, 1, 1, 3])
        cache.reserve([1] * len(cache.rows))
        cache.advance([[1]] * len(cache.rows), [0] * len(cache.rows))
    promised = Caches(300, 4).nbytes(config, "float32")
    held = sum(cache.usage(row).nbytes_held for row in range(4))
    assert max(peaks) <= promised <= (held if chunk is None else 2 * held) * 1.5


class Watched(np.ndarray):
    """An array that can be watched."""

    def __array_finalize__(self, _: object) -> None: ...


def test_a_negative_prompt_and_another_model_count(saved_checkpoint: Path) -> None:
    checkpoint = Checkpoint.open(saved_checkpoint)
    plain, negative = Caches(256), Caches(256, 1, 256)
    assert negative.nbytes(tiny.CONFIG, "float32") == 2 * plain.nbytes(tiny.CONFIG, "float32")
    available = checkpoint.num_parameters * 4 + plain.nbytes(tiny.CONFIG, "float32")
    check_memory(checkpoint, "float32", "float32", plain, available)
    for caches in (negative, Caches(256, 2), replace(plain, beside=1)):
        with pytest.raises(EngineError, match="not enough memory"):
            check_memory(checkpoint, "float32", "float32", caches, available)
    with pytest.raises(EngineError, match=r"of 3 texts.*try fewer texts"):
        check_memory(checkpoint, "float32", "float32", Caches(256, 3), available)


@pytest.mark.parametrize(
    ("options", "rows"),
    [
        ((), 1),
        (("--num-samples", "3"), 3),
        (("--beams", "4"), 4),
        (("--negative", "The sad fox was", "--guidance", "2"), 1),
        (("--chat",), 1),
        (("--chat", "--system", "Be brief"), 1),
    ],
)
def test_what_is_weighed_is_what_runs(
    options: tuple[str, ...],
    rows: int,
    saved_checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = Path(shutil.copytree(saved_checkpoint, tmp_path / "model"))
    template = "{% for m in messages %}[{{ m.role }}] {{ m.content }} {% endfor %}[assistant]"
    (folder / "chat_template.jinja").write_text(template)
    caches = weigh(monkeypatch, "-m", str(folder), "The fox", "-n", "10", *options)
    assert caches.rows == rows
    tokenizer = Tokenizer.from_folder(folder)
    messages = [("system", "Be brief")] * ("--system" in options) + [("user", "The fox")]
    chat = "".join(f"[{role}] {content} " for role, content in messages) + "[assistant]"
    prompt = tokenizer.encode_bare(chat) if "--chat" in options else tokenizer.encode("The fox")
    assert caches.length == len(prompt) + 10
    assert caches.negative_length == (len(tokenizer.encode("The sad fox was")) + 10 if "--negative" in options else 0)


def weigh(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Caches:
    """What `generate` weighs beside the weights."""
    weighed: list[Caches] = []

    def check(_checkpoint: Checkpoint, _weights: str, _cache: str, caches: Caches, _available: int | None) -> None:
        weighed.append(caches)
        raise EngineError("weighed")

    monkeypatch.setattr("tokenglass.model.loading.check_memory", check)
    with pytest.raises(EngineError, match="weighed"):
        generate_app()([*arguments], standalone_mode=False)
    return weighed[0]


def test_a_prompt_that_is_cut_is_weighed_as_it_is_cut(saved_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    caches = weigh(monkeypatch, "-m", str(saved_checkpoint), "fox " * 300, "-n", "10", "--truncate", "left")
    assert caches.length == tiny.CONFIG.max_positions


def test_a_model_that_drafts_is_weighed_with_its_cache(saved_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = str(saved_checkpoint)
    alone = weigh(monkeypatch, "-m", folder, "The fox", "-n", "10")
    drafts = weigh(monkeypatch, "-m", folder, "The fox", "-n", "10", "--mode", "speculative", "--draft-model", folder)
    draft = Checkpoint.open(saved_checkpoint)
    dtype = draft.config.dtype
    assert alone.beside == 0
    assert drafts == replace(alone, beside=draft.nbytes_as(dtype) + alone.nbytes(draft.config, dtype))


def write(root: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
