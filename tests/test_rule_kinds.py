"""What users write: validation, immutability and the arithmetic of rule sets."""

import copy
import math
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch

from rnr_kernels.rules.kinds import (
    BanTokens,
    EosRamp,
    OnlyTokens,
    RuleSet,
    ScoreVector,
    Token,
    TokenBias,
    UsedTokenPenalty,
    as_token_ids,
)

INF = math.inf


def every_kind() -> RuleSet:
    return RuleSet(
        [
            TokenBias({" I": -4, 7: 0.5}, steps=(0, 20), label="bias"),
            BanTokens([",", 3], label="ban"),
            OnlyTokens(["Yes", "No"], steps=(0, 1), label="only"),
            EosRamp(15.0, 250, until=300, force_at=400, label="eos"),
            UsedTokenPenalty(1.5, scope="prompt+response", after="tag\n", label="used"),
            ScoreVector(torch.tensor([0.0, 1.0, -INF]), label="vector"),
        ],
        name="all",
    )


def test_the_defaults_are_those_of_the_paper() -> None:
    ramp, used = EosRamp(), UsedTokenPenalty()
    assert (ramp.weight, ramp.over, ramp.until, ramp.force_at) == (15.0, 250, None, None)
    assert (used.penalty, used.scope, used.after) == (1.5, "response", None)
    assert TokenBias({1: 2.0}).steps == (0, None)


def test_a_rule_set_survives_pickling_and_copying_and_is_hashable() -> None:
    rules = every_kind()
    assert pickle.loads(pickle.dumps(rules)) == rules
    assert copy.deepcopy(rules) == rules
    assert hash(every_kind()) == hash(rules)
    assert len(rules) == 6


def test_rules_do_not_follow_later_changes_of_what_they_were_made_from() -> None:
    weights: dict[Token, float] = {"a": 1.0}
    tokens, scores = ["a"], torch.zeros(3)
    bias, ban, vector = TokenBias(weights), BanTokens(tokens), ScoreVector(scores)
    weights["a"] = 9.0
    tokens.append("b")
    scores[1] = 9.0
    assert dict(bias.weights) == {"a": 1.0}
    assert ban.tokens == ("a",)
    assert vector.scores.tolist() == [0.0, 0.0, 0.0]


def test_rules_cannot_be_changed() -> None:
    bias = TokenBias({"a": 1.0})
    with pytest.raises(AttributeError):
        bias.steps = (1, 2)  # type: ignore[misc]
    with pytest.raises(TypeError):
        bias.weights["a"] = 2.0  # type: ignore[index]


def test_a_weight_may_be_a_ban() -> None:
    assert TokenBias({"a": -INF}).weights["a"] == -INF


def test_repeated_tokens_count_once_and_keep_their_order() -> None:
    assert BanTokens(["b", 3, "b", 3, "a"]).tokens == ("b", 3, "a")


