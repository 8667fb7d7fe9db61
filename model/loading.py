"""A checkpoint folder made ready to generate: weights, tokenizer and what they recommend."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from model.checkpoint import Checkpoint
from model.config import DTYPE_BYTES
from model.engine import LocalEngine, Watch, load_engine, pick_device
from model.errors import TokenizerError
from model.preflight import available_memory, check_memory
from model.store import bundled_folder, name_of
from model.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class LoadedModel:
    name: str
    checkpoint: Checkpoint
    tokenizer: Tokenizer
    engine: LocalEngine
    dtype: str
    device: str

    @property
    def eos_token_ids(self) -> frozenset[int]:
        """End tokens of generation_config.json, config.json and the tokenizer together."""
        return frozenset((*self.checkpoint.eos_token_ids, *self.tokenizer.eos_token_ids))

    @property
    def tokenizer_fingerprint(self) -> str:
        return hashlib.sha256((self.checkpoint.folder / "tokenizer.json").read_bytes()).hexdigest()


def load_model(
    folder: Path,
    *,
    dtype: str = "auto",
    device: str = "auto",
    watch: Callable[[int], Watch | None] = lambda _: None,
    length: Callable[[Tokenizer], int] = lambda _: 0,
) -> LoadedModel:
    """Open, audit and load a checkpoint. Raises TokenglassError of the kind that fits.

    dtype auto is float32 for the bundled model on a CPU, which is fastest there, else the checkpoint's own.
    `watch` gets the bytes to make and may return a filter that sees each tensor as it is read. `length` says how many
    positions the cache will hold: where they and the weights do not fit in memory, nothing is loaded.
    """
    checkpoint = Checkpoint.open(folder)
    tokenizer = Tokenizer.from_folder(folder)
    if tokenizer.vocab_size > checkpoint.config.vocab_size:
        raise TokenizerError(
            f"{folder}: the tokenizer has {tokenizer.vocab_size:,} tokens, the model only "
            f"{checkpoint.config.vocab_size:,}; they do not belong together"
        )
    target = pick_device(device)
    if dtype == "auto":
        bundled = folder.resolve() == bundled_folder().resolve()
        dtype = "float32" if bundled and target.type == "cpu" else checkpoint.config.dtype
    free = torch.cuda.mem_get_info(target)[0] if target.type == "cuda" else available_memory()
    check_memory(checkpoint, dtype, length(tokenizer), free)
    watched = watch(checkpoint.num_parameters * DTYPE_BYTES[dtype])
    engine = load_engine(checkpoint, dtype=dtype, device=target.type, watch=watched)
    return LoadedModel(name_of(folder), checkpoint, tokenizer, engine, dtype, target.type)
