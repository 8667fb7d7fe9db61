"""Uniform numbers from a counter-based generator: the same key, the same number, in any order. No torch here."""

from __future__ import annotations

import hashlib
import struct

TOKEN_STREAM = 0
XTC_STREAM = 1
AGAIN_STREAM = 2  # draws that only show what else could have come


def uniform(seed: int, position: int, *, stream: int = TOKEN_STREAM, attempt: int = 0) -> float:
    """A number in [0, 1) with 53 random bits, keyed by (seed, stream, position, attempt).

    `stream` separates what needs numbers of its own; `attempt` counts fresh draws after a rewind. BLAKE2b
    (RFC 7693) of the key stands in for the counter-based generators of Salmon et al. 2011.
    """
    key = struct.pack("<QQQQ", seed, stream, position, attempt)
    digest = hashlib.blake2b(key, digest_size=8, person=b"tokenglass draw").digest()
    return (int.from_bytes(digest, "little") >> 11) * 2.0**-53
