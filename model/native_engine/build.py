"""Compile the kernels for this machine, once, and load them. No torch here."""

from __future__ import annotations

import ctypes
import hashlib
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
from tokenglass.model.native_engine.facts import check_facts
from tokenglass.model.native_engine.folder import intact_library, keep_library, new_library, own_folder

SOURCE = "engine.c"  # and the headers beside it
FLAGS = ("-std=gnu11", "-O3", "-fno-math-errno", "-fPIC", "-shared", "-pthread")
MARCH = "TOKENGLASS_MARCH"  # the processor to compile for, as the compiler names it: x86-64-v3 has AVX2 and no more
SECONDS = 120  # a compiler that takes longer is given up
MAX_ERRORS = 2**16  # bytes of what a compiler says
SHOWN = 300  # characters of it


def load_library(folder: Path | None = None, extra: Sequence[str] = ()) -> ctypes.CDLL:
    """The compiled kernels, from `folder` (None: the user's cache) or else compiled into it. Raises KernelsError."""
    compiler = find_compiler()
    flags = (*FLAGS, target(), *extra)
    folder = own_folder(user_cache_path("tokenglass") / "kernels" if folder is None else folder)
    try:
        key = fingerprint(compiler, flags)
        library = intact_library(folder, key) or compile_into(folder, key, [*compiler, *flags])
        loaded = ctypes.CDLL(str(library))
    except OSError as error:
        raise KernelsError(f"the compiled kernels cannot be used ({error})") from None
    check_facts(loaded)
    return loaded


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


def target() -> str:
    """The compiler's flag for the processor: this machine's, unless the environment names another."""
    name = "-mcpu" if platform.machine() in ("arm64", "aarch64") else "-march"
    return f"{name}={os.environ.get(MARCH) or 'native'}"


def fingerprint(compiler: Sequence[str], flags: Sequence[str]) -> str:
    """Changes with the source, the compiler, its flags and the processor."""
    binary = Path(compiler[0]).resolve()
    status = binary.stat()
    parts = [*compiler, str(binary), str(status.st_size), str(status.st_mtime_ns), *flags, processor()]
    digest = hashlib.sha256("\0".join(parts).encode(errors="surrogateescape"))
    for file in sources():
        digest.update(file.read_bytes())
    return digest.hexdigest()[:32]


def sources() -> list[Path]:
    """Every file that the compiler reads here."""
    return sorted((Path(__file__).parent / "c").glob("*.[ch]"))


def processor() -> str:
    """The processor's model and abilities, as the system tells them."""
    try:
        lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()} {platform.release()}"
    telling = ("vendor_id", "model", "stepping", "flags", "Features", "CPU ")
    return "\n".join(line for line in lines if line.startswith(telling) and "MHz" not in line)


def compile_into(folder: Path, key: str, command: Sequence[str]) -> Path:
    """Compile in the folder, and give the library its name when it is whole. Raises KernelsError, OSError."""
    compiled = new_library(folder)
    try:
        run_compiler([*command, "-o", str(compiled), str(Path(__file__).parent / "c" / SOURCE), "-lm"])
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
