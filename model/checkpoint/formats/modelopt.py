"""NVIDIA's ModelOpt: NVFP4, and FP8 with a scale for a matrix or for each row.

    NVFP4   weight (out, in / 2) of bytes, weight_scale of F8_E4M3, weight_scale_2 for the matrix
    FP8     weight (out, in) of F8_E4M3, weight_scale

Source: nvidia.github.io/Model-Optimizer, the unified checkpoint of Hugging Face's layout.
"""

from __future__ import annotations

from tokenglass.model.checkpoint.formats.coded import CodedMatrix
from tokenglass.model.checkpoint.formats.fp4 import BYTES, read_nvfp4
from tokenglass.model.checkpoint.formats.fp8 import read_fp8
from tokenglass.model.checkpoint.formats.method import WEIGHT, Method, known_value
from tokenglass.model.checkpoint.formats.parts import Parts
from tokenglass.model.config.fields import Fields

ALGORITHMS = ("nvfp4", "fp8", "fp8_per_channel_per_token", "mixed_precision")
SCALE, GLOBAL, BEFORE = "weight_scale", "weight_scale_2", "pre_quant_scale"


def modelopt(fields: Fields) -> Method:
    """The method of a quantization_config, or of a hf_quant_config.json. Raises ConfigError."""
    algorithm = known_value(fields, "quant_algo", ALGORITHMS, "")
    return Method(f"ModelOpt, {algorithm.upper()}", (WEIGHT, SCALE, GLOBAL, BEFORE), read_modelopt)


def read_modelopt(parts: Parts) -> CodedMatrix:
    """A matrix of either kind."""
    if BEFORE in parts:
        raise parts.wrong(
            f"{BEFORE} changes what a matrix is given, which is not read; take another release of the model"
        )
    is_nvfp4 = WEIGHT in parts and parts.arrays[WEIGHT].dtype == BYTES
    return read_nvfp4(parts, WEIGHT, GLOBAL, divide=False) if is_nvfp4 else read_fp8(parts)
