"""The compiled kernels for the tests, and small programs of single operations to run on them."""

from __future__ import annotations

import ctypes
import os
import subprocess
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch_parts import as_array, quantize_module, weights_of

from tokenglass.model.checkpoint.quantised import Int4Weight
from tokenglass.model.errors import KernelsError
from tokenglass.model.native_engine.build import find_compiler
from tokenglass.model.native_engine.engine import NativeEngine
from tokenglass.model.native_engine.facts import kernels_of
from tokenglass.model.native_engine.machine import Machine
from tokenglass.model.native_engine.operations import Operations
from tokenglass.model.native_engine.processor import describe_processor, processor_flags
from tokenglass.model.native_engine.shared_library import load_compiled, load_library
from tokenglass.model.native_engine.structures import (
    Buffer,
    Code,
    Matrix,
    Norm,
    Normed,
    Operation,
    Pass,
    PassRow,
    Sizes,
)
from tokenglass.model.torch_engine.modules import Norm as NormModule
from tokenglass.model.torch_engine.quantised import QuantizedEmbedding, QuantizedLinear
from tokenglass.model.torch_engine.transformer import Transformer

FLAGS = "TOKENGLASS_TEST_FLAGS"  # of the compiler: how the sanitizers come in


def emulating(*names: str) -> tuple[str, ...]:
    """The compiler's flags for kernels whose instructions these headers emulate, built anew when one changes.

    Optimised little, as plain C for every byte takes long to compile, but with the same fused products and sums.
    """
    headers = [Path(__file__).with_name(f"emulated_{name}.h") for name in names]
    including = [flag for header in headers for flag in ("-include", str(header))]
    content = b"".join(header.read_bytes() for header in headers)
    return *including, f"-DEMULATED={zlib.crc32(content)}", "-O1", "-fexpensive-optimizations", "-Wno-psabi"


# Kernels that this processor may lack, for one that has AVX2 and no more.
AVX2 = ("-march=x86-64-v3",) if "avx2" in processor_flags(describe_processor()) else ()
WORDS = AVX2
BYTES = (*AVX2, *emulating("bytes"))
HALF_BYTES = (*AVX2, *emulating("avxvnni"))  # of 256 bits
TILES = (*AVX2, *emulating("bytes", "tiles"))
# The same instructions, for a processor whose compiler would rather not fuse products and sums in a chain.
UNFUSED = ("-march=znver3",) if AVX2 else ()


@cache
def compiled(*flags: str) -> ctypes.CDLL:
    """The kernels that a user runs; compiled with further flags where there are any."""
    extra = [*os.environ.get(FLAGS, "").split(), *flags]
    try:
        return load_compiled(extra=extra) if extra else load_library()
    except KernelsError as reason:
        pytest.skip(f"no native kernels: {reason}")


def products_of(*flags: str) -> str:
    """How kernels of these flags multiply int8 and int4: in "tiles", "bytes" or "words"."""
    return kernels_of(compiled(*flags)).rpartition(" ")[2]


def rounding(kind: str, x: Tensor, weight: Tensor, *flags: str) -> float:
    """How far columns in fixed point of 16 bits may take a product of int8 or int4 from the exact one: half a step for
    each number. 0 for other weights, which are multiplied with float32."""
    if kind in ("float32", "bfloat16"):
        return 0.0
    return (x.abs().max() / 32639 / 2 * weight.abs().sum(1).max()).item()


def program(path: Path, script: str) -> Path:
    """The script in a file that can be run."""
    path.write_text(script)
    path.chmod(0o755)
    return path


def sanitizer_runtime(name: str) -> Path:
    """The library that a sanitizer's code needs to be loaded first; skips where the compiler has none."""
    compiler = find_compiler()
    command = [*compiler, f"-print-file-name=lib{name}.so"]
    runtime = Path(subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip())
    if not runtime.is_absolute() or not runtime.exists():
        pytest.skip(f"{compiler[0]} has no lib{name}.so")
    return runtime.resolve()


class NativeByTorch(NativeEngine):
    """An engine with as many threads as torch has at the time."""

    @property
    def threads(self) -> int:
        return torch.get_num_threads()

    @threads.setter
    def threads(self, count: int) -> None:
        """What it begins with."""


