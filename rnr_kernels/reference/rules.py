"""Which row belongs to what, rule scores, adjusted logits, and the renormalised product."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from rnr_kernels.layout import (
    ERROR_PROGRAM,
    ERROR_SLOT,
    ERROR_TOKEN,
    ProgramTensors,
    StateTensors,
)
from rnr_kernels.reference.bitmask import token_mask, unpack_bits
from rnr_kernels.reference.reductions import NEG_INF, log_softmax, logsumexp, rows_are_valid


class Rows(NamedTuple):
    """What each row of the logits belongs to. Indices are clamped to be safe to use."""

    slot: Tensor
    """int64 [R]."""
    live: Tensor
    """bool [R]: not a padding row."""
    program: Tensor
    """int64 [R]; 0 for rows without rules."""
    has_rules: Tensor
    """bool [R]."""
    step: Tensor
    """int64 [R]: t, the response tokens already chosen."""


def find_rows(
    num_rows: int,
    program: ProgramTensors,
    state: StateTensors,
    error: Tensor,
    state_indices: Tensor | None,
    row_offsets: Tensor | None,
) -> Rows:
    """Slots, programs and steps of the rows; ids out of range become padding and set error bits."""
    num_slots, num_programs = len(state.slot_params), len(program.program_table)
    device = state.slot_params.device
    index = torch.arange(num_rows, device=device) if state_indices is None else state_indices.long()
    in_range = (index >= 0) & (index < num_slots)
    slot = index.clamp(0, num_slots - 1)
    program_id = state.slot_params[slot, 0].long()
    program_row = program_id.clamp(0, num_programs - 1)
    unknown = (program_id >= num_programs) | (program.program_table[program_row, 3] == 0)
    unknown = in_range & (program_id >= 0) & unknown
    error |= ERROR_SLOT * (index >= num_slots).any().to(torch.int32)
    error |= ERROR_PROGRAM * unknown.any().to(torch.int32)
    step = state.slot_params[slot, 1].long()
    if row_offsets is not None:
        step = step + row_offsets.long()
    return Rows(slot, in_range & ~unknown, program_row, program_id >= 0, step)


def class_scores(program: ProgramTensors, rows: Rows) -> Tensor:
    """float32 [R, C]: each class's score at the row's step, on the line of the last knot so far."""
    schedule = program.program_table[rows.program, 1].long()
    starts = program.knot_starts[schedule].long()
    knot = (starts <= rows.step[:, None, None]).sum(1, keepdim=True) - 1
    start = starts.gather(1, knot.clamp(min=0)).squeeze(1)
    lines = program.knot_lines[schedule]
    line = lines.gather(1, knot.clamp(min=0).unsqueeze(-1).expand(-1, -1, -1, 2)).squeeze(1)
    score = line[..., 0] + line[..., 1] * (rows.step[:, None] - start)
    return torch.where(knot.squeeze(1) >= 0, score, 0.0).float()


def rule_scores(
    vocab_size: int,
    program: ProgramTensors,
    state: StateTensors,
    rows: Rows,
    error: Tensor,
    allowed_bitmask: Tensor | None = None,
    draft_token_ids: Tensor | None = None,
) -> Tensor:
    """float32 [R, V]: r(v) = class_score + score_vector + request_bias - penalty * used."""
    class_map = program.program_table[rows.program, 0].long()
    codes = program.token_class[class_map, :vocab_size].long()
    score = class_scores(program, rows).gather(1, codes)

    vector = program.program_table[rows.program, 2].long()
    if program.score_vectors.shape[0]:
        rows_of_vectors = program.score_vectors[vector.clamp(min=0), :vocab_size]
        score = score + torch.where((vector >= 0)[:, None], rows_of_vectors, 0.0)

    ids = state.bias_token_ids[rows.slot].long()
    counted = torch.arange(ids.shape[1], device=ids.device) < state.slot_params[rows.slot, 3:4]
    counted &= (ids >= 0) & (ids < vocab_size)
    bias = score.new_zeros(len(score), vocab_size + 1)
    bias.scatter_(1, torch.where(counted, ids, vocab_size), state.bias_values[rows.slot])
    score = score + bias[:, :vocab_size]

    used = unpack_bits(state.used_bitmask[rows.slot], vocab_size)
    if draft_token_ids is not None:
        used |= earlier_drafts(rows, draft_token_ids, vocab_size, error)
    score = score - program.penalties[rows.program][:, None] * used
    score = torch.where(rows.has_rules[:, None], score, 0.0)

    if allowed_bitmask is not None:
        score = torch.where(unpack_bits(allowed_bitmask, vocab_size), score, NEG_INF)
    return score


def earlier_drafts(rows: Rows, draft_token_ids: Tensor, vocab_size: int, error: Tensor) -> Tensor:
    """Bool [R, V]: draft tokens before each row, those of the slot's earlier rows included."""
    own = token_mask(draft_token_ids[:, None], rows.live[:, None], vocab_size)
    error |= ERROR_TOKEN * (rows.live & (draft_token_ids >= vocab_size)).any().to(torch.int32)
    index = torch.arange(len(rows.slot), device=rows.slot.device)
    sees = (rows.slot[:, None] == rows.slot) & (index[:, None] >= index) & rows.live
    return (sees.float() @ own.float()) > 0


