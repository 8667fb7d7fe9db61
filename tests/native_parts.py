"""The compiled kernels for the tests, and small programs of single operations to run on them."""

from __future__ import annotations

import ctypes
import os
import subprocess
import zlib
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tokenglass.model.native_engine.build import find_compiler, load_library, processor
from tokenglass.model.native_engine.engine import NativeEngine
from tokenglass.model.native_engine.errors import KernelsError
from tokenglass.model.native_engine.machine import Machine
from tokenglass.model.native_engine.program import Operations
from tokenglass.model.native_engine.structures import Buffer, Code, Operation, Pass, Sizes
from tokenglass.model.torch_engine.quantisation import QuantizedLinear, quantize_int4, quantize_int8
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
AVX2 = ("-march=x86-64-v3",) if "avx2" in processor() else ()
BYTES = (*AVX2, *emulating("bytes"))
TILES = (*AVX2, *emulating("bytes", "tiles"))


@cache
def compiled(*flags: str) -> ctypes.CDLL:
    try:
        return load_library(extra=[*os.environ.get(FLAGS, "").split(), *flags])
    except KernelsError as reason:
        pytest.skip(f"no native kernels: {reason}")


def sanitizer_runtime(name: str) -> Path:
    """The library that a sanitizer's code needs to be loaded first; skips where the compiler has none."""
    compiler = find_compiler()
    command = [*compiler, f"-print-file-name=lib{name}.so"]
    runtime = Path(subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip())
    if not runtime.is_absolute() or not runtime.exists():
        pytest.skip(f"{compiler[0]} has no lib{name}.so")
    return runtime.resolve()


def native(model: Transformer, cache_dtype: torch.dtype = torch.float32) -> NativeEngine:
    engine = NativeEngine.try_build(model, cache_dtype, compiled)
    assert isinstance(engine, NativeEngine), engine
    return engine


def kept_as(kind: str, linear: nn.Linear) -> nn.Module:
    """The projection with its weights kept as float32, bfloat16, int8 or int4."""
    if kind == "float32":
        return linear
    if kind == "bfloat16":
        return linear.to(torch.bfloat16)
    quantize = quantize_int8 if kind == "int8" else quantize_int4
    return QuantizedLinear(quantize(linear.weight), linear.bias)


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
        embedding = Operation(kind=Code.EMBED, parts=1, scale=1.0)
        embedding.matrices[0] = self.matrix(nn.Embedding(count, size, _weight=x))
        program = [embedding, *operations, Operation(kind=Code.TAP)]
        heads = [operation for operation in operations if operation.kind == Code.HEAD]
        sizes = Sizes(size, wide, 1, 1, wide, heads[0].matrices[0].rows if heads else count)
        sizes.vocab = max(sizes.vocab, count)  # ids are the rows of x
        ids = torch.arange(count)
        logits = torch.full((count, heads[0].matrices[0].rows if heads else 1), torch.nan)
        hidden = torch.full((count, size), torch.nan)
        task = Pass(ids=ids.data_ptr(), rows=1, length=count, logits=logits.data_ptr(), hidden=hidden.data_ptr())
        task.lengths, task.starts = (ctypes.c_int64 * 1)(), (ctypes.c_int64 * 1)()
        Machine(compiled(*flags), program, sizes).run(task, threads)
        return logits if heads else hidden

    def head(self, linear: nn.Module, norm: nn.Module | None = None, softcap: float = 0.0) -> Operation:
        return self.multiply(Buffer.HIDDEN, Buffer.HIDDEN, linear, norm=norm, kind=Code.HEAD, softcap=softcap)
