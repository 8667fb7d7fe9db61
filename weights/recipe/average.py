"""Average checkpoints of one shape: between the ends of two runs often lies a better model (Wortsman et al. 2022).

    python -m tokenglass.weights.recipe.average OUT FOLDER=SHARE FOLDER=SHARE ...

OUT gets the first folder's files, and as weights the sum of each folder's times its share. Shares add up to one.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tokenglass.weights.recipe.export import write_json

WEIGHTS = "model.safetensors"


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tokenglass.weights.recipe.average",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("out", type=Path, help="a new folder")
    parser.add_argument("shares", nargs="+", metavar="FOLDER=SHARE")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32", help="of OUT (default: float32)")
    options = parser.parse_args()
    pairs = [share.rpartition("=") for share in options.shares]
    try:
        shares = {Path(folder): float(share) for folder, _, share in pairs}
    except ValueError:
        parser.error("a share is a number: FOLDER=0.5")
    if not math.isclose(sum(shares.values()), 1, abs_tol=1e-6):
        parser.error(f"the shares add up to {sum(shares.values()):g}; they should make 1")
    try:
        weights = average(shares)
        shutil.copytree(next(iter(shares)), options.out)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    dtype = getattr(torch, options.dtype)
    save_file({name: tensor.to(dtype) for name, tensor in weights.items()}, options.out / WEIGHTS, {"format": "pt"})
    config = json.loads((options.out / "config.json").read_text())
    write_json(options.out / "config.json", config | {"torch_dtype": options.dtype})


def average(shares: Mapping[Path, float]) -> dict[str, Tensor]:
    """The weights of checkpoints, each times its share, in float32. ValueError: their names or shapes differ."""
    total: dict[str, Tensor] = {}
    for folder, share in shares.items():
        parts = {name: tensor.float() * share for name, tensor in load_file(folder / WEIGHTS).items()}
        if total and shapes(parts) != shapes(total):
            raise ValueError(f"{folder}: other tensors or shapes than the folders before it")
        total = {name: total[name] + part if total else part for name, part in parts.items()}
    return total


def shapes(weights: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in weights.items()}


if __name__ == "__main__":
    main()
