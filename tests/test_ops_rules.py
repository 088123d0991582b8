"""Rule scores, adjusted logits and the renormalised product: the contract in literal numbers."""

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from rnr_kernels import apply_rules_, compile_rules, rule_log_softmax, sample_
from rnr_kernels.layout import ERROR_TOKEN
from rnr_kernels.rules.kinds import (
    BanTokens,
    EosRamp,
    LogitRule,
    OnlyTokens,
    RuleSet,
    ScoreVector,
    TokenBias,
    UsedTokenPenalty,
)
from rnr_kernels.state import DecodeState
from rnr_kernels.testing import admitted, assert_same_bits

INF, NAN = math.inf, math.nan


pytestmark = pytest.mark.usefixtures("every_backend")


def adjusted(logits: list[float], rules: Sequence[LogitRule], **options: Any) -> list[float]:
    """One row through apply_rules_ in float32."""
    program, state = admitted(rules, len(logits), **options)
    return apply_rules_(torch.tensor([logits]), program, state)[0].tolist()


def scores(rules: Sequence[LogitRule], vocab_size: int, step: int, **options: Any) -> list[float]:
    """r of every token at t = step, after tokens outside the vocabulary, which only count in t."""
    output = [-1] * step
    return adjusted([0.0] * vocab_size, rules, output_token_ids=output, **options)


def vector(*values: float) -> ScoreVector:
    return ScoreVector(torch.tensor(values))


# 3.1 Rule score

BIG = 2.0**24
"""In float32, BIG + 1 is BIG, but BIG + 2 is not."""


@pytest.mark.parametrize(
    ("class_score", "vector_score", "bias", "penalty", "expected"),
    [
        # ((BIG + 1) + 1) - BIG; summing the ones first would give 2.
        (BIG, 1.0, 1.0, BIG, 0.0),
        # (BIG + 1) - BIG; class and bias first would give 1.
        (BIG, 1.0, -BIG, 0.0, 0.0),
        # (-BIG + BIG) + 1; bias and penalty first would give 0.
        (-BIG, 0.0, BIG, -1.0, 1.0),
    ],
)
def test_scores_add_up_in_float32_from_left_to_right(
    class_score: float, vector_score: float, bias: float, penalty: float, expected: float
) -> None:
    rules: list[LogitRule] = [
        TokenBias({1: class_score}),
        vector(0.0, vector_score, 0.0),
        UsedTokenPenalty(penalty),
    ]
    request = {"output_token_ids": [1], "token_bias": {1: bias}, "max_bias": 1}
    assert adjusted([0.0] * 3, rules, **request)[1] == expected


def test_the_logit_is_added_last() -> None:
    # BIG + (1 + 1) is BIG + 2, (BIG + 1) + 1 would stay BIG.
    rules: list[LogitRule] = [TokenBias({1: 1.0}), vector(0.0, 1.0)]
    assert adjusted([BIG, BIG], rules) == [BIG, BIG + 2]


@pytest.mark.parametrize(("dtype", "half_ulp"), [(torch.bfloat16, 2**-8), (torch.float16, 2**-11)])
def test_apply_rules_rounds_once_to_the_dtype(dtype: torch.dtype, half_ulp: float) -> None:
    # Token 1: a tie, to even. Token 2: above the tie; rounding after each addend would give 1.
    rules: list[LogitRule] = [TokenBias({1: half_ulp, 2: half_ulp}), vector(0.0, 0.0, half_ulp / 2)]
    program, state = admitted(rules, 3)
    logits = torch.ones(1, 3, dtype=dtype)
    assert apply_rules_(logits, program, state)[0].tolist() == [1.0, 1.0, 1.0 + 2 * half_ulp]


def test_other_ops_do_not_round_to_the_dtype() -> None:
    program, state = admitted([TokenBias({1: 2**-9})], 2)
    logits = torch.ones(1, 2, dtype=torch.bfloat16)
    logprobs = rule_log_softmax(logits, program, state)
    assert isinstance(logprobs, Tensor)
    assert logprobs.dtype == torch.float32
    assert (logprobs[0, 1] - logprobs[0, 0]).item() == pytest.approx(2**-9, rel=1e-4)
    assert sample_(logits, program, state).token_ids.tolist() == [1]
    assert apply_rules_(logits, program, state).argmax(1).tolist() == [0]


# 3.2 Classes and schedules


