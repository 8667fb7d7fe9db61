"""How quantised weights lie in a safetensors file: which tensors stand for a weight, and what the metadata says.

A weight NAME of 8 bits is NAME.values and NAME.scales, of 4 bits NAME.packed, NAME.scales and NAME.offsets, with the
shapes and dtypes that model/quantisation.py gives them; everything else is float32. Names are the transformer's own.
No torch here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from model.config import ModelConfig
from model.errors import CheckpointError

Format = Literal["int8", "int4"]
Shape = tuple[int, ...]

GROUP = 32  # weights of a row that share one scale and offset in int4
VERSION = "1"
PART = re.compile(r"(.*\.)?(?P<module>\w+)\.weight\.(?P<part>values|packed|scales|offsets)")
FORMAT_KEY, VERSION_KEY, SOURCE_KEY, LAYOUT_KEY = (
    f"tokenglass.{key}" for key in ("format", "version", "source", "layout")
)
LAYOUTS: Mapping[Format, str] = {
    "int8": "NAME.values int8 (out, in), NAME.scales float32 (out,); weight = value * scale of its row",
    "int4": "NAME.packed uint8 (out, groups * 16), NAME.scales and NAME.offsets float16 (out, groups); byte j of a "
    "group of 32 holds element j in its low and j + 16 in its high nibble; weight = nibble * scale + offset",
}


@dataclass(frozen=True, slots=True)
class Quantisation:
    """What a checkpoint is quantised to, and the fingerprint of the checkpoint that it was made from."""

    format: Format
    source: str

    @property
    def metadata(self) -> dict[str, str]:
        """As it stands in the file."""
        return {
            "format": "pt",
            FORMAT_KEY: self.format,
            VERSION_KEY: VERSION,
            SOURCE_KEY: self.source,
            LAYOUT_KEY: LAYOUTS[self.format],
        }


def quantisation_of(metadata: Mapping[str, str], file: Path) -> Quantisation | None:
    """What a file's metadata says; None for an ordinary checkpoint. Raises CheckpointError for what is not known."""
    if FORMAT_KEY not in metadata:
        return None
    version = metadata.get(VERSION_KEY, "")
    if version != VERSION:
        raise CheckpointError(f"{file}: quantised in version {version!a:.40} of the layout, this program reads 1")
    known = next((known for known in LAYOUTS if known == metadata[FORMAT_KEY]), None)
    if known is None:
        told = f"{metadata[FORMAT_KEY]!a:.40}"
        raise CheckpointError(f"{file}: quantised to {told}, which is not known (known: {', '.join(LAYOUTS)})")
    return Quantisation(known, metadata.get(SOURCE_KEY, ""))


def is_quantised(name: str, shape: Shape) -> bool:
    """Whether a weight of the transformer is quantised: all matrices but the learned positions."""
    return len(shape) == 2 and name != "model.embed_positions.weight"


def stored_parts(name: str, shape: Shape, stored: Format) -> dict[str, tuple[str, Shape]]:
    """The tensors that stand for one weight, with safetensors' names of their dtypes and their shapes."""
    if not is_quantised(name, shape):
        return {name: ("F32", shape)}
    out, in_features = shape
    if stored == "int8":
        return {f"{name}.values": ("I8", shape), f"{name}.scales": ("F32", (out,))}
    grouped = (out, -(-in_features // GROUP))
    packed = (out, grouped[1] * GROUP // 2)
    return {f"{name}.packed": ("U8", packed), f"{name}.scales": ("F16", grouped), f"{name}.offsets": ("F16", grouped)}


def weights_in(name: str, shape: Shape, dtype: str, config: ModelConfig) -> tuple[str, int]:
    """The weights that one stored tensor holds, by dtype and number; scales and offsets are none of their own."""
    match = PART.fullmatch(name)
    part = match["part"] if match and shape else ""
    if part in ("scales", "offsets"):
        return dtype, 0
    if match and part == "packed":
        sizes = {"o_proj": config.num_heads * config.head_dim, "down_proj": config.intermediate_size}
        return "int4", shape[0] * sizes.get(match["module"], config.hidden_size)
    return "int8" if part == "values" else dtype, math.prod(shape)
