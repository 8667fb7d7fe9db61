"""Which method a model's config names, of those that are read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tokenglass.model.checkpoint.formats.compressed import compressed_tensors
from tokenglass.model.checkpoint.formats.fp8 import fp8
from tokenglass.model.checkpoint.formats.method import Method
from tokenglass.model.config.fields import Fields, quote
from tokenglass.model.errors import ConfigError

METHODS: Mapping[str, Callable[[Fields], Method]] = {
    "fp8": fp8,
    "fbgemm_fp8": fp8,
    "compressed-tensors": compressed_tensors,
}
KEYS = {
    "quantization_config": "",
    "compression_config": "compressed-tensors",
}  # with the method of files that name none


def method_of(raw: Mapping[str, Any]) -> Method | None:
    """The method of a config.json; None where its weights are not quantised. Raises ConfigError."""
    inner = raw.get("text_config")
    for fields in (Fields(raw), *([Fields(inner, "config.json: text_config")] if isinstance(inner, Mapping) else [])):
        for key, usual in KEYS.items():
            part = fields.part(key)
            if not part.raw:
                continue
            name = part.text("quant_method", usual).lower()
            if name not in METHODS:
                raise ConfigError(
                    f"{part.where}: weights quantised by {quote(name)} are not read (read: {', '.join(METHODS)}); "
                    "take the model's release in bfloat16, or one of these"
                )
            return METHODS[name](part)
    return None
