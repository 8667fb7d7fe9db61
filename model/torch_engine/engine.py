"""What decoding needs of a model, and the engine that runs one with torch on this machine."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from tokenglass.model.checkpoint.folder import Checkpoint
from tokenglass.model.checkpoint.headers import TensorInfo
from tokenglass.model.checkpoint.layouts import EMBEDDING, HEAD, stored_tensors
from tokenglass.model.config.config import ModelConfig
from tokenglass.model.engine.cache import KVCache
from tokenglass.model.engine.processors import usable_processors
from tokenglass.model.errors import CheckpointError, EngineError, ParameterError, PromptError, first_line
from tokenglass.model.sampling.raw import Measure, Raw
from tokenglass.model.torch_engine.transformer import Transformer

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

Watch = Callable[[Iterator[tuple[str, Tensor]]], Iterator[tuple[str, Tensor]]]  # a filter over weights being read


class Engine(Protocol):
    """The one protocol that decoding talks to."""

    @property
    def limit(self) -> int:
        """Positions that fit in the context."""

    @property
    def vocab_size(self) -> int:
        """Logits per position, which are as many as there are token ids that can be computed from."""

    @property
    def measure(self) -> Measure:
        """The way from one position's logits to what a sampler asks of them."""

    def new_cache(self, rows: int = 1, *, planned_length: int | None = None) -> KVCache:
        """An empty cache for `rows` sequences of at most `planned_length` positions (None: the limit).

        Some ropes choose their factors by that length; it is no bound.
        """

    def forward(
        self,
        token_ids: Tensor,
        cache: KVCache | None,
        *,
        last: bool = True,
        planned_length: int | None = None,
        block: int = 0,
    ) -> Tensor:
        """Logits (rows, 1, vocab) after the last of `token_ids` (rows, length), or of all of them, on the CPU.

        With a cache, the ids continue its rows and are added to it, and the planned length is the cache's; without
        one and without `planned_length` it is the number of ids. The last `block` ids see each other.
        Raises PromptError for an id without a row in the embedding: a tokenizer may have more tokens than the model.
        """


class LocalEngine:
    """A transformer in this process."""

    measure = staticmethod(Raw.of)

    def __init__(self, model: Transformer, device: torch.device, dtype: torch.dtype, notes: tuple[str, ...] = ()):
        """`notes` say what of the checkpoint is not used."""
        self.model = model
        self.notes = notes
        self.device = device
        self.dtype = dtype

    @property
    def limit(self) -> int:
        return self.model.config.max_positions

    @property
    def vocab_size(self) -> int:
        return self.model.config.vocab_size

    def new_cache(self, rows: int = 1, *, planned_length: int | None = None) -> KVCache:
        return KVCache(
            self.model.config,
            rows=rows,
            limit=self.limit,
            dtype=self.dtype,
            device=self.device,
            planned_length=planned_length,
        )

    def forward(
        self,
        token_ids: Tensor,
        cache: KVCache | None,
        *,
        last: bool = True,
        planned_length: int | None = None,
        block: int = 0,
    ) -> Tensor:
        check_ids(token_ids, self.vocab_size)
        try:
            with torch.inference_mode():
                logits = self.model(
                    token_ids.to(self.device), cache, last=last, planned_length=planned_length, block=block
                )
                return logits.float().cpu()
        except torch.OutOfMemoryError:
            raise EngineError(f"{self.device} is out of memory; try a shorter prompt or --device cpu") from None


def check_ids(token_ids: Tensor, rows: int) -> None:
    """Raises PromptError for a token id that has no row in the embedding."""
    highest = int(token_ids.max())
    if highest >= rows:
        raise PromptError(
            f"the text holds token {highest:,}, which the tokenizer has and the model has not (its embedding ends at "
            f"{rows - 1:,}); leave that token out"
        )


