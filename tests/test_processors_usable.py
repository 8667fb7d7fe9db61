"""Threads are as many as may run at once: by affinity, and by the quota of a control group of either version."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tokenglass.model.engine.processors import usable_cores, usable_processors
from tokenglass.model.engine.threads import count_threads

NINE = frozenset(range(9))


def write(root: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return root


V2 = {"proc/self/cgroup": "0::/user/job\n"}
V1 = {"proc/self/cgroup": "4:memory:/job\n3:cpu,cpuacct:/docker/job\n0::/\n"}


@pytest.mark.parametrize(
    ("files", "count"),
    [
        ({}, 9),
        (V2, 9),
        ({**V2, "sys/fs/cgroup/user/job/cpu.max": "max 100000\n"}, 9),
        ({**V2, "sys/fs/cgroup/user/job/cpu.max": "200000 100000\n"}, 2),
        ({**V2, "sys/fs/cgroup/user/job/cpu.max": "250000 100000\n"}, 3),
        ({**V2, "sys/fs/cgroup/user/job/cpu.max": "50000 100000\n"}, 1),
        ({**V2, "sys/fs/cgroup/user/job/cpu.max": "9900000 100000\n"}, 9),
        ({**V2, "sys/fs/cgroup/user/cpu.max": "400000 100000\n"}, 4),  # a group above
        ({**V2, "sys/fs/cgroup/cpu.max": "400000 100000\n"}, 4),  # as a container sees its own
        ({"proc/self/cgroup": "0::/../job\n", "sys/fs/cgroup/job/cpu.max": "400000 100000\n"}, 4),
        ({**V2, "sys/fs/cgroup/unified/user/job/cpu.max": "400000 100000\n"}, 4),
        ({**V2, "sys/fs/cgroup/cpu.max": "0 0\n"}, 9),
        ({**V2, "sys/fs/cgroup/cpu.max": "\x00 -1 many\n"}, 9),
        ({"proc/self/cgroup": "::::\n\nnonsense\n"}, 9),
        (V1, 9),
        (
            {
                **V1,
                "sys/fs/cgroup/cpu,cpuacct/docker/job/cpu.cfs_quota_us": "300000\n",
                "sys/fs/cgroup/cpu,cpuacct/docker/job/cpu.cfs_period_us": "100000\n",
            },
            3,
        ),
        (
            {
                **V1,
                "sys/fs/cgroup/cpu,cpuacct/docker/job/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu,cpuacct/docker/job/cpu.cfs_period_us": "100000\n",
            },
            9,
        ),
        ({**V1, "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "150000\n", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "50000\n"}, 3),
    ],
)
def test_a_quota_of_either_version_counts(
    files: dict[str, str], count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: NINE)
    assert usable_processors(write(tmp_path, files)) == count


def test_torch_and_the_kernels_take_no_more_threads_than_may_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tokenglass.model.engine.threads.usable_processors", lambda: 3)
    monkeypatch.setattr("tokenglass.model.engine.threads.usable_cores", lambda: 3)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert count_threads(None) == 3
    assert count_threads(2) == 2
    assert count_threads(5) == 5  # who asks for more gets them
    assert count_threads(500) == 12
    for value, expected in (("1", 1), ("2,1", 2), ("8", 3), ("0", 3), ("many", 3), ("", 3), ("9" * 5000, 3)):
        monkeypatch.setenv("OMP_NUM_THREADS", value)
        assert count_threads(None) == expected
        assert count_threads(2) == 2


def test_threads_of_one_core_count_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 5}, raising=False)
    folder = "sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
    root = write(tmp_path, {folder.format(0): "0,4\n", folder.format(1): "1,5\n", folder.format(5): "1,5\n"})
    assert usable_processors(root) == 4
    assert usable_cores(root) == 3  # of cpu2 the system says nothing


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system binds no process to processors")
def test_affinity_counts() -> None:
    script = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); "
        "from tokenglass.model.engine.processors import usable_processors; print(usable_processors())"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"
