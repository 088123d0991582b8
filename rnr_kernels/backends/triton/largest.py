"""The largest logits of rows, lowest id first on ties."""

import triton.language as tl

from rnr_kernels.backends.triton.arguments import kernel
from rnr_kernels.backends.triton.arithmetic import order_of
from rnr_kernels.backends.triton.rows import TILE, begin_of, load_logits, tile_columns, tile_max


@kernel
def largest_kernel(
    logits, row_stride: tl.int64, IS_ALIGNED: tl.constexpr,
    tables, num_columns, first_column, tiles, tiles_here, top_k, values, ids,
):  # fmt: skip
    """Of these columns; a pass over the tiles that may hold it for each."""
    r = tl.program_id(0)
    row = begin_of(logits, row_stride, r, IS_ALIGNED)
    tops = tables.tops + r.to(tl.int64) * tiles + first_column // TILE
    before = tl.full([], 0x7FFFFFFFFFFFFFFF, tl.int64)
    none = -before
    for k in range(top_k):
        best = none
        for tile in range(tiles_here):
            top = order_of(tl.load(tops + tile) + 0.0).to(tl.int64)
            if (top << 32) + 0x7FFFFFFF > best:
                columns = tile_columns(tile)
                inside = columns < num_columns
                x = load_logits(row, columns, inside)
                # Zeros have one order, and of equal logits the first column the largest.
                order = (order_of(x + 0.0).to(tl.int64) << 32) + (0x7FFFFFFF - columns)
                best = tl.maximum(best, tile_max(tl.where(inside & (order < before), order, none)))
        column = 0x7FFFFFFF - (best & 0xFFFFFFFF)
        at = r.to(tl.int64) * top_k + k
        tl.store(ids + at, column + first_column)
        x = tl.load(row + column).to(tl.float32)
        tl.store(values + at, x)
        before = best
