"""What kernels find in the tiles of rows of logits, for statistics of tokens.

A row's sums have the same bits in any batch; where rows may be loaded 16 bytes at a time, by base
address and stride, they are added in another order than where they may not.

Results stand in tables whose rows may be filled by several calls, each with the next columns.
"""

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from rnr_kernels.backends.triton.arguments import floats
from rnr_kernels.backends.triton.arithmetic import exp
from rnr_kernels.backends.triton.rows import (
    TILE,
    load_logits,
    tile_columns,
    tile_max,
    tile_sum,
)

OF_TILES: dict[str, Any] = {"enable_fp_fusion": True, "num_warps": 8}
"""Of kernels over tiles. No result is another backend's bit for bit, so products may be fused."""

HUGE_GAP = tl.constexpr(1e30)
NEGLIGIBLE = tl.constexpr(-86.0)


class Logits(NamedTuple):
    """Some columns of rows of logits, and the targets' values where those come from elsewhere."""

    logits: Tensor
    row_stride: int
    targets: Tensor | None


class Tokens(NamedTuple):
    token_ids: Tensor
    ids_stride: int


class TileTables(NamedTuple):
    """One model's results by row and tile."""

    tops: Tensor
    """float32 [R, tiles]: the largest logit, NaN if there is NaN or +inf."""
    largest: Tensor
    """int32 [R, tiles]: its first column."""
    totals: Tensor
    """float32 [R, tiles]: of e = exp(x - top)."""
    weighted: Tensor
    """float32 [R, tiles]: of e (x - top)."""
    greater: Tensor
    """int32 [R, tiles]: other logits above the target's."""
    equal: Tensor
    """int32 [R, tiles]: other logits equal to the target's."""

    @classmethod
    def empty(cls, like: Tensor, num_rows: int, tiles: int) -> "TileTables":
        def counts() -> Tensor:
            return torch.empty(num_rows, tiles, dtype=torch.int32, device=like.device)

        def sums() -> Tensor:
            return floats(like, num_rows, tiles)

        return cls(sums(), counts(), sums(), sums(), counts(), counts())


class CrossTables(NamedTuple):
    """Two models' cross sums by row and tile, float64 [R, tiles]: of e (d - d_other), d = x - top;
    +inf where the other model excludes a token."""

    p: Tensor
    q: Tensor


@triton.jit
def target_of(rows, tokens, r, first_column, vocab_size):
    """The target's column in these logits, and its value: NaN, which equals nothing, if unknown."""
    token = tl.load(tokens.token_ids + r.to(tl.int64) * tokens.ids_stride).to(tl.int64)
    is_known = (token >= 0) & (token < vocab_size)
    if rows.targets is None:
        at = rows.logits + r.to(tl.int64) * rows.row_stride + tl.where(is_known, token, 0)
        value = tl.load(at).to(tl.float32)
    else:
        value = tl.load(rows.targets + r)
    return token - first_column, tl.where(is_known, value, float("nan"))


@triton.jit
def _look_at_tile(
    rows, tokens, tables, r, tile, num_columns, first_column, vocab_size, tiles,
    WANTS_LARGEST: tl.constexpr,
):  # fmt: skip
    """Stores one model's results of a tile; returns (x - top, exp of that, x, top, where to
    store)."""
    columns = tile_columns(tile)
    x = load_logits(rows, r, columns, columns < num_columns)
    out = r.to(tl.int64) * tiles + first_column // TILE + tile
    top = tile_max(x)
    # Terms further down than this count as much as here, next to nothing, and -inf would make them
    # NaN. NaN stays, and +inf less itself becomes it, to show in the sum.
    shift = tl.where(top == float("-inf"), 0.0, top)
    distance = x - shift
    near = tl.maximum(distance, NEGLIGIBLE, propagate_nan=tl.PropagateNan.ALL)
    e = exp(near)
    total = tile_sum(e)
    tl.store(tables.totals + out, total)
    tl.store(tables.weighted + out, tile_sum(e * near))
    tl.store(tables.tops + out, tl.where(total == total, top, float("nan")))
    if WANTS_LARGEST:
        first = -tile_max(-tl.where(x == top, columns, 0x7FFFFFFF))
        tl.store(tables.largest + out, first + first_column)

    # The target's own column, which a product may round in another way, counts nowhere.
    own, target = target_of(rows, tokens, r, first_column, vocab_size)
    greater = tl.full([], 0, tl.int32)
    equal = greater
    if top >= target:
        greater = tile_sum((x > target).to(tl.int32))
        equal = tile_sum(((x == target) & (columns < num_columns)).to(tl.int32))
        column = own - tile * TILE
        if (column >= 0) & (column < TILE) & (own < num_columns):
            at = rows.logits + r.to(tl.int64) * rows.row_stride + own
            own_value = tl.load(at).to(tl.float32)
            greater -= (own_value > target).to(tl.int32)
            equal -= (own_value == target).to(tl.int32)
    tl.store(tables.greater + out, greater)
    tl.store(tables.equal + out, equal)
    return distance, e, x, shift, out


@triton.jit
def token_kernel(
    rows, tokens, tables, num_columns, first_column, vocab_size, tiles, WANTS_LARGEST: tl.constexpr
):
    r, tile = tl.program_id(0), tl.program_id(1)
    _look_at_tile(
        rows, tokens, tables, r, tile, num_columns, first_column, vocab_size, tiles, WANTS_LARGEST
    )


@triton.jit
def _cross_sum(e, d, x, shift, d_other, x_other, shift_other):
    """Sum e (d - d_other), in float64 where float32 may not hold it; +inf if the other model
    excludes a token."""
    gap = d - d_other
    counts = d > NEGLIGIBLE
    if tile_max((counts & (tl.abs(gap) > HUGE_GAP)).to(tl.int32)) != 0:
        distance = x.to(tl.float64) - shift.to(tl.float64)
        wide = distance - (x_other.to(tl.float64) - shift_other.to(tl.float64))
        total = tile_sum(tl.where(counts, e.to(tl.float64) * wide, 0.0))
    else:
        total = tile_sum(tl.where(counts, e * gap, 0.0)).to(tl.float64)
    is_excluded = (x > float("-inf")) & (x_other == float("-inf"))
    return tl.where(tile_max(is_excluded.to(tl.int32)) != 0, float("inf"), total)


@triton.jit
def shift_kernel(
    rows_p, rows_q, tokens, tables_p, tables_q, cross, num_columns, first_column, vocab_size, tiles
):
    r, tile = tl.program_id(0), tl.program_id(1)
    d_p, e_p, x_p, shift_p, out = _look_at_tile(
        rows_p, tokens, tables_p, r, tile, num_columns, first_column, vocab_size, tiles, True
    )
    d_q, e_q, x_q, shift_q, _ = _look_at_tile(
        rows_q, tokens, tables_q, r, tile, num_columns, first_column, vocab_size, tiles, True
    )
    tl.store(cross.p + out, _cross_sum(e_p, d_p, x_p, shift_p, d_q, x_q, shift_q))
    tl.store(cross.q + out, _cross_sum(e_q, d_q, x_q, shift_q, d_p, x_p, shift_p))
