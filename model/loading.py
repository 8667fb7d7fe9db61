"""A checkpoint folder made ready to generate: weights, tokenizer and what they recommend."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch

from tokenglass.model.checkpoint.folder import Checkpoint
from tokenglass.model.checkpoint.quantised_layout import Format
from tokenglass.model.checkpoint.store import bundled_folder, name_of, sha256_of
from tokenglass.model.engine.memory import Caches, available_memory, check_memory
from tokenglass.model.errors import EngineError, ParameterError
from tokenglass.model.text.tokenizer import Tokenizer
from tokenglass.model.torch_engine.engine import DTYPES, LocalEngine, Watch, load_engine, pick_device
from tokenglass.model.torch_engine.quantisation import quantizing
from tokenglass.model.torch_engine.quantised_checkpoint import load_quantised

if TYPE_CHECKING:
    from tokenglass.model.native_engine.engine import NativeEngine

Quantize = Literal["none", Format]
Backend = Literal["auto", "native", "torch"]


@dataclass(frozen=True, slots=True)
class LoadedModel:
    name: str
    checkpoint: Checkpoint
    tokenizer: Tokenizer
    engine: LocalEngine | NativeEngine
    dtype: str  # of the cache, and of the weights where they are not quantised
    device: str
    quantize: Quantize = "none"
    notes: tuple[str, ...] = ()  # what the user should know: what of the checkpoint is not used, who computes and why

    @property
    def backend(self) -> Literal["native", "torch"]:
        """Who computes."""
        return "torch" if isinstance(self.engine, LocalEngine) else "native"

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
    watch: Callable[[int], Watch | None] = lambda _: None,
    caches: Callable[[Tokenizer], int | Caches] = lambda _: 0,
) -> LoadedModel:
    """Open, audit and load a checkpoint. Raises TokenglassError of the kind that fits.

    dtype auto is float32 for the bundled model on a CPU, which is fastest there, else the checkpoint's own.
    `quantize` makes int8 or int4 of the weights as they are read; what `tokenglass quantize` stored is loaded as it is.
    Both compute in float32, whatever the checkpoint's dtype; a dtype given with them is that of the native cache.
    Gemma 2 and 3 overflow in float16: a checkpoint of that dtype is computed in float32.
    `backend` auto is native on a CPU that has a compiler, else torch with the reason in `notes`.
    `watch` gets the bytes to make and may return a filter that sees each tensor as it is read. `caches` says what
    the run will keep, or how many positions of one cache: where that and the weights do not fit, nothing is loaded.
    """
    checkpoint = Checkpoint.open(folder)
    tokenizer = Tokenizer.from_folder(folder)
    target = pick_device(device)
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
        on_cpu = bundled and target.type == "cpu"
        dtype = "float32" if on_cpu or quantize != "none" else checkpoint.config.dtype
        if checkpoint.config.overflows_float16 and dtype == "float16":
            dtype = "float32"
            notes.append(f"computed in float32: {checkpoint.config.model_type} overflows the checkpoint's float16")
    free = torch.cuda.mem_get_info(target)[0] if target.type == "cuda" else available_memory()
    check_memory(checkpoint, dtype, caches(tokenizer), free, quantize)
    watched = watch(checkpoint.nbytes_as(dtype if quantize == "none" else checkpoint.config.dtype))
    if quantize == "none":
        local = load_engine(checkpoint, dtype=dtype, device=target.type, watch=watched)
    else:
        local = quantised(checkpoint, quantize, checkpoint.config.dtype, target, watched)
    notes += local.notes
    engine: LocalEngine | NativeEngine = local
    if backend != "torch":
        # In memory, not mapped from a file: quantised now, or in another dtype than it is stored in.
        made = checkpoint.quantisation is None and (quantize != "none" or set(checkpoint.dtypes) != {dtype})
        engine, notice = native(local, DTYPES[dtype], required=backend == "native", large_pages=made)
        notes += [] if notice is None else [notice]
    dtype = str(engine.dtype).removeprefix("torch.")
    return LoadedModel(name_of(folder), checkpoint, tokenizer, engine, dtype, target.type, quantize, tuple(notes))


def native(
    engine: LocalEngine, cache_dtype: torch.dtype, *, required: bool, large_pages: bool
) -> tuple[LocalEngine | NativeEngine, str | None]:
    """The same model on the kernels, or the engine itself and why. Raises EngineError where they are `required`."""
    from tokenglass.model.native_engine.engine import NativeEngine  # noqa: PLC0415  (only who runs them needs them)

    found: NativeEngine | str = f"they run on a CPU, not on {engine.device.type}"
    if engine.device.type == "cpu":
        found = NativeEngine.try_build(engine.model, cache_dtype, large_pages=large_pages)
    if not isinstance(found, str):
        return found, None
    if required:
        raise EngineError(f"there are no native kernels here: {found}")
    return engine, f"torch runs the model, as the native kernels cannot: {found}"


def settle_quantize(checkpoint: Checkpoint, quantize: Quantize) -> Quantize:
    """What the weights will be: as they are stored, where that is quantised. Raises ParameterError."""
    stored = checkpoint.quantisation.format if checkpoint.quantisation is not None else "none"
    if stored != "none" and quantize not in ("none", stored):
        raise ParameterError(f"{checkpoint.folder}: is stored as {stored}; make {quantize} of the model it came from")
    return quantize if stored == "none" else stored


def quantised(
    checkpoint: Checkpoint, stored: Format, dtype: str, device: torch.device, watch: Watch | None
) -> LocalEngine:
    """A model with quantised weights, read as they are or made now; `watch` sees each tensor."""
    if checkpoint.quantisation is not None:
        return LocalEngine(load_quantised(checkpoint, device, watch), device, torch.float32)
    read = load_engine(checkpoint, dtype=dtype, device=device.type)
    making = quantizing(read.model, stored)
    for _ in watch(making) if watch is not None else making:
        pass
    return LocalEngine(read.model, device, torch.float32, read.notes)