def load_engine(checkpoint: Checkpoint, *, dtype: str, device: str, watch: Watch | None = None) -> LocalEngine:
    """Build the model without memory, audit the headers, then put the mapped weights in place.

    Weights whose dtype is already right stay memory-mapped on a CPU. `watch` sees each tensor as it is read.
    Raises CheckpointError, ParameterError.
    """
    target = pick_device(device)
    layers, tensors = checkpoint.config.num_layers, len(checkpoint.tensors)
    if layers > tensors:  # an absurd number must not even be built without memory
        raise CheckpointError(
            f"{checkpoint.folder}: the weights do not fit config.json; {layers} layers, but only {tensors} tensors"
        )
    model, tied = blank(checkpoint.config), checkpoint.config.tie_word_embeddings
    present = {info.name for info in checkpoint.tensors}
    shapes = {name: tuple(parameter.shape) for name, parameter in model.state_dict().items()}
    layout = {stored.name: stored for stored in stored_tensors(checkpoint.config, shapes, present)}
    ends = [name for name, stored in layout.items() if tied and not {HEAD, EMBEDDING}.isdisjoint(stored.parts)]
    if not present.isdisjoint(ends):  # one of the two is enough
        layout = {name: stored for name, stored in layout.items() if name in present or name not in ends}
    checkpoint.audit({name: stored.shape for name, stored in layout.items()})
    reading = read_weights(checkpoint, layout.keys(), DTYPES[dtype], target)
    weights: dict[str, Tensor] = {}
    for name, tensor in watch(reading) if watch is not None else reading:
        weights.update(layout[name].cut(tensor))
    notes = [checkpoint.unread(layout.keys())]
    if tied and {HEAD, EMBEDDING} <= weights.keys() and not same(weights[HEAD], weights[EMBEDDING]):
        notes.append("config.json ties the head to the embedding, but the weights hold two; both are used")
        model = blank(replace(checkpoint.config, tie_word_embeddings=False))
    elif tied:
        weights[HEAD] = weights[EMBEDDING] = weights.get(EMBEDDING, weights.get(HEAD, torch.empty(0)))
    model.load_state_dict(weights, assign=True)
    ready = model.eval().requires_grad_(False)
    return LocalEngine(ready, target, DTYPES[dtype], tuple(note for note in notes if note is not None))


def same(first: Tensor, second: Tensor) -> bool:
    """Bit for bit, NaN too."""
    return torch.equal(first.view(torch.uint8), second.view(torch.uint8))


def blank(config: ModelConfig) -> Transformer:
    """A model without memory, its weights to be put in place."""
    with torch.device("meta"):
        return Transformer(config)


def read_weights(
    checkpoint: Checkpoint, names: Collection[str], dtype: torch.dtype | None, device: torch.device
) -> Iterator[tuple[str, Tensor]]:
    """The tensors of these names, in the order of the files; without a dtype as they are stored."""
    by_file: dict[Path, list[TensorInfo]] = {}
    for info in checkpoint.tensors:
        if info.name not in names:
            continue
        by_file.setdefault(info.file, []).append(info)
    for file, infos in by_file.items():
        try:
            with safe_open(file, framework="pt") as opened:
                for info in infos:
                    yield info.name, opened.get_tensor(info.name).to(device=device, dtype=dtype)
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{file}: damaged or incomplete ({first_line(error)})") from None


def pick_device(name: str) -> torch.device:
    """The device of that name; auto takes cuda, then mps, then the CPU. Raises ParameterError."""
    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(device for device, there in present.items() if there)
    if not present.get(name, False):
        raise ParameterError(
            f"device {name} is not there; this machine has {', '.join(d for d, p in present.items() if p)}"
        )
    return torch.device(name)


def set_threads(count: int | None) -> int:
    """Use `count` CPU threads (None: torch's own choice, but no more than may run at once); how many there are."""
    usable = usable_processors()
    torch.set_num_threads(min(torch.get_num_threads(), usable) if count is None else min(count, 4 * usable))
    return torch.get_num_threads()
