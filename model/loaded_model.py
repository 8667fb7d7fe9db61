"""A checkpoint that was opened, and one whose weights are loaded: a model ready to generate."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from tokenglass.model.checkpoint.folder import Checkpoint
from tokenglass.model.checkpoint.quantised_layout import CACHE_DTYPE, Format
from tokenglass.model.checkpoint.store import sha256_of
from tokenglass.model.errors import ParameterError
from tokenglass.model.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from tokenglass.model.native_engine.engine import NativeEngine
    from tokenglass.model.torch_engine.engine import TorchEngine

Quantize = Literal["none", Format]
Backend = Literal["auto", "native", "torch"]
CacheDtype = Literal["auto", "float32", "bfloat16", "int8"]


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedModel:
    """A checkpoint of which all but the weights was read, and how they will be loaded."""

    name: str
    checkpoint: Checkpoint
    tokenizer: Tokenizer
    backend: Backend
    threads: int
    dtype: str  # in which weights that are not quantised count
    cache_dtype: str  # or auto
    device: str
    quantize: Quantize
    notes: tuple[str, ...]  # what the user should know: what of the checkpoint is not used, who computes and why
    watches_experts: bool = False

    @property
    def limit(self) -> int:
        """Positions of the context."""
        return self.checkpoint.config.max_positions

    @property
    def vocab_size(self) -> int:
        """Tokens that have a logit."""
        return self.checkpoint.config.vocab_size

    @property
    def nbytes(self) -> int:
        """Bytes of the weights as they will be in memory."""
        return self.checkpoint.nbytes_as(self.held_in(self.backend))

    def held_in(self, backend: Backend) -> str:
        """The dtype or format in which this backend has the weights in memory.

        The kernels widen bfloat16 as they read it, with the same bits as if it had been widened before: what is stored
        so stays so in a model of float32. Not where adapters change it, or a factor is rounded to its dtype.
        """
        checkpoint = self.checkpoint
        is_exact = {*checkpoint.dtypes} == {"bfloat16"} and not checkpoint.adapters
        is_scaled = checkpoint.config.embedding_scale is not None
        widens = backend != "torch" and self.device == "cpu" and self.weights_in == "float32"
        return "bfloat16" if widens and is_exact and not is_scaled else self.weights_in

    @property
    def weights_in(self) -> str:
        """The dtype in which they count, or a quantised format."""
        return self.dtype if self.quantize == "none" else self.quantize

    def cache_dtype_on(self, backend: Backend) -> str:
        """The dtype of the cache where this backend computes. Raises ParameterError where it has no such cache.

        auto is bfloat16 beside int8 and int4 weights on the kernels, else the dtype of the weights.
        """
        is_torch = backend == "torch" or self.device != "cpu"
        if self.cache_dtype == "auto":
            return self.dtype if is_torch or self.quantize == "none" else CACHE_DTYPE
        if is_torch and self.cache_dtype != self.dtype:
            raise ParameterError(
                f"--cache-dtype {self.cache_dtype} is for the native kernels; torch keeps the cache in {self.dtype}, "
                "in which it computes"
            )
        return self.cache_dtype

    @property
    def eos_token_ids(self) -> frozenset[int]:
        """End tokens that the checkpoint names for generating; the tokenizer's own only where it names none."""
        return self._possible(self.checkpoint.eos_token_ids or self.tokenizer.eos_token_ids)

    @property
    def turn_end_ids(self) -> frozenset[int]:
        """End tokens in a chat: the tokenizer's own as well, which templates write behind every turn."""
        return self._possible((*self.checkpoint.eos_token_ids, *self.tokenizer.eos_token_ids))

    def _possible(self, token_ids: Iterable[int]) -> frozenset[int]:
        return frozenset(token_id for token_id in token_ids if token_id < self.vocab_size)

    @property
    def tokenizer_fingerprint(self) -> str:
        return sha256_of(self.checkpoint.folder / "tokenizer.json")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedModel(OpenedModel):
    """A model ready to generate; `backend` is who computes."""

    engine: TorchEngine | NativeEngine
    backend: Literal["native", "torch"]

    @property
    def cache_identity(self) -> dict[str, str]:
        """All that the numbers in a cache depend on, but for the text and the length that is planned for it."""
        return {
            "model": self.checkpoint.fingerprint,
            "tokenizer": self.tokenizer_fingerprint,
            "dtype": self.dtype,
            "quantize": self.quantize,
            "cache_dtype": self.cache_dtype,
            "backend": self.backend,
            "device": self.device,
        }
