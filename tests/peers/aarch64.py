"""The kernels on 64-bit ARM, in emulation: their tests, quantised products to the bit as x86 has them, and the logits
of small models of every family, of a prompt and of single tokens, within rounding.

    apt-get install gcc-aarch64-linux-gnu qemu-user
    python tests/peers/aarch64.py DIR [-k NAMES]

DIR takes a Python for ARM and the packages that the tests need, fetched once from Debian and PyPI; nothing else is
installed. Each level of levels.txt takes about ten minutes.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from torch import nn

import tokenglass
from tokenglass.model.native_engine.levels import read_levels

TESTS = Path(__file__).parents[1]
sys.path.insert(0, str(TESTS))
import engine_logits  # noqa: E402
from native_parts import HALF_BYTES, WORDS, Bench, kept_as, products_of  # noqa: E402

DEBIAN = ("python3.11-minimal", "libpython3.11-stdlib", "libstdc++6", "libgomp1")
PACKAGES = (
    *(
        "torch==2.9.1",
        "numpy",
        "safetensors",
        "tokenizers",
        "platformdirs",
        "orjson",
        "jinja2",
        "markupsafe",
        "rich",
        "typer",
    ),
    *("pytest", "iniconfig", "pluggy", "packaging", "pygments", "hypothesis", "sortedcontainers", "attrs"),
    *("typing_extensions", "sympy", "mpmath", "networkx", "filelock", "fsspec"),
)
PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_17_aarch64", "manylinux2014_aarch64", "any")
NAMES = "projection or company or norm or feed_forward or activation or caps"
# of the largest logit; columns that int8 and int4 multiply are rounded to 16 bits, where the last bit decides
BOUNDS = {"float32": 3e-5, "bfloat16": 3e-5, "int8": 2e-3, "int4": 2e-3}
SAME_BITS = {"words": WORDS, "bytes": HALF_BYTES}  # as x86 has them


def fetch_python(folder: Path) -> None:
    """A Python for ARM in folder/root, and packages in folder/site."""
    apt = folder / "apt"
    for name in ("lists/partial", "archives/partial"):
        (apt / name).mkdir(parents=True, exist_ok=True)
    (apt / "status").touch()
    places = {"Dir::State::lists": "lists", "Dir::State::status": "status", "Dir::Cache::archives": "archives"}
    command = ["apt-get", "-q", "-o", "APT::Architecture=arm64", "-o", "APT::Architectures=arm64"]
    for option, name in places.items():
        command += ["-o", f"{option}={apt / name}/" if name != "status" else f"{option}={apt / name}"]
    subprocess.run([*command, "update"], check=True)
    subprocess.run([*command, "install", "-y", "--no-install-recommends", "--download-only", *DEBIAN], check=True)
    for package in (apt / "archives").glob("*.deb"):
        subprocess.run(["dpkg", "-x", package, folder / "root"], check=True)
    platforms = [option for platform in PLATFORMS for option in ("--platform", platform)]
    wheels = ["--only-binary=:all:", "--no-deps", "--python-version", "3.11", "--implementation", "cp", *platforms]
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--target", folder / "site", *wheels, *PACKAGES], check=True
    )


def run_on_arm(folder: Path, level: str, *arguments: str) -> str:
    """What Python says on an emulated ARM processor, with the kernels of a level."""
    packages = [folder / "site", *(Path(root).parent for root in tokenglass.__path__), TESTS]
    environment = {
        **os.environ,
        "CC": "aarch64-linux-gnu-gcc",
        "TOKENGLASS_MARCH": level,
        "TOKENGLASS_TEST_FLAGS": "-DLEVEL",  # compiled anew: the system describes the processor below
        "XDG_CACHE_HOME": str(folder / "cache"),
        "PYTHONPATH": os.pathsep.join(map(str, packages)),
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
        "QEMU_CPU": "max",
    }
    root = folder / "root"
    command = ["qemu-aarch64", "-L", root, root / "usr/bin/python3.11", *arguments]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(f"{done.stdout[-6000:]}\n{level}: failed")
    return done.stdout


def quantised_products(*flags: str) -> str:
    """A hash of products of int8 and of int4, for one column and for several."""
    generator, lines = np.random.default_rng(1), []
    for columns in (70, 576):
        linear = nn.Linear(columns, 100, bias=False).requires_grad_(False)
        linear.weight.copy_(torch.from_numpy(generator.random((100, columns), np.float32) - 0.5))
        x = torch.from_numpy(generator.random((17, columns), np.float32) - 0.5)
        for kind in ("int8", "int4"):
            bench, module = Bench(), kept_as(kind, linear)
            for count in (1, 3, 17):
                products = bench.run(x[:count].contiguous(), bench.head(module), flags=flags)
                digest = sha256(products.numpy().tobytes()).hexdigest()
                lines.append(f"{kind} {columns:4} numbers {count:3} columns {digest[:16]}")
    return "\n".join([products_of(*flags), *lines])


def compare_engines(folder: Path, checkpoints: Path, level: str, *flags: str) -> str:
    """How far the logits of whole models are from those on x86 with the same arithmetic; ends where that is too far."""
    out = folder / f"{level}.npz"
    run_on_arm(folder, level, str(Path(engine_logits.__file__)), str(checkpoints), str(out))
    expected, furthest = engine_logits.all_logits(checkpoints, *flags), dict.fromkeys(engine_logits.KINDS, 0.0)
    with np.load(out) as arm:
        for name, logits in expected.items():
            kind = name.rpartition(" ")[2]
            difference = float(np.abs(arm[name] - logits).max() / max(10.0, np.abs(logits).max()))
            furthest[kind] = max(furthest[kind], difference)
            if not difference < BOUNDS[kind]:
                sys.exit(f"{level}: {name}: {difference:.1e} of the largest logit from x86")
    furthest_of = ", ".join(f"{kind} {difference:.1e}" for kind, difference in furthest.items())
    return f"{level}: {len(expected)} models within {furthest_of} of the largest logit on x86"


def check_level(folder: Path, checkpoints: Path, level: str, names: str) -> None:
    """Products, models and the tests of these names, with a line about each; ends where one is wrong."""
    products = run_on_arm(folder, level, __file__).strip()
    if products != quantised_products(*SAME_BITS[products.split()[0]]):
        sys.exit(f"{level}: other bits than on x86\n{products}")
    print(f"{level}: the bits of x86 in {products.count('columns')} products of {products.split()[0]}", flush=True)
    print(compare_engines(folder, checkpoints, level, *SAME_BITS[products.split()[0]]), flush=True)
    kernels = ["-m", "pytest", "-q", "-x", "-o", "addopts=", "-p", "no:cacheprovider", "-k", names]
    print(run_on_arm(folder, level, *kernels, str(TESTS / "test_kernels.py")).strip().splitlines()[-1], flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, metavar="DIR")
    parser.add_argument("-k", dest="names", default=NAMES, help="the tests that are run, as pytest selects them")
    options = parser.parse_args()
    if options.folder is None:  # on ARM
        print(quantised_products())
        return
    folder = options.folder.resolve()
    if not (folder / "site").is_dir():
        fetch_python(folder)
    with tempfile.TemporaryDirectory() as name:
        engine_logits.save_checkpoints(Path(name))
        for level in read_levels("aarch64"):
            check_level(folder, Path(name), level.name, options.names)


if __name__ == "__main__":
    main()
