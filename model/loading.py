"""A checkpoint folder made ready to generate: weights, tokenizer and what they recommend."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from tokenglass.model.checkpoint.arrays import Array, Empty
from tokenglass.model.checkpoint.folder import Checkpoint
from tokenglass.model.checkpoint.quantised import QuantizedWeight, quantize_int4, quantize_int8
from tokenglass.model.checkpoint.quantised_layout import Format
from tokenglass.model.checkpoint.store import bundled_folder, name_of, sha256_of
from tokenglass.model.checkpoint.weights import Watch, read_weights
from tokenglass.model.engine.devices import may_have_gpu
from tokenglass.model.engine.large_pages import Arena
from tokenglass.model.engine.memory import Caches, available_memory, check_memory
from tokenglass.model.engine.threads import count_threads
from tokenglass.model.errors import EngineError, ParameterError
from tokenglass.model.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from tokenglass.model.native_engine.engine import NativeEngine
    from tokenglass.model.torch_engine.engine import TorchEngine

Quantize = Literal["none", Format]
Backend = Literal["auto", "native", "torch"]


@dataclass(frozen=True, slots=True)
class LoadedModel:
    name: str
    checkpoint: Checkpoint
    tokenizer: Tokenizer
    engine: TorchEngine | NativeEngine
    backend: Literal["native", "torch"]  # who computes
    threads: int
    dtype: str  # of the cache, and of the weights where they are not quantised
    device: str
    quantize: Quantize = "none"
    notes: tuple[str, ...] = ()  # what the user should know: what of the checkpoint is not used, who computes and why

    @property
    def eos_token_ids(self) -> frozenset[int]:
        """End tokens that the checkpoint names for generating; the tokenizer's own only where it names none."""
        return self._possible(self.checkpoint.eos_token_ids or self.tokenizer.eos_token_ids)

    @property
    def turn_end_ids(self) -> frozenset[int]:
        """End tokens in a chat: the tokenizer's own as well, which templates write behind every turn."""
        return self._possible((*self.checkpoint.eos_token_ids, *self.tokenizer.eos_token_ids))

    def _possible(self, token_ids: Iterable[int]) -> frozenset[int]:
        return frozenset(token_id for token_id in token_ids if token_id < self.checkpoint.config.vocab_size)

    @property
    def tokenizer_fingerprint(self) -> str:
        return sha256_of(self.checkpoint.folder / "tokenizer.json")


