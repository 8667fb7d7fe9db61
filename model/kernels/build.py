"""Compile the kernels for this machine, once, and load them. No torch here."""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from platformdirs import user_cache_path

SOURCE = "engine.c"  # and the headers beside it
FLAGS = ("-std=gnu11", "-O3", "-fno-math-errno", "-fPIC", "-shared", "-pthread")
SECONDS = 120  # a compiler that takes longer is given up


class KernelsError(Exception):
    """The kernels cannot be had on this machine; the message says why."""


def load_library(folder: Path | None = None, extra: Sequence[str] = ()) -> ctypes.CDLL:
    """The compiled kernels, from `folder` (None: the user's cache) or else compiled into it. Raises KernelsError."""
    compiler = find_compiler()
    flags = (*FLAGS, "-mcpu=native" if platform.machine() in ("arm64", "aarch64") else "-march=native", *extra)
    folder = own_folder(user_cache_path("tokenglass") / "kernels" if folder is None else folder)
    library = folder / f"{fingerprint(compiler, flags)}.so"
    try:
        if not library.exists():
            compile_into(library, [*compiler, *flags])
        if library.stat().st_uid != os.getuid():
            raise KernelsError(f"{library} belongs to someone else")
        return ctypes.CDLL(str(library))
    except OSError as error:
        raise KernelsError(f"the compiled kernels cannot be used ({error})") from None


def find_compiler() -> list[str]:
    """The command of $CC, or the first C compiler on the path. Raises KernelsError."""
    if os.name != "posix":
        raise KernelsError(f"they are not built for {platform.system()}")
    wanted = shlex.split(os.environ.get("CC", ""))
    for command in [wanted] if wanted else [["cc"], ["gcc"], ["clang"]]:
        found = shutil.which(command[0])
        if found is not None:
            return [found, *command[1:]]
    raise KernelsError("there is no C compiler; install gcc or clang, or name one in CC")


def own_folder(folder: Path) -> Path:
    """The folder, made where it is missing, if nobody else can write to it. Raises KernelsError."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        status = folder.stat()
    except OSError as error:
        raise KernelsError(f"{folder} cannot be made ({error.strerror})") from None
    if status.st_uid != os.getuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise KernelsError(f"{folder} can be written by others; remove it")
    return folder


def fingerprint(compiler: Sequence[str], flags: Sequence[str]) -> str:
    """Changes with the source, the compiler, its flags and the processor."""
    binary = Path(compiler[0]).resolve()
    status = binary.stat()
    parts = [*compiler, str(binary), str(status.st_size), str(status.st_mtime_ns), *flags, processor()]
    digest = hashlib.sha256("\0".join(parts).encode())
    for file in sources():
        digest.update(file.read_bytes())
    return digest.hexdigest()[:32]


def sources() -> list[Path]:
    """Every file that the compiler reads here."""
    return sorted(Path(__file__).parent.glob("*.[ch]"))


def processor() -> str:
    """The processor's model and abilities, as the system tells them."""
    try:
        lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()} {platform.release()}"
    telling = ("vendor_id", "model", "stepping", "flags", "Features", "CPU ")
    return "\n".join(line for line in lines if line.startswith(telling) and "MHz" not in line)


def compile_into(library: Path, command: Sequence[str]) -> None:
    """Compile beside the library and put it in place whole. Raises KernelsError, OSError."""
    handle, made = tempfile.mkstemp(dir=library.parent, suffix=".so")
    os.close(handle)
    source = Path(__file__).with_name(SOURCE)
    try:
        done = subprocess.run(
            [*command, "-o", made, str(source), "-lm"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=SECONDS,
            check=False,
        )
        if done.returncode:
            lines = [line for line in done.stderr.splitlines() if "error" in line.lower()] or ["no message"]
            raise KernelsError(f"{command[0]} failed: {lines[0]}")
        Path(made).replace(library)
    except subprocess.TimeoutExpired:
        raise KernelsError(f"{command[0]} took more than {SECONDS} seconds") from None
    finally:
        Path(made).unlink(missing_ok=True)
