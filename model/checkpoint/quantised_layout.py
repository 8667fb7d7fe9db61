"""How quantised weights lie in a safetensors file: which tensors stand for a weight, and what the metadata says.

A weight NAME of 8 bits is NAME.values, NAME.scales and perhaps NAME.factors, of 4 bits NAME.packed, NAME.scales and
NAME.offsets, with the shapes and dtypes that model/checkpoint/quantised.py gives them; everything else is float32 or
bfloat16. Names are the blueprint's.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tokenglass.model.errors import CheckpointError

Format = Literal["int8", "int4"]
Shape = tuple[int, ...]

GROUP = 32  # weights of a row that share one scale and offset in int4
PANEL = 16  # rows that lie side by side
UNIT = 4  # bytes of a row that lie together
STEP = 64  # elements of a row of int8 that share a factor; rows are filled up to it
VERSION = "5"
# 2 had no factors, before 4 all matrices were of one format, and before 5 none of int4 were int8.
READABLE = ("2", "3", "4", VERSION)
CACHE_DTYPE = "bfloat16"  # that is kept beside quantised weights: it costs them a hundredth of what they cost
CALIBRATION = re.compile(r"(?P<tokens>[0-9]{1,15}) tokens of (?:its own|(?P<sha256>[0-9a-f]{64}))")
PART = re.compile(r"(?P<weight>.+\.weight)\.(?P<part>values|factors|packed|scales|offsets)")
FORMAT_KEY, VERSION_KEY, SOURCE_KEY, LAYOUT_KEY, CALIBRATION_KEY = (
    f"tokenglass.{key}" for key in ("format", "version", "source", "layout", "calibration")
)
INT8_LAYOUT = (
    "NAME.values int8 (panels, units, 16, 4): row r is row r % 16 of panel r / 16, element k of it is number "
    "k % 4 of unit k / 4; NAME.scales float32 (out,); NAME.factors uint8 (panels, groups, 16), "
    "one for 64 elements of a row, or absent where all are 1; weight = value * factor * scale of its row"
)
LAYOUTS: Mapping[Format, str] = {
    "int8": INT8_LAYOUT,
    "int4": "NAME.packed uint8 (panels, groups * 4, 16, 4): bytes of rows, where int8 has elements; byte j of the "
    "16 of a group of 32 holds element j in its low and j + 16 in its high nibble; NAME.scales and NAME.offsets "
    "float16 (panels, groups, 16); weight = nibble * scale + offset. Embedding, head and v_proj are "
    f"{INT8_LAYOUT}",
}


@dataclass(frozen=True, slots=True)
class Calibration:
    """A text that weights are fitted to: so many tokens that the model wrote itself, or of a text with this SHA-256."""

    tokens: int
    sha256: str | None = None

    def __str__(self) -> str:
        """As it stands in the file."""
        return f"{self.tokens} tokens of {'its own' if self.sha256 is None else self.sha256}"


@dataclass(frozen=True, slots=True)
class Quantisation:
    """What a checkpoint is quantised to, the fingerprint of the checkpoint that it was made from, and the text that it
    was fitted to, where there was one."""

    format: Format
    source: str
    calibration: Calibration | None = None

    @property
    def metadata(self) -> dict[str, str]:
        """As it stands in the file."""
        calibration = {} if self.calibration is None else {CALIBRATION_KEY: str(self.calibration)}
        return {
            "format": "pt",
            FORMAT_KEY: self.format,
            VERSION_KEY: VERSION,
            SOURCE_KEY: self.source,
            LAYOUT_KEY: LAYOUTS[self.format],
            **calibration,
        }


def quantisation_of(metadata: Mapping[str, str], file: Path) -> Quantisation | None:
    """What a file's metadata says; None for an ordinary checkpoint. Raises CheckpointError for what is not known."""
    if FORMAT_KEY not in metadata:
        return None
    version = metadata.get(VERSION_KEY, "")
    if version not in READABLE:
        raise CheckpointError(
            f"{file}: quantised in version {version!a:.40} of the layout, this program reads {VERSION}; "
            "quantise the model again"
        )
    known = next((known for known in LAYOUTS if known == metadata[FORMAT_KEY]), None)
    if known is None:
        name = f"{metadata[FORMAT_KEY]!a:.40}"
        raise CheckpointError(f"{file}: quantised to {name}, which is not known (known: {', '.join(LAYOUTS)})")
    return Quantisation(known, metadata.get(SOURCE_KEY, ""), calibration_of(metadata, file))


def calibration_of(metadata: Mapping[str, str], file: Path) -> Calibration | None:
    """What a file's metadata says of the text; None where there was none. Raises CheckpointError for anything else."""
    words = metadata.get(CALIBRATION_KEY)
    if words is None:
        return None
    match = CALIBRATION.fullmatch(words)
    if match is None:
        raise CheckpointError(f"{file}: its calibration, {words!a:.40}, is not known; quantise the model again")
    return Calibration(int(match["tokens"]), match["sha256"])


def stored_parts(
    name: str, shape: Shape, stored: Format | None, present: Mapping[str, str]
) -> dict[str, tuple[str, Shape]]:
    """The tensors that stand for one weight, with safetensors' names of their dtypes and their shapes; a weight that is
    not quantised (None) stands for itself, and so does a matrix that is `present` under its own name.

    `present` are the tensors that there are, with their dtypes; factors are expected where they are among them.
    """
    if stored is None or name in present:
        return {name: ("BF16" if present.get(name) == "BF16" else "F32", shape)}
    if stored == "int8":
        factors = {f"{name}.factors": ("U8", factors_shape(*shape))} if f"{name}.factors" in present else {}
        return {f"{name}.values": ("I8", int8_shape(*shape)), f"{name}.scales": ("F32", shape[:1]), **factors}
    packed, grouped = int4_shapes(*shape)
    return {f"{name}.packed": ("U8", packed), f"{name}.scales": ("F16", grouped), f"{name}.offsets": ("F16", grouped)}


def int8_shape(out: int, in_features: int) -> Shape:
    """Of the values of a matrix (out, in)."""
    return -(-out // PANEL), -(-in_features // STEP) * STEP // UNIT, PANEL, UNIT


def factors_shape(out: int, in_features: int) -> Shape:
    """Of the factors of a matrix (out, in) in int8."""
    return -(-out // PANEL), -(-in_features // STEP), PANEL


def int4_shapes(out: int, in_features: int) -> tuple[Shape, Shape]:
    """Of the packed nibbles of a matrix (out, in), and of its scales and its offsets."""
    panels, groups = -(-out // PANEL), -(-in_features // GROUP)
    return (panels, groups * GROUP // 2 // UNIT, PANEL, UNIT), (panels, groups, PANEL)


def weights_in(name: str, shape: Shape, dtype: str, shapes: Mapping[str, Shape]) -> tuple[str, int]:
    """The weights that one stored tensor holds, by dtype and number; scales, offsets and factors are none of their own.

    `shapes` are those of the model's weights.
    """
    match = PART.fullmatch(name)
    if match is None or match["weight"] not in shapes or not shape:
        return dtype, math.prod(shape)
    if match["part"] in ("scales", "offsets", "factors"):
        return dtype, 0
    return "int4" if match["part"] == "packed" else "int8", math.prod(shapes[match["weight"]])
