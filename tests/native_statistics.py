"""Calls of the native kernels' statistics, named results, and their comparison."""

import torch
from native_batches import Functions
from torch import Tensor

from rnr_kernels.ops import ShiftStats, TokenStats
from rnr_kernels.testing import assert_same_bits

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def token(
    kernels: Functions, logits: Tensor, ids: Tensor, size: int | None = None, top_k: int = 0
) -> TokenStats:
    return TokenStats(*kernels["token_stats"](logits, ids, size or logits.shape[1], top_k))


def grouped(values: tuple[Tensor, ...]) -> ShiftStats:
    return ShiftStats(TokenStats(*values[:6]), TokenStats(*values[6:12]), *values[12:])


def shift(
    kernels: Functions,
    logits: Tensor,
    base: Tensor,
    ids: Tensor,
    size: int | None = None,
    top_k: int = 0,
) -> ShiftStats:
    return grouped(kernels["shift_stats"](logits, base, ids, size or logits.shape[1], top_k))


def flat(stats: TokenStats | ShiftStats) -> dict[str, Tensor]:
    if isinstance(stats, TokenStats):
        return dict(stats._asdict())
    sides = {"aligned": stats.aligned, "base": stats.base}
    each = {f"{side}.{name}": v for side, s in sides.items() for name, v in s._asdict().items()}
    return each | dict(zip(stats._fields[2:], stats[2:], strict=True))


def assert_equal_stats(
    actual: TokenStats | ShiftStats, expected: TokenStats | ShiftStats, what: str = ""
) -> None:
    for name, value in flat(expected).items():
        assert_same_bits(flat(actual)[name], value, f"{what} {name}")
