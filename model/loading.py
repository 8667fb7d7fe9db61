"""A checkpoint folder made ready to generate: weights, tokenizer and what they recommend."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from tokenglass.model.checkpoint.adapter import Adapter
from tokenglass.model.checkpoint.arrays import Empty
from tokenglass.model.checkpoint.folder import Checkpoint
from tokenglass.model.checkpoint.quantised import Quantizer
from tokenglass.model.checkpoint.quantised_layout import Format
from tokenglass.model.checkpoint.store import bundled_folder, name_of
from tokenglass.model.checkpoint.weights import read_weights
from tokenglass.model.engine.devices import may_have_gpu
from tokenglass.model.engine.large_pages import Arena
from tokenglass.model.engine.memory import Caches, available_memory, check_memory
from tokenglass.model.engine.processes import Processes
from tokenglass.model.engine.threads import count_threads
from tokenglass.model.errors import EngineError, KernelsError, ParameterError
from tokenglass.model.loaded_model import Backend, CacheDtype, LoadedModel, OpenedModel, Quantize
from tokenglass.model.progress import Progress, finish
from tokenglass.model.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from tokenglass.model.native_engine.engine import NativeEngine
    from tokenglass.model.torch_engine.engine import TorchEngine


def load_model(
    folder: Path,
    *,
    dtype: str = "auto",
    cache_dtype: CacheDtype = "auto",
    device: str = "auto",
    quantize: Quantize = "none",
    backend: Backend = "torch",
    threads: int | None = None,
    adapters: tuple[Adapter, ...] = (),
    caches: Caches | None = None,
) -> LoadedModel:
    """Open and load at once; see `open_model` and `load_weights`."""
    opened = open_model(
        folder,
        dtype=dtype,
        cache_dtype=cache_dtype,
        device=device,
        quantize=quantize,
        backend=backend,
        threads=threads,
        adapters=adapters,
    )
    return finish(load_weights(opened, caches or Caches()))


def open_model(
    folder: Path,
    *,
    dtype: str = "auto",
    cache_dtype: CacheDtype = "auto",
    device: str = "auto",
    quantize: Quantize = "none",
    backend: Backend = "auto",
    threads: int | None = None,
    adapters: tuple[Adapter, ...] = (),
    watches_experts: bool = False,
) -> OpenedModel:
    """Read the config, the headers and the tokenizer, and settle how to load. Raises TokenglassError of its kind.

    dtype auto is that of `default_dtype`. `quantize` makes int8 or int4 of the weights as they are read; what
    `tokenglass quantize` stored is loaded as it is. Both compute in float32, whatever the checkpoint's dtype.
    `adapters` are merged in float32, before that.
    `backend` auto is native on a CPU whose kernels can be had, else torch with the reason in `notes`; torch is
    imported only where it is needed. `threads` None is one for each core that this process may use. `watches_experts`
    has logits say which experts of a mixture their positions took.
    """
    checkpoint = Checkpoint.open(folder).with_adapters(adapters)
    tokenizer = Tokenizer.from_folder(folder)
    device = usable_device(device)
    quantize = stored_or_asked(checkpoint, quantize)
    if quantize != "none" and dtype not in ("auto", "float32"):
        raise ParameterError(
            f"--dtype {dtype} is not for {quantize} weights, which are computed with in float32; "
            "--cache-dtype is that of the cache"
        )
    notes = [*checkpoint.config.notes, *(note for adapter in adapters for note in adapter.notes)]
    if checkpoint.config.overflows_float16 and dtype == "float16":
        raise ParameterError(
            f"--dtype float16 is too narrow for {checkpoint.config.model_type}; try bfloat16 or float32"
        )
    if dtype == "auto":
        dtype = "float32" if quantize != "none" else default_dtype(checkpoint, device)
        if quantize == "none" and (checkpoint.config.dtype, dtype) == ("float16", "float32"):
            notes.append(f"computed in float32: {checkpoint.config.model_type} overflows the checkpoint's float16")
    name = " + ".join((name_of(folder), *(adapter.name for adapter in adapters)))
    if watches_experts and checkpoint.config.mixture is None:
        raise ParameterError(f"--experts: {name} has no mixture of experts; leave it out")
    return OpenedModel(
        name=name,
        checkpoint=checkpoint,
        tokenizer=tokenizer,
        backend=backend,
        threads=count_threads(threads),
        dtype=dtype,
        cache_dtype=cache_dtype,
        device=device,
        quantize=quantize,
        notes=tuple(notes),
        watches_experts=watches_experts,
    )


def default_dtype(checkpoint: Checkpoint, device: str) -> str:
    """The dtype of weights that are not quantised, where none is named: the checkpoint's own.

    float32 for the bundled model on a CPU, which is exact and costs no speed there; and where the checkpoint's is
    float16, in which Gemma 2 and 3 overflow.
    """
    config = checkpoint.config
    is_tale_on_cpu = device == "cpu" and checkpoint.folder.resolve() == bundled_folder().resolve()
    overflows = config.overflows_float16 and config.dtype == "float16"
    return "float32" if is_tale_on_cpu or overflows else config.dtype


def load_weights(opened: OpenedModel, caches: Caches) -> Generator[Progress, None, LoadedModel]:
    """Audit and load the weights, where they and what the run will keep have room. Raises TokenglassError."""
    processes = Processes.of(os.environ)
    loaded = yield from (load_whole(opened, caches) if processes is None else load_split(opened, caches, processes))
    loaded.engine.watches_experts = opened.watches_experts
    return loaded


def load_whole(opened: OpenedModel, caches: Caches) -> Generator[Progress, None, LoadedModel]:
    """A model that this process holds alone. Raises TokenglassError."""
    checkpoint, quantize = opened.checkpoint, opened.quantize
    library = None if opened.backend == "torch" else load_kernels(opened.dtype, opened.device)
    notes = opened.notes
    if isinstance(library, str):
        if opened.backend == "native":
            raise EngineError(f"there are no native kernels here: {library}")
        notes = (*notes, f"torch runs the model, as the native kernels cannot: {library}")
        library = None
    backend: Literal["native", "torch"] = "torch" if library is None else "native"
    cache_dtype = opened.cache_dtype_on(backend)
    held_in = opened.held_in(backend)
    check_memory(checkpoint, held_in, cache_dtype, caches, free_memory(opened.device))
    arena = Arena(checkpoint.nbytes_as(held_in) * 9 // 8)
    read = yield from read_weights(
        checkpoint,
        dtype=held_in if quantize == "none" else checkpoint.config.dtype,
        quantizer=None if quantize == "none" else quantizer(quantize, library, opened.threads, arena.empty),
        place=arena.copy if library is not None else lambda array: array,
        keep=("int8", "int4") if quantize == "none" else (quantize,),
    )
    engine: TorchEngine | NativeEngine
    if library is not None:
        from tokenglass.model.native_engine.engine import NativeEngine  # noqa: PLC0415  (only who runs them needs them)

        engine = NativeEngine(read.blueprint, read.weights, library, cache_dtype, opened.threads)
    else:
        from tokenglass.model.torch_engine.engine import load_torch  # noqa: PLC0415  (torch takes a second to import)

        engine = load_torch(read.blueprint, read.weights, opened.device, opened.dtype, opened.threads)
    return LoadedModel(
        name=opened.name,
        checkpoint=checkpoint,
        tokenizer=opened.tokenizer,
        backend=backend,
        threads=opened.threads,
        dtype=opened.dtype,
        cache_dtype=cache_dtype,
        device=opened.device,
        quantize=quantize,
        notes=(*notes, *read.notes),
        engine=engine,
    )


def load_split(opened: OpenedModel, caches: Caches, processes: Processes) -> Generator[Progress, None, LoadedModel]:
    """A model whose parts several processes hold. Raises TokenglassError."""
    if opened.backend == "native" or opened.quantize != "none":
        option = "--backend native" if opened.backend == "native" else f"--quantize {opened.quantize}"
        raise ParameterError(f"{option} is for one process; {processes.size} of them split a model with torch")
    if opened.checkpoint.adapters:
        raise ParameterError(f"--lora is for one process; {processes.size} of them split a model as it is stored")
    cache_dtype, folder = opened.cache_dtype_on("torch"), opened.checkpoint.folder
    check_memory(opened.checkpoint, opened.held_in("torch"), cache_dtype, caches, free_memory(opened.device))
    from tokenglass.model.torch_engine.leading import lead  # noqa: PLC0415  (see above)

    engine = yield from lead(processes, folder, opened.dtype, opened.device, opened.threads)
    return LoadedModel(
        name=opened.name,
        checkpoint=opened.checkpoint,
        tokenizer=opened.tokenizer,
        backend="torch",
        threads=opened.threads,
        dtype=opened.dtype,
        cache_dtype=cache_dtype,
        device=opened.device,
        quantize=opened.quantize,
        notes=(*opened.notes, f"the model is split over {processes.size} processes"),
        engine=engine,
    )


def usable_device(device: str) -> str:
    """The device that is meant: cpu, cuda or mps. Raises ParameterError.

    Only torch knows whether a GPU can be used; where there cannot be one, it is not asked.
    """
    if device == "cpu" or (device == "auto" and not may_have_gpu()):
        return "cpu"
    from tokenglass.model.torch_engine.engine import pick_device  # noqa: PLC0415  (see above)

    return pick_device(device).type


def free_memory(device: str) -> int | None:
    """Bytes that are free on a device; None where that is not known."""
    if device == "cpu":
        return available_memory()
    from tokenglass.model.torch_engine import engine  # noqa: PLC0415  (see above)

    return engine.free_memory(engine.pick_device(device))


def load_kernels(dtype: str, device: str) -> ctypes.CDLL | str:
    """The compiled kernels, or why they cannot run this."""
    if device != "cpu":
        return f"they run on a CPU, not on {device}"
    from tokenglass.model.native_engine.shared_library import load_library  # noqa: PLC0415  (only on a CPU)

    if dtype not in ("float32", "bfloat16"):
        return f"they do not know {dtype}"
    try:
        return load_library()
    except KernelsError as reason:
        return str(reason)


def quantizer(
    format: Format,  # noqa: A002  (the word for it everywhere)
    library: ctypes.CDLL | None,
    threads: int,
    empty: Empty = np.empty,
) -> Quantizer:
    """What makes fewer bits of matrices: the kernels, into room that `empty` makes, or else numpy."""
    if library is None:
        return Quantizer(format)
    from tokenglass.model.native_engine.quantising import native_quantize  # noqa: PLC0415  (only beside kernels)

    return Quantizer(format, native_quantize(library, threads, empty))


def stored_or_asked(checkpoint: Checkpoint, quantize: Quantize) -> Quantize:
    """What the weights will be: as they are stored, where that is quantised. Raises ParameterError."""
    stored = checkpoint.quantisation.format if checkpoint.quantisation is not None else "none"
    if stored != "none" and quantize not in ("none", stored):
        raise ParameterError(f"{checkpoint.folder}: is stored as {stored}; make {quantize} of the model it came from")
    return quantize if stored == "none" else stored
