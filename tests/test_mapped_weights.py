"""Weights are mapped from their files, in large pages where a step reads all of them."""

from __future__ import annotations

import mmap
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from tokenglass.model.checkpoint.arrays import Array, read_arrays
from tokenglass.model.checkpoint.headers import read_header

SIZE = 64 * mmap.PAGESIZE


def flags_of(array: Array) -> list[str]:
    """What the system knows of the mapping that the middle of an array lies in."""
    middle = array.ctypes.data + array.nbytes // 2
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        key, *values = line.split()
        if not key.endswith(":"):
            first, last = (int(end, 16) for end in key.split("-"))
            inside = first <= middle < last
        elif inside and key == "VmFlags:":
            return values
    raise AssertionError("the array lies in no mapping")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "model.safetensors"
    numbers = np.arange(SIZE, dtype=np.float32)
    safetensors.numpy.save_file({"matrix": numbers, "table": -numbers}, file)
    return file


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason=f"{sys.platform} does not list its mappings")
@pytest.mark.skipif(
    not Path("/sys/kernel/mm/transparent_hugepage/enabled").exists(), reason="this kernel has no large pages"
)
def test_what_a_step_reads_whole_is_asked_for_in_large_pages_and_what_it_reads_by_row_is_not(file: Path) -> None:
    arrays = dict(read_arrays(read_header(file).tensors, ["matrix", "table"], by_row=["table"]))
    assert "hg" in flags_of(arrays["matrix"])
    assert "hg" not in flags_of(arrays["table"])


def test_what_is_written_to_mapped_weights_stays_in_the_process(file: Path) -> None:
    before = file.read_bytes()
    for _, array in read_arrays(read_header(file).tensors, ["matrix", "table"]):
        array[:] = 0
    assert file.read_bytes() == before
