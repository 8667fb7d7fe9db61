"""Which kernels a processor runs: the highest level whose needs it meets all, whatever it is called."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenglass.model.errors import KernelsError
from tokenglass.model.native_engine.build import find_compiler, fingerprint
from tokenglass.model.native_engine.levels import Level, read_levels, usable_levels
from tokenglass.model.native_engine.processor import describe_processor, processor_flags
from tokenglass.model.native_engine.shared_library import choose_levels, compiler_options

X86 = read_levels("x86_64")
CORE_2 = "fpu sse sse2 ht syscall nx lm pni ssse3 cx16 lahf_lm"
NEHALEM = f"{CORE_2} sse4_1 sse4_2 popcnt"
SANDY_BRIDGE = f"{NEHALEM} aes xsave avx"
HASWELL = f"{SANDY_BRIDGE} fma movbe f16c rdrand abm bmi1 avx2 bmi2"
SKYLAKE_X = f"{HASWELL} avx512f avx512dq avx512cd avx512bw avx512vl"
ICE_LAKE = f"{SKYLAKE_X} avx512ifma avx512vbmi avx512_vbmi2 avx512_vnni avx512_bitalg"
SAPPHIRE_RAPIDS = f"{ICE_LAKE} avx_vnni avx512_bf16 avx512_fp16 amx_bf16 amx_tile amx_int8"


@pytest.mark.parametrize(
    ("flags", "level"),
    [
        ("", None),
        (CORE_2, None),
        (NEHALEM, "x86-64-v2"),
        (SANDY_BRIDGE, "x86-64-v2"),
        (f"{SANDY_BRIDGE} sse4a xop fma4 tbm f16c bmi1 fma abm", "x86-64-v2"),  # AMD's Piledriver
        (HASWELL, "x86-64-v3"),
        (HASWELL.replace(" movbe", ""), "x86-64-v2"),  # hidden by a virtual machine
        (f"{HASWELL} avx_vnni", "x86-64-v3-vnni"),  # Alder Lake
        (f"{HASWELL} avx512f avx512cd avx512er avx512pf", "x86-64-v3"),  # Knights Landing
        (f"{HASWELL} amx_tile amx_int8 avx512_vnni", "x86-64-v3"),  # what lies between is hidden
        (SKYLAKE_X, "x86-64-v4"),
        (ICE_LAKE, "x86-64-v4-vnni"),
        (f"{ICE_LAKE} amx_tile amx_bf16", "x86-64-v4-vnni"),
        (SAPPHIRE_RAPIDS, "x86-64-v4-amx"),
    ],
)
def test_a_processor_gets_the_highest_level_whose_needs_it_meets(flags: str, level: str | None, tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    core = f"processor\t: 0\ncpu MHz\t\t: 2900.1\nflags\t\t: {flags}\nbugs\t\t: spectre_v1 avx2\n"
    cpuinfo.write_text(f"{core}\n{core}\n")
    usable = usable_levels(X86, processor_flags(describe_processor(cpuinfo)))
    assert (usable[0].name if usable else None) == level
    assert usable == [level for level in reversed(X86) if level.needs <= {*flags.split()}]


@pytest.mark.parametrize(
    ("features", "levels"),
    [
        ("fp asimd evtstrm crc32 cpuid", ["armv8-a"]),  # Raspberry Pi 4
        ("fp asimd evtstrm aes crc32 atomics fphp asimdhp asimdrdm lrcpc asimddp", ["armv8.2-a-dotprod", "armv8-a"]),
    ],
)
def test_a_processor_of_64_bit_arm_multiplies_bytes_where_it_can(
    features: str, levels: list[str], tmp_path: Path
) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"processor\t: 0\nFeatures\t: {features}\nCPU implementer\t: 0x41\n")
    flags = processor_flags(describe_processor(cpuinfo))
    assert flags == {*features.split()}
    assert [level.name for level in usable_levels(read_levels("aarch64"), flags)] == levels
    assert read_levels("arm64") == read_levels("aarch64")  # as macOS says it


def test_an_architecture_that_nobody_thought_of_has_no_levels() -> None:
    assert read_levels("riscv64") == []


@given(fewer=st.sets(st.sampled_from(SAPPHIRE_RAPIDS.split())), more=st.sets(st.sampled_from(SAPPHIRE_RAPIDS.split())))
def test_no_level_needs_what_is_missing_and_more_flags_give_no_lower_level(fewer: set[str], more: set[str]) -> None:
    usable = usable_levels(X86, fewer)
    assert all(level.needs <= fewer for level in usable)
    assert len(usable_levels(X86, fewer | more)) >= len(usable)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="asks the compiler about this architecture")
@pytest.mark.parametrize("level", X86, ids=lambda level: level.name)
def test_a_level_needs_every_instruction_that_the_compiler_may_use(level: Level) -> None:
    """The compiler's own predefined macros tell which those are."""
    flags_of = {
        "SSE3": "pni",
        "LZCNT": "abm",
        "BMI": "bmi1",
        "LAHF_SAHF": "lahf_lm",
        "AVX512VNNI": "avx512_vnni",
        "AVXVNNI": "avx_vnni",
        "GCC_HAVE_SYNC_COMPARE_AND_SWAP_16": "cx16",
        "CRC32": "sse4_2",
        "EVEX256": "avx512f",
        "EVEX512": "avx512f",
    }
    may_use = macros(*level.options) - macros("-march=x86-64")
    assert may_use, "the compiler knows more than the first 64-bit processor"
    assert {flags_of.get(name, name.lower()) for name in may_use} <= level.needs


