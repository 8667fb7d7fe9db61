"""Whether a model fits in memory, asked before it is loaded. No torch here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from model.checkpoint import Checkpoint
from model.errors import EngineError

MIB = 2**20


def check_memory(
    checkpoint: Checkpoint, dtype: str, length: int, available: int | None, quantize: str = "none"
) -> None:
    """Raises EngineError where weights and the cache of `length` positions need more than the bytes available.

    `dtype` is that of the cache, and of the weights where `quantize` is none. None available means that it is not
    known, and nothing is refused.
    """
    config = checkpoint.config
    length = min(length, config.max_positions)
    weights = checkpoint.nbytes_as(dtype if quantize == "none" else quantize)
    cache = config.cache_bytes(length, dtype)
    if available is not None and weights + cache > available:
        advice = "a smaller model" if weights > available else "fewer new tokens, a shorter prompt or a smaller model"
        raise EngineError(
            f"{checkpoint.folder}: not enough memory; weights of {mib(weights)} and a cache of {mib(cache)} for "
            f"{length:,} positions in {dtype} need {mib(weights + cache)}, and {mib(available)} are free; try {advice}"
        )


def mib(nbytes: int) -> str:
    return f"{nbytes / MIB:,.0f} MiB"


def available_memory(root: Path = Path("/")) -> int | None:
    """Bytes that this process may still use: the machine's free memory, or less where a cgroup limits it.

    Memory that only keeps copies of files counts as free, as it is given back on demand. `root` is where proc and sys
    are. None where the system does not tell (anything but Linux).
    """
    machine = fields(root / "proc/meminfo").get("MemAvailable:")
    found = [] if machine is None else [machine * 1024]
    found.extend(room for folder in cgroup_folders(root) if (room := cgroup_room(folder)) is not None)
    return max(0, min(found)) if found else None


def cgroup_folders(root: Path) -> Iterator[Path]:
    """The folders of this process's memory cgroup and of all above it, in version 2 and 1."""
    for line in read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        if controllers not in ("", "memory"):
            continue
        top = root / "sys/fs/cgroup" / controllers
        inner = top / path.lstrip("/")
        yield from (folder for folder in (inner, *inner.parents) if folder.is_relative_to(top))


def cgroup_room(folder: Path) -> int | None:
    """Bytes left under one cgroup's own limit; None where it has none."""
    for limit_file, usage_file, prefix in (
        ("memory.max", "memory.current", ""),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_"),
    ):
        limit, usage = read(folder / limit_file).strip(), read(folder / usage_file).strip()
        if limit.isdigit() and usage.isdigit():
            stat = fields(folder / "memory.stat")
            files = sum(stat.get(f"{prefix}{kind}_file", 0) for kind in ("active", "inactive"))
            return int(limit) - max(0, int(usage) - files)
    return None


def fields(path: Path) -> dict[str, int]:
    """The numbers of a file with one name and number per line."""
    pairs = (line.split() for line in read(path).splitlines())
    return {words[0]: int(words[1]) for words in pairs if len(words) >= 2 and words[1].isdigit()}


def read(path: Path) -> str:
    """A small system file; empty where there is none."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
