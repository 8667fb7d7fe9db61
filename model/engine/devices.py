"""Whether this machine may have a GPU that torch could use, without importing torch to find out."""

from __future__ import annotations

import sys
from pathlib import Path

DRIVERS = ("/proc/driver/nvidia", "/dev/nvidiactl", "/dev/kfd", "/dev/dxg")  # NVIDIA's, AMD's, and Windows' for Linux


def may_have_gpu() -> bool:
    """False where there is no driver of one. True on systems where that cannot be seen."""
    return not sys.platform.startswith("linux") or any(Path(driver).exists() for driver in DRIVERS)
