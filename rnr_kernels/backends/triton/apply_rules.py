"""logits += r in place: only touched tokens are loaded and stored."""

import triton
import triton.language as tl
from torch import Tensor

from rnr_kernels.backends.triton.arguments import (
    OPTIONS,
    Program,
    Rows,
    State,
    Tables,
    kernel,
    num_tiles,
)
from rnr_kernels.backends.triton.rows import (
    RowTables,
    add_scores,
    begin_of,
    find_row,
    load_logits,
    set_errors,
    tile_columns,
    tile_scores,
)


@triton.jit
def rounded(x, like):
    """float32 to the dtype of the pointer `like`, to nearest even: also in the interpreter, which
    truncates to bfloat16."""
    if like.dtype.element_ty == tl.bfloat16:
        bits = x.to(tl.int32, bitcast=True)
        bits = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
        return bits.to(tl.int16).to(tl.bfloat16, bitcast=True)
    else:
        return x.to(like.dtype.element_ty)


@kernel
def _apply_rules_kernel(
    logits, row_stride: tl.int64, state_indices, indices_stride: tl.int64,
    row_offsets, offsets_stride: tl.int64, draft_token_ids, drafts_stride: tl.int64,
    allowed_bitmask, allowed_stride: tl.int64, num_slots, max_bias,
    IS_ALIGNED: tl.constexpr,
    program, state, error, vocab_size, CLASSES: tl.constexpr,
):  # fmt: skip
    r, tile = tl.program_id(0), tl.program_id(1)
    rows = RowTables(
        begin_of(logits, row_stride, r, IS_ALIGNED), state_indices, indices_stride,
        row_offsets, offsets_stride, draft_token_ids, drafts_stride,
        allowed_bitmask, allowed_stride, num_slots, max_bias,
    )  # fmt: skip
    slot, is_live, program_id, step, errors = find_row(rows, r, program, state, vocab_size)
    if tile == 0:
        set_errors(error, errors)
    if is_live:
        columns = tile_columns(tile)
        scores = tile_scores(
            rows, r, tile, columns, vocab_size, program, state, slot, program_id, step, CLASSES
        )
        touched = (scores != 0.0) & (columns < vocab_size)
        x = add_scores(load_logits(rows.logits, columns, touched), scores)
        # A NaN that no rule bans keeps its bits.
        at = rows.logits + columns
        tl.store(at, rounded(x, rows.logits), mask=touched & (x == x))


def apply_rules_(
    logits: Tensor,
    vocab_size: int,
    program: Tables,
    state: Tables,
    error: Tensor,
    state_indices: Tensor | None = None,
    allowed_bitmask: Tensor | None = None,
    row_offsets: Tensor | None = None,
    draft_token_ids: Tensor | None = None,
) -> None:
    if not len(logits):
        return
    tables, slots = Program.of(program), State.of(state)
    rows = Rows.of(logits, slots, state_indices, allowed_bitmask, row_offsets, draft_token_ids)
    _apply_rules_kernel[(len(logits), num_tiles(vocab_size))](
        *rows, tables, slots, error, vocab_size, CLASSES=tables.classes(), **OPTIONS
    )
