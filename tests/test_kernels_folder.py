"""Compiled kernels in the user's folder: damaged ones are made anew, and whatever CC names, torch can go on."""

from __future__ import annotations

import ctypes
import os
import platform
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import native_parts
import pytest
import tiny
import torch
from native_parts import program

from tokenglass.model.errors import KernelsError
from tokenglass.model.native_engine import build, facts
from tokenglass.model.native_engine.facts import facts_of
from tokenglass.model.native_engine.shared_library import load_compiled, load_library

COPY = """#!/bin/sh
while [ $# -gt 0 ]; do
    [ "$1" = -o ] && cp {library} "$2" && echo compiled >> {log}
    shift
done
"""


@pytest.fixture
def compilations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """A compiler that takes no time, and how often it ran."""
    library, log = native_parts.compiled()._name, tmp_path / "log"
    script = COPY.format(library=shlex.quote(library), log=shlex.quote(str(log)))
    monkeypatch.setenv("CC", shlex.quote(str(program(tmp_path / "cc", script))))
    return lambda: len(log.read_text().splitlines())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "kernels"
    path.mkdir(mode=0o700)
    return path


def truncated(library: Path, content: bytes) -> None:
    library.write_bytes(content[: len(content) // 2])


def too_short(library: Path, content: bytes) -> None:
    library.write_bytes(content[:10])


def with_zeros_in_its_middle(library: Path, content: bytes) -> None:
    third = len(content) // 3
    library.write_bytes(content[:third] + bytes(third) + content[2 * third :])


def with_one_bit_turned(library: Path, content: bytes) -> None:
    library.write_bytes(content[:5000] + bytes([content[5000] ^ 1]) + content[5001:])


def foreign(library: Path, content: bytes) -> None:
    shutil.copy(torch.__file__, library)


def enormous(library: Path, content: bytes) -> None:
    library.touch()
    os.truncate(library, 2**40)


def a_fifo(library: Path, content: bytes) -> None:
    os.mkfifo(library)


def a_link_to_nowhere(library: Path, content: bytes) -> None:
    library.symlink_to("/nowhere/at/all")


@pytest.mark.parametrize(
    "damage",
    [truncated, too_short, with_zeros_in_its_middle, with_one_bit_turned, foreign, enormous, a_fifo, a_link_to_nowhere],
    ids=lambda damage: damage.__name__,
)
def test_a_damaged_library_is_made_anew(
    damage: Callable[[Path, bytes], None], folder: Path, compilations: Callable[[], int]
) -> None:
    load_compiled(folder)
    (library,) = folder.iterdir()
    content = library.read_bytes()
    library.unlink()
    damage(library, content)
    load_compiled(folder)
    assert [*folder.iterdir()] == [library]
    assert library.read_bytes() == content
    load_compiled(folder)
    assert compilations() == 2


def test_a_folder_in_the_place_of_the_library_means_torch(folder: Path, compilations: Callable[[], int]) -> None:
    load_compiled(folder)
    (library,) = folder.iterdir()
    library.unlink()
    library.mkdir()
    with pytest.raises(KernelsError, match="cannot be used"):
        load_compiled(folder)


def test_a_library_that_nobody_loaded_for_a_month_is_removed_when_another_is_compiled(
    folder: Path, compilations: Callable[[], int]
) -> None:
    load_compiled(folder)
    load_compiled(folder, ["-O1"])
    used, other = folder.iterdir()
    month = 31 * 24 * 3600
    for library in (used, other):
        os.utime(library, (time.time() - month,) * 2)
    load_compiled(folder)  # one of the two
    load_compiled(folder, ["-O2"])
    assert len([*folder.iterdir()]) == 2
    assert used.exists() != other.exists()


def test_what_a_killed_process_left_is_removed_later(folder: Path, compilations: Callable[[], int]) -> None:
    old, new = folder / "old.part", folder / "new.part"
    old.touch()
    new.touch()
    os.utime(old, (time.time() - 7200,) * 2)
    load_compiled(folder)
    assert not old.exists()
    assert new.exists()


@pytest.mark.parametrize("inside", ["file", "proc"])
def test_a_folder_that_cannot_be_made_means_torch(inside: str, tmp_path: Path) -> None:
    native_parts.compiled()
    (tmp_path / "file").touch()
    place = {"file": tmp_path / "file", "proc": Path("/proc/self")}[inside] / "kernels"
    with pytest.raises(KernelsError, match=f"{place} cannot be made"):
        load_compiled(place)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_serves_as_long_as_its_library_is_whole(
    folder: Path, compilations: Callable[[], int]
) -> None:
    load_compiled(folder)
    folder.chmod(0o500)
    load_compiled(folder)
    with pytest.raises(KernelsError, match="cannot be used"):
        load_compiled(folder, ["-O1"])
    folder.chmod(0o700)


@pytest.mark.parametrize(
    ("compiler", "message"),
    [
        ('"', r"CC cannot be read as a command \(No closing quotation\)"),
        ("/", "CC names '/', which is no program that can be run"),
        ("no-such-compiler -O1", "CC names 'no-such-compiler'"),
        ("{sh} -c 'exit 1'", "failed: no message"),
        ("{sh} -c 'yes error | head -c 9999999 | tr -d \"\\n\" >&2; exit 1'", "failed: (error){60}$"),
        ("{sh} -c true", "cannot be used"),  # says that all is well
        ("{text}", "cannot be used .*Exec format error"),
    ],
)
def test_whatever_cc_names_torch_runs_with_a_reason_of_one_line(
    compiler: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = program(tmp_path / "text", "")
    text.write_bytes(b"\x7fno program")
    monkeypatch.setenv("CC", compiler.replace("{sh}", "/bin/sh").replace("{text}", str(text)))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    reason = native_parts.try_build(tiny.random_transformer(), load=load_compiled)
    assert isinstance(reason, str)
    assert len(reason.splitlines()) == 1
    assert len(reason) < 600
    with pytest.raises(KernelsError, match=message):
        load_compiled()


def test_a_compiler_that_hangs_is_ended_with_what_it_started(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a compiler started keeps its stderr open: nobody waits for that."""
    started = tmp_path / "started"
    script = f"#!/bin/sh\nsleep 600 &\necho $! > {shlex.quote(str(started))}.new\nmv {started}.new {started}\nwait\n"
    monkeypatch.setenv("CC", str(program(tmp_path / "cc", script)))
    monkeypatch.setattr(build, "SECONDS", 2)
    with pytest.raises(KernelsError, match="took more than 2 seconds"):
        load_compiled(folder)
    assert not [*folder.iterdir()]
    sleeping = Path("/proc") / started.read_text().strip() / "status"
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and sleeping.exists() and "zombie" not in sleeping.read_text():
        time.sleep(0.01)
    assert time.monotonic() < deadline


def test_kernels_that_count_on_other_numbers_are_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    library = native_parts.compiled()
    facts.check_facts(library)
    for name, value in facts.SHARED.items():
        monkeypatch.setattr(facts, "SHARED", {**facts.SHARED, name: value + 8})
        with pytest.raises(KernelsError, match=f"{name} is {value} in the compiled kernels and {value + 8} in this"):
            facts.check_facts(library)
        monkeypatch.undo()


def test_a_library_that_is_not_of_this_program_is_refused() -> None:
    with pytest.raises(KernelsError, match="not those of this program"):
        facts.check_facts(ctypes.CDLL(None))


@pytest.mark.skipif(platform.machine() != "x86_64", reason="names a processor of this architecture")
def test_the_environment_names_another_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    native_parts.compiled()
    monkeypatch.setenv("TOKENGLASS_MARCH", "x86-64-v3")
    assert facts_of(load_library())["LANES"] == 8
    monkeypatch.setenv("TOKENGLASS_MARCH", "no-such-processor")
    with pytest.raises(KernelsError, match="no-such-processor"):
        load_library()


def test_an_interrupt_ends_the_compiler_too(folder: Path, tmp_path: Path) -> None:
    started = tmp_path / "started"
    script = f"#!/bin/sh\ntouch {shlex.quote(str(started))}\nexec sleep 600\n"
    compiler = program(tmp_path / "cc", script)
    loading = (
        # a shell ignores it for what runs in its background
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from pathlib import Path; from tokenglass.model.native_engine.shared_library import load_compiled; "
        f"load_compiled(Path({str(folder)!r}))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", loading], env={**os.environ, "CC": str(compiler)}, stderr=subprocess.DEVNULL
    )
    while not started.exists():
        time.sleep(0.01)
    process.send_signal(2)
    assert process.wait(60) != 0
    assert not [*folder.iterdir()]
