"""Whether a model fits in memory, asked before it is loaded. No torch here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tokenglass.model.checkpoint.folder import Checkpoint
from tokenglass.model.config.config import SLACK, ModelConfig
from tokenglass.model.config.layer_states import RecurrentState
from tokenglass.model.engine.keys_values import growth, layer_groups
from tokenglass.model.engine.recurrent import MOST_SNAPSHOTS
from tokenglass.model.errors import EngineError

MIB = 2**20


@dataclass(frozen=True, slots=True)
class Caches:
    """What a run keeps beside the weights: a cache of some rows, and one more for a negative prompt.

    `beside` are bytes that another model of the same run will need, whose cache is not there yet.
    """

    length: int = 0
    rows: int = 1
    negative_length: int = 0
    beside: int = 0

    def nbytes(self, config: ModelConfig, dtype: str) -> int:
        """Bytes at the worst moment."""
        lengths = (self.length, self.negative_length)
        return self.beside + sum(cache_peak(config, length, self.rows, dtype) for length in lengths if length)


def cache_peak(config: ModelConfig, length: int, rows: int, dtype: str) -> int:
    """Bytes of a cache that grows to `length` positions, at the worst moment.

    The groups of layers of one row get new storage in turn, and the old is there until it is
    copied. A row that is freed is gone before another is copied.
    """
    held, replaced = snapshot_bytes(config), 0
    for group in layer_groups(config):
        if isinstance(group.state, RecurrentState):
            continue
        window = group.state.window
        most = config.max_positions if window is None else min(config.max_positions, window + 2 * SLACK)
        size = group.state.bytes_per_token(dtype) * len(group.layers)
        before, final = growth(length, most)
        held += size * final
        replaced = max(replaced, size * (final if window is not None and length > most else before))
    return rows * held + replaced


def snapshot_bytes(config: ModelConfig) -> int:
    """Bytes of a row's recurrent states, however long it is: its snapshots, and two more while it goes on."""
    return (MOST_SNAPSHOTS + 2) * sum(state.fixed_bytes for state in config.layer_states.values())


def count_rows(room: int, length: int, limit: int, most: int) -> int:
    """How many rows of `length` positions have storage in `room` positions, at most `most` and at least one."""
    return max(1, min(most, room // growth(length, limit)[1]))


def check_memory(
    checkpoint: Checkpoint, weights_in: str, cache_dtype: str, caches: Caches, available: int | None
) -> None:
    """Raises EngineError where weights and caches need more than the bytes available.

    `weights_in` is a dtype or a quantised format. None available means that it is not known, and nothing is refused.
    """
    config = checkpoint.config
    weights = checkpoint.nbytes_as(weights_in)
    cache = caches.nbytes(config, cache_dtype)
    if available is not None and weights + cache > available:
        length = min(caches.length, config.max_positions)
        texts = f" of {caches.rows:,} texts" if caches.rows > 1 else ""
        fewer = "fewer texts, " if caches.rows > 1 else ""
        advice = "fewer new tokens, a shorter prompt or a smaller model"
        advice = "a smaller model" if weights > available else fewer + advice
        raise EngineError(
            f"{checkpoint.folder}: not enough memory; weights of {mib(weights)} and a cache of {mib(cache)} for "
            f"{length:,} positions{texts} in {cache_dtype} need {mib(weights + cache)}, and {mib(available)} are free; "
            f"try {advice}"
        )


def mib(nbytes: int) -> str:
    return f"{nbytes / MIB:,.0f} MiB"


def available_memory(root: Path = Path("/")) -> int | None:
    """Bytes that this process may still use: the machine's free memory, or less where a cgroup limits it.

    Memory that only keeps copies of files counts as free, as it is given back on demand. `root` is where proc and sys
    are. None where the system does not tell (anything but Linux).
    """
    machine = fields(root / "proc/meminfo").get("MemAvailable:")
    limits = [] if machine is None else [machine * 1024]
    limits.extend(room for folder in cgroup_folders(root) if (room := cgroup_room(folder)) is not None)
    return max(0, min(limits)) if limits else None


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
