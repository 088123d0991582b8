"""What kernels find in the tiles of rows of logits, for statistics of tokens.

A row's sums have the same bits in any batch, and wherever its row begins (see `load_tile`).

Results stand in tables whose rows may be filled by several calls, each with the next columns.
"""

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from rnr_kernels.backends.triton.arguments import floats, kernel
from rnr_kernels.backends.triton.arithmetic import exp
from rnr_kernels.backends.triton.rows import (
    TILE,
    begin_of,
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
    IS_ALIGNED: bool
    """See arguments.Rows."""


class LogitsRow(NamedTuple):
    """The same as a program instance sees it: `logits` is where its own row begins."""

    logits: Any
    targets: Any


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
        value = tl.load(rows.logits + tl.where(is_known, token, 0)).to(tl.float32)
    else:
        value = tl.load(rows.targets + r)
    return token - first_column, tl.where(is_known, value, float("nan"))


@triton.jit
def load_tile(row, columns, mask, table, IS_ALIGNED: tl.constexpr):
    """As `load_logits`, in one layout of columns over threads, which is the order of sums.

    Triton gives loads that meet the layout of the widest. So rows that are loaded one column at a
    time meet a load from `table`, which is aligned, of no column at all.
    """
    if IS_ALIGNED:
        return load_logits(row, columns, mask)
    else:
        aligned = table.to(row.dtype, bitcast=True) + columns
        nothing = tl.load(aligned, mask=columns < 0, other=float("-inf"))
        return tl.load(row + columns, mask=mask, other=nothing).to(tl.float32)


@triton.jit
def _look_at_tile(
    rows, tokens, tables, r, tile, num_columns, first_column, vocab_size, tiles,
    WANTS_LARGEST: tl.constexpr, IS_ALIGNED: tl.constexpr,
):  # fmt: skip
    """Stores one model's results of a tile; returns (x - top, exp of that, x, top, where to
    store)."""
    columns = tile_columns(tile)
    x = load_tile(rows.logits, columns, columns < num_columns, tables.tops, IS_ALIGNED)
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
            own_value = tl.load(rows.logits + own).to(tl.float32)
            greater -= (own_value > target).to(tl.int32)
            equal -= (own_value == target).to(tl.int32)
    tl.store(tables.greater + out, greater)
    tl.store(tables.equal + out, equal)
    return distance, e, x, shift, out


@kernel
def token_kernel(
    logits, row_stride: tl.int64, targets, IS_ALIGNED: tl.constexpr,
    token_ids, ids_stride: tl.int64,
    tables, num_columns, first_column, vocab_size, tiles, WANTS_LARGEST: tl.constexpr,
):  # fmt: skip
    r, tile = tl.program_id(0), tl.program_id(1)
    rows = LogitsRow(begin_of(logits, row_stride, r, IS_ALIGNED), targets)
    tokens = Tokens(token_ids, ids_stride)
    _look_at_tile(
        rows, tokens, tables, r, tile, num_columns, first_column, vocab_size, tiles,
        WANTS_LARGEST, IS_ALIGNED,
    )  # fmt: skip


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


@kernel
def shift_kernel(
    logits, row_stride: tl.int64, targets, IS_ALIGNED: tl.constexpr,
    base_logits, base_stride: tl.int64, base_targets, BASE_IS_ALIGNED: tl.constexpr,
    token_ids, ids_stride: tl.int64,
    tables_p, tables_q, cross, num_columns, first_column, vocab_size, tiles,
):  # fmt: skip
    r, tile = tl.program_id(0), tl.program_id(1)
    rows_p = LogitsRow(begin_of(logits, row_stride, r, IS_ALIGNED), targets)
    rows_q = LogitsRow(begin_of(base_logits, base_stride, r, BASE_IS_ALIGNED), base_targets)
    tokens = Tokens(token_ids, ids_stride)
    d_p, e_p, x_p, shift_p, out = _look_at_tile(
        rows_p, tokens, tables_p, r, tile, num_columns, first_column, vocab_size, tiles,
        True, IS_ALIGNED,
    )  # fmt: skip
    d_q, e_q, x_q, shift_q, _ = _look_at_tile(
        rows_q, tokens, tables_q, r, tile, num_columns, first_column, vocab_size, tiles,
        True, BASE_IS_ALIGNED,
    )  # fmt: skip
    tl.store(cross.p + out, _cross_sum(e_p, d_p, x_p, shift_p, d_q, x_q, shift_q))
    tl.store(cross.q + out, _cross_sum(e_q, d_q, x_q, shift_q, d_p, x_p, shift_p))
