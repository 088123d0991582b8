"""How much memory an op takes beside its inputs."""

import argparse
import ctypes
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks import cases
from benchmarks.cases import Case
from benchmarks.inputs import FILTERED, Sequences, make_logits
from benchmarks.workloads import Call
from rnr_kernels import linear_token_stats, sample_

ROOT = Path(__file__).parent.parent
SMALL_VOCABULARY = 8192
"""Two tiles: enough to load all code of an op before its memory is counted."""
NARROW = 64
"""Hidden width where only memory counts."""

# glibc's malloc.h
M_MMAP_THRESHOLD = -3
COUNTED_BYTES = 128 * 1024
"""An allocation this large comes from the system each time, so that its pages are counted."""


def measure(case: Case) -> dict[str, Any]:
    """The record of one of `cases.MEMORY_CASES`. RuntimeError where /proc/self is missing."""
    if case == cases.STEP_MEMORY_CASE:
        return {"bytes": _tensors_of_a_step(case)}
    if not Path("/proc/self/clear_refs").exists():
        raise RuntimeError("process growth is read from /proc/self, which Linux alone has")
    output = subprocess.check_output(
        [sys.executable, "-m", "benchmarks.memory", str(case)], cwd=ROOT, text=True
    )
    return {"bytes": int(output.splitlines()[-1])}


def _step(num_rows: int, vocab_size: int) -> tuple[Call, Sequences]:
    logits = make_logits("random", num_rows, vocab_size)
    rows = Sequences.start(logits, FILTERED)
    return lambda: sample_(logits, rows.program, rows.state), rows


def _linear(num_rows: int, vocab_size: int) -> Call:
    random = torch.Generator().manual_seed(0)
    hidden = torch.randn(num_rows, NARROW, generator=random)
    weight = torch.randn(vocab_size, NARROW, generator=random)
    token_ids = torch.randint(0, vocab_size, (num_rows,), generator=random)
    return lambda: linear_token_stats(hidden, weight, token_ids)


def _tensors_of_a_step(case: Case) -> int:
    """Most bytes of tensors made in a step at a time, and the state's table of used tokens."""
    run, rows = _step(case.rows, case.vocab_size)
    run()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    table = rows.state.used_bitmask
    return peak_bytes(profiler) + table.numel() * table.element_size()


def peak_bytes(profiler: Any) -> int:
    """The most that torch's allocator had handed out at a time within a profile."""
    events = [
        (event.start_ns(), event.nbytes())
        for event in profiler.profiler.kineto_results.events()
        if event.name() == "[memory]"
    ]
    total = peak = 0
    for _, size in sorted(events, key=lambda event: event[0]):
        total += size
        peak = max(peak, total)
    return peak


def _growth(run: Call) -> int:
    """How far a call raises this process's resident memory at its highest."""
    libc = ctypes.CDLL(None)
    libc.mallopt(M_MMAP_THRESHOLD, COUNTED_BYTES)
    libc.malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # sets the high-water mark back
    before = _status_bytes("VmRSS")
    run()
    return max(0, _status_bytes("VmHWM") - before)


def _status_bytes(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return 1024 * int(line.split()[1])
    raise RuntimeError(f"/proc/self/status has no {name}")


def main() -> None:
    """Prints the growth of this process in one case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("case", choices=[str(case) for case in cases.MEMORY_CASES])
    name = parser.parse_args().case
    case = next(case for case in cases.MEMORY_CASES if str(case) == name)
    torch.set_num_threads(1)
    maker: Callable[[int, int], Call] = _linear
    if case == cases.STEP_PROCESS_CASE:
        maker = lambda rows, vocab_size: _step(rows, vocab_size)[0]  # noqa: E731
    run = maker(case.rows, case.vocab_size)
    maker(case.rows, SMALL_VOCABULARY)()
    print(_growth(run))


if __name__ == "__main__":
    main()
