"""What a user writes: the kinds of logit rule and the rule set that holds them.

A rule gives every vocabulary entry a score in nats that is added to its logit. `t` is the number of
response tokens already chosen, so it is 0 when the first response token is chosen. A token is an id
or a string; a string is what the token prints, leading space included (`" I"`, `"\\n"`).
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

import torch

Token: TypeAlias = int | str
Steps: TypeAlias = tuple[int, int | None]
TokenIds: TypeAlias = int | Sequence[int]
"""One id or several, as generation configs have their end-of-sequence ids."""


def as_token_ids(ids: TokenIds) -> tuple[int, ...]:
    """The end-of-sequence ids as a tuple; TypeError for what is no id."""
    several = ids if isinstance(ids, Iterable) and not isinstance(ids, str) else (ids,)
    return tuple(as_int(token_id, "each of eos_token_ids") for token_id in several)


class TokenWeights(Mapping[Token, float]):
    """An immutable, hashable and picklable mapping from tokens to weights."""

    __slots__ = ("_weights",)

    def __init__(self, weights: Mapping[Token, float]) -> None:
        self._weights = dict(weights)

    def __getitem__(self, token: Token) -> float:
        return self._weights[token]

    def __iter__(self) -> Iterator[Token]:
        return iter(self._weights)

    def __len__(self) -> int:
        return len(self._weights)

    def __hash__(self) -> int:
        return hash(frozenset(self._weights.items()))

    def __repr__(self) -> str:
        return repr(self._weights)


@dataclass(frozen=True)
class TokenBias:
    """Add a weight to each named token while `steps[0] <= t < steps[1]`.

    Known as `logit_bias` in OpenAI's API and in vLLM. Weights are finite, or -inf for a ban; an
    end of None means "for good". With `skip_missing=True`, strings that no single token of a
    tokenizer prints are left out with a warning when the rules are compiled; without it they are
    an error. Raises ValueError for a weight of NaN or +inf and TypeError for a token that is
    neither int nor str.
    """

    weights: Mapping[Token, float] | Mapping[str, float] | Mapping[int, float]
    steps: Steps = (0, None)
    skip_missing: bool = field(default=False, kw_only=True)
    label: str | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if not isinstance(self.weights, Mapping):
            raise TypeError(
                f"TokenBias weights must map tokens to numbers, as in {{'!': 1.0}}, "
                f"got {_kind_of(self.weights)}"
            )
        weights = {_token(token): _weight(w, token) for token, w in self.weights.items()}
        object.__setattr__(self, "weights", TokenWeights(weights))
        object.__setattr__(self, "steps", _steps(self.steps))
        if not isinstance(self.skip_missing, bool):
            raise TypeError(f"skip_missing must be a bool, got {_kind_of(self.skip_missing)}")
        _check_label(self.label)


@dataclass(frozen=True)
class BanTokens:
    """Forbid the tokens (score -inf) while `steps[0] <= t < steps[1]`."""

    tokens: Sequence[Token]
    steps: Steps = (0, None)
    label: str | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        object.__setattr__(self, "tokens", _tokens(self.tokens, "BanTokens"))
        object.__setattr__(self, "steps", _steps(self.steps))
        _check_label(self.label)


@dataclass(frozen=True)
class OnlyTokens:
    """Forbid every other token (score -inf) while `steps[0] <= t < steps[1]`.

    End-of-sequence tokens have no exemption: list them if the response may end in these steps.
    """

    tokens: Sequence[Token]
    steps: Steps = (0, None)
    label: str | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        tokens = _tokens(self.tokens, "OnlyTokens")
        if not tokens:
            raise ValueError("OnlyTokens needs at least one token: with none, no token is allowed")
        object.__setattr__(self, "tokens", tokens)
        object.__setattr__(self, "steps", _steps(self.steps))
        _check_label(self.label)


@dataclass(frozen=True)
class EosRamp:
    """Add `weight * t / over` to every end-of-sequence token while `t < until`, and 0 from then on.

    `until=None` never stops. From `t >= force_at` on, only end-of-sequence tokens are allowed: a
    hard stop. The defaults are the length rule of Hewitt et al. 2024, Table 8. Raises ValueError
    for a weight that is not finite, `over <= 0`, `until <= 0` or `force_at < 0`.
    """

    weight: float = 15.0
    over: float = 250
    until: int | None = None
    force_at: int | None = None
    label: str | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        object.__setattr__(self, "weight", _finite(self.weight, "EosRamp weight"))
        if _finite(self.over, "EosRamp over") <= 0:
            raise ValueError(f"EosRamp over must be above 0 tokens, got {self.over!r}")
        if self.until is not None and as_int(self.until, "EosRamp until") <= 0:
            raise ValueError(f"EosRamp until must be above 0 or None, got {self.until}")
        if self.force_at is not None and as_int(self.force_at, "EosRamp force_at") < 0:
            raise ValueError(f"EosRamp force_at must be 0 or more, or None, got {self.force_at}")
        _check_label(self.label)


@dataclass(frozen=True)
class UsedTokenPenalty:
    """Subtract `penalty` from every token that has been used, once however often it was.

    Like a presence penalty, but a set and not a count, with its scope in the open: "response" looks
    at response tokens alone, "prompt+response" at prompt tokens too, and with `after` only at those
    from the end of the last occurrence of this text in the prompt on. Raises ValueError for a
    penalty that is not finite, an unknown scope, or `after` without the scope "prompt+response".
    """

    penalty: float = 1.5
    scope: Literal["response", "prompt+response"] = "response"
    after: str | None = None
    label: str | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        object.__setattr__(self, "penalty", _finite(self.penalty, "UsedTokenPenalty penalty"))
        if self.scope not in ("response", "prompt+response"):
            raise ValueError(
                "UsedTokenPenalty scope must be 'response' or 'prompt+response', "
                f"got {self.scope!r}"
            )
        if self.after is not None:
            if not isinstance(self.after, str):
                raise TypeError(f"UsedTokenPenalty after must be a str, got {_kind_of(self.after)}")
            if self.after == "":
                raise ValueError("UsedTokenPenalty after must not be empty; leave it out instead")
            _check_unicode(self.after, "UsedTokenPenalty after")
            if self.scope != "prompt+response":
                raise ValueError(
                    "UsedTokenPenalty after needs scope='prompt+response': "
                    "scope 'response' counts no prompt token"
                )
        _check_label(self.label)


@dataclass(frozen=True, eq=False)
class ScoreVector:
    """Add one score per vocabulary entry at every step; -inf is a ban.

    `scores` is a floating-point tensor [vocab_size]; a float32 CPU copy is kept. Two score vectors
    are equal if their values and labels are. Raises TypeError for another dtype and ValueError for
    another shape or for NaN or +inf.
    """

    scores: torch.Tensor
    label: str | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if not isinstance(self.scores, torch.Tensor) or not self.scores.is_floating_point():
            got = (
                f"a tensor of {self.scores.dtype}"
                if isinstance(self.scores, torch.Tensor)
                else _kind_of(self.scores)
            )
            raise TypeError(f"ScoreVector needs a floating-point tensor [vocab_size], got {got}")
        if self.scores.dim() != 1 or self.scores.numel() == 0:
            shape = list(self.scores.shape)
            raise ValueError(f"ScoreVector needs a tensor [vocab_size], got shape {shape}")
        given = self.scores.detach().cpu()
        scores = given.to(torch.float32, copy=True)
        bad = (scores.isnan() | (scores.isinf() & (given != -math.inf))).nonzero()
        if len(bad):
            token_id = int(bad[0])
            raise ValueError(
                f"ScoreVector scores must be finite or -inf in float32, "
                f"got {float(scores[token_id])} for token {token_id}"
            )
        object.__setattr__(self, "scores", scores)
        _check_label(self.label)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ScoreVector):
            return NotImplemented
        return self.label == other.label and torch.equal(self.scores, other.scores)

    def __hash__(self) -> int:
        return hash((ScoreVector, self.label, len(self.scores)))


LogitRule: TypeAlias = TokenBias | BanTokens | OnlyTokens | EosRamp | UsedTokenPenalty | ScoreVector
_KINDS = (TokenBias, BanTokens, OnlyTokens, EosRamp, UsedTokenPenalty, ScoreVector)


@dataclass(frozen=True)
class RuleSet:
    """An immutable sequence of rules whose scores add up; `a + b` joins, `0.5 * a` scales.

    Scaling multiplies every finite weight, the ramp and the penalty. A positive factor leaves bans,
    "only these tokens" and hard stops as they are; 0 turns the finite weights off and a negative
    factor turns them round, and since a ban has no opposite, both are a ValueError when there is
    one. A rule set holds at most one UsedTokenPenalty. Rules that share a label form a group.
    """

    rules: Sequence[LogitRule] = ()
    name: str | None = None

    def __post_init__(self) -> None:
        if isinstance(self.rules, (str, Mapping, *_KINDS)) or not isinstance(self.rules, Iterable):
            raise TypeError(f"RuleSet needs a list of rules, got {_kind_of(self.rules)}")
        rules = tuple(self.rules)
        for number, rule in enumerate(rules, start=1):
            if not isinstance(rule, _KINDS):
                kinds = ", ".join(kind.__name__ for kind in _KINDS)
                raise TypeError(f"rule {number} must be one of {kinds}, got {_kind_of(rule)}")
        if sum(isinstance(rule, UsedTokenPenalty) for rule in rules) > 1:
            raise ValueError(
                "a rule set holds at most one UsedTokenPenalty: keep one, "
                "or add the penalties up if their scope is the same"
            )
        if self.name is not None and not isinstance(self.name, str):
            raise TypeError(f"RuleSet name must be a str, got {_kind_of(self.name)}")
        object.__setattr__(self, "rules", rules)

    def __iter__(self) -> Iterator[LogitRule]:
        return iter(self.rules)

    def __len__(self) -> int:
        return len(self.rules)

    def __add__(self, other: "RuleSet") -> "RuleSet":
        if not isinstance(other, RuleSet):
            return NotImplemented
        named = self.name is not None and other.name is not None
        return RuleSet(
            (*self.rules, *other.rules), name=f"{self.name} + {other.name}" if named else None
        )

    def __mul__(self, factor: float) -> "RuleSet":
        if isinstance(factor, bool) or not isinstance(factor, int | float):
            return NotImplemented
        factor = _finite(factor, "the factor of a rule set")
        banning = next((rule for rule in self.rules if _bans(rule)), None)
        if factor <= 0 and banning is not None:
            raise ValueError(
                f"a rule set with a ban can be scaled by a positive number only, got {factor:g} "
                f"with {type(banning).__name__}; leave that rule out first, see RuleSet.without"
            )
        name = self.name
        if name is not None:
            name = f"{factor:g} * ({name})" if " " in name else f"{factor:g} * {name}"
        return RuleSet(tuple(_scaled(rule, factor) for rule in self.rules), name=name)

    __rmul__ = __mul__

    def without(self, *labels: str) -> "RuleSet":
        """The rules with none of these labels, for ablations; an unknown one is a ValueError."""
        known = sorted({rule.label for rule in self.rules if rule.label is not None})
        unknown = [label for label in labels if label not in known]
        if unknown:
            has = ", ".join(map(repr, known)) if known else "no labels at all"
            raise ValueError(f"no rule is labelled {unknown[0]!r}; this rule set has {has}")
        name = self.name
        if name is not None:
            name = " ".join([name, *(f"- {label}" for label in labels)])
        return RuleSet(tuple(rule for rule in self.rules if rule.label not in labels), name=name)


def _bans(rule: LogitRule) -> bool:
    if isinstance(rule, TokenBias):
        return -math.inf in rule.weights.values()
    if isinstance(rule, EosRamp):
        return rule.force_at is not None
    if isinstance(rule, ScoreVector):
        return bool((rule.scores == -math.inf).any())
    return isinstance(rule, BanTokens | OnlyTokens)


def _scaled(rule: LogitRule, factor: float) -> LogitRule:
    if isinstance(rule, TokenBias):
        weights = {
            token: weight if weight == -math.inf else weight * factor
            for token, weight in rule.weights.items()
        }
        return replace(rule, weights=weights)
    if isinstance(rule, EosRamp):
        return replace(rule, weight=rule.weight * factor)
    if isinstance(rule, UsedTokenPenalty):
        return replace(rule, penalty=rule.penalty * factor)
    if isinstance(rule, ScoreVector):
        # -inf * 0 would be NaN, but a factor of 0 never meets a ban.
        # In float64, so that a score too large for float32 is found and does not become a ban.
        return replace(rule, scores=rule.scores.double() * factor)
    return rule


def _kind_of(value: object) -> str:
    return f"{type(value).__name__} {value!r:.80}"


def as_int(value: object, what: str) -> int:
    """The value; TypeError unless it is an int, which a bool is not."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{what} must be an int, got {_kind_of(value)}")
    return value