@pytest.mark.parametrize(
    ("step", "expected"),
    [(0, 0.0), (1, 0.06), (50, 3.0), (125, 7.5), (249, 14.94), (250, 0.0), (900, 0.0)],
)
def test_the_published_ramp(step: int, expected: float) -> None:
    row = scores([EosRamp(15.0, over=250, until=250)], 5, step, eos_token_ids=[2])
    assert row == [0.0, 0.0, torch.tensor(expected).item(), 0.0, 0.0]


def test_a_ramp_without_until_goes_on() -> None:
    assert scores([EosRamp(15.0, over=250)], 3, 500, eos_token_ids=[2])[2] == 30.0


@pytest.mark.parametrize("step", [3, 5, 6, 9])
def test_schedules_are_float64_and_rounded_once(step: int) -> None:
    # float32(0.06) * step differs from float32(0.06 * step) at each of these steps.
    in_float32 = torch.tensor(0.06) * torch.tensor(float(step))
    row = scores([EosRamp(15.0, over=250)], 3, step, eos_token_ids=[2])
    assert row[2] == torch.tensor(3 * step / 50).item() != in_float32.item()


def test_a_ramp_acts_on_every_eos_id_alike() -> None:
    row = scores([EosRamp(10.0, over=5)], 6, 3, eos_token_ids=[1, 4])
    assert row == [0.0, 6.0, 0.0, 0.0, 6.0, 0.0]


@pytest.mark.parametrize(
    ("step", "expected"),
    [(0, 1.0), (1, 1.0), (2, 1.5), (3, 1.5), (4, 0.5), (5, 0.5), (6, 0.0), (7, 0.0)],
)
def test_knots_of_overlapping_rules_are_their_union(step: int, expected: float) -> None:
    rules: list[LogitRule] = [
        TokenBias({2: 1.0}, steps=(0, 4)),
        TokenBias({2: 0.5, 3: 0.5}, steps=(2, 6)),
    ]
    assert scores(rules, 4, step)[2] == expected


@pytest.mark.parametrize(("step", "expected"), [(0, 0.0), (2, 0.0), (3, 2.0), (4, 0.0)])
def test_before_the_first_knot_the_score_is_zero(step: int, expected: float) -> None:
    assert scores([TokenBias({1: 2.0}, steps=(3, 4))], 2, step) == [0.0, expected]


def test_a_knot_is_summed_anew_and_never_differenced() -> None:
    # (1e20 + 0.1) - 1e20 would be 0.
    rules: list[LogitRule] = [TokenBias({1: 0.1}), TokenBias({1: 1e20}, steps=(0, 2))]
    assert scores(rules, 2, 1)[1] == torch.tensor(1e20).item()
    assert scores(rules, 2, 2)[1] == torch.tensor(0.1).item()


def test_a_knot_in_the_middle_of_a_ramp_keeps_the_ramps_value() -> None:
    rules: list[LogitRule] = [EosRamp(1.0, over=2), TokenBias({1: 10.0}, steps=(3, 5))]
    values = [scores(rules, 2, step, eos_token_ids=[1])[1] for step in range(7)]
    assert values == [0.0, 0.5, 1.0, 11.5, 12.0, 2.5, 3.0]


def test_a_ban_ends_exactly() -> None:
    rules: list[LogitRule] = [TokenBias({1: 0.1}), BanTokens([1], steps=(1, 3))]
    tenth = torch.tensor(0.1).item()
    assert [scores(rules, 2, step)[1] for step in range(5)] == [tenth, -INF, -INF, tenth, tenth]


def test_a_ban_wins_over_a_ramp_and_the_ramp_comes_back() -> None:
    rules: list[LogitRule] = [EosRamp(1.0, over=1), BanTokens([0], steps=(2, 4))]
    values = [scores(rules, 2, step, eos_token_ids=[0])[0] for step in range(6)]
    assert values == [0.0, 1.0, -INF, -INF, 4.0, 5.0]


def test_only_tokens_bans_all_others_and_keeps_the_scores_of_its_own() -> None:
    rules: list[LogitRule] = [OnlyTokens([1, 3], steps=(0, 1)), TokenBias({1: 2.0, 2: 7.0})]
    assert scores(rules, 5, 0) == [-INF, 2.0, -INF, 0.0, -INF]
    assert scores(rules, 5, 1) == [0.0, 2.0, 7.0, 0.0, 0.0]


def test_two_only_tokens_leave_what_both_allow() -> None:
    rules: list[LogitRule] = [OnlyTokens([1, 2]), OnlyTokens([2, 3])]
    assert scores(rules, 5, 0) == [-INF, -INF, 0.0, -INF, -INF]


