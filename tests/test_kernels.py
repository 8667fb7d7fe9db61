"""Each operation of the native kernels computes what torch computes, at sizes that fill no vector."""

from __future__ import annotations

import platform
from dataclasses import replace

import native_parts
import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from native_parts import (
    BYTES,
    HALF_BYTES,
    TILES,
    UNFUSED,
    WORDS,
    Bench,
    emulating,
    float_weight,
    kept_as,
    products_of,
    rounding,
)
from torch import Tensor, nn
from torch.nn import functional as F
from torch_parts import as_tensor

from tokenglass.model.checkpoint.parts import Normalisation
from tokenglass.model.errors import EngineError, PromptError
from tokenglass.model.native_engine.facts import facts_of
from tokenglass.model.native_engine.structures import Activation, Buffer, Code, Operation
from tokenglass.model.torch_engine.feed_forwards import ACTIVATIONS
from tokenglass.model.torch_engine.modules import Norm
from tokenglass.model.torch_engine.quantised import QuantizedEmbedding

Flags = tuple[str, ...]
KINDS = ["float32", "bfloat16", "int8", "int4"]
X86 = platform.machine() == "x86_64"
# Weights and the compiler's flags: the kernels that this processor runs (the head of the report names them), those of
# one that multiplies words and not bytes, and those of others in emulation.
PATHS = [
    *(pytest.param(kind, (), id=kind) for kind in KINDS),
    *(
        pytest.param(kind, flags, id=f"{kind} in {name}")
        for name, flags in (
            ("words", WORDS),
            ("emulated bytes", BYTES),
            ("emulated bytes of 256 bits", HALF_BYTES),
            ("emulated tiles", TILES),
        )
        for kind in ("int8", "int4")
        if X86
    ),
    *(pytest.param(kind, UNFUSED, id=f"{kind} tuned for Zen 3") for kind in KINDS if X86),
]
SIZES = st.integers(1, 100)
COUNTS = st.integers(1, 36)  # positions: through every number of columns that is taken together, and over 32
SEEDS = st.integers(0, 1000)


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def linear(rows: int, columns: int, *, bias: bool, seed: int) -> nn.Linear:
    module = nn.Linear(columns, rows, bias=bias).requires_grad_(False)
    module.weight.copy_(random(rows, columns, seed=seed))
    if bias:
        module.bias.copy_(random(rows, seed=seed + 1))
    return module


def norm_of(kind: str, size: int, *, seed: int) -> Norm:
    norm = Norm(Normalisation("norm", size, kind, tiny.CONFIG.norm_eps)).requires_grad_(False)
    norm.weight.copy_(random(size, seed=seed))
    if norm.bias is not None:
        norm.bias.copy_(random(size, seed=seed + 1))
    return norm


def close(actual: Tensor, expected: Tensor, rounding: float = 0.0) -> None:
    torch.testing.assert_close(actual, expected, rtol=2e-5, atol=2e-5 + rounding)


@pytest.mark.parametrize(("kind", "flags"), PATHS)
@settings(max_examples=40)
@given(rows=SIZES, columns=SIZES, count=COUNTS, bias=st.booleans(), seed=SEEDS, threads=st.sampled_from([1, 2, 3]))
def test_a_projection_is_that_of_torch(
    kind: str, flags: Flags, rows: int, columns: int, count: int, bias: bool, seed: int, threads: int
) -> None:
    module = kept_as(kind, linear(rows, columns, bias=bias, seed=seed))
    x = random(count, columns, seed=seed + 2)
    bench = Bench()
    bias_of = None if module.bias is None else module.bias.float()
    expected = F.linear(x.double(), float_weight(module).double(), None if bias_of is None else bias_of.double())
    actual = bench.run(x, bench.head(module), threads=threads, flags=flags)
    close(actual, expected.float(), rounding(kind, x, float_weight(module), *flags))


@pytest.mark.parametrize(("kind", "flags"), PATHS)
@settings(max_examples=30)
@given(columns=SIZES, counts=st.tuples(COUNTS, COUNTS), seed=SEEDS)
def test_a_sum_is_the_same_bits_in_any_company(
    kind: str, flags: Flags, columns: int, counts: tuple[int, int], seed: int
) -> None:
    module = kept_as(kind, linear(37, columns, bias=True, seed=seed))
    fewer, more = min(counts), max(counts)
    x = random(more, columns, seed=seed)
    bench = Bench()
    alone = bench.run(x[:fewer].contiguous(), bench.head(module), threads=1, flags=flags)
    assert torch.equal(bench.run(x, bench.head(module), threads=3, flags=flags)[:fewer], alone)