def macros(*options: str) -> set[str]:
    """The abilities of the processor that the compiler counts on."""
    try:
        command = [*find_compiler(), *options, "-E", "-dM", "-x", "c", "/dev/null"]
    except KernelsError as reason:
        pytest.skip(str(reason))
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"this compiler does not know {' '.join(options)}")
    return {*re.findall(r"#define __([A-Z0-9_]+?)__ 1\n", done.stdout)}


def test_a_level_that_this_processor_cannot_run_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    assert [level.name for level in choose_levels("x86-64-v3", {*SAPPHIRE_RAPIDS.split()})] == ["x86-64-v3"]
    with pytest.raises(KernelsError, match=r"TOKENGLASS_MARCH names x86-64-v4, and this processor has no avx512bw"):
        choose_levels("x86-64-v4", {*HASWELL.split()})


def test_a_processor_that_is_no_level_is_left_to_the_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    assert choose_levels("znver4", {*ICE_LAKE.split()}) == []
    assert compiler_options("znver4", "flags: sse2") == ("-march=znver4",)
    assert compiler_options(None, "flags: sse2") == ("-march=native",)
    assert compiler_options("x86-64-v4-vnni", "flags: sse2") == ("-march=x86-64-v4", "-mavx512vnni")


def test_a_processor_that_the_system_does_not_describe_gets_no_instructions_of_its_own(tmp_path: Path) -> None:
    """The cache may lie in a home that machines share: what was compiled for one must run on all with the same key."""
    if shutil.which("sysctl") is None:
        assert describe_processor(tmp_path / "none") == ""
    assert processor_flags("") == frozenset()
    assert compiler_options(None, "") == ()


def test_processors_of_other_abilities_have_other_libraries_in_a_shared_home(tmp_path: Path) -> None:
    compiler = [shutil.which("sh") or "/bin/sh"]
    keys = set()
    for number, flags in enumerate((HASWELL, SKYLAKE_X, f"{SKYLAKE_X} avx512_vnni")):
        cpuinfo = tmp_path / str(number)
        cpuinfo.write_text(f"processor\t: 0\ncpu MHz\t\t: {2000 + number}\nflags\t\t: {flags}\n")
        keys.add(fingerprint(compiler, ["-march=native"], describe_processor(cpuinfo)))
    assert len(keys) == 3
