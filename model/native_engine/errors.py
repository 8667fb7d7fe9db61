"""The error of everything that keeps the kernels from running."""

from __future__ import annotations


class KernelsError(Exception):
    """The kernels cannot be had on this machine; the message says why."""
