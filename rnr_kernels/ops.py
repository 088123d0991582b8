"""The functions users call: validation, once, then a backend's function or the registered op.

Checks look at shapes, dtypes, devices and host values only, never at the contents of a device
tensor, and come before anything is written. `reference` says what each op means.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.compiler import is_dynamo_compiling

from rnr_kernels import backends
from rnr_kernels.checks import (
    INDEX_DTYPES,
    check_base_logits,
    check_column,
    check_head,
    check_logits,
    check_out,
    check_rows,
    check_same_rows,
    check_slots_differ,
    check_top_k,
    check_update,
    check_written,
)
from rnr_kernels.registration import REGISTERED
from rnr_kernels.rules.program import RuleProgram
from rnr_kernels.state import DecodeState


class SampleOutput(NamedTuple):
    """What `sample_` returns; None where it was not asked for."""

    token_ids: Tensor
    """int64 [R]; -1 for padding and invalid rows."""
    logprob: Tensor | None
    """float32 [R], under the final distribution: after temperature and filters."""
    adjusted_logprob: Tensor | None
    """float32 [R], under the adjusted distribution."""
    rank: Tensor | None
    """int32 [R], 1 + tokens above it under the adjusted distribution; 0 for invalid rows."""


class TokenStats(NamedTuple):
    """Statistics of one target token a row."""

    rank: Tensor
    """int32 [R]: 1 + tokens with a larger logit; 0 where the target or the row is not valid."""
    num_ties: Tensor
    """int32 [R]: other tokens with the target's logit."""
    logprob: Tensor
    """float32 [R]."""
    entropy: Tensor
    """float32 [R], in nats."""
    top_token_ids: Tensor
    """int64 [R, top_k], largest first, lowest id first on ties."""
    top_logprobs: Tensor
    """float32 [R, top_k]."""


class ShiftStats(NamedTuple):
    """Statistics of one target token a row under two models."""

    aligned: TokenStats
    base: TokenStats
    kl_aligned_base: Tensor
    """float32 [R], KL(aligned || base) in nats."""
    kl_base_aligned: Tensor
    """float32 [R], KL(base || aligned) in nats."""
    same_argmax: Tensor
    """bool [R]."""


_num_modes: Callable[[], int] = getattr(torch._C, "_len_torch_dispatch_stack", lambda: 1)
"""How many dispatch modes are active; without the means to know, always one."""


def _function(op: str, logits: Tensor, vocab_size: int) -> Callable[..., Any]:
    """What serves a call.

    Compilers, subclasses, modes and autograd have to see the registered op; else the backend's
    function saves the way through torch's dispatcher.
    """
    if is_dynamo_compiling() or type(logits) is not Tensor or logits.requires_grad or _num_modes():
        return REGISTERED[op]
    return backends.find(op, logits.device, logits.dtype, vocab_size)


def apply_rules_(
    logits: Tensor,
    program: RuleProgram,
    state: DecodeState,
    *,
    state_indices: Tensor | None = None,
    allowed_bitmask: Tensor | None = None,
    row_offsets: Tensor | None = None,
    draft_token_ids: Tensor | None = None,
) -> Tensor:
    """Adds each row's rule scores to its logits in place and returns them.

    logits [R, row_width >= vocab_size], float32, bfloat16 or float16, any row stride. Rows belong
    to slots `state_indices` int [R] (default: row r is slot r; < 0 is a padding row).
    `allowed_bitmask` int32 [R, words]: a clear bit bans (xgrammar's layout). `row_offsets` and
    `draft_token_ids`, int [R], are for speculative decoding: row r stands `row_offsets[r]` tokens
    after its slot, behind draft token `draft_token_ids[r]` (-1: none). ValueError or TypeError
    before anything is written.
    """
    rows = check_rows(
        logits, program, state, state_indices, allowed_bitmask, row_offsets, draft_token_ids
    )
    check_written("logits", logits)
    size = program.vocab_size
    run = _function("apply_rules_", logits, size)
    run(logits, size, program.tensors, state.tensors, state.error, *rows)
    return logits


