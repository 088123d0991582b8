"""The advance of the state: one program instance a row."""

from typing import NamedTuple

import triton
import triton.language as tl
from torch import Tensor

from rnr_kernels.backends.triton.arguments import OPTIONS, State, Tables, kernel
from rnr_kernels.backends.triton.rows import ERROR_SLOT, ERROR_TOKEN, set_errors, slot_of

TOKENS = tl.constexpr(128)
"""Tokens of a row, and earlier rows, looked at a time."""


class Slots(NamedTuple):
    """Which slot each row writes to."""

    state_indices: Tensor | None
    indices_stride: int


@triton.jit
def is_first_of_slot(rows, r, slot):
    """Whether no earlier row has the slot of row r."""
    if rows.state_indices is None:
        return r >= 0
    else:
        found = r * 0
        for first in range(0, r, TOKENS):
            earlier = first + tl.arange(0, TOKENS)
            at = rows.state_indices + earlier.to(tl.int64) * rows.indices_stride
            slots = tl.load(at, mask=earlier < r, other=-1).to(tl.int64)
            found += tl.sum((slots == slot).to(tl.int32), 0)
        return found == 0


@triton.jit
def set_used(state, slot, tokens, is_used):
    """Sets the bits of tokens, ids of a vocabulary where the mask is set."""
    word = tl.where(is_used, tokens >> 5, 0)
    bit = (tl.full(tokens.shape, 1, tl.int32) << (tokens & 31).to(tl.int32)).to(tl.int32)
    tl.atomic_or(state.used_bitmask + slot * state.used_stride + word, bit, mask=is_used)


@triton.jit
def advance(state, slot, count):
    """Length and position grow by `count`, an int64."""
    length = state.slot_params + 4 * slot + 1
    tl.store(length, tl.load(length) + count.to(tl.int32))
    position = state.rng + 2 * slot + 1
    tl.store(position, tl.load(position) + count)


@kernel
def _update_state_kernel(
    state_indices, indices_stride: tl.int64, num_slots, state, error, vocab_size,
    token_ids, row_stride: tl.int64, column_stride: tl.int64, num_tokens: tl.int64,
    counts, counts_stride: tl.int64,
):  # fmt: skip
    r = tl.program_id(0)
    rows = Slots(state_indices, indices_stride)
    slot, in_range, is_past = slot_of(rows, r, num_slots)
    errors = tl.where(is_past, ERROR_SLOT, 0)
    count = tl.full([], 0, tl.int64) + num_tokens
    if counts is not None:
        count = tl.load(counts + r.to(tl.int64) * counts_stride).to(tl.int64)
        count = tl.minimum(tl.maximum(count, 0), num_tokens)
    if in_range & (count > 0):
        if is_first_of_slot(rows, r, slot):
            for first in range(0, count, TOKENS):
                column = first + tl.arange(0, TOKENS).to(tl.int64)
                at = token_ids + r.to(tl.int64) * row_stride + column * column_stride
                tokens = tl.load(at, mask=column < count, other=-1).to(tl.int64)
                num_past = tl.sum((tokens >= vocab_size).to(tl.int32), 0)
                errors = errors | tl.where(num_past > 0, ERROR_TOKEN, 0)
                set_used(state, slot, tokens, (tokens >= 0) & (tokens < vocab_size))
            advance(state, slot, count)
    set_errors(error, errors)


def update_state_(
    vocab_size: int,
    state: Tables,
    error: Tensor,
    token_ids: Tensor,
    counts: Tensor | None = None,
    state_indices: Tensor | None = None,
) -> None:
    num_rows, num_tokens = token_ids.shape
    if not num_rows:
        return
    slots = State.of(state)
    _update_state_kernel[(num_rows,)](
        state_indices, 0 if state_indices is None else state_indices.stride(0),
        len(slots.slot_params), slots, error, vocab_size,
        token_ids, *token_ids.stride(), num_tokens,
        counts, 0 if counts is None else counts.stride(0), **OPTIONS | {"num_warps": 4},
    )  # fmt: skip
