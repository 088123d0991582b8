"""compile_rules: classes, schedules, overflow, and what it refuses."""

import math
import re
from typing import Any

import pytest
import torch

from rnr_kernels import apply_rules_, compile_rules
from rnr_kernels.rules.kinds import (
    BanTokens,
    EosRamp,
    LogitRule,
    OnlyTokens,
    RuleSet,
    ScoreVector,
    Token,
    TokenBias,
    UsedTokenPenalty,
)
from rnr_kernels.rules.program import Knot, LoweredRules
from rnr_kernels.testing import admitted

INF = math.inf


def lowered(rules: list[LogitRule], vocab_size: int = 8, **options: Any) -> LoweredRules:
    return compile_rules(RuleSet(rules), None, vocab_size, **options).rules(0)


# Classes and knots


def test_tokens_named_by_the_same_rules_form_a_class() -> None:
    rules = lowered([TokenBias({1: 2.0, 3: 2.0, 4: 5.0}), BanTokens([3, 6], steps=(0, 2))])
    # Numbered by their lowest token: {1}, {3}, {4}, {6}.
    assert rules.token_class.tolist() == [0, 1, 0, 2, 3, 0, 4, 0]
    assert rules.schedule == (
        (Knot(0, 2.0, 0.0),),
        (Knot(0, -INF, 0.0), Knot(2, 2.0, 0.0)),
        (Knot(0, 5.0, 0.0),),
        (Knot(0, -INF, 0.0), Knot(2, 0.0, 0.0)),
    )


def test_equal_weights_of_one_rule_share_a_class() -> None:
    rules = lowered([TokenBias({5: 1.0, 2: 1.0, 7: 3.0})])
    assert rules.token_class.tolist() == [0, 0, 1, 0, 0, 1, 0, 2]
    assert len(rules.schedule) == 2


def test_everything_but_the_listed_tokens_is_one_class() -> None:
    rules = lowered([OnlyTokens([1, 2], steps=(0, 1))])
    assert rules.token_class.tolist() == [1, 0, 0, 1, 1, 1, 1, 1]
    assert rules.schedule == ((Knot(0, -INF, 0.0), Knot(1, 0.0, 0.0)),)


def test_a_ramps_slope_is_its_weight_by_its_length() -> None:
    rules = lowered([EosRamp(15.0, over=250, until=250, force_at=300)], eos_token_ids=[2, 5])
    assert rules.token_class.tolist() == [1, 1, 2, 1, 1, 2, 1, 1]
    others, eos = rules.schedule
    assert others == (Knot(300, -INF, 0.0),)
    assert eos == (Knot(0, 0.0, 0.06), Knot(250, 0.0, 0.0))


def test_a_banned_knot_has_no_slope_and_the_ramp_goes_on_after_it() -> None:
    rules = lowered([EosRamp(1.0, over=2), BanTokens([3], steps=(2, 5))], eos_token_ids=[3])
    assert rules.schedule == ((Knot(0, 0.0, 0.5), Knot(2, -INF, 0.0), Knot(5, 2.5, 0.5)),)


def test_a_rule_set_that_names_no_token_has_class_0_alone() -> None:
    rules = lowered([])
    assert rules.token_class.count_nonzero() == 0
    assert (rules.schedule, rules.score_vector, rules.penalty) == ((), None, 0.0)
    assert rules.scope == "none"


@pytest.mark.parametrize("scope", ["response", "prompt+response"])
def test_the_penalty_and_its_scope_are_kept(scope: Any) -> None:
    rules = lowered([UsedTokenPenalty(0.5, scope)])
    assert (rules.penalty, rules.scope) == (0.5, scope)


def test_score_vectors_add_up() -> None:
    one = torch.tensor([1.0, 2.0, -INF, 0.0])
    rules = lowered([ScoreVector(one), ScoreVector(torch.full((4,), 0.5))], vocab_size=4)
    assert rules.score_vector is not None
    assert rules.score_vector.tolist() == [1.5, 2.5, -INF, 0.5]


# More than 255 classes


def test_constant_weights_past_255_classes_move_to_the_score_vector() -> None:
    weights: dict[Token, float] = {token: 1.0 + token / 7 for token in range(300)}
    rules = lowered([TokenBias(weights), TokenBias({310: 4.0}, steps=(0, 9))], vocab_size=320)
    assert len(rules.schedule) == 255
    assert rules.token_class.max().item() == 255
    assert rules.score_vector is not None
    assert rules.score_vector.count_nonzero() == 301 - 255
    assert rules.score_vector[310] == 0.0


def test_scores_are_the_same_wherever_they_are_held() -> None:
    weights: dict[Token, float] = {token: 1.0 + token / 7 for token in range(300)}
    weights[7] = -INF
    program, state = admitted([TokenBias(weights)], 301)
    expected = torch.tensor([*weights.values(), 0.0])
    assert torch.equal(apply_rules_(torch.zeros(1, 301), program, state)[0], expected)


