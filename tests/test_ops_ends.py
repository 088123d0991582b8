"""Padding rows, invalid rows, bans, copied bits and padded columns, in literal numbers."""

import math

import pytest
import torch
from torch import Tensor

from rnr_kernels import apply_rules_, rule_log_softmax, sample_
from rnr_kernels.layout import ERROR_PROGRAM, ERROR_SLOT
from rnr_kernels.rules.kinds import BanTokens, LogitRule, ScoreVector, TokenBias, UsedTokenPenalty
from rnr_kernels.testing import admitted, assert_same_bits

INF, NAN = math.inf, math.nan


pytestmark = pytest.mark.usefixtures("every_backend")


@pytest.mark.parametrize(
    ("dtype", "quiet", "signalling"),
    [
        (torch.float32, 0x7FC12345, 0x7F812345),
        (torch.bfloat16, 0x7FD5, 0x7F95),
        (torch.float16, 0x7E55, 0x7D55),
    ],
)
def test_a_score_of_zero_copies_the_bits(dtype: torch.dtype, quiet: int, signalling: int) -> None:
    # Token 2 has a class and a bias that cancel, token 3 a class whose score is 0 now.
    rules: list[LogitRule] = [
        TokenBias({2: 1.0}),
        ScoreVector(torch.tensor([0, 0, -1.0, 0, 0, 0])),
        TokenBias({3: 1.0}, steps=(5, None)),
    ]
    program, state = admitted(rules, 6)
    logits = -torch.zeros(1, 6, dtype=dtype)
    bits = logits.view(torch.int32 if dtype == torch.float32 else torch.int16)
    bits[0, 0], bits[0, 1] = quiet, signalling
    before = logits.clone()
    assert_same_bits(apply_rules_(logits, program, state), before)


def test_a_ban_gives_minus_infinity_whatever_the_logit() -> None:
    logits = [NAN, INF, -INF, 1.0, 5.0]
    program, state = admitted([BanTokens([0, 1, 2, 3])], 5)
    row = apply_rules_(torch.tensor([logits]), program, state)
    assert row.tolist() == [[-INF, -INF, -INF, -INF, 5.0]]


def test_banned_nan_and_infinity_do_not_make_a_row_invalid() -> None:
    program, state = admitted([BanTokens([0, 1])], 4)
    logits = torch.tensor([[NAN, INF, 2.0, 2.0]])
    logprobs = rule_log_softmax(logits, program, state)
    assert isinstance(logprobs, Tensor)
    half = torch.tensor(0.5).log().item()
    assert logprobs.tolist() == [[-INF, -INF, half, half]]
    assert sample_(logits, program, state).token_ids.tolist() == [2]


def test_padded_columns_keep_their_bits_in_place_and_are_minus_infinity_out_of_place() -> None:
    program, state = admitted([BanTokens([0])], 3)
    logits = torch.tensor([[1.0, 2.0, 2.0, NAN, INF, -0.0]])
    before = logits.clone()
    logprobs = rule_log_softmax(logits, program, state)
    assert isinstance(logprobs, Tensor)
    half = torch.tensor(0.5).log().item()
    assert logprobs.tolist() == [[-INF, half, half, -INF, -INF, -INF]]
    apply_rules_(logits, program, state)
    assert_same_bits(logits[:, 3:], before[:, 3:])
    assert logits[0, :3].tolist() == [-INF, 2.0, 2.0]
    assert sample_(before, program, state).token_ids.tolist() == [1]


@pytest.mark.parametrize(
    ("index", "error"), [(-1, 0), (-100, 0), (2, ERROR_SLOT), (99, ERROR_SLOT)]
)
def test_slots_out_of_range_are_padding_rows(index: int, error: int) -> None:
    program, state = admitted([TokenBias({1: 1.0})], 3, slots=2)
    before = [table.clone() for table in state.tensors]
    rows = {"state_indices": torch.tensor([index, 1], dtype=torch.int32)}
    logits = torch.tensor([[NAN, -0.0, 1.0, 5.0], [0.0, 0.0, 0.0, 5.0]])
    original = logits.clone()

    logprobs, log_z = rule_log_softmax(logits, program, state, return_log_z=True, **rows)
    assert logprobs[0].isnan().all() and log_z[0].isnan()
    assert logprobs[1, :3].exp().sum().item() == pytest.approx(1.0)
    drawn = sample_(
        logits, program, state, return_logprob=True, return_adjusted_logprob=True,
        return_rank=True, **rows,
    )  # fmt: skip
    assert drawn.token_ids.tolist() == [-1, 1]
    assert drawn.logprob is not None and drawn.adjusted_logprob is not None
    assert drawn.rank is not None and drawn.rank.tolist() == [0, 1]
    assert drawn.logprob[0].isnan() and drawn.adjusted_logprob[0].isnan()
    assert state.num_output_tokens.tolist() == [0, 1]
    for table, old in zip(state.tensors, before, strict=True):
        assert_same_bits(table[0], old[0])
    apply_rules_(logits, program, state, **rows)
    assert_same_bits(logits[0], original[0])
    assert logits[1].tolist() == [0.0, 1.0, 0.0, 5.0]
    assert state.error.item() == error