def try_build(
    model: Transformer, cache_dtype: str = "float32", load: Callable[[], ctypes.CDLL] = load_library
) -> NativeEngine | str:
    """The engine over a model's weights, or why there is none."""
    try:
        return NativeByTorch(model.blueprint, weights_of(model), load(), cache_dtype, 1)
    except KernelsError as reason:
        return str(reason)


def native(model: Transformer, cache_dtype: str = "float32") -> NativeEngine:
    engine = try_build(model, cache_dtype, compiled)
    assert isinstance(engine, NativeEngine), engine
    return engine


def kept_as(kind: str, linear: nn.Linear) -> nn.Module:
    """The projection with its weights kept as float32, bfloat16, int8 or int4."""
    if kind == "float32":
        return linear
    if kind == "bfloat16":
        return linear.to(torch.bfloat16)
    return QuantizedLinear(quantize_module(linear, "int8" if kind == "int8" else "int4"), linear.bias)


def float_weight(module: nn.Module) -> Tensor:
    """The weight as float32."""
    weight = module.weight
    return weight.detach().float() if isinstance(weight, Tensor) else weight.dequantize()


class Bench(Operations):
    """Runs operations on an input (count, size): the residual stream, into which it comes as an embedding's rows."""

    def run(
        self, x: Tensor, *operations: Operation, wide: int = 1, threads: int = 2, flags: tuple[str, ...] = ()
    ) -> Tensor:
        """The residual stream after the operations (count, size), or what a HEAD among them gives. `wide` bounds the
        other widths; `flags` are further ones of the compiler."""
        count, size = x.shape
        embedding = Operation(kind=Code.EMBED, parts=1, scale=1.0, matrices=self.row(self.matrix(as_array(x))))
        program = [embedding, *operations, Operation(kind=Code.TAP)]
        heads = [operation for operation in operations if operation.kind == Code.HEAD]
        sizes = Sizes(size, wide, 1, 1, wide, heads[0].matrices[0].rows if heads else count)
        sizes.vocab = max(sizes.vocab, count)  # ids are the rows of x
        ids = torch.arange(count)
        logits = torch.full((count, heads[0].matrices[0].rows if heads else 1), torch.nan)
        hidden = torch.full((count, size), torch.nan)
        row = PassRow(count=count, outputs=count if heads else 0)
        task = Pass(ids.data_ptr(), count, 1, ctypes.pointer(row), logits=logits.data_ptr(), hidden=hidden.data_ptr())
        Machine(compiled(*flags), program, sizes).run(task, threads)
        return logits if heads else hidden

    def head(self, linear: nn.Module, norm: nn.Module | None = None, softcap: float = 0.0) -> Operation:
        return self.product(Buffer.HIDDEN, Buffer.HIDDEN, linear, norm=norm, kind=Code.HEAD, scale=1.0, softcap=softcap)

    def product(
        self, source: Buffer, target: Buffer, *linears: Any, norm: nn.Module | None = None, **fields: Any
    ) -> Operation:
        """`multiply` by the weights of modules."""
        matrices = [self.module(linear) for linear in linears]
        return self.multiply(source, target, *matrices, norm=None if norm is None else self.norm(norm), **fields)

    def module(self, linear: Any) -> Matrix:
        weight = linear.weight
        array = as_array(weight) if isinstance(weight, Tensor) else weight.with_parts(as_array)
        return self.matrix(array, None if linear.bias is None else as_array(linear.bias))

    def norm(self, norm: nn.Module) -> Norm:
        assert isinstance(norm, NormModule)
        weight = as_array(norm.weight.float() + (norm.kind == "rms_plus_one"))
        bias = None if norm.bias is None else as_array(norm.bias.float())
        kind = Normed.LAYER if norm.kind == "layer" else Normed.RMS
        return Norm(kind, len(weight), norm.eps, self.keep(weight), self.keep(bias))


__all__ = [
    "FLAGS",
    "Bench",
    "Int4Weight",
    "QuantizedEmbedding",
    "compiled",
    "float_weight",
    "kept_as",
    "native",
    "products_of",
    "program",
    "rounding",
    "try_build",
]