def test_force_at_allows_nothing_but_eos_and_the_ramp_stays() -> None:
    rules: list[LogitRule] = [EosRamp(6.0, over=3, force_at=2), TokenBias({0: 1.0})]
    assert scores(rules, 4, 1, eos_token_ids=[2, 3]) == [1.0, 0.0, 2.0, 2.0]
    assert scores(rules, 4, 2, eos_token_ids=[2, 3]) == [-INF, -INF, 4.0, 4.0]


def test_a_request_bias_of_minus_infinity_is_a_ban() -> None:
    assert scores([], 3, 0, token_bias={1: -INF}, max_bias=1) == [0.0, -INF, 0.0]


# 3.4 Used tokens and masks


def test_a_used_token_is_penalised_once_however_often_it_was_used() -> None:
    row = adjusted([1.0] * 4, [UsedTokenPenalty(1.5)], output_token_ids=[2, 2, 2, 0])
    assert row == [-0.5, 1.0, -0.5, 1.0]


def test_used_bits_are_bit_v_mod_32_of_word_v_div_32() -> None:
    _, state = admitted([UsedTokenPenalty(1.0)], 70, output_token_ids=[0, 4, 31, 32, 69])
    assert state.used_bitmask.tolist() == [[0b10001 - 2**31, 0b1, 0b100000, 0]]


@pytest.mark.parametrize(
    ("scope", "used_from", "expected"),
    [
        ("response", 0, [0, 0, 0, -2]),
        ("prompt+response", 0, [-2, -2, 0, -2]),
        ("prompt+response", 1, [0, -2, 0, -2]),
        ("prompt+response", 2, [0, 0, 0, -2]),
    ],
)
def test_the_scope_says_which_prompt_tokens_count(
    scope: Any, used_from: int, expected: list[float]
) -> None:
    row = adjusted(
        [0.0] * 4, [UsedTokenPenalty(2.0, scope)],
        prompt_token_ids=[0, 1], used_from=used_from, output_token_ids=[3],
    )  # fmt: skip
    assert row == expected


def test_ids_outside_the_vocabulary_set_nothing_but_count_in_t() -> None:
    rules: list[LogitRule] = [UsedTokenPenalty(2.0), TokenBias({0: 1.0}, steps=(3, 4))]
    _, state = admitted(rules, 4, output_token_ids=[-1, 4, 2**31 - 1])
    assert state.used_bitmask.tolist() == [[0, 0, 0, 0]]
    assert adjusted([0.0] * 4, rules, output_token_ids=[-1, 4, 2**31 - 1]) == [1.0, 0.0, 0.0, 0.0]


def test_a_clear_bit_of_the_allowed_bitmask_bans() -> None:
    program, state = admitted([TokenBias({0: 1.0, 33: 2.0})], 34)
    mask = torch.tensor([[0b1001 - 2**31, 0b10]], dtype=torch.int32)
    row = apply_rules_(torch.zeros(1, 34), program, state, allowed_bitmask=mask)[0].tolist()
    allowed = {0: 1.0, 3: 0.0, 31: 0.0, 33: 2.0}
    assert row == [allowed.get(token, -INF) for token in range(34)]


def test_words_past_the_vocabulary_in_the_allowed_bitmask_are_ignored() -> None:
    program, state = admitted([], 2)
    mask = torch.tensor([[0b1110, -1, -1]], dtype=torch.int32)
    assert apply_rules_(torch.zeros(1, 2), program, state, allowed_bitmask=mask).tolist() == [
        [-INF, 0.0]
    ]


# 3.5 Renormalised product


def test_the_product_of_the_model_and_the_rules_is_renormalised() -> None:
    # p_base = 1/2, 1/4, 1/4; p_rules = 1/6, 2/6, 3/6; products 2, 2, 3 of 24, so Z = 7/24.
    program, state = admitted([TokenBias({1: math.log(2), 2: math.log(3)})], 3)
    logits = torch.tensor([[2.0, 1.0, 1.0]]).log()
    logprobs, log_z = rule_log_softmax(logits, program, state, return_log_z=True)
    torch.testing.assert_close(logprobs.exp(), torch.tensor([[2.0, 2.0, 3.0]]) / 7)
    assert log_z.item() == pytest.approx(math.log(7 / 24), rel=1e-6)