def test_large_classes_are_not_the_ones_that_move() -> None:
    # 260 classes of one token, and after them one of forty.
    weights: dict[Token, float] = {token: max(260.0 - token, 0.5) for token in range(300)}
    rules = lowered([TokenBias(weights)], vocab_size=300)
    assert (rules.token_class[260:] > 0).all()


def test_more_than_255_schedules_are_an_error() -> None:
    weights: dict[Token, float] = {token: float(token) for token in range(1, 257)}
    with pytest.raises(ValueError, match=r"at most 255 groups .* got 256"):
        lowered([TokenBias(weights, steps=(0, 3))], vocab_size=300)
    assert len(lowered([TokenBias({**weights, 256: 1.0}, steps=(0, 3))], 300).schedule) == 255


# Some token is allowed at every knot


@pytest.mark.parametrize(
    ("rules", "step"),
    [
        ([BanTokens([0, 1, 2, 3])], 0),
        ([BanTokens([0, 1, 2, 3], steps=(4, 5))], 4),
        ([BanTokens([0, 1], steps=(0, 9)), BanTokens([2, 3], steps=(7, 8))], 7),
        ([OnlyTokens([0]), OnlyTokens([1])], 0),
        ([OnlyTokens([0]), BanTokens([0], steps=(2, None))], 2),
        ([EosRamp(force_at=6), BanTokens([3])], 6),
        ([EosRamp(force_at=6), OnlyTokens([0], steps=(3, None))], 6),
        ([BanTokens([0]), ScoreVector(torch.tensor([0.0, -INF, -INF, -INF]))], 0),
        ([ScoreVector(torch.full((4,), -INF))], 0),
        ([TokenBias({0: -INF, 1: -INF, 2: -INF}), BanTokens([3], steps=(1, 2))], 1),
    ],
)
def test_rules_that_allow_no_token_at_some_step_are_an_error(
    rules: list[LogitRule], step: int
) -> None:
    with pytest.raises(ValueError, match=f"allow no token at step {step};"):
        lowered(rules, vocab_size=4, eos_token_ids=[3])


@pytest.mark.parametrize(
    "rules",
    [
        [BanTokens([0, 1, 2])],
        [BanTokens([0, 1], steps=(0, 5)), BanTokens([2, 3], steps=(5, 9))],
        [OnlyTokens([0, 3], steps=(0, 6)), EosRamp(force_at=6)],
        [OnlyTokens([0], steps=(0, 6)), EosRamp(force_at=6)],
        [ScoreVector(torch.tensor([-INF, -INF, 0.0, -INF])), BanTokens([0, 1])],
    ],
)
def test_rules_that_leave_one_token_are_fine(rules: list[LogitRule]) -> None:
    assert lowered(rules, vocab_size=4, eos_token_ids=[3]).token_class.shape == (4,)


# Errors


