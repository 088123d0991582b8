"""Which GPUs kernels are compiled and checked for."""

from functools import cache

import torch

FIRST_CAPABILITY = (8, 0)
"""The oldest ones."""


@cache
def refusal(index: int | None) -> str | None:
    """Why a GPU cannot be served by any kernel, or None."""
    if torch.version.hip is not None:
        return "it serves NVIDIA GPUs, not AMD's"
    try:
        capability = torch.cuda.get_device_capability(index)
    except (AssertionError, RuntimeError) as error:  # no CUDA in this torch, no driver, no such GPU
        return f"torch does not reach the GPU: {error}"
    if capability < FIRST_CAPABILITY:
        found, wanted = (".".join(map(str, c)) for c in (capability, FIRST_CAPABILITY))
        return f"it serves GPUs of compute capability {wanted} or newer, not {found}"
    return None
