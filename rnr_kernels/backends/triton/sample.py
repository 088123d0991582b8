"""One token a row: a kernel over tiles for maxima and weights, one over rows that filters, chooses
and advances the state."""

import torch
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
    next_power_of_2,
    num_tiles,
)
from rnr_kernels.backends.triton.arithmetic import (
    at_order,
    exp,
    multiply_shift_53,
    order_of,
    tile_shifts,
    token_weights,
    uniform_bits,
    weight_exponent,
)
from rnr_kernels.backends.triton.rows import (
    ERROR_SLOT,
    TILE,
    RowTables,
    adjusted_tile,
    begin_of,
    combined,
    find_row,
    is_broken,
    load_tops,
    set_errors,
    tile_columns,
    tile_max,
    tile_sum,
)
from rnr_kernels.backends.triton.update_state import advance, is_first_of_slot, set_used

BLOCKS = tl.constexpr(32)
"""Blocks of a tile, each with a maximum of its own."""
WORDS = tl.constexpr(3 + BLOCKS.value // 2)
"""int64 words a tile in the scan's results (see `results_at`)."""
FLOATS = tl.constexpr(2 * WORDS.value)
"""The same in float32 or int32."""
LEAST = tl.constexpr(torch.finfo(torch.float32).min)


@triton.jit
def results_at(scanned, tile):
    """Where a tile's results stand: its weight (int64); top, ceiling and total (float32), the first
    column of the largest (int32), BLOCKS tops of blocks (float32). The next tile's follow."""
    weights = scanned + tile * WORDS
    tops = (weights + 1).to(tl.pointer_type(tl.float32), bitcast=True)
    largest = (tops + 3).to(tl.pointer_type(tl.int32), bitcast=True)
    return weights, tops, tops + 1, tops + 2, largest, tops + 4


@triton.jit
def sampling_of(state, slot, vocab_size):
    """(temperature, scale, top_k or 0, top_p, min_p threshold, whether anything filters)."""
    at = state.sampling + 4 * slot
    top_p, min_p = tl.maximum(tl.load(at + 2), 0.0), tl.load(at + 3)
    top_k = tl.load(state.slot_params + 4 * slot + 2)
    top_k = tl.where((top_k < 0) | (top_k >= vocab_size), 0, top_k)
    filters = (top_k > 0) | (top_p < 1.0) | (min_p > float("-inf"))
    return tl.load(at), tl.load(at + 1), top_k, top_p, min_p, filters


@triton.jit
def commits(rows):
    """constexpr: whether rows advance their slots."""
    return rows.row_offsets is None and rows.draft_token_ids is None


@kernel
def _scan_kernel(
    logits, row_stride: tl.int64, state_indices, indices_stride: tl.int64,
    row_offsets, offsets_stride: tl.int64, draft_token_ids, drafts_stride: tl.int64,
    allowed_bitmask, allowed_stride: tl.int64, num_slots, max_bias,
    IS_ALIGNED: tl.constexpr,
    program, state, error, vocab_size, scanned, CLASSES: tl.constexpr, WANTS_TOTALS: tl.constexpr,
):  # fmt: skip
    r, tile = tl.program_id(0), tl.program_id(1)
    rows = RowTables(
        begin_of(logits, row_stride, r, IS_ALIGNED), state_indices, indices_stride,
        row_offsets, offsets_stride, draft_token_ids, drafts_stride,
        allowed_bitmask, allowed_stride, num_slots, max_bias,
    )  # fmt: skip
    slot, is_live, program_id, step, errors = find_row(rows, r, program, state, vocab_size)
    if commits(rows):
        is_first = is_first_of_slot(rows, r, slot)
        errors |= tl.where(is_live & (is_first == 0), ERROR_SLOT, 0)
        is_live = is_live & is_first
    if tile == 0:
        set_errors(error, errors)
    at = r.to(tl.int64) * tl.num_programs(1) + tile
    if is_live:
        x = adjusted_tile(
            rows, r, tile, vocab_size, program, state, slot, program_id, step, CLASSES
        )
        weights, tops, ceilings, totals, largest, block_tops = results_at(scanned, at)
        top = tile_max(tl.where(x == x, x, float("-inf")))
        columns = tile_columns(tile)
        first = -tile_max(-tl.where(x == top, columns, 0x7FFFFFFF))
        tl.store(largest, first)
        if WANTS_TOTALS:
            shift = tl.where(top == float("-inf"), 0.0, top)
            tl.store(totals, tile_sum(exp(x - shift)))
        tl.store(tops, tl.where(is_broken(x) != 0, float("nan"), top))
        temperature, scale, _, _, _, filters = sampling_of(state, slot, vocab_size)
        if temperature > 0.0:
            ceiling = tl.ceil(weight_exponent(top, scale))
            tl.store(ceilings, ceiling)
            if filters:
                blocks = tl.max(tl.max(x.reshape(BLOCKS, 4, 32), 2), 1)
                tl.store(block_tops + tl.arange(0, BLOCKS), blocks)
            else:
                tl.store(weights, tile_sum(token_weights(x, scale, ceiling)))
    else:
        tl.store(results_at(scanned, at)[1], float("nan"))


@triton.jit
def bound_of_top_k(block_tops, num_blocks, top_k, BLOCK_TOPS: tl.constexpr):
    """The order of the k-th largest block maximum: at least k tokens are not below it. The order of
    LEAST if there are fewer blocks."""
    block = tl.arange(0, BLOCK_TOPS)
    at = block_tops + block // BLOCKS * FLOATS + block % BLOCKS
    tops = tl.load(at, mask=block < num_blocks, other=float("-inf"))
    low = order_of(tl.max(tops, 0) * 0.0 + LEAST).to(tl.int64)
    high = order_of(tl.max(tops, 0)).to(tl.int64) + 1
    if tl.sum((tops >= LEAST).to(tl.int32), 0) >= top_k:
        while high - low > 1:
            middle = (low + high) >> 1
            count = tl.sum((tops >= at_order(middle.to(tl.int32))).to(tl.int32), 0)
            low = tl.where(count >= top_k, middle, low)
            high = tl.where(count >= top_k, high, middle)
    return low


@kernel
def _choose_kernel(
    logits, row_stride: tl.int64, state_indices, indices_stride: tl.int64,
    row_offsets, offsets_stride: tl.int64, draft_token_ids, drafts_stride: tl.int64,
    allowed_bitmask, allowed_stride: tl.int64, num_slots, max_bias,
    IS_ALIGNED: tl.constexpr,
    program, state, vocab_size, num_tiles, scanned, token_ids, logprob, adjusted_logprob, rank,
    CLASSES: tl.constexpr, TILES: tl.constexpr,
):  # fmt: skip
    r = tl.program_id(0)
    rows = RowTables(
        begin_of(logits, row_stride, r, IS_ALIGNED), state_indices, indices_stride,
        row_offsets, offsets_stride, draft_token_ids, drafts_stride,
        allowed_bitmask, allowed_stride, num_slots, max_bias,
    )  # fmt: skip
    first = r.to(tl.int64) * num_tiles
    weights, tops, ceilings, totals, largest, block_tops = results_at(scanned, first)
    tile = tl.arange(0, TILES)
    is_there = tile < num_tiles
    tile_tops, top, _factors, is_valid = load_tops(tops, FLOATS, num_tiles, TILES)
    token = tl.full([], -1, tl.int64)
    value, final = top, float("nan") * top
    if is_valid:
        slot, _, program_id, step, _ = find_row(rows, r, program, state, vocab_size)
        temperature, scale, top_k, top_p, min_p, filters = sampling_of(state, slot, vocab_size)
        if (temperature > 0.0) == 0:
            where = tl.min(tl.where(tile_tops == top, tile, TILES), 0)
            token = tl.load(largest + where * FLOATS).to(tl.int64)
            final = top * 0.0
        else:
            tile_ceilings = tl.load(ceilings + tile * FLOATS, mask=is_there, other=float("-inf"))
            row_ceiling = tl.max(tile_ceilings, 0)
            shifts = tile_shifts(row_ceiling, tile_ceilings)
            sums = tl.load(weights + tile * WORDS, mask=is_there, other=0)
            sums = tl.where(filters, 0, sums)
            threshold = order_of(top * 0.0 + LEAST).to(tl.int64)

            # top_k, then top_p: the largest threshold from which up tokens count at least `limit`,
            # each 1 for top_k and its weight for top_p.
            for phase in range(2):
                counts = phase == 0
                if tl.where(counts, top_k > 0, top_p < 1.0):
                    low, high = threshold, order_of(top).to(tl.int64) + 1
                    if counts:
                        low = bound_of_top_k(block_tops, num_tiles * BLOCKS, top_k, TILES * BLOCKS)
                    limit = top_k.to(tl.int64)
                    is_first = phase >= 0
                    while is_first | (high - low > 1):
                        middle = tl.where(is_first, low, (low + high) >> 1)
                        least = at_order(middle.to(tl.int32))
                        found = tl.full([], 0, tl.int64)
                        for t in range(num_tiles):
                            if tl.load(tops + t * FLOATS) >= least:
                                x = adjusted_tile(
                                    rows, r, t, vocab_size, program, state, slot, program_id, step,
                                    CLASSES,
                                )  # fmt: skip
                                ceiling = tl.load(ceilings + t * FLOATS)
                                shift = tl.sum(tl.where(tile == t, shifts, 0), 0)
                                mass = token_weights(x, scale, ceiling) >> shift
                                mass = tl.where(counts, mass * 0 + 1, mass)
                                found += tile_sum(tl.where(x >= least, mass, 0))
                        if is_first:
                            share = tl.ceil(top_p.to(tl.float64) * found.to(tl.float64))
                            limit = tl.where(counts, limit, share.to(tl.int64))
                            high = tl.where(found < limit, low + 1, high)
                            is_first = phase < 0
                        else:
                            low = tl.where(found >= limit, middle, low)
                            high = tl.where(found >= limit, high, middle)
                    threshold = low

            # What is kept: its weights, and its probabilities.
            least = at_order(threshold.to(tl.int32))
            final_total = tl.full([], 0.0, tl.float64)
            if filters | (logprob is not None):
                for t in range(num_tiles):
                    if tl.load(tops + t * FLOATS) >= least:
                        x = adjusted_tile(
                            rows, r, t, vocab_size, program, state, slot, program_id, step, CLASSES
                        )
                        is_kept = (x >= least) & (x - top >= min_p)
                        kept = token_weights(x, scale, tl.load(ceilings + t * FLOATS))
                        mass = tile_sum(tl.where(is_kept, kept, 0))
                        sums = tl.where(tile == t, mass, sums)
                        terms = tl.where(is_kept, exp((x - top) / temperature), 0.0)
                        final_total += tile_sum(terms).to(tl.float64)

            # The tile, and in it the token, where the cumulative weight exceeds the uniform's.
            masses = sums >> shifts
            ends = tl.cumsum(masses, 0)
            position = tl.load(state.rng + 2 * slot + 1)
            if rows.row_offsets is not None:
                position += tl.load(rows.row_offsets + r.to(tl.int64) * rows.offsets_stride)
            uniform = uniform_bits(tl.load(state.rng + 2 * slot), position)
            target = multiply_shift_53(uniform, tl.sum(masses, 0))
            where = tl.sum((ends <= target).to(tl.int32), 0)
            where = tl.minimum(where, num_tiles - 1)
            is_where = tile == where
            rest = target - tl.sum(tl.where(is_where, ends - masses, 0), 0)
            shift = tl.sum(tl.where(is_where, shifts, 0), 0)
            x = adjusted_tile(
                rows, r, where, vocab_size, program, state, slot, program_id, step, CLASSES
            )
            is_kept = (x >= least) & ((x - top >= min_p) | (filters == 0))
            kept = token_weights(x, scale, tl.load(ceilings + where * FLOATS))
            running = tl.cumsum(tl.where(is_kept, kept, 0).reshape(TILE), 0) >> shift
            inside = tl.sum((running <= rest).to(tl.int32), 0)
            column = tl.minimum(where * TILE + inside, vocab_size - 1)
            token = column.to(tl.int64)
            value = tile_sum(tl.where(tile_columns(where) == column, x, 0.0))
            final = ((value - top) / temperature).to(tl.float64) - tl.log(final_total)
            final = final.to(tl.float32)
        if rank is not None:
            above = tl.full([], 1, tl.int32)
            for t in range(num_tiles):
                if tl.load(tops + t * FLOATS) > value:
                    x = adjusted_tile(
                        rows, r, t, vocab_size, program, state, slot, program_id, step, CLASSES
                    )
                    above += tile_sum((x > value).to(tl.int32))
            tl.store(rank + r, above)
        if commits(rows):
            # Nobody else looks at the slot. A block of one, for atomics that take masks.
            tokens = token + tl.arange(0, 1)
            set_used(state, slot, tokens, tokens >= 0)
            advance(state, slot, token * 0 + 1)
    elif rank is not None:
        tl.store(rank + r, 0)
    tl.store(token_ids + r, token)
    if logprob is not None:
        tl.store(logprob + r, final)
    if adjusted_logprob is not None:
        # NaN as the top of an invalid row makes the result NaN.
        row_top, log_total = combined(tops, totals, FLOATS, num_tiles, TILES)
        tl.store(adjusted_logprob + r, (value - row_top) - log_total)


def sample_(
    logits: Tensor,
    vocab_size: int,
    program: Tables,
    state: Tables,
    error: Tensor,
    state_indices: Tensor | None = None,
    allowed_bitmask: Tensor | None = None,
    row_offsets: Tensor | None = None,
    draft_token_ids: Tensor | None = None,
    return_logprob: bool = False,
    return_adjusted_logprob: bool = False,
    return_rank: bool = False,
) -> tuple[Tensor | None, ...]:
    num_rows, device = len(logits), logits.device

    def column(asked: bool, dtype: torch.dtype) -> Tensor | None:
        return torch.empty(num_rows, dtype=dtype, device=device) if asked else None

    token_ids = torch.empty(num_rows, dtype=torch.int64, device=device)
    logprob = column(return_logprob, torch.float32)
    adjusted_logprob = column(return_adjusted_logprob, torch.float32)
    rank = column(return_rank, torch.int32)
    if num_rows:
        tables, slots, tiles = Program.of(program), State.of(state), num_tiles(vocab_size)
        rows = Rows.of(logits, slots, state_indices, allowed_bitmask, row_offsets, draft_token_ids)
        classes = tables.classes()
        scanned = torch.empty(num_rows, tiles * WORDS.value, dtype=torch.int64, device=device)
        _scan_kernel[(num_rows, tiles)](
            *rows, tables, slots, error, vocab_size, scanned, CLASSES=classes,
            WANTS_TOTALS=return_adjusted_logprob, **OPTIONS,
        )  # fmt: skip
        _choose_kernel[(num_rows,)](
            *rows, tables, slots, vocab_size, tiles, scanned, token_ids, logprob, adjusted_logprob,
            rank, CLASSES=classes, TILES=next_power_of_2(tiles), **OPTIONS,
        )  # fmt: skip
    return token_ids, logprob, adjusted_logprob, rank