@pytest.mark.skipif(not X86, reason="only these processors multiply bytes and tiles")
@pytest.mark.parametrize(
    ("kind", "count"), [("int8", 3), ("int8", 8), ("int8", 17), ("int8", 40), ("int4", 8), ("int4", 17), ("int4", 40)]
)
@pytest.mark.parametrize("columns", [64, 70, 576])
def test_with_tiles_of_bytes_and_without_in_vectors_of_any_width_the_bits_are_the_same(
    kind: str, count: int, columns: int
) -> None:
    """Each in emulation, and on the processor where it has them."""
    ways = {"bytes": [BYTES, HALF_BYTES], "tiles": [TILES]}
    if products_of() != "words":
        ways["bytes"].append(("-mno-amx-int8",))
        ways["tiles"].append(emulating("tiles"))
    if products_of() == "tiles":
        ways["tiles"].append(())
    module = kept_as(kind, linear(100, columns, bias=True, seed=1))
    x, bench = random(count, columns, seed=2), Bench()
    expected = bench.run(x, bench.head(module), flags=BYTES)
    for products, of in ways.items():
        for flags in of:
            assert products_of(*flags) == products
            assert count >= facts_of(native_parts.compiled(*flags))[f"LEAST_TILED_{kind.upper()}"]
            assert torch.equal(bench.run(x, bench.head(module), flags=flags), expected), flags


@pytest.mark.skipif(not X86, reason="names processors of this architecture")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("processor", ["x86-64", "x86-64-v3"])
@pytest.mark.parametrize("columns", [5, 70, 128])
def test_an_older_processor_computes_the_same_products(kind: str, processor: str, columns: int) -> None:
    """Those that multiply no bytes multiply words."""
    module = kept_as(kind, linear(37, columns, bias=True, seed=1))
    x = random(21, columns, seed=2)
    bench, flags = Bench(), (f"-march={processor}",)
    assert products_of(*flags) == "words"
    products = bench.run(x, bench.head(module), flags=flags)
    expected = F.linear(x.double(), float_weight(module).double(), module.bias.double()).float()
    close(products, expected, rounding(kind, x, float_weight(module), *flags))
    for count in (1, 2, 3):
        alone = bench.run(x[:count].contiguous(), bench.head(module), flags=flags)
        assert torch.equal(products[:count], alone)


@pytest.mark.parametrize("flags", [(), *([WORDS] if X86 else [])])
@pytest.mark.parametrize("kind", ["int8", "int4"])
@pytest.mark.parametrize("count", [1, 20])
def test_a_position_that_holds_no_number_gives_none_and_leaves_the_others_alone(
    kind: str, count: int, flags: Flags
) -> None:
    module = kept_as(kind, linear(20, 70, bias=True, seed=1))
    x = random(count + 1, 70, seed=2)
    bench = Bench()
    whole = bench.run(x, bench.head(module), flags=flags)
    for none in (torch.inf, -torch.inf, torch.nan):
        x[count, 3] = none
        broken = bench.run(x, bench.head(module), flags=flags)
        assert torch.equal(broken[:count], whole[:count])
        assert broken[count].isnan().all()  # in fixed point there is no infinity


@pytest.mark.parametrize("kind", ["rms", "rms_float", "rms_plus_one", "layer"])
@settings(max_examples=20)
@given(size=SIZES, count=COUNTS, seed=SEEDS, add=st.booleans())
def test_a_norm_is_that_of_torch(kind: str, size: int, count: int, seed: int, add: bool) -> None:
    norm = norm_of(kind, size, seed=seed)
    x = 3 + random(count, size, seed=seed + 2)
    bench = Bench()
    expected = norm(x) + (x if add else 0)
    close(bench.run(x, bench.normalise(bench.norm(norm), Buffer.HIDDEN, Buffer.HIDDEN, add=add)), expected)
    head = linear(5, size, bias=False, seed=seed)
    torch.testing.assert_close(bench.run(x, bench.head(head, norm=norm)), head(norm(x)), rtol=1e-4, atol=2e-4)


