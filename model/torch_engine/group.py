"""One model in several processes: the one that leads sends what each pass needs, and the others follow."""

from __future__ import annotations

import signal
from collections.abc import Generator
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh

from tokenglass.model.checkpoint.folder import Checkpoint
from tokenglass.model.checkpoint.weights import collect_weights, iterate_weights, plan_reading
from tokenglass.model.engine.cache import CacheTail
from tokenglass.model.engine.engine import PerRow
from tokenglass.model.engine.processes import Processes
from tokenglass.model.errors import EngineError, ParameterError, TokenglassError
from tokenglass.model.progress import Progress, finish
from tokenglass.model.torch_engine.engine import DTYPES, TorchEngine
from tokenglass.model.torch_engine.split import Split
from tokenglass.model.torch_engine.storage import TensorCache

PATIENCE = timedelta(days=30)  # a process that is gone shows at once; one that leads may wait for a key

Operation = tuple[Any, ...]  # what became of a cache: its number, the name of the method, and its arguments


@dataclass(frozen=True, slots=True)
class Load:
    """A model to make ready; passes name it by its key."""

    key: str
    folder: Path
    dtype: str
    device: str
    threads: int


@dataclass(frozen=True, slots=True)
class Pass:
    """The arguments of `forward`, behind what was done to caches since the last one."""

    key: str
    operations: tuple[Operation, ...]
    cache: int | None
    token_ids: list[list[int]]
    last: PerRow | None
    planned_length: int | None
    block: PerRow


class Group:
    """The processes that torchrun started, joined at the first call in each of them."""

    def __init__(self, processes: Processes):
        """Raises EngineError where they do not find each other."""
        self.processes = processes
        if not distributed.is_initialized():
            backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
            try:
                distributed.init_process_group(backend, timeout=PATIENCE)
            except (RuntimeError, ValueError) as error:
                raise EngineError(f"the processes do not find each other ({first_words(error)})") from None

    def exchange(self, message: Any = None) -> Any:
        """What the leading process says, in every process. Raises EngineError where one of them is gone."""
        box = [message]
        try:
            distributed.broadcast_object_list(box, src=0, device=torch.device("cpu"))
        except RuntimeError as error:
            raise lost(error) from None
        return box[0]

    def load(self, load: Load) -> Generator[Progress, None, tuple[Split, TorchEngine]]:
        """This process's part of a model. Raises TokenglassError."""
        torch.set_num_threads(load.threads)
        checkpoint = Checkpoint.open(load.folder)
        if checkpoint.quantisation is not None:
            raise ParameterError(f"{load.folder}: quantised weights are not split over processes; run it in one")
        plan = plan_reading(checkpoint)
        split = Split(plan.blueprint, self.processes.rank, self.processes.size)
        parts = iterate_weights(checkpoint, plan, dtype=load.dtype, cut=split.cut)
        weights = yield from collect_weights(parts, checkpoint.nbytes_as(load.dtype) // self.processes.size)
        device = torch.device("cuda", self.processes.local_rank) if load.device == "cuda" else torch.device(load.device)
        mesh = init_device_mesh(device.type, (self.processes.size,))
        model = split.transformer(weights, mesh, device)
        return split, PartEngine(model, device, DTYPES[load.dtype], split)

    def end(self) -> None:
        """Let the others go. Nobody is waited for who is gone."""
        with suppress(EngineError):
            self.exchange()
            self.part()

    def part(self) -> None:
        """Wait until all have heard that it is over: a connection must not end before it has said so.

        The group is not taken apart, and a process has to leave by `os._exit`: torch's threads abort one that is
        taken apart while they run.
        """
        with suppress(RuntimeError):
            distributed.barrier()


class PartEngine(TorchEngine):
    """This process's part of a model: a pass is made in all processes at the same time."""

    def __init__(self, model: Any, device: torch.device, dtype: torch.dtype, split: Split):
        super().__init__(model, device, dtype)
        self.split = split

    def new_cache(self, rows: int = 1, *, planned_length: int | None = None) -> TensorCache:
        """With the heads of this process."""
        config, limit = self.split.config, self.limit
        return TensorCache(
            config, rows=rows, limit=limit, dtype=self.dtype, device=self.device, planned_length=planned_length
        )


def follow(processes: Processes) -> None:
    """Make each pass of the leading process with it, until it ends. Raises TokenglassError."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who leads stops softly
    engines: dict[str, TorchEngine] = {}
    caches: dict[tuple[str, int], TensorCache] = {}
    tails: dict[int, CacheTail] = {}
    group = Group(processes)
    while (message := group.exchange()) is not None:
        if isinstance(message, Load):
            _, engines[message.key] = finish(group.load(message))
            continue
        engine = engines[message.key]
        for operation in message.operations:
            apply(engine, message.key, operation, caches, tails)
        cache = None if message.cache is None else caches[message.key, message.cache]
        try:
            engine.forward(
                message.token_ids, cache, last=message.last, planned_length=message.planned_length, block=message.block
            )
        except TokenglassError:
            pass  # the leading process has it too
        except RuntimeError as error:
            raise lost(error) if is_of_group(error) else error from None
    group.part()


def apply(
    engine: TorchEngine,
    key: str,
    operation: Operation,
    caches: dict[tuple[str, int], TensorCache],
    tails: dict[int, CacheTail],
) -> None:
    """Do to a cache of this process what was done to the leading one's."""
    match operation:
        case (number, "new", rows, planned_length):
            caches[key, number] = engine.new_cache(rows, planned_length=planned_length)
        case (number, "drop"):
            caches.pop((key, number), None)
        case (number, "drop tail"):
            tails.pop(number, None)
        case (number, "detach", row, start, tail):
            tails[tail] = caches[key, number].detach(row, start)
        case (number, "attach", row, tail):
            caches[key, number].attach(row, tails[tail])
        case (number, name, *arguments):
            getattr(caches[key, number], name)(*arguments)


def dismiss(processes: Processes) -> None:
    """Let the others go, also where the leading process ends before it has loaded a model."""
    with suppress(EngineError):
        Group(processes).end()


def is_of_group(error: Exception) -> bool:
    """Whether it is about other processes."""
    return "gloo" in str(error) or isinstance(error, distributed.DistError)


def lost(error: Exception) -> EngineError:
    return EngineError(f"a process of the group is gone ({first_words(error)}); start them all again")


def first_words(error: Exception) -> str:
    """Of a library's message, which may have many lines."""
    return str(error).partition("\n")[0][:120]
