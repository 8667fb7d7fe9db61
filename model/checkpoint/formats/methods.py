"""Which method a model's config names, of those that are read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tokenglass.model.checkpoint.formats.awq import awq
from tokenglass.model.checkpoint.formats.bitsandbytes import bitsandbytes
from tokenglass.model.checkpoint.formats.compressed import compressed_tensors
from tokenglass.model.checkpoint.formats.fp4 import mxfp4
from tokenglass.model.checkpoint.formats.fp8 import fp8
from tokenglass.model.checkpoint.formats.gptq import gptq
from tokenglass.model.checkpoint.formats.method import Method
from tokenglass.model.checkpoint.formats.mlx import mlx
from tokenglass.model.checkpoint.formats.modelopt import modelopt
from tokenglass.model.config.fields import Fields, quote
from tokenglass.model.errors import ConfigError
from tokenglass.model.files import read_json

METHODS: Mapping[str, Callable[[Fields], Method]] = {
    "fp8": fp8,
    "fbgemm_fp8": fp8,
    "compressed-tensors": compressed_tensors,
    "mlx": mlx,
    "gptq": gptq,
    "awq": awq,
    "bitsandbytes": bitsandbytes,
    "mxfp4": mxfp4,
    "modelopt": modelopt,
    "modelopt_fp4": modelopt,
}
KEYS = {  # of config.json, each with the method of files that name none
    "quantization": "mlx",
    "quantization_config": "",
    "compression_config": "compressed-tensors",
}
MODELOPT = "hf_quant_config.json"  # beside config.json, where ModelOpt's releases say it in a file of their own


def method_of(raw: Mapping[str, Any], folder: Path) -> Method | None:
    """The method of a config.json in a folder; None where its weights are not quantised. Raises ConfigError."""
    for name, fields in descriptions(raw, folder):
        if name not in METHODS:
            raise ConfigError(
                f"{fields.where}: weights quantised by {quote(name)} are not read (read: {', '.join(METHODS)}); "
                "take the model's release in bfloat16, or one of these"
            )
        return METHODS[name](fields)
    return None


def descriptions(raw: Mapping[str, Any], folder: Path) -> Iterator[tuple[str, Fields]]:
    """Every place that describes how weights are quantised, with the method that it names. Raises ConfigError."""
    inner = raw.get("text_config")
    for fields in (Fields(raw), *([Fields(inner, "config.json: text_config")] if isinstance(inner, Mapping) else [])):
        for key, usual in KEYS.items():
            part = fields.part(key)
            if part.raw:
                four_or_eight = part.boolean("load_in_4bit") or part.boolean("load_in_8bit")
                yield part.text("quant_method", "bitsandbytes" if four_or_eight else usual).lower(), part
    if (folder / MODELOPT).exists():
        part = Fields(read_json(folder / MODELOPT), MODELOPT).part("quantization")
        if part.get("quant_algo") is not None:
            yield "modelopt", part
