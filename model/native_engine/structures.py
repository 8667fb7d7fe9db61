"""The structures of program.h, for ctypes. Every field takes 8 bytes, so there is no padding."""

from __future__ import annotations

import ctypes
from ctypes import POINTER, c_double, c_int64, c_void_p
from enum import IntEnum

Kind = IntEnum("Kind", "FLOAT32 BFLOAT16 INT8 INT4", start=0)
Normed = IntEnum("Normed", "NONE RMS LAYER SCALE", start=0)
Code = IntEnum(
    "Code", "EMBED NORMALISE MULTIPLY ATTEND TAP HEAD CHOOSE MULTIPLY_PAIRS COMBINE CONVOLVE RECUR OPEN TIMES", start=0
)
Activation = IntEnum("Activation", "IDENTITY SILU GELU GELU_TANH RELU RELU_SQUARED XIELU CLAMPED_SWIGLU", start=0)
Buffer = IntEnum(
    "Buffer",
    "HIDDEN READY QUERY KEY VALUE OPENING MIXED GATE UP ADDED TOKEN_ROWS ROUTED SHARED INNER INNER_UP OUTER",
    start=0,
)
PartKind = IntEnum("PartKind", "TEMPERATURE TOP_K TOP_P MIN_P", start=0)
Status = IntEnum("Status", "DONE NO_MEMORY NO_SUCH_TOKEN WEIGHTS_LOST", start=0)

MAX_PARTS = 4  # of a chain that the kernels apply
MAX_SHOWN = 32  # tokens that they record beside the one they draw
CHUNK = 128  # positions that attention takes together, at whose multiples a row of the cache may go on elsewhere


class Matrix(ctypes.Structure):
    _fields_ = (
        *((name, c_int64) for name in ("kind", "rows", "columns")),
        *((name, c_void_p) for name in ("values", "scales", "offsets", "factors", "bias", "squares")),
    )


class Norm(ctypes.Structure):
    _fields_ = (
        *(("kind", c_int64), ("size", c_int64), ("eps", c_double), ("weight", c_void_p), ("bias", c_void_p)),
        ("apart", c_int64),
    )


class Operation(ctypes.Structure):
    _fields_ = (
        *((name, c_int64) for name in ("kind", "source", "target", "experts", "parts", "gated", "activation", "add")),
        *((name, c_int64) for name in ("first", "size")),
        *(
            (name, c_int64)
            for name in (
                "state",
                "layer",
                "rope",
                "window",
                "kv_heads",
                "head_dim",
                "reads_only",
                "rotate_first",
                "taps",
                "key_heads",
                "value_heads",
                "key_dim",
                "value_dim",
                "by_head",
                "chosen",
                "sigmoid",
                "renormalise",
                "shared_gate",
            )
        ),
        *((name, c_double) for name in ("scale", "softcap", "growth", "trained", "above", "below", "sum_eps")),
        *((name, Norm) for name in ("norm", "other_norm")),
        *((name, c_void_p) for name in ("sinks", "kernel", "kernel_bias", "rates", "choice_bias", "expert_scale")),
        ("matrices", POINTER(Matrix)),
    )


class Sizes(ctypes.Structure):
    _fields_ = tuple(
        (name, c_int64)
        for name in (
            *("hidden", "intermediate", "heads", "query", "key", "vocab", "token_rows"),
            *("experts", "slots", "inner"),
        )
    )


class Measurement(ctypes.Structure):
    _fields_ = (
        *((name, c_double) for name in ("peak", "mass", "weighted")),
        *((name, c_int64) for name in ("count", "complete")),
    )


class Measuring(ctypes.Structure):
    _fields_ = (
        ("logits", POINTER(c_void_p)),
        *((name, c_int64) for name in ("rows", "size", "wanted", "room")),
        *((name, c_void_p) for name in ("ids", "below", "out")),
    )


class ChainPart(ctypes.Structure):
    _fields_ = (("kind", c_int64), ("value", c_double))


class Chain(ctypes.Structure):
    _fields_ = (
        *((name, c_int64) for name in ("wanted", "shown", "greedy", "count")),
        ("parts", ChainPart * MAX_PARTS),
    )


class TokenRecord(ctypes.Structure):
    _fields_ = (("id", c_int64), ("cut", c_int64), ("logprob", c_double), ("prob", c_double))


class TokenDraw(ctypes.Structure):
    _fields_ = (
        *((name, c_double) for name in ("mass", "weighted")),
        *((name, c_int64) for name in ("place", "rank", "count")),
        ("tokens", TokenRecord * (MAX_SHOWN + 1)),
    )


class DrawRow(ctypes.Structure):
    _fields_ = (
        *((name, c_void_p) for name in ("logits", "masked", "removed")),
        ("removed_count", c_int64),
        ("chain", POINTER(Chain)),
        ("draw", c_double),
        ("out", TokenDraw),
    )


class Drawing(ctypes.Structure):
    _fields_ = (("rows", POINTER(DrawRow)), ("count", c_int64), ("size", c_int64))


class TokenMeasuring(ctypes.Structure):
    _fields_ = (
        ("logits", c_void_p),
        *((name, c_int64) for name in ("rows", "size")),
        *((name, c_void_p) for name in ("ids", "out")),
    )


class Piece(ctypes.Structure):
    _fields_ = (("memory", c_void_p), ("slots", c_int64), ("start", c_int64))


class PassRow(ctypes.Structure):
    _fields_ = (
        *((name, c_int64) for name in ("first", "count", "outputs", "block", "length")),
        ("pieces", POINTER(POINTER(Piece))),
        ("piece_counts", POINTER(c_int64)),
        ("tables", POINTER(c_void_p)),
    )


class Pass(ctypes.Structure):
    _fields_ = (
        ("ids", c_void_p),
        *((name, c_int64) for name in ("columns", "count")),
        ("rows", POINTER(PassRow)),
        ("cache_kind", c_int64),
        ("dims", POINTER(c_int64)),
        *((name, c_void_p) for name in ("logits", "hidden", "experts", "probs")),
    )