def rule_log_softmax(
    logits: Tensor,
    program: RuleProgram,
    state: DecodeState,
    *,
    state_indices: Tensor | None = None,
    allowed_bitmask: Tensor | None = None,
    row_offsets: Tensor | None = None,
    draft_token_ids: Tensor | None = None,
    return_log_z: bool = False,
    out: Tensor | None = None,
    log_z_out: Tensor | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """log_softmax of the adjusted logits: p_base * p_rules / Z (Hewitt et al. 2024, section 6).

    Arguments as in `apply_rules_`. Returns float32 [R, row_width], -inf in columns past the
    vocabulary, and with `return_log_z` also log Z, float32 [R]. `out` (float32, the logits' shape,
    which may be float32 logits themselves) and `log_z_out` take the results.
    """
    rows = check_rows(
        logits, program, state, state_indices, allowed_bitmask, row_offsets, draft_token_ids
    )
    size = program.vocab_size
    front = (logits, size, program.tensors, state.tensors, state.error)
    if out is None:
        if log_z_out is not None:
            raise ValueError("log_z_out needs out=: both results are written, or none")
        run = _function("rule_log_softmax", logits, size)
        result, log_z = run(*front, *rows, return_log_z)
        return (result, log_z) if return_log_z else result
    check_out(out, logits)
    if return_log_z and log_z_out is None:
        log_z_out = torch.empty(len(logits), dtype=torch.float32, device=logits.device)
    if log_z_out is not None:
        check_column("log_z_out", log_z_out, logits, (torch.float32,))
    run = _function("rule_log_softmax_out", out if out.requires_grad else logits, size)
    run(*front, out, log_z_out, *rows)
    return out if log_z_out is None else (out, log_z_out)


def sample_(
    logits: Tensor,
    program: RuleProgram,
    state: DecodeState,
    *,
    state_indices: Tensor | None = None,
    allowed_bitmask: Tensor | None = None,
    row_offsets: Tensor | None = None,
    draft_token_ids: Tensor | None = None,
    return_logprob: bool = False,
    return_adjusted_logprob: bool = False,
    return_rank: bool = False,
) -> SampleOutput:
    """Draws one token a row from the adjusted distribution and advances the state.

    Arguments as in `apply_rules_`; temperature, filters and seed are each slot's (see Sampling).
    The same seed and position give the same token on every backend, device and batch. With
    `row_offsets` or `draft_token_ids` the state is only read; commit with `update_state_`. On the
    CPU a slot that occurs twice without them is a ValueError.
    """
    rows = check_rows(
        logits, program, state, state_indices, allowed_bitmask, row_offsets, draft_token_ids
    )
    if row_offsets is None and draft_token_ids is None and state_indices is not None:
        check_slots_differ(state_indices, state)
    size = program.vocab_size
    token_ids, logprob, adjusted_logprob, rank = _function("sample_", logits, size)(
        logits, size, program.tensors, state.tensors, state.error, *rows,
        return_logprob, return_adjusted_logprob, return_rank,
    )  # fmt: skip
    return SampleOutput(
        token_ids,
        logprob if return_logprob else None,
        adjusted_logprob if return_adjusted_logprob else None,
        rank if return_rank else None,
    )


def update_state_(
    state: DecodeState,
    token_ids: Tensor,
    counts: Tensor | None = None,
    *,
    state_indices: Tensor | None = None,
) -> None:
    """Commits response tokens that were chosen elsewhere, or accepted from a draft.

    token_ids int [R] or [R, L]; of row r the first `counts[r]` (all by default) are appended to
    slot `state_indices[r]` (default r). An id outside the vocabulary counts and sets no bit.
    """
    check_update(state, token_ids, counts, state_indices)
    columns = token_ids[:, None] if token_ids.dim() == 1 else token_ids
    size = state.vocab_size
    run = _function("update_state_", columns, size)
    run(size, state.tensors, state.error, columns, counts, state_indices)


def token_stats(
    logits: Tensor, token_ids: Tensor, *, vocab_size: int | None = None, top_k: int = 0
) -> TokenStats:
    """Exact rank, ties, log-probability and entropy of one token a row, in one read.

    logits [R, row_width] float32, bfloat16 or float16, of which the first `vocab_size` columns
    count (default all); token_ids int [R]. An id outside the vocabulary (-100, a padding label) has
    rank 0 and log-probability NaN. vLLM's rank is `rank + num_ties`. `top_k` <= 64 adds the largest
    tokens.
    """
    size = check_logits(logits, vocab_size)
    check_column("token_ids", token_ids, logits, INDEX_DTYPES)
    check_top_k(top_k, size)
    return TokenStats(*_function("token_stats", logits, size)(logits, token_ids, size, top_k))


def shift_stats(
    logits: Tensor,
    base_logits: Tensor,
    token_ids: Tensor,
    *,
    vocab_size: int | None = None,
    top_k: int = 0,
) -> ShiftStats:
    """`token_stats` under an aligned model and its base, and how far apart the two are.

    Both logits [R, row_width]; KL over the whole vocabulary, in nats, both ways.
    """
    size = check_logits(logits, vocab_size)
    check_base_logits(base_logits, logits, size)
    check_column("token_ids", token_ids, logits, INDEX_DTYPES)
    check_top_k(top_k, size)
    return _shift_stats(REGISTERED["shift_stats"](logits, base_logits, token_ids, size, top_k))


def linear_token_stats(
    hidden: Tensor,
    weight: Tensor,
    token_ids: Tensor,
    *,
    bias: Tensor | None = None,
    logit_scale: float = 1.0,
    softcap: float = 0.0,
    top_k: int = 0,
    invariant: bool = False,
) -> TokenStats:
    """`token_stats` from hidden states [N, D] and an LM head [V, D], without [N, V] logits.

    Logits are float32: softcap * tanh((hidden @ weight.T + bias) * logit_scale / softcap), softcap
    0 being off. `invariant` pins one product shape, so a row's bits do not depend on the others.
    """
    check_head(hidden, weight, bias, logit_scale, softcap)
    check_column("token_ids", token_ids, hidden, INDEX_DTYPES)
    check_top_k(top_k, weight.shape[0])
    return TokenStats(
        *REGISTERED["linear_token_stats"](
            hidden, weight, token_ids, bias, logit_scale, softcap, top_k, invariant
        )
    )


def linear_shift_stats(
    hidden: Tensor,
    weight: Tensor,
    base_hidden: Tensor,
    base_weight: Tensor,
    token_ids: Tensor,
    *,
    bias: Tensor | None = None,
    base_bias: Tensor | None = None,
    logit_scale: float = 1.0,
    base_logit_scale: float = 1.0,
    softcap: float = 0.0,
    base_softcap: float = 0.0,
    top_k: int = 0,
    invariant: bool = False,
) -> ShiftStats:
    """`shift_stats` from hidden states and LM heads of two models with one vocabulary."""
    check_head(hidden, weight, bias, logit_scale, softcap)
    check_head(base_hidden, base_weight, base_bias, base_logit_scale, base_softcap)
    check_same_rows(hidden, weight, base_hidden, base_weight)
    check_column("token_ids", token_ids, hidden, INDEX_DTYPES)
    check_top_k(top_k, weight.shape[0])
    return _shift_stats(
        REGISTERED["linear_shift_stats"](
            hidden, weight, base_hidden, base_weight, token_ids, bias, base_bias,
            logit_scale, base_logit_scale, softcap, base_softcap, top_k, invariant,
        )
    )  # fmt: skip


def _shift_stats(values: tuple[Tensor, ...]) -> ShiftStats:
    return ShiftStats(TokenStats(*values[:6]), TokenStats(*values[6:12]), *values[12:])
