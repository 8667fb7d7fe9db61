"""How near numbers must be that two ways of computing give in float32: bounds follow their size, and no processor."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

ABSOLUTE, RELATIVE = 1e-4, 1e-5


def assert_close(actual: Tensor, expected: Tensor, absolute: float = ABSOLUTE) -> None:
    """Within 1e-4, or within 1e-5 of the largest number where that is more."""
    bound = max(absolute, RELATIVE * expected.abs().max().item())
    torch.testing.assert_close(actual, expected, rtol=0, atol=bound)


def near(expected: float) -> object:
    """The same for one number: compares equal to what is near."""
    return pytest.approx(expected, rel=RELATIVE, abs=ABSOLUTE)