def test_log_z_counts_penalties_and_bans_as_part_of_the_rules() -> None:
    # r = -inf, -log 2, 0, 0: p_rules = 0, 1/5, 2/5, 2/5; p_base = 1/4 each; Z = 1/4.
    rules: list[LogitRule] = [BanTokens([0]), UsedTokenPenalty(math.log(2))]
    program, state = admitted(rules, 4, output_token_ids=[0, 1])
    logprobs, log_z = rule_log_softmax(torch.zeros(1, 4), program, state, return_log_z=True)
    torch.testing.assert_close(logprobs.exp(), torch.tensor([[0.0, 0.2, 0.4, 0.4]]))
    assert log_z.item() == pytest.approx(-math.log(4), rel=1e-6)


def test_without_rules_log_z_is_that_of_the_uniform_distribution() -> None:
    program, state = admitted([], 5)
    _, log_z = rule_log_softmax(torch.randn(1, 5), program, state, return_log_z=True)
    assert log_z.item() == pytest.approx(-math.log(5), rel=1e-6)


@pytest.mark.parametrize("vocab_size", [5, 33, 4097])
def test_the_product_by_brute_force(vocab_size: int) -> None:
    random = torch.Generator().manual_seed(vocab_size)
    scores = torch.randn(vocab_size, generator=random)
    scores[3] = -INF
    program, state = admitted([ScoreVector(scores), TokenBias({1: 2.0})], vocab_size)
    logits = 3 * torch.randn(1, vocab_size, generator=random)
    logprobs, log_z = rule_log_softmax(logits, program, state, return_log_z=True)

    rules = scores.double()
    rules[1] += 2.0
    product = logits[0].double().softmax(0) * rules.softmax(0)
    expected = (product / product.sum()).log()
    torch.testing.assert_close(logprobs[0].double(), expected, rtol=1e-6, atol=1e-6)
    assert log_z.item() == pytest.approx(product.sum().log().item(), rel=1e-6)
    assert logprobs.double().exp().sum().item() == pytest.approx(1.0, abs=1e-6)


# 3.7 Drafts


def test_draft_rows_see_their_own_step_and_the_earlier_drafts_of_their_slot() -> None:
    rules: list[LogitRule] = [UsedTokenPenalty(1.0), TokenBias({5: 8.0}, steps=(3, 4))]
    program, state = admitted(rules, 6, slots=2, output_token_ids=[0, 1])
    before = [table.clone() for table in state.tensors]
    rows = {
        "state_indices": torch.tensor([0, 0, 0, 1, 1]),
        "row_offsets": torch.tensor([0, 1, 2, 0, 1]),
        "draft_token_ids": torch.tensor([-1, 2, 3, -1, 4]),
    }
    assert apply_rules_(torch.zeros(5, 6), program, state, **rows).tolist() == [
        [-1, -1, 0, 0, 0, 0],
        [-1, -1, -1, 0, 0, 8],
        [-1, -1, -1, -1, 0, 0],
        [-1, -1, 0, 0, 0, 0],
        [-1, -1, 0, 0, -1, 8],
    ]
    for table, old in zip(state.tensors, before, strict=True):
        assert_same_bits(table, old)


def test_drafts_outside_the_vocabulary_set_nothing() -> None:
    program, state = admitted([UsedTokenPenalty(1.0)], 3)
    rows = {
        "state_indices": torch.tensor([0, 0, -1]),
        "row_offsets": torch.tensor([0, 1, 2]),
        "draft_token_ids": torch.tensor([-1, 3, 50]),
    }
    assert apply_rules_(torch.zeros(3, 3), program, state, **rows).tolist() == [[0.0] * 3] * 3
    assert state.error.item() == ERROR_TOKEN


# Batches


def test_rows_with_several_rule_sets_and_without_any_share_a_batch() -> None:
    sets = [
        RuleSet([TokenBias({0: 1.0})]),
        RuleSet([vector(0.0, 2.0, 0.0)]),
        RuleSet([UsedTokenPenalty(4.0)]),
        RuleSet([vector(0.0, 0.0, -INF), TokenBias({2: 9.0})]),
    ]
    program = compile_rules(sets, None, 3)
    state = DecodeState.allocate(program, 5, max_bias=1)
    for slot in range(4):
        bias = {0: 0.5} if slot == 3 else None
        state.admit(slot, slot, output_token_ids=[1], token_bias=bias)
    order = torch.tensor([3, 4, 1, 0, 2])
    logits = apply_rules_(torch.zeros(5, 3), program, state, state_indices=order)
    assert logits.tolist() == [[0.5, 0, -INF], [0, 0, 0], [0, 2, 0], [1, 0, 0], [0, -4, 0]]