def add_scores(logits: Tensor, score: Tensor) -> Tensor:
    """float32(logit) + r, by selection at the ends: r = -inf gives -inf, r = 0 copies the bits."""
    values = logits.float()
    return torch.where(score == NEG_INF, NEG_INF, torch.where(score == 0, values, values + score))


class Adjusted(NamedTuple):
    """Adjusted logits of all rows, and which rows are fit to be reduced."""

    rows: Rows
    score: Tensor
    """float32 [R, V]: r."""
    value: Tensor
    """float32 [R, V]: x, the adjusted logits."""
    valid: Tensor
    """bool [R]: a live row without NaN or +inf, and with something above -inf."""


def adjust(
    logits: Tensor,
    vocab_size: int,
    program: list[Tensor],
    state: list[Tensor],
    error: Tensor,
    state_indices: Tensor | None,
    allowed_bitmask: Tensor | None,
    row_offsets: Tensor | None,
    draft_token_ids: Tensor | None,
) -> Adjusted:
    """The shared front of the ops over rules: rows, scores, adjusted logits, validity."""
    tables, slots = ProgramTensors(*program), StateTensors(*state)
    rows = find_rows(len(logits), tables, slots, error, state_indices, row_offsets)
    score = rule_scores(vocab_size, tables, slots, rows, error, allowed_bitmask, draft_token_ids)
    value = add_scores(logits[:, :vocab_size], score)
    return Adjusted(rows, score, value, rows.live & rows_are_valid(value))


def apply_rules_(
    logits: Tensor,
    vocab_size: int,
    program: list[Tensor],
    state: list[Tensor],
    error: Tensor,
    state_indices: Tensor | None = None,
    allowed_bitmask: Tensor | None = None,
    row_offsets: Tensor | None = None,
    draft_token_ids: Tensor | None = None,
) -> None:
    """logits += r, rounded once to the logits' dtype; untouched tokens and rows keep their bits,
    and so does a NaN that no rule bans."""
    adjusted = adjust(
        logits, vocab_size, program, state, error,
        state_indices, allowed_bitmask, row_offsets, draft_token_ids,
    )  # fmt: skip
    columns = logits[:, :vocab_size]
    touched = adjusted.rows.live[:, None] & (adjusted.score != 0) & ~adjusted.value.isnan()
    columns.copy_(torch.where(touched, adjusted.value.to(logits.dtype), columns))


def rule_log_softmax(
    logits: Tensor,
    vocab_size: int,
    program: list[Tensor],
    state: list[Tensor],
    error: Tensor,
    state_indices: Tensor | None = None,
    allowed_bitmask: Tensor | None = None,
    row_offsets: Tensor | None = None,
    draft_token_ids: Tensor | None = None,
    return_log_z: bool = False,
) -> tuple[Tensor, Tensor]:
    """(adjusted - lse(adjusted), log Z), float32 [R, row_width] and [R] ([0] unless asked for).

    log Z = lse(adjusted) - lse(logits) - lse(r): the normaliser of p_base * p_rules (Hewitt et al.
    2024, section 6).
    """
    out = torch.empty(logits.shape, dtype=torch.float32, device=logits.device)
    log_z = out.new_empty(len(logits) if return_log_z else 0)
    rule_log_softmax_out(
        logits, vocab_size, program, state, error, out, log_z if return_log_z else None,
        state_indices, allowed_bitmask, row_offsets, draft_token_ids,
    )  # fmt: skip
    return out, log_z


def rule_log_softmax_out(
    logits: Tensor,
    vocab_size: int,
    program: list[Tensor],
    state: list[Tensor],
    error: Tensor,
    out: Tensor,
    log_z: Tensor | None = None,
    state_indices: Tensor | None = None,
    allowed_bitmask: Tensor | None = None,
    row_offsets: Tensor | None = None,
    draft_token_ids: Tensor | None = None,
) -> None:
    """The same into `out` float32 [R, row_width] (may be float32 logits) and `log_z` [R]."""
    adjusted = adjust(
        logits, vocab_size, program, state, error,
        state_indices, allowed_bitmask, row_offsets, draft_token_ids,
    )  # fmt: skip
    if log_z is not None:
        base = logits[:, :vocab_size].float()
        top, rest = logsumexp(adjusted.value, adjusted.valid)
        base_top, base_rest = logsumexp(base, adjusted.valid & rows_are_valid(base))
        rules_top, rules_rest = logsumexp(adjusted.score, adjusted.valid)
        log_z.copy_((top - base_top - rules_top) + (rest - base_rest - rules_rest))
    out[:, :vocab_size] = log_softmax(adjusted.value, adjusted.valid).float()
    out[:, vocab_size:] = torch.where(adjusted.valid[:, None], NEG_INF, math.nan)
