"""What the system says about the processor."""

from __future__ import annotations

import subprocess
from contextlib import suppress
from pathlib import Path

FIELDS = ("vendor_id", "model", "stepping", "flags", "Features", "CPU ")  # of /proc/cpuinfo


def describe_processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The processor's model and abilities, "" where the system does not say."""
    with suppress(OSError):
        lines = cpuinfo.read_text(errors="replace").split("\n\n")[0].splitlines()
        return "\n".join(line for line in lines if line.startswith(FIELDS) and "MHz" not in line)
    with suppress(OSError):  # macOS
        command = ["sysctl", "machdep.cpu", "hw.optional"]
        return subprocess.run(command, capture_output=True, text=True, errors="replace", check=False).stdout
    return ""


def processor_flags(description: str) -> frozenset[str]:
    """The names of the processor's abilities, as Linux has them."""
    for line in description.splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return frozenset(value.split())
    return frozenset()
