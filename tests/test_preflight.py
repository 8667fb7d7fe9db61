"""A model that does not fit in memory is refused before it is loaded, with the numbers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import tiny

from model.checkpoint import Checkpoint
from model.errors import EngineError
from model.loading import load_model
from model.preflight import available_memory, check_memory

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
    cache = 100 * tiny.CONFIG.cache_bytes_per_token("float32")
    check_memory(checkpoint, "float32", 100, weights + cache)
    check_memory(checkpoint, "float32", 100, None)
    check_memory(checkpoint, "bfloat16", 100, (weights + cache) // 2)
    for available in (weights + cache - 1, weights - 1, 0):
        with pytest.raises(EngineError, match=r"need 0 MiB, and 0 MiB are free; try .*a smaller model"):
            check_memory(checkpoint, "float32", 100, available)


def test_positions_beyond_the_context_are_not_counted(saved_checkpoint: Path) -> None:
    checkpoint = Checkpoint.open(saved_checkpoint)
    full = checkpoint.num_parameters * 4 + 256 * tiny.CONFIG.cache_bytes_per_token("float32")
    check_memory(checkpoint, "float32", 10**9, full)


def test_loading_asks_first(saved_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("model.loading.available_memory", lambda: 1000)
    with pytest.raises(EngineError, match="not enough memory"):
        load_model(saved_checkpoint, device="cpu")


def write(root: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