def test_a_row_without_a_program_has_no_rules_but_is_processed() -> None:
    program, state = admitted([TokenBias({1: 9.0})], 3, slots=2)
    state.release(0)
    state.admit(0, -1, output_token_ids=[2])
    logits = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    assert apply_rules_(logits.clone(), program, state).tolist() == [[0, 0, 0], [0, 9, 0]]
    assert sample_(logits, program, state).token_ids.tolist() == [0, 1]
    assert state.num_output_tokens.tolist() == [2, 1]
    mask = torch.tensor([[0b110], [0b111]], dtype=torch.int32)
    masked = apply_rules_(logits.clone(), program, state, allowed_bitmask=mask)
    assert masked.tolist() == [[-INF, 0, 0], [0, 9, 0]]


@pytest.mark.parametrize("program_id", [1, 77])
def test_an_unknown_program_is_a_padding_row_and_an_error(program_id: int) -> None:
    program, state = admitted([TokenBias({1: 9.0})], 3)
    state.program_ids[0] = program_id
    logits = torch.zeros(1, 3)
    assert apply_rules_(logits, program, state).tolist() == [[0.0, 0.0, 0.0]]
    assert sample_(logits, program, state).token_ids.tolist() == [-1]
    assert state.error.item() == ERROR_PROGRAM


def test_a_removed_program_is_a_padding_row_and_an_error() -> None:
    program, state = admitted([TokenBias({1: 9.0})], 3)
    state.release(0)
    program.remove(0)
    state.program_ids[0] = 0
    assert sample_(torch.zeros(1, 3), program, state).token_ids.tolist() == [-1]
    assert state.error.item() == ERROR_PROGRAM


def test_a_bias_for_a_token_outside_the_vocabulary_does_nothing() -> None:
    # `admit` refuses one; a table written by hand must not lead out of bounds.
    program, state = admitted([], 3, max_bias=3, token_bias={0: 1.0, 1: 2.0, 2: 4.0})
    state.tensors.bias_token_ids[0] = torch.tensor([-1, 1, 3])
    assert apply_rules_(torch.zeros(1, 3), program, state).tolist() == [[0.0, 2.0, 0.0]]


@pytest.mark.parametrize(
    "logits",
    [
        [0.0, NAN, 0.0, 0.0],
        [0.0, INF, 0.0, 0.0],
        [1.0, -INF, -INF, -INF],  # Token 0 is banned.
        [NAN, -INF, -INF, -INF],
        [0.0, 3e38, 0.0, 0.0],  # 3e38 + 1e38 overflows.
    ],
)
def test_an_invalid_row_gives_no_token_and_leaves_the_state(logits: list[float]) -> None:
    program, state = admitted([BanTokens([0]), TokenBias({1: 1e38}), UsedTokenPenalty(1.0)], 4)
    before = [table.clone() for table in state.tensors]
    row = torch.tensor([logits])
    logprobs, log_z = rule_log_softmax(row, program, state, return_log_z=True)
    assert logprobs.isnan().all() and log_z.isnan().all()
    drawn = sample_(
        row, program, state, return_logprob=True, return_adjusted_logprob=True, return_rank=True
    )
    assert drawn.token_ids.tolist() == [-1]
    assert drawn.rank is not None and drawn.rank.tolist() == [0]
    assert drawn.logprob is not None and drawn.logprob.isnan().all()
    assert drawn.adjusted_logprob is not None and drawn.adjusted_logprob.isnan().all()
    for table, old in zip(state.tensors, before, strict=True):
        assert_same_bits(table, old)
    assert state.error.item() == 0


def test_a_score_that_is_nan_leaves_the_logit_of_a_used_token() -> None:
    program, state = admitted(
        [UsedTokenPenalty(1.0)], 5, max_bias=1, output_token_ids=[2, 3], token_bias={2: 1.0}
    )
    state.tensors.bias_values[0, 0] = math.nan
    logits = apply_rules_(torch.ones(1, 5), program, state)
    assert logits.tolist() == [[1.0, 1.0, 1.0, 0.0, 1.0]]
