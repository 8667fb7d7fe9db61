"""Logits of small random checkpoints of every family, in every kind of weights, from the kernels of this machine.

    python tests/peers/engine_logits.py CHECKPOINTS OUT.npz

CHECKPOINTS is a folder of them. A prompt in chunks and then tokens one by one must have the bits of one whole pass.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[1]))
from families import CASES, SIZES, save
from native_parts import compiled

from tokenglass.model.checkpoint.folder import Checkpoint
from tokenglass.model.checkpoint.quantised import Quantizer
from tokenglass.model.checkpoint.weights import read_weights
from tokenglass.model.native_engine.engine import NativeEngine
from tokenglass.model.progress import finish

Logits = NDArray[np.float32]
CHUNKS = (17, 23, *[1] * 8)
QUANTIZERS = {"int8": Quantizer("int8"), "int4": Quantizer("int4")}
KINDS = ("float32", "bfloat16", *QUANTIZERS)


def save_checkpoints(folder: Path) -> None:
    """One of every case of families.py, written by transformers."""
    for number, case in enumerate(CASES.values()):
        save(folder / f"{number:02} {case[0]}", *case)


def engine_logits(checkpoint: Path, kind: str, *flags: str) -> Logits:
    """Of all positions of a prompt and a few tokens, (positions, vocab)."""
    quantizer = QUANTIZERS.get(kind)
    dtype = "float32" if quantizer else kind
    read = finish(read_weights(Checkpoint.open(checkpoint), dtype=dtype, quantizer=quantizer))
    engine = NativeEngine(read.blueprint, read.weights, compiled(*flags), "float32", 1)
    ids = np.random.default_rng(0).integers(1, SIZES["vocab_size"], sum(CHUNKS)).tolist()
    cache, parts, begin = engine.new_cache(1, planned_length=len(ids)), [], 0
    for count in CHUNKS:
        parts.append(engine.forward([ids[begin : begin + count]], cache, last=None)[0])
        begin += count
    logits: Logits = np.concatenate(parts)
    if not np.array_equal(logits, engine.forward([ids], None, last=None)[0]):
        sys.exit(f"{checkpoint.name}, {kind}: other bits in chunks than in one pass")
    return logits


def all_logits(checkpoints: Path, *flags: str) -> dict[str, Logits]:
    return {
        f"{folder.name}, {kind}": engine_logits(folder, kind, *flags)
        for folder in sorted(checkpoints.iterdir())
        for kind in KINDS
    }


if __name__ == "__main__":
    np.savez(sys.argv[2], **all_logits(Path(sys.argv[1])))
