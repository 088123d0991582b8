"""The GPU's C++ kernels, compiled for GPUs that need not be there."""

import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest
from machine_code import Kernel, kernels_of

ROOT = Path(__file__).parents[2]
SOURCES = sorted(
    path.stem for path in (ROOT / "csrc" / "cuda").glob("*.cu") if path.stem != "device_guard"
)
TARGETS = ("80", "90a")
MAX_REGISTERS = 128

NVCC = shutil.which("nvcc", path="/usr/local/cuda/bin") or shutil.which("nvcc")

pytestmark = pytest.mark.skipif(NVCC is None, reason="there is no nvcc")


@cache
def compiled(source: str, target: str, folder: Path) -> list[Kernel]:
    """With the flags of setup.py."""
    flags = re.search(r'CUDA_FLAGS = "(.*)"', (ROOT / "setup.py").read_text())
    assert flags
    cubin = folder / f"{source}.{target}.cubin"
    command = [
        str(NVCC), *flags[1].split(), "-Werror", "all-warnings", "-cubin",
        "-gencode", f"arch=compute_{target},code=sm_{target}",
        "-o", str(cubin), str(ROOT / "csrc" / "cuda" / f"{source}.cu"),
    ]  # fmt: skip
    subprocess.run(command, check=True)
    return kernels_of(cubin)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cubins")


def of_dtypes(kernels: list[Kernel], *dtypes: str) -> list[Kernel]:
    """Those instantiated for these logits, in the order of the arguments."""
    wanted = "".join(f"NS0_{len(dtype)}{dtype}E" for dtype in dtypes[:1])
    same = "S3_" if len(dtypes) == 2 and dtypes[0] == dtypes[1] else ""
    return [kernel for kernel in kernels if wanted + same in kernel.name]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("source", SOURCES)
def test_kernels_keep_to_registers(source: str, target: str, folder: Path) -> None:
    kernels = compiled(source, target, folder)
    assert kernels
    wrong = [
        f"{kernel.name}: {kernel.registers} registers, {kernel.spills} spilled"
        for kernel in kernels
        if kernel.spills or kernel.registers > MAX_REGISTERS
    ]
    assert wrong == [], "\n".join(wrong)


@pytest.mark.parametrize("source", [name for name in SOURCES if name != "update_state"])
def test_aligned_rows_are_read_sixteen_bytes_at_a_time(source: str, folder: Path) -> None:
    for kernel in compiled(source, "90a", folder):
        assert kernel.count("LDG.E.128") > 0, kernel.name


COLUMNS = 16
"""A thread's columns of a tile: what one turn of a loop takes care of."""

EXP, WEIGHT = "MUFU.EX2", "FFMA.RM"

MOST_INSTRUCTIONS = {
    ("token_stats", "Float32"): (EXP, 13),
    ("token_stats", "BFloat16"): (EXP, 11),
    ("shift_stats", "BFloat16", "BFloat16"): (EXP, 24),
    ("shift_stats", "Float32", "Float32"): (EXP, 24),
    # The arithmetic of integer weights alone is 20.
    ("sample", "BFloat16"): (WEIGHT, 31),
    ("sample", "Float32"): (WEIGHT, 34),
    ("rule_log_softmax", "Float32"): (EXP, 18),
}
"""A column (a pair of columns of two models), on the cheapest way around the loop over tiles: rows
are aligned, rules touch nothing here, the target lies above all others of the tile."""


@pytest.mark.parametrize("case", MOST_INSTRUCTIONS, ids="-".join)
def test_instructions_a_column(case: tuple[str, ...], folder: Path) -> None:
    source, *dtypes = case
    name, most = MOST_INSTRUCTIONS[case]
    kernels = of_dtypes(compiled(source, "90a", folder), *dtypes)
    # Variants that return more are instantiated with true.
    plain = min(kernels, key=lambda kernel: "Lb1" in kernel.name)
    loop = plain.loop(name)
    assert sum(one.is_any_of(name) for one in loop) >= COLUMNS
    assert len(loop) <= most * COLUMNS, f"{len(loop) / COLUMNS:.1f} a column"
