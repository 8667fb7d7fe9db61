"""What a layer keeps of each position of a text, which its kind of mixer decides. No torch here."""

from __future__ import annotations

from dataclasses import dataclass

DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "int8": 1}  # of a number in the cache
KEYS_VALUES, CONVOLUTION_INPUTS, RECURRENT = "keys and values", "convolution inputs", "recurrent states"
SCALE_BYTES = 4  # of a float32 behind each vector that a cache holds in int8


@dataclass(frozen=True, slots=True)
class LayerState:
    """Of each position `arrays` vectors of `size` numbers for each of the `heads`: of attention a key and a value.

    Where there is a window, only the last so many positions are needed.
    """

    arrays: int
    heads: int
    size: int
    window: int | None = None
    name: str = KEYS_VALUES  # as a person reads it

    @property
    def fixed_bytes(self) -> int:
        """Bytes that are taken however long the text is."""
        return 0

    def vector_bytes(self, dtype: str) -> int:
        """Bytes of one vector in a cache of float32, bfloat16, float16 or int8."""
        return self.size * DTYPE_BYTES[dtype] + (SCALE_BYTES if dtype == "int8" else 0)

    def bytes_per_token(self, dtype: str) -> int:
        """Bytes of such a cache that one position takes."""
        return self.arrays * self.heads * self.vector_bytes(dtype)


@dataclass(frozen=True, slots=True)
class RecurrentState:
    """Of a whole text `size` numbers of float32, however long it is."""

    size: int
    name: str = RECURRENT
    window: None = None

    @property
    def fixed_bytes(self) -> int:
        return 4 * self.size

    def bytes_per_token(self, _dtype: str) -> int:
        return 0