def _finite(value: object, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{what} must be a number, got {_kind_of(value)}")
    try:
        number = float(value)
    except OverflowError:
        raise ValueError(f"{what} must be finite, got an int beyond 1e308") from None
    if not math.isfinite(number):
        raise ValueError(f"{what} must be finite, got {value}")
    return number


def _weight(value: object, token: Token) -> float:
    return -math.inf if value == -math.inf else _finite(value, f"the weight of {token!r}")


def _token(value: object) -> Token:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise TypeError(f"a token must be an int id or a str, got {_kind_of(value)}")
    if value == "":
        raise ValueError("a token string must not be empty: no token prints nothing")
    if isinstance(value, str):
        _check_unicode(value, "a token string")
    return value


def _check_unicode(text: str, what: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{what} must be valid Unicode, got {text!r:.80}") from None


def _tokens(values: object, kind: str) -> tuple[Token, ...]:
    if isinstance(values, str | Mapping) or not isinstance(values, Iterable):
        raise TypeError(f"{kind} needs a list of tokens, as in ['!'], got {_kind_of(values)}")
    return tuple(dict.fromkeys(_token(value) for value in values))


def _steps(value: object) -> Steps:
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise TypeError(f"steps must be a pair (start, end or None), got {_kind_of(value)}")
    start = as_int(value[0], "the first of steps")
    end = None if value[1] is None else as_int(value[1], "the second of steps")
    if start < 0:
        raise ValueError(f"steps must start at 0 or later, got {start}")
    if end is not None and end <= start:
        raise ValueError(f"steps must end after they start, got ({start}, {end})")
    return start, end


def _check_label(label: object) -> None:
    if label is not None and not isinstance(label, str):
        raise TypeError(f"a label must be a str or None, got {_kind_of(label)}")
