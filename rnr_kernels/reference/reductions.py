"""Reductions over the vocabulary: float64 inside, tiles cut from the vocabulary alone."""

import math

import torch
from torch import Tensor

from rnr_kernels.layout import TILE

NEG_INF = -math.inf


def rows_are_valid(values: Tensor) -> Tensor:
    """bool [R]: no NaN, no +inf, something above -inf."""
    broken = (values.isnan() | (values == math.inf)).any(1)
    return ~broken & (values > NEG_INF).any(1)


def logsumexp(values: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """float64 [R] twice: the maximum, and what the result is above it; NaN for rows that are not
    valid. In two parts, because a large maximum would swallow the other."""
    _, top, log_total = _shifted(values, valid)
    return top, torch.where(valid, log_total, math.nan)


def log_softmax(values: Tensor, valid: Tensor) -> Tensor:
    """float64 [R, V]; NaN for rows that are not valid. Large logits lose nothing: the maximum is
    taken off before the logarithm of the sum."""
    shifted, _, log_total = _shifted(values, valid)
    return torch.where(valid[:, None], shifted - log_total[:, None], math.nan)


def _shifted(values: Tensor, valid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """float64: values minus their maximum, the maximum, the logarithm of the sum of exps."""
    values = torch.where(valid[:, None], values.double(), 0.0)
    top = values.amax(1)
    shifted = values - top[:, None]
    return shifted, top, sum_in_tiles(shifted.exp()).log()


def sum_in_tiles(terms: Tensor) -> Tensor:
    """Row sums that do not depend on the number of rows or threads."""
    padding = -terms.shape[1] % TILE
    tiles = torch.nn.functional.pad(terms, (0, padding)).unflatten(1, (-1, TILE))
    while tiles.shape[-1] > 1:
        half = tiles.shape[-1] // 2
        tiles = tiles[..., :half] + tiles[..., half:]
    total = torch.zeros_like(terms[:, 0])
    for tile in tiles.squeeze(-1).unbind(1):
        total = total + tile
    return total
