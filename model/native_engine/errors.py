"""Where the error of the kernels was."""

from tokenglass.model.errors import KernelsError

__all__ = ["KernelsError"]