def load_model(
    folder: Path,
    *,
    dtype: str = "auto",
    device: str = "auto",
    quantize: Quantize = "none",
    backend: Backend = "torch",
    threads: int | None = None,
    watch: Callable[[int], Watch | None] = lambda _: None,
    caches: Callable[[Tokenizer], int | Caches] = lambda _: 0,
) -> LoadedModel:
    """Open, audit and load a checkpoint. Raises TokenglassError of the kind that fits.

    dtype auto is float32 for the bundled model on a CPU, which is fastest there, else the checkpoint's own.
    `quantize` makes int8 or int4 of the weights as they are read; what `tokenglass quantize` stored is loaded as it is.
    Both compute in float32, whatever the checkpoint's dtype; a dtype given with them is that of the native cache.
    Gemma 2 and 3 overflow in float16: a checkpoint of that dtype is computed in float32.
    `backend` auto is native on a CPU whose kernels can be had, else torch with the reason in `notes`; torch is
    imported only where it is needed. `threads` None is one for each core that this process may use.
    `watch` gets the bytes to make and may return a filter that sees each tensor as it is read. `caches` says what
    the run will keep, or how many positions of one cache: where that and the weights do not fit, nothing is loaded.
    """
    checkpoint = Checkpoint.open(folder)
    tokenizer = Tokenizer.from_folder(folder)
    target, free = settle_device(device)
    quantize = settle_quantize(checkpoint, quantize)
    if quantize != "none" and backend == "torch" and dtype not in ("auto", "float32"):
        raise ParameterError(f"--dtype {dtype} is not for {quantize} weights, which torch computes with in float32")
    notes = list(checkpoint.config.notes)
    if checkpoint.config.overflows_float16 and dtype == "float16":
        raise ParameterError(
            f"--dtype float16 is too narrow for {checkpoint.config.model_type}; try bfloat16 or float32"
        )
    if dtype == "auto":
        bundled = folder.resolve() == bundled_folder().resolve()
        on_cpu = bundled and target == "cpu"
        dtype = "float32" if on_cpu or quantize != "none" else checkpoint.config.dtype
        if checkpoint.config.overflows_float16 and dtype == "float16":
            dtype = "float32"
            notes.append(f"computed in float32: {checkpoint.config.model_type} overflows the checkpoint's float16")
    check_memory(checkpoint, dtype, caches(tokenizer), free, quantize)
    used = count_threads(threads)
    library = None if backend == "torch" else load_kernels(dtype, target)
    if isinstance(library, str):
        if backend == "native":
            raise EngineError(f"there are no native kernels here: {library}")
        notes.append(f"torch runs the model, as the native kernels cannot: {library}")
        library = None
    read_as = dtype if quantize == "none" else checkpoint.config.dtype
    arena = Arena(checkpoint.nbytes_as(quantize if quantize != "none" else dtype) * 9 // 8)
    read = read_weights(
        checkpoint,
        dtype=read_as,
        watch=watch(checkpoint.nbytes_as(read_as)),
        quantize=None if quantize == "none" else quantizer(quantize, library, used, arena.empty),
        place=arena.copy if library is not None else lambda array: array,
    )
    engine: TorchEngine | NativeEngine
    computes: Literal["native", "torch"]
    if library is not None:
        from tokenglass.model.native_engine.engine import NativeEngine  # noqa: PLC0415  (only who runs them needs them)

        engine, computes = NativeEngine(read.blueprint, read.weights, library, dtype, used), "native"
    else:
        from tokenglass.model.torch_engine.engine import load_torch  # noqa: PLC0415  (torch takes a second to import)

        dtype = dtype if quantize == "none" else "float32"
        engine, computes = load_torch(read.blueprint, read.weights, target, dtype, used), "torch"
    notes += read.notes
    return LoadedModel(
        name_of(folder), checkpoint, tokenizer, engine, computes, used, dtype, target, quantize, tuple(notes)
    )


def settle_device(device: str) -> tuple[str, int | None]:
    """The device that is meant, and the bytes that are free there. Raises ParameterError.

    Only torch knows whether a GPU can be used; where there cannot be one, it is not asked.
    """
    if device == "cpu" or (device == "auto" and not may_have_gpu()):
        return "cpu", available_memory()
    from tokenglass.model.torch_engine.engine import free_memory, pick_device  # noqa: PLC0415  (see above)

    target = pick_device(device)
    return target.type, free_memory(target)


def load_kernels(dtype: str, device: str) -> ctypes.CDLL | str:
    """The compiled kernels, or why they cannot run this."""
    if device != "cpu":
        return f"they run on a CPU, not on {device}"
    from tokenglass.model.native_engine.build import load_library  # noqa: PLC0415  (only on a CPU)
    from tokenglass.model.native_engine.errors import KernelsError  # noqa: PLC0415

    if dtype not in ("float32", "bfloat16"):
        return f"they do not know a cache of {dtype}"
    try:
        return load_library()
    except KernelsError as reason:
        return str(reason)


def quantizer(
    format: Format,  # noqa: A002  (the word for it everywhere)
    library: ctypes.CDLL | None,
    threads: int,
    empty: Empty = np.empty,
) -> Callable[[Array], QuantizedWeight]:
    """What makes fewer bits of a matrix: the kernels, into room that `empty` makes, or else numpy."""
    if library is None:
        return quantize_int8 if format == "int8" else quantize_int4
    from tokenglass.model.native_engine.quantising import native_quantizer  # noqa: PLC0415  (only beside kernels)

    return native_quantizer(library, format, threads, empty)


def settle_quantize(checkpoint: Checkpoint, quantize: Quantize) -> Quantize:
    """What the weights will be: as they are stored, where that is quantised. Raises ParameterError."""
    stored = checkpoint.quantisation.format if checkpoint.quantisation is not None else "none"
    if stored != "none" and quantize not in ("none", stored):
        raise ParameterError(f"{checkpoint.folder}: is stored as {stored}; make {quantize} of the model it came from")
    return quantize if stored == "none" else stored
