"""The GPU's C++ kernels, compiled for GPUs that need not be there: where nvcc is found,
`make test-gpu-static` builds the library with them in build/cuda."""

import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from machine_code import Kernel, kernels_of

BUILT = Path(__file__).parents[2] / "build" / "cuda"
SOURCES = sorted(path.stem for path in Path("csrc/cuda").glob("*.cu") if path.stem != "device")
TARGETS = ("sm_80", "sm_90a")
MAX_REGISTERS = 128

pytestmark = pytest.mark.skipif(not (BUILT / ".built").exists(), reason="there is no nvcc")


@cache
def compiled(source: str, target: str) -> list[Kernel]:
    (path,) = BUILT.glob(f"temp*/cuda/{source}.o")
    return kernels_of(path, target)


def of_dtypes(kernels: list[Kernel], *dtypes: str) -> list[Kernel]:
    """Those instantiated for these logits, in the order of the arguments."""
    wanted = f"NS0_{len(dtypes[0])}{dtypes[0]}E"
    same = "S3_" if len(dtypes) == 2 and dtypes[0] == dtypes[1] else ""
    return [kernel for kernel in kernels if wanted + same in kernel.name]


def test_the_library_loads_without_a_gpu() -> None:
    (library,) = BUILT.glob("lib/rnr_kernels/_C*")
    code = (
        "import sys, torch; torch.ops.load_library(sys.argv[1]); "
        "print(torch.ops.rnr_C.gpu_targets(), bool(torch.ops.rnr_C.instruction_sets()))"
    )
    command = [sys.executable, "-c", code, str(library)]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert output.split() == ["sm_80,sm_90a,compute_90", "True"]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("source", SOURCES)
def test_kernels_keep_to_registers(source: str, target: str) -> None:
    kernels = compiled(source, target)
    assert kernels
    wrong = [
        f"{kernel.name}: {kernel.registers} registers, {kernel.spills} spilled"
        for kernel in kernels
        if kernel.spills or kernel.registers > MAX_REGISTERS
    ]
    assert wrong == [], "\n".join(wrong)


@pytest.mark.parametrize("source", SOURCES[:-1])
def test_aligned_rows_are_read_sixteen_bytes_at_a_time(source: str) -> None:
    assert SOURCES[-1] == "update_state"  # which reads no rows
    for kernel in compiled(source, "sm_90a"):
        assert kernel.count("LDG.E.128") > 0, kernel.name


COLUMNS = 16
"""A thread's columns of a tile: what one turn of a loop takes care of."""

EXP, WEIGHT = "MUFU.EX2", "FFMA.RM"

MOST_INSTRUCTIONS = {
    ("token_stats", "Float32"): (EXP, 12),
    ("token_stats", "BFloat16"): (EXP, 11),
    ("shift_stats", "BFloat16", "BFloat16"): (EXP, 24),
    ("shift_stats", "Float32", "Float32"): (EXP, 24),
    # The arithmetic of integer weights alone is 20.
    ("sample", "BFloat16"): (WEIGHT, 31),
    ("sample", "Float32"): (WEIGHT, 35),
    ("rule_log_softmax", "Float32"): (EXP, 18),
}
"""A column (a pair of columns of two models), on the cheapest way around the loop over tiles: rows
are aligned, rules touch nothing here, the target lies above all others of the tile."""


@pytest.mark.parametrize("case", MOST_INSTRUCTIONS, ids="-".join)
def test_instructions_a_column(case: tuple[str, ...]) -> None:
    source, *dtypes = case
    name, most = MOST_INSTRUCTIONS[case]
    kernels = of_dtypes(compiled(source, "sm_90a"), *dtypes)
    # Variants that return more are instantiated with true.
    plain = min(kernels, key=lambda kernel: "Lb1" in kernel.name)
    loop = plain.loop(name)
    assert sum(one.is_any_of(name) for one in loop) >= COLUMNS
    assert len(loop) <= most * COLUMNS, f"{len(loop) / COLUMNS:.1f} a column"
