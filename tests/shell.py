"""Run the real console scripts, as a shell would."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SCRIPTS = Path(sys.executable).parent
ENVIRONMENT = {**os.environ, "PYTHONWARNINGS": "error", "OMP_NUM_THREADS": "1"}
for name in ("TOKENGLASS_MODEL", "NO_COLOR", "FORCE_COLOR"):
    ENVIRONMENT.pop(name, None)


def generate(*arguments: str, stdin: bytes | None = b"", **environment: str) -> subprocess.CompletedProcess[bytes]:
    """`generate ARGUMENTS` with pipes on all three streams."""
    return script("generate", *arguments, stdin=stdin, **environment)


def tokenglass(*arguments: str, stdin: bytes | None = b"", **environment: str) -> subprocess.CompletedProcess[bytes]:
    """`tokenglass ARGUMENTS` with pipes on all three streams."""
    return script("tokenglass", *arguments, stdin=stdin, **environment)


def script(name: str, *arguments: str, stdin: bytes | None, **environment: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [SCRIPTS / name, *arguments],
        input=stdin,
        capture_output=True,
        timeout=120,
        check=False,
        env={**ENVIRONMENT, **environment},
    )


def bash(command: str) -> subprocess.CompletedProcess[bytes]:
    """A whole shell line, pipes and all, with the scripts on the PATH and pipefail."""
    path = f"{SCRIPTS}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=120,
        check=False,
        env={**ENVIRONMENT, "PATH": path},
    )


def assert_one_line_error(done: subprocess.CompletedProcess[bytes], code: int, *words: str) -> None:
    """Exit code, nothing on stdout, and one line on stderr that holds the words."""
    errors = done.stderr.decode()
    assert done.returncode == code, errors
    assert done.stdout == b""
    assert len(errors.splitlines()) == 1, errors
    for word in words:
        assert word in errors