@pytest.mark.parametrize(
    ("rules", "options", "message"),
    [
        ([EosRamp()], {}, "EosRamp needs an end-of-sequence token"),
        ([EosRamp()], {"eos_token_ids": []}, "EosRamp needs an end-of-sequence token"),
        ([EosRamp()], {"eos_token_ids": [8]}, "eos_token_ids must be in [0, 8), got 8"),
        ([EosRamp()], {"eos_token_ids": [2, -1]}, "eos_token_ids must be in [0, 8), got -1"),
        ([TokenBias({8: 1.0})], {}, "a token id must be in [0, 8), got 8"),
        ([BanTokens([-1])], {}, "a token id must be in [0, 8), got -1"),
        ([BanTokens(["!"])], {}, "token '!' is a string: pass a tokenizer"),
        ([ScoreVector(torch.zeros(7))], {}, "vocab_size=8 scores, got 7"),
        ([TokenBias({1: 1e39})], {}, "a weight must fit in float32, got 1e+39"),
        ([TokenBias({1: -1e39})], {}, "a weight must fit in float32, got -1e+39"),
        ([TokenBias({1: 3e38}), TokenBias({1: 3e38})], {}, "the sum of weights at step 0"),
        ([EosRamp(1e300, over=1e-10)], {"eos_token_ids": [1]}, "a weight per step must fit"),
        ([EosRamp(1e33)], {"eos_token_ids": [1]}, "the sum of weights by step 2147483647"),
        ([UsedTokenPenalty(1e39)], {}, "a penalty must fit in float32"),
        ([ScoreVector(torch.full((8,), 3e38))] * 2, {}, "the sum of score vectors must fit"),
        ([ScoreVector(torch.full((8,), -3e38))] * 2, {}, "the sum of score vectors must fit"),
        ([BanTokens([1], steps=(2**31, None))], {}, "a step must be below 2147483647"),
        ([BanTokens([1], steps=(0, 2**31))], {}, "a step must be below 2147483647"),
    ],
)
def test_rules_that_cannot_be_compiled_are_value_errors(
    rules: list[LogitRule], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        lowered(rules, **options)


@pytest.mark.parametrize("weight", [math.nan, INF])
def test_weights_are_finite_or_minus_infinity(weight: float) -> None:
    with pytest.raises(ValueError, match="must be finite"):
        TokenBias({1: weight})
    with pytest.raises(ValueError, match="must be finite"):
        ScoreVector(torch.tensor([weight]))
    with pytest.raises(ValueError, match="must be finite"):
        UsedTokenPenalty(weight)
    with pytest.raises(ValueError, match="must be finite"):
        EosRamp(weight)


def test_vocab_size_is_needed_without_a_tokenizer() -> None:
    with pytest.raises(ValueError, match="needs vocab_size"):
        compile_rules(RuleSet([]), None)
    with pytest.raises(ValueError, match="vocab_size must be at least 1, got 0"):
        compile_rules(RuleSet([]), None, 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"vocab_size": 8.0}, "vocab_size must be an int, got float 8.0"),
        ({"vocab_size": True}, "vocab_size must be an int, got bool True"),
        ({"eos_token_ids": True}, "each of eos_token_ids must be an int, got bool True"),
        ({"eos_token_ids": ["</s>"]}, "each of eos_token_ids must be an int, got str '</s>'"),
    ],
)
def test_sizes_and_ids_of_another_type_are_type_errors(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(TypeError, match=message):
        compile_rules(RuleSet([]), None, **{"vocab_size": 8, **options})


def test_a_faulty_rule_is_named_by_its_rule_set_number_and_label() -> None:
    def message(*rule_sets: RuleSet) -> str:
        with pytest.raises(ValueError) as caught:
            compile_rules(rule_sets, None, 4)
        return str(caught.value)

    fine = BanTokens([1])
    outside = "a token id must be in [0, 4), got 9"
    labelled = RuleSet([fine, TokenBias({9: 1.0}, label="uniform")], name="x")
    assert message(RuleSet([fine]), labelled) == (
        f"rule set 'x', rule 2 (TokenBias 'uniform'): {outside}"
    )
    assert message(RuleSet([fine]), RuleSet([OnlyTokens([9])])) == (
        f"rule set 2, rule 1 (OnlyTokens): {outside}"
    )
    assert message(RuleSet([UsedTokenPenalty(1e39, label="used")])) == (
        "rule set 1, rule 1 (UsedTokenPenalty 'used'): "
        "a penalty must fit in float32, got 1e+39; make it smaller"
    )
    everything = RuleSet([fine, BanTokens([0, 2, 3])], name="x")
    assert message(everything) == (
        "rule set 'x': the rules allow no token at step 0; "
        "check BanTokens, OnlyTokens and force_at against each other"
    )


def test_other_things_than_rule_sets_are_a_type_error() -> None:
    with pytest.raises(TypeError, match="a RuleSet or a list of them, got BanTokens"):
        compile_rules([BanTokens([1])], None, 8)  # type: ignore[list-item]


# With a tokenizer


def test_strings_and_eos_come_from_the_tokenizer(tiny_bpe: Any) -> None:
    program = compile_rules(RuleSet([TokenBias({"!": 2.0}), EosRamp(1.0, over=1)]), tiny_bpe)
    assert program.vocab_size == len(tiny_bpe)
    classes = program.rules(0).token_class
    assert classes.nonzero()[:, 0].tolist() == [1, tiny_bpe.convert_tokens_to_ids("!")]


def test_two_names_of_a_token_must_agree(tiny_bpe: Any) -> None:
    token = tiny_bpe.convert_tokens_to_ids("!")
    same = compile_rules(RuleSet([TokenBias({"!": 2.0, token: 2.0})]), tiny_bpe)
    assert same.rules(0).token_class.count_nonzero() == 1
    with pytest.raises(ValueError, match="which the rule already gives"):
        compile_rules(RuleSet([TokenBias({"!": 2.0, token: 3.0})]), tiny_bpe)


def test_skipped_strings_are_named_in_one_warning(tiny_bpe: Any) -> None:
    rules = RuleSet([TokenBias({"qqq": 1.0, "!": 1.0, "zzz": 2.0}, skip_missing=True)])
    with pytest.warns(UserWarning, match="rule set 1: .* token for 'qqq', 'zzz'") as caught:
        program = compile_rules(rules, tiny_bpe)
    assert len(caught) == 1
    assert program.rules(0).token_class.count_nonzero() == 1


def test_a_single_end_of_sequence_id_may_be_an_int() -> None:
    one = compile_rules(RuleSet([EosRamp()]), None, 8, eos_token_ids=3)
    assert one.rules(0).token_class.tolist() == [0, 0, 0, 1, 0, 0, 0, 0]
