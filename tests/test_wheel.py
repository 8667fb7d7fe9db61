"""The built wheel is the whole product, with kernels for every processor that it may meet."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from shell import ENVIRONMENT

from tokenglass.model.errors import KernelsError
from tokenglass.model.native_engine import build, levels, processor, shared_library, sources

ROOT = Path(__file__).parent.parent
KERNELS = "tokenglass/model/native_engine/kernels"
LOGITS = """
import sys
from pathlib import Path
import numpy as np
from tokenglass.model.loading import load_model
from tokenglass.model.checkpoint.store import bundled_folder
from tokenglass.model.native_engine.shared_library import load_library
loaded = load_model(bundled_folder(), backend="native", device="cpu", threads=1)
print(Path(load_library()._name).name.split(".")[0])
np.save(sys.argv[1], loaded.engine.forward(np.array([[3, 1, 4, 1, 5, 9, 2, 6]]), None, last=False))
"""

pytestmark = pytest.mark.slow


def build_wheel(to: Path, **environment: str) -> Path:
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--outdir", to, ROOT],
        check=True,
        capture_output=True,
        env={**os.environ, "PYTHONWARNINGS": "default", **environment},
    )
    (wheel,) = to.glob("*.whl")
    return wheel


def install(wheel: Path, to: Path) -> Path:
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", to, wheel]
    subprocess.run(command, check=True, capture_output=True)
    return to


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module")
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel installed. Read only: copy it before a change."""
    return install(wheel, tmp_path_factory.mktemp("site"))


def run(site: Path, empty: Path, *command: str | Path, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Python with the package of a folder alone, in an empty folder, with an empty cache beside it."""
    empty.mkdir(exist_ok=True)
    return subprocess.run(
        [sys.executable, "-P", *command],  # -P leaves the current folder off the path, so only the wheel can answer
        cwd=empty,
        capture_output=True,
        check=False,
        env={
            **{name: value for name, value in ENVIRONMENT.items() if name != shared_library.MARCH},
            "PYTHONPATH": str(site),
            "XDG_CACHE_HOME": str(empty.with_name("cache")),
            **environment,
        },
    )


def has_compiler() -> bool:
    try:
        return bool(build.find_compiler())
    except KernelsError:
        return False


def usable_here() -> list[str]:
    flags = processor.processor_flags(processor.describe_processor())
    return [level.name for level in levels.usable_levels(levels.read_levels(platform.machine()), flags)]


def test_the_wheel_holds_weights_sources_and_a_library_for_each_level(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert "tokenglass/weights/tale/model.safetensors" in names
    assert {f"tokenglass/model/native_engine/c/{source.name}" for source in sources.sources()} <= {*names}
    assert not [name for name in names if name.startswith("tests/")]
    apart = {name for name in names if name.split("/")[0] not in ("tokenglass", "tokenglass-0.1.0.dist-info")}
    pages = {f"tokenglass-0.1.0.data/data/share/man/man1/{name}.1" for name in ("tokenglass", "generate")}
    assert apart == (pages if has_compiler() else set())  # a wheel without kernels is made without CMake
    installed = [name.removeprefix(f"{KERNELS}/") for name in names if name.startswith(KERNELS)]
    if not has_compiler():
        assert wheel.name.endswith("-py3-none-any.whl")
        assert not installed
        return
    assert re.search(r"-py3-none-(?!any)\w+\.whl", wheel.name)
    known = [level.name for level in levels.read_levels(platform.machine())]
    assert {name.split(".")[0] for name in installed} <= {*known}
    assert known[0] in {name.split(".")[0] for name in installed}
    assert {name.split(".")[1] for name in installed} == {sources.sources_key()}  # CMake computes it as Python does


def test_the_first_run_in_an_empty_folder_compiles_nothing(site: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    generate = (site / "bin" / "generate", "Once upon a time", "-n", "20", "--seed", "1", "--device", "cpu")
    done = run(site, empty, *generate)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) > 8
    assert list(empty.iterdir()) == []
    if has_compiler() and usable_here():
        assert done.stderr == b""
        assert not (tmp_path / "cache").exists()


def test_without_the_highest_library_the_next_one_gives_the_same_numbers(site: Path, tmp_path: Path) -> None:
    """The bits too where the vectors are as wide: float32 weights are multiplied alike on every level of AVX-512."""
    import numpy as np  # noqa: PLC0415

    if not has_compiler() or len(usable_here()) < 2:
        pytest.skip("this machine has no second level")
    copy = shutil.copytree(site, tmp_path / "copy")
    logits: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]] = {}
    for _ in usable_here():
        done = run(copy, tmp_path / "empty", "-c", LOGITS, tmp_path / "logits.npy")
        assert done.returncode == 0, done.stderr
        level = done.stdout.decode().strip()
        assert not (tmp_path / "cache").exists()
        logits[level] = np.load(tmp_path / "logits.npy")
        (used,) = (copy / KERNELS).glob(f"{level}.*")
        used.unlink()
    chosen = [level for level in usable_here() if level in logits]
    assert [*logits] == chosen
    assert len(chosen) > 1
    for level in chosen:
        np.testing.assert_allclose(logits[level], logits[chosen[0]], rtol=1e-4, atol=1e-4)
    wide = [logits[level] for level in chosen if level.startswith("x86-64-v4")]
    assert all(np.array_equal(wide[0], other) for other in wide)


def test_an_install_whose_compiler_fails_works_all_the_same(tmp_path: Path) -> None:
    wheel = build_wheel(tmp_path / "dist", CC=str(shutil.which("false")))
    assert wheel.name.endswith("-py3-none-any.whl")
    assert not [name for name in zipfile.ZipFile(wheel).namelist() if name.startswith(KERNELS)]
    site = install(wheel, tmp_path / "site")
    if not has_compiler():
        pytest.skip("nothing compiles the kernels at first use")
    done = run(site, tmp_path / "empty", site / "bin" / "generate", "Once", "-n", "2", "--seed", "1", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    assert done.stderr == b"compiling the kernels for this processor (once, about 10 s)\n"
    assert len([*(tmp_path / "cache").rglob("*.so")]) == 1
