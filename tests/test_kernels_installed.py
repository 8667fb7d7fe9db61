"""Kernels that came with the package are loaded as they are; without them, or where they are damaged, one line says
that others are compiled."""

from __future__ import annotations

import os
import shlex
import shutil
from functools import partial
from pathlib import Path

import native_parts
import pytest
from native_parts import program
from shell import generate

from tokenglass.model.native_engine import shared_library
from tokenglass.model.native_engine.folder import hash_library
from tokenglass.model.native_engine.levels import Level, installed_library
from tokenglass.model.native_engine.shared_library import MARCH, load_library
from tokenglass.model.native_engine.sources import sources_key

LEVELS = [Level("high", (), frozenset()), Level("high-est", (), frozenset()), Level("low", (), frozenset())]


def install(folder: Path, level: str, key: str | None = None) -> Path:
    """The library that this processor can run, as the one of a level in the package."""
    compiled = Path(native_parts.compiled()._name)
    name = f"{level}.{key or sources_key()}.{hash_library(compiled)}.so"
    return Path(shutil.copy(compiled, folder / name))


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a package's libraries, for a processor whose levels are LEVELS; what is compiled goes elsewhere."""
    native_parts.compiled()  # before there are none
    folder = tmp_path / "package"
    folder.mkdir()
    monkeypatch.delenv(MARCH, raising=False)
    monkeypatch.setattr(shared_library, "choose_levels", lambda *_: LEVELS)
    monkeypatch.setattr(
        shared_library, "installed_library", partial(installed_library, folders=[tmp_path / "no", folder])
    )
    return folder


@pytest.fixture
def compile_instead(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_library, "load_compiled", lambda: "compiled")


def test_the_highest_level_that_is_installed_is_loaded(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_library, "load_compiled", lambda: pytest.fail("compiled"))
    low = install(package, "low")
    assert load_library()._name == str(low)
    high = install(package, "high")
    assert load_library()._name == str(high)
    high.unlink()
    assert load_library()._name == str(low)


@pytest.mark.usefixtures("compile_instead")
def test_without_an_installed_library_it_is_compiled(package: Path) -> None:
    assert load_library() == "compiled"


@pytest.mark.usefixtures("compile_instead")
@pytest.mark.parametrize("damage", ["truncated", "turned", "empty", "fifo", "other sources"])
def test_a_damaged_library_or_one_of_other_sources_is_not_loaded(package: Path, damage: str) -> None:
    install(package, "low")
    installed = install(package, "high", "0" * 32 if damage == "other sources" else None)
    content = installed.read_bytes()
    match damage:
        case "truncated":
            installed.write_bytes(content[: len(content) // 2])
        case "turned":
            installed.write_bytes(content[:9000] + bytes([content[9000] ^ 1]) + content[9001:])
        case "empty":
            installed.write_bytes(b"")
        case "fifo":
            installed.unlink()
            os.mkfifo(installed)
    assert load_library() == "compiled"


@pytest.mark.usefixtures("compile_instead")
def test_a_library_that_this_system_cannot_load_is_not_used(package: Path) -> None:
    text = package / "no-library"
    text.write_text("no library")
    text.rename(package / f"high.{sources_key()}.{hash_library(text)}.so")
    assert load_library() == "compiled"


def test_one_line_says_that_the_kernels_are_compiled_and_the_second_run_says_nothing(tmp_path: Path) -> None:
    compiled = native_parts.compiled()._name
    compiler = f'#!/bin/sh\nwhile [ $# -gt 1 ]; do [ "$1" = -o ] && cp {shlex.quote(compiled)} "$2"; shift; done\n'
    path = program(tmp_path / "cc", compiler)
    cache = tmp_path / "cache"
    environment = {"CC": shlex.quote(str(path)), MARCH: "native", "XDG_CACHE_HOME": str(cache)}
    outputs = []
    for _ in range(2):
        done = generate("Once upon a time", "-n", "3", "--seed", "1", "--device", "cpu", **environment)
        assert len(done.stdout) > 3
        outputs.append(done.stderr.decode())
    assert outputs == ["compiling the kernels for this processor (once, about 10 s)\n", ""]
    assert len([*cache.rglob("*.so")]) == 1
