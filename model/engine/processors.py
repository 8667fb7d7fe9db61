"""How many processors this process may keep busy. No torch here."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

QUOTAS = ("cpu.cfs_quota_us", "cpu.cfs_period_us")  # of the first version of control groups


def usable_processors(root: Path = Path("/")) -> int:
    """Those that the system lets this process run on, or fewer where a control group allows less time, as in a
    container. `root` is where proc and sys lie."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([count, *(math.ceil(quota) for quota in quotas(root))]))


def usable_cores(root: Path = Path("/")) -> int:
    """Of the usable processors, those that share no core with another: two threads of one core compute no faster."""
    usable = usable_processors(root)
    if not hasattr(os, "sched_getaffinity"):
        return usable
    topology = root / "sys/devices/system/cpu"
    cores = set()
    for number in os.sched_getaffinity(0):
        siblings = lines(topology / f"cpu{number}/topology/thread_siblings_list")
        cores.add(siblings[0] if siblings else str(number))
    return min(usable, len(cores))


def quotas(root: Path) -> Iterator[float]:
    """Processors' worth of time that each control group of this process, and each above it, allows.

    (Linux, admin-guide/cgroup-v2 and scheduler/sched-bwc: a quota in microseconds, and the period that it is for.)
    """
    for group in control_groups(root):
        for numbers in (words(group / "cpu.max"), [word for name in QUOTAS for word in words(group / name)]):
            match numbers:
                case [quota, period] if quota.isdecimal() and period.isdecimal() and int(quota) and int(period):
                    yield int(quota) / int(period)


def control_groups(root: Path) -> Iterator[Path]:
    """The folders of this process's control groups, of both versions, and of those above them."""
    mounts = root / "sys/fs/cgroup"
    for line in lines(root / "proc/self/cgroup"):
        number, controllers, path = [*line.split(":", 2), "", ""][:3]
        if number != "0" and "cpu" not in controllers.split(","):
            continue
        inside = PurePosixPath(*(part for part in PurePosixPath(path).parts if part not in ("/", "..")))
        for mount in (mounts, mounts / "unified") if number == "0" else (mounts / controllers, mounts / "cpu"):
            for folder in (inside, *inside.parents):
                yield mount / folder


def lines(file: Path) -> list[str]:
    try:
        return file.read_text(errors="replace").splitlines()
    except OSError:
        return []


def words(file: Path) -> list[str]:
    return [word for line in lines(file) for word in line.split()]
