"""How long backends took, by device: what the selection goes by where several serve a call.

figures.json is written by `python -m benchmarks.selection`.
"""

import json
import math
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch

PATH = Path(__file__).with_name("figures.json")


def device_name(device: torch.device) -> str:
    """As figures are kept: cpu, or a GPU's name."""
    if device.type != "cuda":
        return device.type
    try:
        return torch.cuda.get_device_name(device)
    except (AssertionError, RuntimeError):  # no CUDA in this torch, no driver, no such GPU
        return device.type


def seconds(
    op: str, device: torch.device, dtype: torch.dtype, vocab_size: int
) -> Mapping[str, float]:
    """By backend, of the measured vocabulary size that is nearest; empty where there is none."""
    # Variants that write into given tensors are as fast as the others.
    by_dtype = _read().get(device_name(device), {}).get(op.removesuffix("_out"), {})
    by_size = by_dtype.get(str(dtype).removeprefix("torch."), {})
    if not by_size:
        return {}
    nearest = min(by_size, key=lambda size: abs(math.log(int(size) / vocab_size)))
    found: Mapping[str, float] = by_size[nearest]
    return found


@cache
def _read() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(PATH.read_text(encoding="utf-8"))["seconds"]
    return found