@pytest.mark.parametrize("gated", [True, False])
@pytest.mark.parametrize("name", ACTIVATIONS)
@settings(max_examples=15)
@given(size=SIZES, wide=SIZES, count=COUNTS, seed=SEEDS)
def test_a_feed_forward_is_that_of_torch(name: str, gated: bool, size: int, wide: int, count: int, seed: int) -> None:
    projections = [linear(wide, size, bias=True, seed=seed + i) for i in range(1 + gated)]
    down = linear(size, wide, bias=True, seed=seed + 3)
    x = random(count, size, seed=seed + 4)
    bench = Bench()
    operations = [
        bench.product(Buffer.HIDDEN, Buffer.GATE, *projections, gated=gated, activation=Activation[name.upper()]),
        bench.product(Buffer.GATE, Buffer.HIDDEN, down, add=True),
    ]
    inner = ACTIVATIONS[name](projections[0](x)) * (projections[1](x) if gated else 1)
    actual = bench.run(x, *operations, wide=wide)
    largest = float((inner.abs() @ down.weight.abs().T).max())
    torch.testing.assert_close(actual, x + down(inner), rtol=1e-4, atol=max(5e-4, 1e-5 * largest))


@pytest.mark.parametrize("name", ["silu", "gelu", "gelu_tanh", "relu"])
def test_an_activation_is_right_far_from_zero_too(name: str) -> None:
    x = torch.tensor([[-1e4, -200.0, -90.0, -20.0, -1e-3, 0.0, 1e-3, 20.0, 90.0, 200.0, 1e4]])
    one = nn.Linear(11, 11, bias=False).requires_grad_(False)
    one.weight.copy_(torch.eye(11))
    bench = Bench()
    through = bench.product(Buffer.HIDDEN, Buffer.GATE, one, activation=Activation[name.upper()])
    close(bench.run(x, through, bench.product(Buffer.GATE, Buffer.HIDDEN, one), wide=11), ACTIVATIONS[name](x))


@pytest.mark.parametrize("kind", KINDS)
def test_an_embedding_is_that_of_torch_and_an_unknown_id_is_refused(kind: str) -> None:
    table = kept_as(kind, linear(50, 41, bias=False, seed=1))
    config = replace(tiny.CONFIG, vocab_size=50)
    model = tiny.random_transformer(replace(config, hidden_size=41))
    embedding = nn.Embedding(50, 41, _weight=table.weight) if kind in KINDS[:2] else QuantizedEmbedding(table.weight)
    model.set_submodule("model.embed_tokens", embedding)
    engine = native_parts.native(model)
    ids = torch.tensor([[3, 49, 0], [7, 7, 1]])
    _, hidden = engine.hidden_states(ids, None)
    assert torch.equal(as_tensor(hidden)[0], float_weight(table)[ids.flatten()])
    with pytest.raises(EngineError, match="not one of the model's 50"):
        as_tensor(engine.forward(torch.tensor([[-1]]), None))
    with pytest.raises(PromptError, match="token 50, which the tokenizer has and the model has not"):
        as_tensor(engine.forward(torch.tensor([[50]]), None))


def test_soft_caps_bound_the_logits() -> None:
    head = linear(70, 33, bias=False, seed=1)
    x = 10 * random(7, 33, seed=2)
    bench = Bench()
    close(bench.run(x, bench.head(head, softcap=4.0)), 4 * torch.tanh(head(x) / 4))


def test_operations_and_buffers_have_the_numbers_that_the_kernels_know() -> None:
    """The enumerations of program.h, read from it."""
    import re  # noqa: PLC0415
    from pathlib import Path  # noqa: PLC0415

    from tokenglass.model.native_engine import build, structures  # noqa: PLC0415

    header = (Path(build.__file__).parent / "c" / "program.h").read_text()
    lists = [re.split(r",\s*", body.strip()) for body in re.findall(r"enum \{([^}]*)\}", header)]
    known = [Code, Buffer, Activation, structures.Kind]
    for enumeration in known:
        names = [member.name for member in enumeration]
        assert any(names == entries[: len(names)] for entries in lists), enumeration


def test_no_field_of_a_structure_needs_padding() -> None:
    assert all(getattr(Operation, name).size % 8 == 0 for name, _ in Operation._fields_)
