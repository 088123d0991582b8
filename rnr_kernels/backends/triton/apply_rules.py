"""logits += r in place: only touched tokens are loaded and stored."""

import triton
import triton.language as tl
from torch import Tensor

from rnr_kernels.backends.triton.arguments import OPTIONS, Program, Rows, State, Tables, num_tiles
from rnr_kernels.backends.triton.rows import (
    add_scores,
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


@triton.jit
def _apply_rules_kernel(rows, program, state, error, vocab_size, CLASSES: tl.constexpr):
    r, tile = tl.program_id(0), tl.program_id(1)
    slot, is_live, program_id, step, errors = find_row(rows, r, program, state, vocab_size)
    if tile == 0:
        set_errors(error, errors)
    if is_live:
        columns = tile_columns(tile)
        scores = tile_scores(
            rows, r, tile, columns, vocab_size, program, state, slot, program_id, step, CLASSES
        )
        touched = (scores != 0.0) & (columns < vocab_size)
        x = add_scores(load_logits(rows, r, columns, touched), scores)
        # A NaN that no rule bans keeps its bits.
        at = rows.logits + r.to(tl.int64) * rows.row_stride + columns
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
    rows = Rows.of(logits, state_indices, allowed_bitmask, row_offsets, draft_token_ids)
    tables = Program.of(program)
    _apply_rules_kernel[(len(logits), num_tiles(vocab_size))](
        rows, tables, State.of(state), error, vocab_size, CLASSES=tables.classes(), **OPTIONS
    )
