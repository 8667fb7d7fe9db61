"""What bitsandbytes packs on a CPU is read as it dequantises it: 4 bits to the bit, int8 to one rounding.

python tests/peers/bitsandbytes_values.py     # needs bitsandbytes
"""

from __future__ import annotations

import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))

import tiny
from releases import Release, save_release
from test_releases import as_float32

from tokenglass.model.checkpoint.folder import Checkpoint
from tokenglass.model.checkpoint.weights import read_weights
from tokenglass.model.progress import finish

ROUNDING = 2.0**-23  # of float32


def pack(weight: Tensor, quant_type: str, block: int, nested: bool) -> tuple[dict[str, Tensor], Tensor]:
    """4 bits, by the library."""
    from bitsandbytes import functional  # noqa: PLC0415

    packed, state = functional.quantize_4bit(
        weight.float(), blocksize=block, quant_type=quant_type, compress_statistics=nested
    )
    parts = {f"weight.{role}": part for role, part in state.as_dict(packed=True).items()}
    return {"weight": packed, **parts}, functional.dequantize_4bit(packed, state)


def pack_rows(weight: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """int8, by the library."""
    from bitsandbytes import functional  # noqa: PLC0415

    codes, scales, _ = functional.int8_vectorwise_quant(weight.half())
    parts = {"weight": codes, "SCB": scales, "weight_format": torch.tensor(0, dtype=torch.uint8)}
    return parts, functional.int8_vectorwise_dequant(codes, scales)


def save_wide(folder: Path) -> Path:
    return tiny.save_llama(folder, dtype=torch.bfloat16, hidden_size=256, intermediate_size=512)


def main() -> None:
    releases: dict[str, Any] = {
        f"{kind} in blocks of {block}{', nested' if nested else ''}": partial(
            pack, quant_type=kind, block=block, nested=nested
        )
        for kind in ("nf4", "fp4")
        for block in (64, 256)
        for nested in (False, True)
    }
    config = {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}
    for name, packer in {**releases, "int8": pack_rows}.items():
        with tempfile.TemporaryDirectory() as folder:
            reference = save_release(Release(config, packer), Path(folder), save_wide)
            content = finish(read_weights(Checkpoint.open(Path(folder)), dtype="float32"))
        furthest = max(
            ((as_float32(content.weights[key]) - tensor).abs() / tensor.abs().clamp(min=1e-30)).max().item()
            for key, tensor in reference.items()
            if ".layers." in key
        )
        assert furthest <= (ROUNDING if name == "int8" else 0), (name, furthest)
        print(f"{name}: {len(reference)} tensors, furthest {furthest:.1e}")


if __name__ == "__main__":
    main()
