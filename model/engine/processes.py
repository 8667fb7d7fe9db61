"""Several processes that run one model together, as torchrun starts them. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

RANK, SIZE, LOCAL_RANK, ADDRESS = "RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR"  # torchrun's variables


@dataclass(frozen=True, slots=True)
class Processes:
    """The place of this process among `size`. The one of rank 0 leads: it reads, samples and prints."""

    rank: int
    size: int
    local_rank: int = 0  # on this host

    @staticmethod
    def of(environment: Mapping[str, str]) -> Processes | None:
        """None where this process is alone."""
        numbers = [environment.get(name, "") for name in (RANK, SIZE)]
        if ADDRESS not in environment or not all(number.isdecimal() for number in numbers):
            return None
        rank, size = map(int, numbers)
        local = environment.get(LOCAL_RANK, "0")
        return Processes(rank, size, int(local) if local.isdecimal() else rank) if size > 1 else None

    @property
    def leads(self) -> bool:
        return self.rank == 0
