"""GPTQ, as AutoGPTQ and GPTQModel write it: weight = (code - zero) * scale, matrices stored as (in, out).

    qweight   words (in * bits / 32, out): the codes of a column of words lie bit behind bit
    qzeros    words (groups, out * bits / 32), each one less than the zero it means, but in version 2
    scales    (groups, out)
    g_idx     (in,), the group of each input

Sources: Frantar et al. 2022, arXiv 2210.17323; github.com/ModelCloud/GPTQModel, the docs of its formats.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tokenglass.model.checkpoint.formats.coded import CodedMatrix
from tokenglass.model.checkpoint.formats.method import Method, Sizes, known_value
from tokenglass.model.checkpoint.formats.numbers import unpack_bits
from tokenglass.model.checkpoint.formats.parts import WORDS, Parts
from tokenglass.model.checkpoint.formats.scales import group_size
from tokenglass.model.config.fields import Fields

CODES, ZEROS, SCALES, GROUP_OF = "qweight", "qzeros", "scales", "g_idx"
VERSIONS = {"gptq": 1, "gptq_v2": 0}  # what is added to a stored zero


def gptq(fields: Fields) -> Method:
    """The method of a quantization_config. Raises ConfigError."""
    key = "checkpoint_format" if fields.get("checkpoint_format") is not None else "format"
    version = known_value(fields, key, tuple(VERSIONS), "gptq")
    sizes = Sizes.of([fields.raw, *modules_of(fields)], fields.where)
    ordered, added = fields.boolean("desc_act"), VERSIONS[version]
    roles = (CODES, ZEROS, SCALES, GROUP_OF)
    return Method(f"GPTQ, {sizes}", roles, lambda parts: read_gptq(parts, sizes, added, ordered=ordered))


def modules_of(fields: Fields) -> list[Mapping[str, Any]]:
    """What is said of some modules by patterns of their names."""
    return [raw for raw in fields.part("dynamic").raw.values() if isinstance(raw, Mapping)]


def read_gptq(parts: Parts, sizes: Sizes, added: int, *, ordered: bool) -> CodedMatrix:
    """A matrix (out, in), of which all parts are stored transposed; `ordered` ones say which group an input has."""
    rows, columns = parts.shape
    if ordered and GROUP_OF not in parts:
        raise parts.wrong(f"{GROUP_OF} is missing")
    words = parts.rows(CODES)
    bits = parts.fitting(CODES, {bits: columns * bits // 32 for bits in sizes.bits}, words, "number of bits")
    packed = parts.array(CODES, WORDS, (words, rows))
    groups = parts.rows(SCALES)
    group = group_size(parts, SCALES, sizes.groups, groups)
    scales = parts.floats(SCALES, (groups, rows)).T
    zeros = unpack_bits(parts.array(ZEROS, WORDS, (groups, -(-rows * bits // 32))), bits, rows).T.astype(np.float32)
    return CodedMatrix(
        parts.shape,
        bits,
        lambda some: unpack_bits(packed[:, some].T, bits, columns),
        scales,
        group,
        zeros + np.float32(added),
        group_of=parts.group_of(GROUP_OF, group, groups),
    )
