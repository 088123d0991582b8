"""log_softmax of adjusted logits: one kernel sums each tile, another combines them and writes."""

import triton
import triton.language as tl
from torch import Tensor

from rnr_kernels.backends.triton.arguments import (
    OPTIONS,
    Program,
    Rows,
    State,
    Tables,
    floats,
    is_aligned,
    kernel,
    next_power_of_2,
    num_tiles,
)
from rnr_kernels.backends.triton.arithmetic import exp
from rnr_kernels.backends.triton.rows import (
    VECTOR,
    RowTables,
    add_scores,
    adjusted_tile,
    begin_of,
    combined,
    find_row,
    is_broken,
    load_logits,
    set_errors,
    tile_columns,
    tile_max,
    tile_scores,
    tile_sum,
)

SUMS = tl.constexpr(6)
"""float32 a tile: top and sum of exp(x - top) of adjusted logits, of logits, and of scores."""


@triton.jit
def _store_sums(sums, x):
    """The top of a tile, NaN if it is broken, and sum exp(x - top)."""
    top = tile_max(x)
    shift = tl.where(top == float("-inf"), 0.0, top)
    tl.store(sums + 1, tile_sum(exp(x - shift)))
    tl.store(sums, tl.where(is_broken(x) != 0, float("nan"), top))


@kernel
def _sum_kernel(
    logits, row_stride: tl.int64, state_indices, indices_stride: tl.int64,
    row_offsets, offsets_stride: tl.int64, draft_token_ids, drafts_stride: tl.int64,
    allowed_bitmask, allowed_stride: tl.int64, num_slots, max_bias,
    IS_ALIGNED: tl.constexpr,
    program, state, error, vocab_size, sums, CLASSES: tl.constexpr, WANTS_LOG_Z: tl.constexpr,
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
    sums += SUMS * (r.to(tl.int64) * tl.num_programs(1) + tile)
    if is_live:
        columns = tile_columns(tile)
        inside = columns < vocab_size
        x = load_logits(rows.logits, columns, inside)
        scores = tile_scores(
            rows, r, tile, columns, vocab_size, program, state, slot, program_id, step, CLASSES
        )
        _store_sums(sums, tl.where(inside, add_scores(x, scores), float("-inf")))
        if WANTS_LOG_Z:
            _store_sums(sums + 2, x)
            _store_sums(sums + 4, tl.where(inside, scores, float("-inf")))
    else:
        # As for a row that is broken.
        for i in tl.static_range(3):
            tl.store(sums + 2 * i, float("nan"))


@kernel
def _write_kernel(
    logits, row_stride: tl.int64, state_indices, indices_stride: tl.int64,
    row_offsets, offsets_stride: tl.int64, draft_token_ids, drafts_stride: tl.int64,
    allowed_bitmask, allowed_stride: tl.int64, num_slots, max_bias,
    IS_ALIGNED: tl.constexpr,
    program, state, vocab_size, row_width: tl.int64, sums, num_tiles, out, out_stride: tl.int64,
    log_z, log_z_stride: tl.int64,
    CLASSES: tl.constexpr, TILES: tl.constexpr, WANTS_LOG_Z: tl.constexpr,
):  # fmt: skip
    r, tile = tl.program_id(0), tl.program_id(1)
    rows = RowTables(
        begin_of(logits, row_stride, r, IS_ALIGNED), state_indices, indices_stride,
        row_offsets, offsets_stride, draft_token_ids, drafts_stride,
        allowed_bitmask, allowed_stride, num_slots, max_bias,
    )  # fmt: skip
    sums += SUMS * r.to(tl.int64) * num_tiles
    top, log_total = combined(sums, sums + 1, SUMS, num_tiles, TILES)
    columns = tile_columns(tile)
    out += r.to(tl.int64) * out_stride
    if IS_ALIGNED:
        # Stores are as wide as loads: Triton sees that each vector is written whole or not at all.
        row_width = row_width // VECTOR * VECTOR
        out = tl.multiple_of(out, VECTOR)
    is_written = columns < row_width
    if (top == top) & (tile < num_tiles):
        slot, _, program_id, step, _ = find_row(rows, r, program, state, vocab_size)
        x = adjusted_tile(
            rows, r, tile, vocab_size, program, state, slot, program_id, step, CLASSES
        )
        tl.store(out + columns, (x - top) - log_total, mask=is_written)
    else:
        # Past the vocabulary, where tables have nothing, or a row that is broken.
        nothing = tl.where(top == top, float("-inf"), float("nan"))
        tl.store(out + columns, nothing, mask=is_written)
    if WANTS_LOG_Z:
        if tile == 0:
            base_top, base_total = combined(sums + 2, sums + 3, SUMS, num_tiles, TILES)
            rules_top, rules_total = combined(sums + 4, sums + 5, SUMS, num_tiles, TILES)
            tops = (top - base_top) - rules_top
            result = tops + (log_total - base_total - rules_total)
            tl.store(log_z + r.to(tl.int64) * log_z_stride, result)


def rule_log_softmax_out(
    logits: Tensor,
    vocab_size: int,
    program: Tables,
    state: Tables,
    error: Tensor,
    out: Tensor,
    log_z: Tensor | None = None,
    state_indices: Tensor | None = None,
    allowed_bitmask: Tensor | None = None,
    row_offsets: Tensor | None = None,
    draft_token_ids: Tensor | None = None,
) -> None:
    num_rows, row_width = logits.shape
    if not num_rows:
        return
    tables, slots, tiles = Program.of(program), State.of(state), num_tiles(vocab_size)
    rows = Rows.of(logits, slots, state_indices, allowed_bitmask, row_offsets, draft_token_ids)
    sums = floats(logits, num_rows, tiles, SUMS.value)
    wants_log_z = log_z is not None
    _sum_kernel[(num_rows, tiles)](
        *rows,
        tables,
        slots,
        error,
        vocab_size,
        sums,
        CLASSES=tables.classes(),
        WANTS_LOG_Z=wants_log_z,
        **OPTIONS,
    )
    fits = rows.IS_ALIGNED and is_aligned(out) and row_width % VECTOR.value == 0
    _write_kernel[(num_rows, num_tiles(row_width))](
        *rows._replace(IS_ALIGNED=fits), tables, slots, vocab_size, row_width, sums, tiles,
        out, out.stride(0), log_z, 0 if log_z is None else log_z.stride(0),
        CLASSES=tables.classes(), TILES=next_power_of_2(tiles), WANTS_LOG_Z=wants_log_z,
        **OPTIONS,
    )  # fmt: skip


def rule_log_softmax(
    logits: Tensor,
    vocab_size: int,
    program: Tables,
    state: Tables,
    error: Tensor,
    state_indices: Tensor | None = None,
    allowed_bitmask: Tensor | None = None,
    row_offsets: Tensor | None = None,
    draft_token_ids: Tensor | None = None,
    return_log_z: bool = False,
) -> tuple[Tensor, Tensor]:
    out = floats(logits, *logits.shape)
    log_z = floats(logits, len(logits) if return_log_z else 0)
    rule_log_softmax_out(
        logits, vocab_size, program, state, error, out, log_z if return_log_z else None,
        state_indices, allowed_bitmask, row_offsets, draft_token_ids,
    )  # fmt: skip
    return out, log_z
