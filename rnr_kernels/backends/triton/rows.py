"""What kernels over rules know of a row, and a tile of its adjusted logits.

A tile is [TILE_WORDS, 32] columns: one word of a bitmask a row. A program instance computes one
tile of one row, cut from the vocabulary alone.
"""

from typing import Any, NamedTuple

import triton
import triton.language as tl

from rnr_kernels import layout
from rnr_kernels.backends.triton import arguments

VECTOR = tl.constexpr(arguments.VECTOR)
TILE = tl.constexpr(layout.TILE)
TILE_WORDS = tl.constexpr(layout.TILE // layout.BITS)
ERROR_SLOT = tl.constexpr(layout.ERROR_SLOT)
ERROR_PROGRAM = tl.constexpr(layout.ERROR_PROGRAM)
ERROR_TOKEN = tl.constexpr(layout.ERROR_TOKEN)
NO_KNOT = tl.constexpr(layout.NO_KNOT)
EARLIER = tl.constexpr(4)
"""Earlier rows looked at a time."""


class RowTables(NamedTuple):
    """arguments.Rows as a program instance sees them: `logits` is where its own row begins."""

    logits: Any
    state_indices: Any
    indices_stride: Any
    row_offsets: Any
    offsets_stride: Any
    draft_token_ids: Any
    drafts_stride: Any
    allowed_bitmask: Any
    allowed_stride: Any
    num_slots: Any
    max_bias: Any


@triton.jit
def slot_of(rows, r, num_slots):
    """int64 slot of row r, 0 where it is out of range; whether it is in range; whether past it."""
    if rows.state_indices is None:
        slot = r.to(tl.int64)
    else:
        slot = tl.load(rows.state_indices + r.to(tl.int64) * rows.indices_stride).to(tl.int64)
    in_range = (slot >= 0) & (slot < num_slots)
    return tl.where(in_range, slot, 0), in_range, slot >= num_slots


@triton.jit
def find_row(rows, r, program, state, vocab_size):
    """(slot, is_live, program or -1 for a row without rules, step, error bits) of row r."""
    slot, in_range, is_past = slot_of(rows, r, rows.num_slots)
    params = state.slot_params + 4 * slot
    program_id = tl.load(params)
    step = tl.load(params + 1).to(tl.int64)
    if rows.row_offsets is not None:
        step += tl.load(rows.row_offsets + r.to(tl.int64) * rows.offsets_stride).to(tl.int64)
    is_row = (program_id >= 0) & (program_id < program.num_programs)
    entry = program.program_table + 4 * tl.where(is_row, program_id, 0).to(tl.int64)
    class_map, schedule = tl.load(entry), tl.load(entry + 1)
    is_known = is_row & (tl.load(entry + 3) != 0) & (tl.load(entry + 2) < program.num_vectors)
    is_known = is_known & (class_map >= 0) & (class_map < program.num_maps)
    is_known = is_known & (schedule >= 0) & (schedule < program.num_schedules)
    is_unknown = in_range & (program_id >= 0) & (is_known == 0)
    errors = tl.where(is_past, ERROR_SLOT, 0) | tl.where(is_unknown, ERROR_PROGRAM, 0)
    is_live = in_range & (is_unknown == 0)
    if rows.draft_token_ids is not None:
        draft = tl.load(rows.draft_token_ids + r.to(tl.int64) * rows.drafts_stride)
        errors |= tl.where(is_live & (draft >= vocab_size), ERROR_TOKEN, 0)
    return slot, is_live, tl.where(is_known & is_live, program_id, -1), step, errors


@triton.jit
def set_errors(error, errors):
    tl.atomic_or(error, errors, mask=errors != 0)


@triton.jit
def tile_columns(tile):
    """int32 [TILE_WORDS, 32]."""
    word, bit = tl.arange(0, TILE_WORDS), tl.arange(0, 32)
    return tile * TILE + word[:, None] * 32 + bit[None, :]


@triton.jit
def tile_bits(words):
    """Bool [TILE_WORDS, 32] of int32 words [TILE_WORDS]."""
    return ((words[:, None] >> tl.arange(0, 32)[None, :]) & 1) != 0


@triton.jit
def tile_words(bitmask, tile, vocab_size):
    """int32 [TILE_WORDS] of a row's bitmask, 0 past the vocabulary."""
    word = tile * TILE_WORDS + tl.arange(0, TILE_WORDS)
    return tl.load(bitmask + word, mask=word * 32 < vocab_size, other=0)


@triton.jit
def begin_of(logits, row_stride, r, IS_ALIGNED: tl.constexpr):
    """Where row r begins; the hint makes loads of columns VECTOR bytes wide."""
    row = logits + r.to(tl.int64) * row_stride
    if IS_ALIGNED:
        row = tl.multiple_of(row, VECTOR)
    return row


@triton.jit
def load_logits(row, columns, mask):
    """float32; -inf where the mask is not set."""
    return tl.load(row + columns, mask=mask, other=float("-inf")).to(tl.float32)


@triton.jit
def class_scores(program, schedule, step, CLASSES: tl.constexpr):
    """float32 [CLASSES]: each class's score at a step, on the line of its last knot so far."""
    classes = tl.arange(0, CLASSES)
    is_named = (classes > 0) & (classes < program.num_classes)
    value = tl.zeros([CLASSES], dtype=tl.float64)
    slope, start = value, tl.zeros([CLASSES], dtype=tl.int64)
    for knot in range(program.num_knots):
        at = (schedule.to(tl.int64) * program.num_knots + knot) * program.num_classes + classes
        begins = tl.load(program.knot_starts + at, mask=is_named, other=NO_KNOT).to(tl.int64)
        is_begun = is_named & (begins <= step)
        line = program.knot_lines + 2 * at
        value = tl.where(is_begun, tl.load(line, mask=is_begun, other=0.0), value)
        slope = tl.where(is_begun, tl.load(line + 1, mask=is_begun, other=0.0), slope)
        start = tl.where(is_begun, begins, start)
    return (value + slope * (step - start).to(tl.float64)).to(tl.float32)


@triton.jit
def look_up(table, codes, CLASSES: tl.constexpr):
    """float32 [TILE_WORDS, 32]: entries of a table [CLASSES] by codes of that shape."""
    index = tl.minimum(codes.to(tl.int32), CLASSES - 1).reshape(TILE)
    return tl.gather(table, index, 0).reshape(TILE_WORDS, 32)


@triton.jit
def _either(a, b):
    return a | b


@triton.jit
def draft_words(rows, r, slot, tile, vocab_size):
    """int32 [TILE_WORDS]: draft tokens before row r, those of its slot's earlier rows included."""
    words = tl.zeros([TILE_WORDS], dtype=tl.int32)
    for first in range(0, r + 1, EARLIER):
        earlier = first + tl.arange(0, EARLIER)
        is_there = earlier <= r
        index = earlier.to(tl.int64)
        if rows.state_indices is None:
            slots = index
        else:
            at = rows.state_indices + index * rows.indices_stride
            slots = tl.load(at, mask=is_there, other=-1).to(tl.int64)
        at = rows.draft_token_ids + index * rows.drafts_stride
        tokens = tl.load(at, mask=is_there & (slots == slot), other=-1).to(tl.int64)
        tokens = tl.where((tokens >= 0) & (tokens < vocab_size), tokens, -1).to(tl.int32)
        word = (tokens >> 5) - tile * TILE_WORDS
        bit = tl.full([EARLIER], 1, tl.int32) << (tokens & 31)
        is_here = (tokens >= 0)[None, :] & (word[None, :] == tl.arange(0, TILE_WORDS)[:, None])
        words |= tl.reduce(tl.where(is_here, bit[None, :], 0), 1, _either)
    return words


@triton.jit
def request_bias(rows, state, slot, columns, count):
    """float32 [TILE_WORDS, 32]: the slot's biases, found by bisection of their ascending ids."""
    first = slot * rows.max_bias
    ids, values = state.bias_token_ids + first, state.bias_values + first
    low = columns * 0
    high = low + count
    # As many halvings as `count` has bits: the exponent of its float32.
    halvings = (count.to(tl.float32).to(tl.int32, bitcast=True) >> 23) - 126
    for _ in range(halvings):
        is_open = low < high
        middle = (low + high) >> 1
        is_below = tl.load(ids + middle, mask=is_open, other=0) < columns
        low = tl.where(is_open & is_below, middle + 1, low)
        high = tl.where(is_open & (is_below == 0), middle, high)
    is_found = (low < count) & (tl.load(ids + low, mask=low < count, other=-1) == columns)
    return tl.load(values + low, mask=is_found, other=0.0)


@triton.jit
def tile_scores(
    rows, r, tile, columns, vocab_size, program, state, slot, program_id, step,
    CLASSES: tl.constexpr,
):  # fmt: skip
    """float32 [TILE_WORDS, 32]: r of a tile's tokens, in the reference's order of additions."""
    scores = columns.to(tl.float32) * 0.0
    if program_id >= 0:
        entry = program.program_table + 4 * program_id.to(tl.int64)
        class_map, vector = tl.load(entry).to(tl.int64), tl.load(entry + 2).to(tl.int64)
        # A tile's flags are one word: 32 blocks of 128 tokens.
        if tl.load(program.block_flags + class_map * program.flags_stride + tile) != 0:
            codes = tl.load(program.token_class + class_map * program.codes_stride + columns)
            table = class_scores(program, tl.load(entry + 1), step, CLASSES)
            scores = look_up(table, codes, CLASSES)
        if vector >= 0:
            at = program.score_vectors + vector * program.vector_stride + columns
            scores += tl.load(at, mask=columns < vocab_size, other=0.0)
        num_bias = tl.minimum(tl.load(state.slot_params + 4 * slot + 3), rows.max_bias)
        if num_bias > 0:
            scores += request_bias(rows, state, slot, columns, num_bias.to(tl.int32))
        penalty = tl.load(program.penalties + program_id)
        if penalty != 0.0:
            words = tile_words(state.used_bitmask + slot * state.used_stride, tile, vocab_size)
            if rows.draft_token_ids is not None:
                words |= draft_words(rows, r, slot, tile, vocab_size)
            scores = tl.where(tile_bits(words), scores - penalty, scores)
    if rows.allowed_bitmask is not None:
        allowed = rows.allowed_bitmask + r.to(tl.int64) * rows.allowed_stride
        is_allowed = tile_bits(tile_words(allowed, tile, vocab_size))
        scores = tl.where(is_allowed, scores, float("-inf"))
    return scores


@triton.jit
def add_scores(logits, scores):
    """float32(logit) + r, by selection at the ends."""
    adjusted = tl.where(scores == 0.0, logits, logits + scores)
    return tl.where(scores == float("-inf"), float("-inf"), adjusted)


@triton.jit
def adjusted_tile(
    rows, r, tile, vocab_size, program, state, slot, program_id, step, CLASSES: tl.constexpr
):
    """float32 [TILE_WORDS, 32]: adjusted logits, -inf past the vocabulary."""
    columns = tile_columns(tile)
    inside = columns < vocab_size
    logits = load_logits(rows.logits, columns, inside)
    scores = tile_scores(
        rows, r, tile, columns, vocab_size, program, state, slot, program_id, step, CLASSES
    )
    return tl.where(inside, add_scores(logits, scores), float("-inf"))


@triton.jit
def is_broken(x):
    """int32: 1 if a tile holds NaN or +inf."""
    broken = (x != x) | (x == float("inf"))
    return tl.max(tl.max(broken.to(tl.int32), 1), 0)


@triton.jit
def tile_max(x):
    return tl.max(tl.max(x, 1), 0)


@triton.jit
def tile_sum(x):
    return tl.sum(tl.sum(x, 1), 0)


@triton.jit
def load_tops(tops, stride, num_tiles, TILES: tl.constexpr):
    """(tops [TILES], top, float64 exp(tops - top), whether the row is valid) of a row's tiles, of
    which a broken one has NaN as its top."""
    tile = tl.arange(0, TILES)
    tops = tl.load(tops + stride * tile, mask=tile < num_tiles, other=float("-inf"))
    top = tl.max(tl.where(tops == tops, tops, float("-inf")), 0)
    num_broken = tl.sum((tops != tops).to(tl.int32), 0)
    is_valid = (num_broken == 0) & (top > float("-inf"))
    distance = tops - tl.where(is_valid, top, 0.0)
    factors = tl.where(tops > float("-inf"), tl.exp(distance.to(tl.float64)), 0.0)
    return tops, top, factors, is_valid


@triton.jit
def combined(tops, totals, stride, num_tiles, TILES: tl.constexpr):
    """(top, log sum exp(x - top)) of a row from its tiles' tops and sums, in their order. The top
    is NaN where the row is not valid."""
    tile = tl.arange(0, TILES)
    _, top, factors, is_valid = load_tops(tops, stride, num_tiles, TILES)
    totals = tl.load(totals + stride * tile, mask=tile < num_tiles, other=0.0)
    total = tl.sum(totals.to(tl.float64) * factors, 0)
    log_total = tl.log(tl.where(is_valid, total, 1.0))
    return tl.where(is_valid, top, float("nan")), log_total.to(tl.float32)
