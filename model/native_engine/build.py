"""Compile the kernels for this machine, once. No torch here."""

from __future__ import annotations

import hashlib
import logging
import os
import platform
import shlex
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from platformdirs import user_cache_path

from tokenglass.model.errors import KernelsError
from tokenglass.model.native_engine.folder import intact_library, keep_library, new_library, own_folder
from tokenglass.model.native_engine.levels import read_levels
from tokenglass.model.native_engine.sources import FOLDER, sources_key

SOURCE = "engine.c"  # and the headers beside it
SECONDS = 120  # a compiler that takes longer is given up
MAX_ERRORS = 2**16  # bytes of what a compiler says
SHOWN = 300  # characters of it


def compile_library(folder: Path | None, options: Sequence[str], processor: str) -> Path:
    """The library of these options from `folder` (None: the user's cache), or else compiled into it.

    Raises KernelsError.
    """
    compiler = find_compiler()
    (every,) = read_levels("every")
    flags = (*every.options, "-shared", *options)
    folder = own_folder(user_cache_path("tokenglass") / "kernels" if folder is None else folder)
    try:
        key = fingerprint(compiler, flags, processor)
        return intact_library(folder, key) or compile_into(folder, key, [*compiler, *flags])
    except OSError as error:
        raise KernelsError(f"the compiled kernels cannot be used ({error})") from None


def find_compiler() -> list[str]:
    """The command of $CC, or the first C compiler on the path. Raises KernelsError."""
    if os.name != "posix":
        raise KernelsError(f"they are not built for {platform.system()}")
    try:
        wanted = shlex.split(os.environ.get("CC", ""))
    except ValueError as error:
        raise KernelsError(f"CC cannot be read as a command ({error})") from None
    for command in [wanted] if wanted else [["cc"], ["gcc"], ["clang"]]:
        program = shutil.which(command[0])
        if program is not None:
            return [program, *command[1:]]
    if wanted:
        raise KernelsError(f"CC names {wanted[0][:SHOWN]!r}, which is no program that can be run")
    raise KernelsError("there is no C compiler; install gcc or clang, or name one in CC")


def fingerprint(compiler: Sequence[str], flags: Sequence[str], processor: str) -> str:
    """Changes with the source, the compiler, its flags and the processor."""
    binary = Path(compiler[0]).resolve()
    status = binary.stat()
    parts = [*compiler, str(binary), str(status.st_size), str(status.st_mtime_ns), *flags, processor, sources_key()]
    return hashlib.sha256("\0".join(parts).encode(errors="surrogateescape")).hexdigest()[:32]


def compile_into(folder: Path, key: str, command: Sequence[str]) -> Path:
    """Compile in the folder, and give the library its name when it is whole. Raises KernelsError, OSError."""
    compiled = new_library(folder)
    logging.getLogger(__name__).warning("compiling the kernels for this processor (once, about 10 s)")
    try:
        run_compiler([*command, "-o", str(compiled), str(FOLDER / SOURCE), "-lm"])
        return keep_library(compiled, key)
    finally:
        compiled.unlink(missing_ok=True)


def run_compiler(command: Sequence[str]) -> None:
    """Run it with everything that it starts, and end all of that if it takes too long. Raises KernelsError, OSError."""
    environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}  # meant for this program
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            env=environment,
            start_new_session=True,
        )
        try:
            status = process.wait(SECONDS)
        except BaseException as reason:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if isinstance(reason, subprocess.TimeoutExpired):
                raise KernelsError(f"{command[0]} took more than {SECONDS} seconds") from None
            raise
        if status:
            errors.seek(0)
            lines = errors.read(MAX_ERRORS).decode(errors="replace").splitlines()
            line = next((line for line in lines if "error" in line.lower()), "no message")
            raise KernelsError(f"{command[0]} failed: {line[:SHOWN]}")
