"""The `triton` backend: kernels for NVIDIA GPUs, written in Triton and compiled on first use.

With TRITON_INTERPRET=1 Triton's interpreter runs the same kernels on the CPU, slowly: for tests.
"""

from collections.abc import Callable
from functools import cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from torch import Tensor

from rnr_kernels.backends import gpus

DTYPES = (torch.float32, torch.bfloat16, torch.float16)

MODULES = {
    "apply_rules_": "apply_rules",
    "rule_log_softmax": "rule_log_softmax",
    "rule_log_softmax_out": "rule_log_softmax",
    "sample_": "sample",
    "update_state_": "update_state",
    "token_stats": "statistics",
    "shift_stats": "statistics",
    "linear_token_stats": "linear",
    "linear_shift_stats": "linear",
}
"""Where the op of each name stands."""

FIRST_VERSION = (3, 6)
"""Of Triton."""


@cache
def unavailable() -> str | None:
    """Why Triton's kernels cannot run at all, or None."""
    wanted = ".".join(map(str, FIRST_VERSION))
    try:
        found = version("triton")
    except PackageNotFoundError:
        return f"Triton is missing; pip install 'triton>={wanted}'"
    if tuple(map(int, found.split(".")[:2])) < FIRST_VERSION:
        return f"it needs Triton {wanted} or newer, not {found}"
    return None


def is_interpreted() -> bool:
    """Whether TRITON_INTERPRET is set."""
    import triton

    return bool(triton.knobs.runtime.interpret)


def refuses(op: str, device: torch.device, dtype: torch.dtype, vocab_size: int) -> str | None:
    """The reason why it does not serve, or None (see Backend)."""
    if op != "update_state_" and dtype not in DTYPES:
        return f"it serves float32, bfloat16 and float16, not {str(dtype).removeprefix('torch.')}"
    if device.type == "cuda":
        return unavailable() or gpus.refusal(device.index)
    if device.type != "cpu":
        return f"it serves NVIDIA GPUs, not {device.type}"
    if unavailable() or not is_interpreted():
        return "it serves NVIDIA GPUs, and CPUs only in Triton's interpreter (TRITON_INTERPRET=1)"
    return None


def _loaded_on_first_call(op: str, module: str) -> Callable[..., Any]:
    @cache
    def load() -> Callable[..., Any]:
        return getattr(import_module(f"{__name__}.{module}"), op)  # type: ignore[no-any-return]

    def run(*values: Any, **options: Any) -> Any:
        function = load()
        # Only update_state_ begins with something else, and has its tables next.
        tensor = values[0] if isinstance(values[0], Tensor) else values[1][0]
        if not tensor.is_cuda or tensor.get_device() == torch.cuda.current_device():
            return function(*values, **options)
        with torch.cuda.device(tensor.device):  # where Triton launches
            return function(*values, **options)

    run.__name__ = op
    return run


def functions() -> dict[str, Callable[..., Any]]:
    """The ops by name, as `reference` declares them. Triton is imported when one is called."""
    return {op: _loaded_on_first_call(op, module) for op, module in MODULES.items()}
