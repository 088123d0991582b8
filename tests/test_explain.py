"""Explanations of a response, and descriptions of rules against a vocabulary."""

from transformers import PreTrainedTokenizerBase

from rnr_kernels import BanTokens, EosRamp, OnlyTokens, RuleSet, TokenBias, UsedTokenPenalty
from rnr_kernels.explain import explain_response, rule_name
from rnr_kernels.rules.describe import describe_rules
from rnr_kernels.rules.vocabulary import Vocabulary


def test_each_rules_share_of_each_token(tiny_bpe: PreTrainedTokenizerBase) -> None:
    s, e = tiny_bpe.convert_tokens_to_ids(["s", "e"])
    rules = RuleSet([
        EosRamp(10.0, over=10),
        TokenBias({"s": 2.0, "e": -4.0}, label="bias"),
        UsedTokenPenalty(1.5, "prompt+response", after="!"),
    ])  # fmt: skip
    assert [rule_name(rule) for rule in rules] == ["EosRamp", "bias", "UsedTokenPenalty"]
    prompt = tiny_bpe.encode("s!e")
    steps = list(explain_response(rules, tiny_bpe, prompt, [s, e, s, 1], most=1))
    assert [(x.step, x.token_id) for x in steps] == [(0, s), (1, e), (2, s), (3, 1)]
    assert [x.scores for x in steps] == [
        (0.0, 2.0, 0.0),
        (0.0, -4.0, -1.5),
        (0.0, 2.0, -1.5),
        (3.0, 0.0, 0.0),
    ]
    assert [x.total for x in steps] == [2.0, -5.5, 0.5, 3.0]
    assert steps[0].raised == ((s, 2.0),) and steps[0].lowered == ((e, -5.5),)
    assert steps[3].raised == ((1, 3.0),)


def test_rules_in_words(tiny_bpe: PreTrainedTokenizerBase) -> None:
    rules = RuleSet([
        TokenBias({"s": 1.5, " zebra": -1.0}, steps=(0, 3), skip_missing=True, label="l"),
        BanTokens(["e"]),
        OnlyTokens(["a"], steps=(2, None)),
        EosRamp(15, 250, until=250, force_at=400),
        UsedTokenPenalty(1.5, "prompt+response", after="!"),
    ])  # fmt: skip
    described = describe_rules(rules, Vocabulary.of(tiny_bpe))
    assert [rule.summary for rule in described] == [
        "adds a weight, at steps 0 to 2",
        "bans, at every step",
        "allows these only, from step 2 on",
        "adds 15 t / 250 to every end-of-sequence token while t < 250, "
        "allows nothing else from 400 on",
        "subtracts 1.5 from tokens used in the prompt+response, in the prompt after '!'",
    ]
    first = described[0].tokens
    assert (first[0].written, first[0].printed, first[0].effect) == ("s", "s", "+1.5")
    assert first[1].token_id is None and first[1].effect.startswith("skipped")
    assert [token.token_id for token in described[3].tokens] == [1]
