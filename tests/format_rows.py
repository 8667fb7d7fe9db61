"""How far quantised weights are from what they mean, and logits from transformers' with those weights.

`python tests/format_rows.py` prints the rows of the README's table of formats.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gguf
import safetensors.torch
import torch
from releases import RELEASES, SAVERS, SINGLE, save_release
from test_gguf_keep import KEPT, by_name, write
from test_random_configs import LENGTH, NONE_YET, Agreement, agreement
from test_releases import as_float32
from tiny import edit_json
from tiny_gguf import BLOCKS, TYPES, stored_name
from torch import Tensor
from torch_parts import load_engine

from tokenglass.model.checkpoint.folder import Checkpoint
from tokenglass.model.checkpoint.weights import read_weights
from tokenglass.model.importers.gguf import import_gguf
from tokenglass.model.native_engine.engine import NativeEngine
from tokenglass.model.native_engine.shared_library import load_library
from tokenglass.model.progress import finish

LIBRARY, DOCUMENT = "its library", "its document"
# what is beside a release's name before the first comma, and whose word says what its weights mean
METHODS = {
    "fp8": ("FP8", "transformers"),
    **dict.fromkeys(("int3", "int4", "int6"), ("compressed-tensors, 3 to 6 bits", LIBRARY)),
    "int8": ("compressed-tensors, 8 bits", LIBRARY),
    "float8": ("compressed-tensors, FP8", LIBRARY),
    "nvfp4": ("compressed-tensors, NVFP4", LIBRARY),
    "mxfp4": ("compressed-tensors, MXFP4", LIBRARY),
    "mlx": ("MLX", DOCUMENT),
    "gptq": ("GPTQ", DOCUMENT),
    "awq": ("AWQ", DOCUMENT),
    "nf4": ("bitsandbytes, NF4", DOCUMENT),
    "int8 of bitsandbytes": ("bitsandbytes, int8", DOCUMENT),
    "nvfp4 of modelopt": ("ModelOpt, NVFP4", DOCUMENT),
}
GGUF_TYPES = (TYPES.F16, TYPES.BF16, TYPES.Q8_0, TYPES.Q5_0, TYPES.Q5_1, TYPES.Q4_0, TYPES.Q4_1, *BLOCKS, TYPES.MXFP4)
Meaning = Callable[[Path], tuple[Path, dict[str, Tensor]]]  # writes a checkpoint; that, and what its weights mean


def release(name: str) -> Meaning:
    def save(folder: Path) -> tuple[Path, dict[str, Tensor]]:
        return folder, save_release(RELEASES[name], folder, SAVERS[RELEASES[name].family])

    return save


def gguf_file(kind: Any, *, keep: bool) -> Meaning:
    """A file, imported; the gguf library says what its tensors mean."""

    def save(folder: Path) -> tuple[Path, dict[str, Tensor]]:
        path = write(folder, kind, "qwen3")
        finish(import_gguf(path, folder / "imported", keep=keep))
        stored = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
        names = safetensors.torch.load_file(folder / "original" / SINGLE)
        tensors = {name: stored[str(stored_name(name, "qwen3"))] for name in names}
        return folder / "imported", {
            name: torch.from_numpy(gguf.dequantize(tensor.data, tensor.tensor_type).copy())
            for name, tensor in tensors.items()
        }

    return save


def measure(meaning: Meaning) -> tuple[float, Agreement, Agreement]:
    """The greatest difference between two weights, relative to the greatest weight, and how both engines agree."""
    with tempfile.TemporaryDirectory() as name:
        folder, reference = meaning(Path(name))
        checkpoint = Checkpoint.open(folder)
        content = finish(read_weights(checkpoint, dtype="float32"))
        weights = max(difference(as_float32(content.weights[name]), tensor) for name, tensor in reference.items())
        ids = torch.randint(0, 64, (2, LENGTH), generator=torch.Generator().manual_seed(0))
        expected = logits_of(folder, reference, ids)
        native = NativeEngine(content.blueprint, content.weights, load_library(), "float32", 1)
        engine = load_engine(checkpoint, dtype="float32", device="cpu")
        return weights, agreement(native, ids, expected), agreement(engine, ids, expected)


def difference(ours: Tensor, reference: Tensor) -> float:
    """In the dtype of what is meant; 0 where they have the same bits."""
    ours = ours.to(reference.dtype)
    return 0.0 if torch.equal(ours, reference) else float((ours - reference).abs().max() / reference.abs().max())


def logits_of(folder: Path, reference: dict[str, Tensor], ids: Tensor) -> Tensor:
    """transformers' logits of the model with these weights."""
    from transformers import AutoModelForCausalLM  # noqa: PLC0415  (takes seconds)

    plain = folder / "meant"
    plain.mkdir()
    tensors = {name: tensor.float() for name, tensor in reference.items()}
    safetensors.torch.save_file(tensors, plain / SINGLE, {"format": "pt"})
    (plain / "config.json").write_bytes((folder / "config.json").read_bytes())
    edit_json(plain / "config.json", quantization_config=None, quantization=None, dtype="float32")
    model = AutoModelForCausalLM.from_pretrained(plain).eval()
    with torch.inference_mode():
        return model(ids).logits


def table_row(name: str, oracle: str, meanings: list[Meaning]) -> str:
    weights, native, in_torch = 0.0, NONE_YET, NONE_YET
    for meaning in meanings:
        of_weights, of_native, of_torch = measure(meaning)
        weights, native, in_torch = max(weights, of_weights), native.plus(of_native), in_torch.plus(of_torch)
    exact = f"{weights:.1e}" if weights else "to the bit"
    same, positions = native.same + in_torch.same, native.positions + in_torch.positions
    differences = f"{native.difference:.1e} | {in_torch.difference:.1e}"
    return f"| {name} | {len(meanings)} | {oracle} | {exact} | {differences} | {same:,} of {positions:,} |"


def rows() -> Iterator[str]:
    methods: dict[tuple[str, str], list[Meaning]] = {}
    for name in RELEASES:
        key = METHODS[name if name in METHODS else name.partition(",")[0]]
        methods.setdefault(key, []).append(release(name))
    for (method, oracle), meanings in methods.items():
        yield table_row(method, oracle, meanings)
    for kind in GGUF_TYPES:
        yield table_row(f"GGUF, {by_name(kind)}", "gguf", [gguf_file(kind, keep=False)])
    for kind in KEPT:
        yield table_row(f"GGUF, {by_name(kind)} kept as int4", "gguf", [gguf_file(kind, keep=True)])


if __name__ == "__main__":
    for row in rows():
        print(row, flush=True)
