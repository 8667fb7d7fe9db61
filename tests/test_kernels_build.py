"""Compiling the kernels: once, into a folder of the user's own; without a compiler torch runs, and says why."""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import native_parts
import pytest
import tiny
import torch
from native_parts import FLAGS, native
from torch_parts import as_tensor

from tokenglass.model.errors import KernelsError
from tokenglass.model.native_engine import build, sources
from tokenglass.model.native_engine.shared_library import MARCH, load_compiled

LOADED = (
    "from tokenglass.model.native_engine.shared_library import *; from pathlib import Path; "
    "load_compiled(Path({folder!r}))"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    native_parts.compiled()  # skips where there is no compiler
    path = tmp_path / "kernels"
    path.mkdir(mode=0o700)
    return path


def test_the_second_use_compiles_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load_compiled(folder)
    (library,) = folder.iterdir()
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("compiled again"))
    load_compiled(folder)
    assert [*folder.iterdir()] == [library]


def test_other_flags_and_another_compiler_make_another_library(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load_compiled(folder, ["-O1"])
    (first,) = folder.iterdir()
    wrapper = folder.parent / "my-cc"
    wrapper.write_text(f'#!/bin/sh\nexec {shutil.which("cc")} "$@"\n')
    wrapper.chmod(0o755)
    monkeypatch.setenv("CC", f"{shlex.quote(str(wrapper))} -O1")
    load_compiled(folder, ["-O1"])
    assert len([*folder.iterdir()]) == 2
    assert first.exists()


def test_processes_that_compile_at_once_do_not_disturb_each_other(folder: Path) -> None:
    command = [sys.executable, "-c", LOADED.format(folder=str(folder))]
    running = [subprocess.Popen(command) for _ in range(2)]
    assert [process.wait(timeout=120) for process in running] == [0, 0]
    assert len([*folder.iterdir()]) == 1


def test_no_compiler_means_torch_with_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    reason = native_parts.try_build(tiny.random_transformer(), load=load_compiled)
    assert reason == "there is no C compiler; install gcc or clang, or name one in CC"


def test_a_compiler_that_fails_means_torch_with_its_first_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = folder.parent / "broken-cc"
    broken.write_text("#!/bin/sh\necho 'engine.c:1: error: no such machine' >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("CC", str(broken))
    with pytest.raises(KernelsError, match=r"broken-cc failed: engine.c:1: error: no such machine"):
        load_compiled(folder)
    assert not [*folder.iterdir()]


def test_a_folder_that_others_can_write_to_is_refused(folder: Path) -> None:
    folder.chmod(0o777)
    with pytest.raises(KernelsError, match="can be written by others"):
        load_compiled(folder)


@pytest.mark.skipif(os.name == "posix" and os.geteuid() != 0, reason="only root can give files away")
def test_a_library_of_someone_else_is_refused(folder: Path) -> None:
    load_compiled(folder, ["-O1"])
    (library,) = folder.iterdir()
    os.chown(library, 12345, -1)
    with pytest.raises(KernelsError, match="belongs to someone else"):
        load_compiled(folder, ["-O1"])


def test_the_folder_is_made_for_the_user_alone(folder: Path) -> None:
    inner = folder / "not" / "there"
    load_compiled(inner, ["-O1"])
    assert inner.stat().st_mode & 0o777 == 0o700


def test_the_engine_works_in_a_child_of_its_process() -> None:
    """Threads do not survive a fork: the child starts its own."""
    script = """
import os, sys, torch
sys.path.insert(0, {tests!r})
torch.set_num_threads(2)
import native_parts, tiny
from torch_parts import as_tensor
engine = native_parts.native(tiny.random_transformer())
ids = torch.arange(40)[None]
expected = as_tensor(engine.forward(ids, None))
child = os.fork()
if not child:
    os._exit(0 if torch.equal(as_tensor(engine.forward(ids, None)), expected) else 3)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    native_parts.compiled()
    command = [sys.executable, "-W", "ignore", "-c", script.format(tests=str(Path(__file__).parent))]
    assert subprocess.run(command, timeout=120, check=False).returncode == 0


def test_an_engine_that_is_gone_leaves_no_thread() -> None:
    def threads() -> int:
        return len([*Path("/proc/self/task").iterdir()])

    if not Path("/proc/self/task").exists():
        pytest.skip("this system does not list a process's threads")
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    engine = native(tiny.random_transformer())
    as_tensor(engine.forward(torch.arange(5)[None], None))
    running = threads()
    del engine
    assert threads() == running - 2
    torch.set_num_threads(before)


def test_a_change_in_any_source_makes_another_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copies = [Path(shutil.copy(source, tmp_path)) for source in sources.sources()]
    assert {"engine.c", "threads.h", "levels.txt"} <= {copy.name for copy in copies}
    monkeypatch.setattr(sources, "sources", lambda: copies)
    compiler = [sys.executable]
    fingerprints = {build.fingerprint(compiler, [], "")}
    for copy in copies:
        copy.write_text(copy.read_text() + "// another\n")
        fingerprints.add(build.fingerprint(compiler, [], ""))
    assert len(fingerprints) == 1 + len(copies)


@pytest.mark.slow
@pytest.mark.parametrize("march", ["native", "x86-64-v3"] if platform.machine() == "x86_64" else ["native"])
def test_the_sanitizers_find_nothing_in_any_operation(march: str) -> None:
    native_parts.compiled()
    runtime = native_parts.sanitizer_runtime("asan")
    tests = Path(__file__).parent
    chosen = ["test_kernels.py", "test_kernels_engine.py", "test_measure.py", "test_draw_at_once.py"]
    # Bits of several compilations are compared elsewhere: here each joins other products with sums.
    families = "gemma2 or gemma4 or olmo2 or lfm3 or granitemoeshared"
    names = f"not bits_are_the_same and (not family or (has_the_logits and 110 and ({families})))"
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-k", names]
    done = subprocess.run(
        [*command, *(str(tests / name) for name in chosen)],
        env={
            **os.environ,
            MARCH: march,
            FLAGS: "-fsanitize=address,undefined -fno-sanitize-recover=all -g -O1",
            "LD_PRELOAD": str(runtime),
            "ASAN_OPTIONS": "detect_leaks=0",  # Python's own are many
            "PYTHONMALLOC": "malloc",
        },
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    assert " passed" in done.stdout
