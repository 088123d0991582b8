"""Other processes of a run: compute-sanitizer, and what is compiled in the background."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from tempfile import TemporaryFile
from time import monotonic
from typing import IO

import torch

from benchmarks.gpu import serving, toolkit
from benchmarks.gpu.checks import Check, NotRun, need_cuda
from benchmarks.results import ROOT
from rnr_kernels.backends import REFERENCE, TRITON, Backend
from rnr_kernels.testing import CASES

SANITIZER = "compute-sanitizer"
SANITIZED_CASE = "v1000-odd-masked"
SANITIZER_SECONDS = 120.0
FOUND_ERRORS = 86
"""Exit status of compute-sanitizer where it found something."""


@dataclass(frozen=True)
class Finished:
    """How a process ended: its status, None where it ran out of time, and its output's end."""

    status: int | None
    output: str


@dataclass(frozen=True)
class Started:
    """A process, with the children it may have, and the file that takes what they print."""

    process: subprocess.Popen[bytes]
    output: IO[bytes]


def run(command: Sequence[str], seconds: float, more: Mapping[str, str] | None = None) -> Finished:
    """Waits for a command in the project's folder, at the most so long; then it is killed."""
    return finish(start(command, more), seconds)


def start(command: Sequence[str], more: Mapping[str, str] | None = None) -> Started:
    """A command in the project's folder with more variables in its environment."""
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    environment |= more or {}
    output = TemporaryFile()  # noqa: SIM115 (finish closes it)
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # so that a compiler it runs can be killed with it
    )
    return Started(process, output)


def finish(started: Started, seconds: float) -> Finished:
    """Waits for a process that was started."""
    status: int | None = None
    try:
        status = started.process.wait(timeout=max(seconds, 0.0))
    except subprocess.TimeoutExpired:
        os.killpg(started.process.pid, signal.SIGKILL)
        started.process.wait()
    with started.output as output:
        output.seek(0)
        return Finished(status, output.read().decode(errors="replace"))


def last_line(output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return lines[-1] if lines else "it printed nothing"


def build_kernels(seconds: float) -> str:
    """Compiles csrc with what it holds for GPUs; AssertionError with the compiler's words."""
    begin = monotonic()
    command = [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace"]
    built = run(command, seconds, {"RNR_CUDA": "1", "RNR_BUILD_EXT": "1"})
    end = " | ".join(built.output.strip().splitlines()[-8:])
    assert built.status is not None, f"the build took more than {seconds:.0f} s: {end}"
    assert built.status == 0, f"the build failed: {end}"
    return f"{monotonic() - begin:.0f} s"


def start_warming(device: torch.device) -> list[Started]:
    """Triton's kernels for the shared cases, compiled into its cache by a process a case."""
    if device.type != "cuda" or not serving.served_ops(TRITON, device):
        return []
    return [start(_one_case(TRITON, str(case), device)) for case in CASES]


def _one_case(backend: Backend, case: str, device: torch.device) -> list[str]:
    module = [sys.executable, "-m", "benchmarks.gpu.one_case"]
    return [*module, "--backend", backend.name, "--case", case, "--device", str(device)]


def start_sanitizers(device: torch.device) -> list[Check]:
    """Of every backend's own kernels, in the background: a check waits for its process."""
    kernels = [backend for backend in serving.serving(device) if backend is not REFERENCE]
    return [
        Check(f"{SANITIZER} {tool}", backend.name, _started(tool, backend, device))
        for tool in ("memcheck", "racecheck")
        for backend in kernels
    ]


def _started(tool: str, backend: Backend, device: torch.device) -> Callable[[], str]:
    """A small case, with every tensor an allocation of its own."""
    command = toolkit.program(SANITIZER)
    if device.type != "cuda" or command is None:

        def not_run() -> str:
            need_cuda(device)
            raise NotRun(f"{SANITIZER} is not installed")

        return not_run
    options = ["--tool", tool, "--error-exitcode", str(FOUND_ERRORS), "--report-api-errors", "no"]
    case = _one_case(backend, SANITIZED_CASE, device)
    process = start([command, *options, *case], {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"})
    end = monotonic() + SANITIZER_SECONDS
    return lambda: sanitizers_verdict(finish(process, end - monotonic()))


def sanitizers_verdict(found: Finished) -> str:
    """Its summary; AssertionError with what it found, NotRun where it did not get there."""
    if found.status is None:
        raise NotRun(f"more than {SANITIZER_SECONDS:.0f} s")
    if found.status not in (0, FOUND_ERRORS):
        raise NotRun(f"exit status {found.status}: {last_line(found.output)}")
    errors = [line for line in found.output.splitlines() if line.startswith("=========")]
    assert found.status == 0, " ".join(errors[:6]) or last_line(found.output)
    return last_line(found.output)
