"""Which tokens of a vocabulary a rule set names, for people to check."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rnr_kernels.rules.kinds import (
    BanTokens,
    EosRamp,
    LogitRule,
    OnlyTokens,
    RuleSet,
    ScoreVector,
    Token,
    TokenBias,
    TokenIds,
    UsedTokenPenalty,
    as_token_ids,
)
from rnr_kernels.rules.vocabulary import Vocabulary


@dataclass(frozen=True)
class NamedToken:
    """One token of a rule as its vocabulary has it."""

    written: Token
    """As the rule names it."""
    token_id: int | None
    """None if the tokenizer lacks it and the rule skips what is missing."""
    printed: str
    effect: str


@dataclass(frozen=True)
class RuleDescription:
    """One rule against one vocabulary."""

    kind: str
    label: str | None
    summary: str
    tokens: tuple[NamedToken, ...]


def describe_rules(
    rules: RuleSet,
    vocabulary: Vocabulary,
    *,
    vocab_size: int | None = None,
    eos_token_ids: TokenIds | None = None,
) -> list[RuleDescription]:
    """Each rule's kind, meaning in words, and tokens. ValueError as in `compile_rules`."""
    size = vocabulary.size if vocab_size is None else vocab_size
    eos = vocabulary.eos_token_ids if eos_token_ids is None else as_token_ids(eos_token_ids)
    return [_describe(rule, vocabulary, size, eos) for rule in rules]


def _describe(
    rule: LogitRule, vocabulary: Vocabulary, vocab_size: int, eos: Sequence[int]
) -> RuleDescription:
    named: list[tuple[Token, str]] = []
    skip_missing = False
    if isinstance(rule, TokenBias):
        named = [(token, _signed(weight)) for token, weight in rule.weights.items()]
        summary, skip_missing = f"adds a weight, {_when(rule.steps)}", rule.skip_missing
    elif isinstance(rule, BanTokens):
        named = [(token, "banned") for token in rule.tokens]
        summary = f"bans, {_when(rule.steps)}"
    elif isinstance(rule, OnlyTokens):
        named = [(token, "allowed") for token in rule.tokens]
        summary = f"allows these only, {_when(rule.steps)}"
    elif isinstance(rule, EosRamp):
        named = [(token, f"+{rule.weight:g} t / {rule.over:g}") for token in eos]
        summary = f"adds {rule.weight:g} t / {rule.over:g} to every end-of-sequence token"
        summary += "" if rule.until is None else f" while t < {rule.until}"
        summary += "" if rule.force_at is None else f", allows nothing else from {rule.force_at} on"
    elif isinstance(rule, UsedTokenPenalty):
        summary = f"subtracts {rule.penalty:g} from tokens used in the {rule.scope}"
        summary += "" if rule.after is None else f", in the prompt after {rule.after!r}"
    else:
        assert isinstance(rule, ScoreVector)
        summary = f"adds one score to each of {len(rule.scores)} tokens"

    tokens = []
    for token, effect in named:
        if skip_missing and isinstance(token, str) and vocabulary.find(token) is None:
            tokens.append(NamedToken(token, None, "", "skipped: no single token prints this"))
            continue
        token_id = vocabulary.resolve(token, vocab_size=vocab_size)
        tokens.append(NamedToken(token, token_id, vocabulary.text(token_id), effect))
    return RuleDescription(type(rule).__name__, rule.label, summary, tuple(tokens))


def _signed(weight: float) -> str:
    return "banned" if weight == -math.inf else f"{weight:+g}"


def _when(steps: tuple[int, int | None]) -> str:
    start, end = steps
    if end is None:
        return "at every step" if start == 0 else f"from step {start} on"
    return f"at steps {start} to {end - 1}"
