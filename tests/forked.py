"""Many commands in forks of one warm process, each on a pseudo-terminal or between pipes.

Run as a program it reads cases from stdin and writes what each of them printed; `run_all` is how tests ask it.
"""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

PATIENCE = 100  # seconds a command


@dataclass(frozen=True, slots=True)
class Printed:
    """What a command wrote: on a terminal all of it is `out`."""

    code: int
    out: bytes
    err: bytes = b""


def run_all(cases: Mapping[str, tuple[str, ...]], *, terminal: bool) -> dict[str, Printed]:
    """What `tokenglass ARGUMENTS` prints, by the name of the case; a first argument like `stdin=TEXT` is typed in."""
    environment = {**os.environ, "TERM": "xterm-256color", "LANG": "C.UTF-8", "OMP_NUM_THREADS": "1"}
    for name in ("NO_COLOR", "FORCE_COLOR", "LC_ALL", "TOKENGLASS_MODEL"):
        environment.pop(name, None)
    done = subprocess.run(
        [sys.executable, __file__],
        input=json.dumps([terminal, dict(cases)]).encode(),
        stdout=subprocess.PIPE,
        timeout=900,
        check=True,
        env=environment,
    )
    return {
        name: Printed(code, bytes.fromhex(out), bytes.fromhex(err))
        for name, (code, out, err) in json.loads(done.stdout).items()
    }


def main() -> None:
    terminal, cases = json.loads(sys.stdin.buffer.read())
    import tokenglass.model.inspection.check  # noqa: PLC0415  (torch, once for all)
    import tokenglass.model.loading  # noqa: F401, PLC0415
    from tokenglass.cli.app import tokenglass_app  # noqa: PLC0415

    tokenglass_app()
    printed = {}
    for name, arguments in cases.items():
        typed = arguments.pop(0)[6:] if arguments[0].startswith("stdin=") else ""
        printed[name] = (on_terminal if terminal else between_pipes)(arguments, typed.encode())
    json.dump(printed, sys.stdout)


def child(arguments: list[str]) -> None:
    """The command, in a fork: its streams are those that the interpreter would make of its descriptors."""
    from tokenglass.cli.__main__ import tokenglass  # noqa: PLC0415

    sys.stdin, sys.stdout = (open(number, mode, encoding="utf-8") for number, mode in ((0, "r"), (1, "w")))  # noqa: PTH123, SIM115
    sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", buffering=1)  # noqa: SIM115
    sys.argv = ["tokenglass", *(os.fsdecode(os.fsencode(argument)) for argument in arguments)]
    code = 3
    try:
        tokenglass()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0
    finally:
        sys.stdout.flush()
        os._exit(code)


def on_terminal(arguments: list[str], typed: bytes) -> tuple[int, str, str]:
    process, descriptor = pty.fork()
    if process == 0:
        child(arguments)
    if typed:
        os.write(descriptor, typed)
    out = read_to_end([descriptor], b"\x04" if typed else b"")[descriptor]  # Ctrl-D, where it waits for more
    os.close(descriptor)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), out.hex(), ""


def between_pipes(arguments: list[str], typed: bytes) -> tuple[int, str, str]:
    (stdin, write_end), (out, stdout), (err, stderr) = os.pipe(), os.pipe(), os.pipe()
    process = os.fork()
    if process == 0:
        for number, descriptor in enumerate((stdin, stdout, stderr)):
            os.dup2(descriptor, number)
        os.closerange(3, 64)
        child(arguments)
    for descriptor in (stdin, stdout, stderr):
        os.close(descriptor)
    os.write(write_end, typed)
    os.close(write_end)
    outputs = read_to_end([out, err])
    for descriptor in (out, err):
        os.close(descriptor)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), outputs[out].hex(), outputs[err].hex()


def read_to_end(descriptors: list[int], when_silent: bytes = b"") -> dict[int, bytes]:
    content = dict.fromkeys(descriptors, b"")
    still, end = set(descriptors), time.monotonic() + PATIENCE
    while still and time.monotonic() < end:
        ready = select.select(list(still), [], [], 2)[0]
        if not ready and when_silent:
            os.write(descriptors[0], when_silent)
        for descriptor in ready:
            try:
                part = os.read(descriptor, 65_536)
            except OSError:  # the terminal was closed by its last program
                part = b""
            content[descriptor] += part
            if not part:
                still.discard(descriptor)
    return content


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))
    main()
