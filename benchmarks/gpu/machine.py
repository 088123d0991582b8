"""The device, its software and the sources: what a run's figures hold for."""

import hashlib
import os
import platform
import statistics
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from benchmarks import results
from benchmarks.gpu import serving, toolkit
from benchmarks.gpu.timing import Watch
from benchmarks.timing import spread

COPY_BYTES = 2 * 1024**3
"""What a copy reads, and again what it writes: many times an L2 cache."""
COPIES = 15
SMALL_COPY_BYTES = 16 * 1024**2
"""On a CPU."""

SOURCES = ("csrc", "rnr_kernels", "benchmarks", "setup.py")


def missing() -> str | None:
    """Why there is nothing to measure here, or None."""
    if not torch.backends.cuda.is_built():
        return (
            f"this torch ({torch.__version__}) was built without CUDA; pass a Python with a CUDA "
            "build: make gpu-check PYTHON=..."
        )
    if not torch.cuda.is_available():
        return "torch finds no NVIDIA GPU: look at nvidia-smi and CUDA_VISIBLE_DEVICES"
    return None


def about(device: torch.device) -> dict[str, Any]:
    """The header of a results file."""
    is_gpu = device.type == "cuda"
    found: dict[str, Any] = {"gpu": device_name(device)}
    if is_gpu:
        properties: Any = torch.cuda.get_device_properties(device)
        found |= {
            "driver": _nvidia_smi("driver_version"),
            "compute_capability": f"{properties.major}.{properties.minor}",
            "multiprocessors": properties.multi_processor_count,
            "l2_bytes": l2_bytes(device),
            "memory_bytes": properties.total_memory,
        }
    return found | {
        "processor": results.processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda or "none",
        "nvcc": _nvcc(),
        "triton": results.installed("triton"),
        "transformers": results.installed("transformers"),
        **results.revision(),
        "sources": sources_hash(),
        "served_by": {
            op: serving.default(op, device, torch.float32, 128_256) for op in serving.OPS
        },
    }


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "none: on the CPU"


def l2_bytes(device: torch.device) -> int:
    """0 on a CPU."""
    if device.type != "cuda":
        return 0
    return int(getattr(torch.cuda.get_device_properties(device), "L2_cache_size", 0))


def file_name(header: Mapping[str, Any]) -> str:
    """Of the results of this kind of GPU."""
    return f"{results.slug(str(header['gpu']))}.json"


def copy_bandwidth(device: torch.device, watch: Watch) -> dict[str, float]:
    """Bytes read and written a second, by a large copy within the device: median and spread."""
    size = COPY_BYTES if device.type == "cuda" else SMALL_COPY_BYTES
    source = torch.randint(-(2**31), 2**31 - 1, (size // 4,), device=device, dtype=torch.int32)
    target = torch.empty_like(source)

    def copy() -> None:
        target.copy_(source)

    copy()
    rates = [2 * size / watch.time(copy) for _ in range(COPIES)]
    low, high = spread(rates)
    return {"median": statistics.median(rates), "p20": low, "p80": high, "bytes": 2 * size}


def sources_hash(root: Path = results.ROOT) -> str:
    """Of all sources, where no repository knows the commit."""
    digest = hashlib.sha256()
    for name in SOURCES:
        folder = root / name
        files = [folder] if folder.is_file() else sorted(folder.rglob("*"))
        for path in files:
            if path.suffix in (".py", ".cpp", ".cu", ".cuh", ".h"):
                digest.update(str(path.relative_to(root)).encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def _nvidia_smi(field: str) -> str:
    command = ["nvidia-smi", f"--query-gpu={field}", "--format=csv,noheader"]
    try:
        run = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return run.stdout.strip().splitlines()[0]


def _nvcc() -> str:
    command = toolkit.program("nvcc")
    if command is None:
        return "none"
    try:
        run = subprocess.run([command, "--version"], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    lines = [line for line in run.stdout.splitlines() if "release" in line]
    return lines[0].partition("release ")[2].partition(",")[0] if lines else "unknown"
