"""Run by torchrun in each process: what a split model computes for some folders, written by the one that leads.

python -m torch.distributed.run --nproc-per-node 2 tests/split_ranks.py logits FOLDER...
python -m torch.distributed.run --nproc-per-node 2 tests/split_ranks.py sizes FOLDER
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch.distributed.tensor import DTensor

from tokenglass.model.engine.engine import Engine, Logits
from tokenglass.model.engine.processes import Processes
from tokenglass.model.loading import load_model
from tokenglass.model.progress import finish
from tokenglass.model.torch_engine.group import Group, Load, dismiss, follow


def passes(engine: Engine, ids: list[int]) -> Iterator[Logits]:
    """The logits of passes over a cache whose rows come, go, are copied, cut back, and put together again."""
    half, planned = len(ids) // 2, len(ids) + 8
    cache = engine.new_cache(1, planned_length=planned)
    yield from engine.forward([ids[:half]], cache, last=None)
    cache.select([0, 0])
    yield from engine.forward([ids[half:], ids[:3]], cache, last=None)
    tail = cache.detach(1, half)
    yield from engine.forward([(), ids[3:5]], cache, last=None)
    cache.truncate(1, half)
    cache.attach(1, tail)
    cache.add_row(planned)
    yield from engine.forward([ids[:2], ids[4:6], ids[:4]], cache, last=2)
    cache.free_row(0)
    yield from engine.forward([ids[5:7], ids[:1]], cache, last=None, block=[2, 1])
    yield from engine.forward([ids], None, last=None)


def write_logits(folders: list[str]) -> None:
    for folder in folders:
        engine = load_model(Path(folder), dtype="float32", device="cpu", backend="auto").engine
        rows = passes(engine, [(7 * place) % (engine.vocab_size - 1) for place in range(1, 19)])
        count = getattr(engine, "processes", 1)
        np.savez(Path(folder) / f"logits{count}.npz", *(part for part in rows if len(part)))


def write_sizes(processes: Processes, folder: str) -> None:
    """Bytes of this process's weights and cache, in a file of its own."""
    _, engine = finish(Group(processes).load(Load("", Path(folder), "bfloat16", "cpu", 1)))
    cache = engine.new_cache()
    engine.forward([range(1, 65)], cache)
    weights = {
        tensor.untyped_storage().data_ptr(): tensor.nbytes
        for parameter in engine.model.parameters()
        for tensor in [parameter.to_local() if isinstance(parameter, DTensor) else parameter]
    }
    sizes = {"weights": sum(weights.values()), "cache": cache.usage().nbytes_held}
    (Path(folder) / f"sizes{processes.rank}.json").write_text(json.dumps(sizes))


if __name__ == "__main__":
    what, *folders = sys.argv[1:]
    processes = Processes.of(os.environ)
    torch.set_num_threads(1)
    if what == "sizes":
        assert processes is not None
        write_sizes(processes, *folders)
        Group(processes).part()
        os._exit(0)
    elif processes is None or processes.leads:
        write_logits(folders)
        if processes is not None:
            dismiss(processes)
            os._exit(0)  # see Group.part
    else:
        follow(processes)
        os._exit(0)