def test_score_vectors_are_kept_in_float32_and_compare_by_value() -> None:
    half = ScoreVector(torch.tensor([0.5, -INF], dtype=torch.bfloat16))
    assert half.scores.dtype == torch.float32
    assert half == ScoreVector(torch.tensor([0.5, -INF]))
    assert half != ScoreVector(torch.tensor([0.5, 0.0]))
    assert half != ScoreVector(torch.tensor([0.5, -INF]), label="x")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TokenBias({"a": math.nan}), "weight of 'a' must be finite, got nan"),
        (lambda: TokenBias({"a": INF}), "weight of 'a' must be finite, got inf"),
        (lambda: TokenBias({"": 1.0}), "must not be empty"),
        (lambda: BanTokens(["\ud800"]), "a token string must be valid Unicode"),
        (lambda: OnlyTokens([]), "at least one token"),
        (lambda: BanTokens(["a"], steps=(-1, 2)), "start at 0 or later, got -1"),
        (lambda: BanTokens(["a"], steps=(4, 4)), r"end after they start, got \(4, 4\)"),
        (lambda: EosRamp(over=0), "over must be above 0"),
        (lambda: EosRamp(weight=INF), "weight must be finite"),
        (lambda: EosRamp(until=0), "until must be above 0"),
        (lambda: EosRamp(force_at=-1), "force_at must be 0 or more"),
        (lambda: UsedTokenPenalty(math.nan), "penalty must be finite"),
        (lambda: UsedTokenPenalty(scope="prompt"), "got 'prompt'"),  # type: ignore[arg-type]
        (lambda: UsedTokenPenalty(after="tag"), r"needs scope='prompt\+response'"),
        (lambda: UsedTokenPenalty(scope="prompt+response", after=""), "must not be empty"),
        (lambda: ScoreVector(torch.zeros(2, 2)), r"got shape \[2, 2\]"),
        (lambda: ScoreVector(torch.tensor([0.0, INF])), "got inf for token 1"),
        (lambda: ScoreVector(torch.tensor([math.nan])), "got nan for token 0"),
        (lambda: RuleSet([UsedTokenPenalty(), UsedTokenPenalty()]), "at most one"),
    ],
)
def test_values_that_mean_nothing_are_value_errors(
    make: Callable[[], object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        (TokenBias, {"weights": [("a", 1.0)]}),
        (TokenBias, {"weights": {1.5: 1.0}}),
        (TokenBias, {"weights": {True: 1.0}}),
        (TokenBias, {"weights": {"a": "1"}}),
        (TokenBias, {"weights": {"a": True}}),
        (TokenBias, {"weights": {"a": 1.0}, "steps": 3}),
        (TokenBias, {"weights": {"a": 1.0}, "steps": (0.0, 1)}),
        (TokenBias, {"weights": {"a": 1.0}, "skip_missing": "no"}),
        (BanTokens, {"tokens": "abc"}),
        (BanTokens, {"tokens": [b"a"]}),
        (EosRamp, {"until": 2.5}),
        (EosRamp, {"label": 3}),
        (UsedTokenPenalty, {"penalty": None}),
        (ScoreVector, {"scores": [0.0]}),
        (ScoreVector, {"scores": torch.tensor([1, 2])}),
        (RuleSet, {"rules": BanTokens(["a"])}),
        (RuleSet, {"rules": ["a"]}),
        (RuleSet, {"rules": [], "name": 3}),
    ],
)
def test_values_of_the_wrong_type_are_type_errors(kind: Any, arguments: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        kind(**arguments)


def test_adding_joins_rules_and_names() -> None:
    ban, ramp = BanTokens([","]), EosRamp()
    joined = RuleSet([ban], name="a") + RuleSet([ramp], name="b")
    assert tuple(joined) == (ban, ramp)
    assert joined.name == "a + b"
    assert (RuleSet([ban], name="a") + RuleSet([ramp])).name is None


def test_adding_two_penalties_is_an_error() -> None:
    with pytest.raises(ValueError, match="at most one UsedTokenPenalty"):
        RuleSet([UsedTokenPenalty()]) + RuleSet([UsedTokenPenalty()])


def test_scaling_multiplies_what_is_finite_and_keeps_bans() -> None:
    half = 0.5 * every_kind()
    bias, ban, only, ramp, used, vector = half
    assert half == every_kind() * 0.5
    assert isinstance(bias, TokenBias) and dict(bias.weights) == {" I": -2.0, 7: 0.25}
    assert isinstance(ramp, EosRamp) and (ramp.weight, ramp.force_at) == (7.5, 400)
    assert isinstance(used, UsedTokenPenalty) and used.penalty == 0.75
    assert isinstance(vector, ScoreVector) and vector.scores.tolist() == [0.0, 0.5, -INF]
    assert (ban, only) == every_kind().rules[1:3]
    assert [rule.label for rule in half] == ["bias", "ban", "only", "eos", "used", "vector"]
    assert half.name == "0.5 * all"
    assert (0.5 * (RuleSet((), "a") + RuleSet((), "b"))).name == "0.5 * (a + b)"


def test_zero_and_negative_factors_turn_weights_off_and_round() -> None:
    rules = RuleSet([TokenBias({"a": -4.0}), UsedTokenPenalty(1.5)])
    assert (0 * rules).rules == (TokenBias({"a": 0.0}), UsedTokenPenalty(0.0))
    assert (-2 * rules).rules == (TokenBias({"a": 8.0}), UsedTokenPenalty(-3.0))


@pytest.mark.parametrize(
    "rule",
    [
        BanTokens([","]),
        OnlyTokens([","]),
        TokenBias({",": -INF}),
        EosRamp(force_at=3),
        ScoreVector(torch.tensor([-INF, 0.0])),
    ],
)
@pytest.mark.parametrize("factor", [0, -1.0])
def test_a_ban_cannot_be_scaled_away(rule: Any, factor: float) -> None:
    with pytest.raises(ValueError, match=f"with {type(rule).__name__}"):
        factor * RuleSet([rule])


@pytest.mark.parametrize("factor", [INF, math.nan])
def test_a_factor_must_be_finite(factor: float) -> None:
    with pytest.raises(ValueError, match=f"factor of a rule set must be finite, got {factor}"):
        factor * RuleSet([EosRamp()])


def test_an_int_too_large_for_a_float_is_a_value_error() -> None:
    huge = 10**400
    with pytest.raises(ValueError, match="EosRamp over must be finite, got an int beyond 1e308"):
        EosRamp(over=huge)
    with pytest.raises(ValueError, match="the weight of 'a' must be finite, got an int beyond"):
        TokenBias({"a": -huge})
    with pytest.raises(ValueError, match="factor of a rule set must be finite, got an int beyond"):
        huge * RuleSet([EosRamp()])


def test_end_of_sequence_ids_are_one_int_or_several() -> None:
    assert as_token_ids(2) == (2,)
    assert as_token_ids([2, 5]) == (2, 5)
    wrong: list[Any] = [True, [1, True], "2", ["</s>"], 2.0, None]
    for ids in wrong:
        with pytest.raises(TypeError, match="each of eos_token_ids must be an int, got"):
            as_token_ids(ids)


def test_a_scaled_weight_must_stay_finite() -> None:
    with pytest.raises(ValueError, match="weight of 'a' must be finite, got inf"):
        1e300 * RuleSet([TokenBias({"a": 1e300})])


@pytest.mark.parametrize("factor", [True, "2", None])
def test_rule_sets_scale_by_numbers_alone(factor: Any) -> None:
    with pytest.raises(TypeError):
        factor * RuleSet([EosRamp()])


def test_without_leaves_labelled_rules_out() -> None:
    rules = every_kind().without("ban", "only")
    assert [rule.label for rule in rules] == ["bias", "eos", "used", "vector"]
    assert rules.name == "all - ban - only"


def test_without_names_the_labels_there_are() -> None:
    rules = RuleSet([EosRamp(label="eos"), BanTokens([1], label="ban")])
    with pytest.raises(ValueError, match="labelled 'used'; this rule set has 'ban', 'eos'"):
        rules.without("used")
    with pytest.raises(ValueError, match="no labels at all"):
        RuleSet([EosRamp()]).without("eos")


def test_reprs_show_what_was_written() -> None:
    assert "{' I': -4.0}" in repr(TokenBias({" I": -4}))


def test_scores_too_large_for_float32_are_refused_and_do_not_become_bans() -> None:
    with pytest.raises(ValueError, match="for token 1"):
        ScoreVector(torch.tensor([0.0, -1e300], dtype=torch.float64))
    with pytest.raises(ValueError, match="for token 0"):
        2.0 * RuleSet([ScoreVector(torch.tensor([-3e38, -math.inf]))])
