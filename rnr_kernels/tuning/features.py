"""Features of a fitted rule adapter: what a single weight acts on, and the rule it becomes.

The rule adapter p_base(v) * exp(sum_k w_k f_k(v, t)) / Z (Hewitt et al. 2024, section 6) is an
exponential family with the base model as its reference measure; a feature is one f_k.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from rnr_kernels.rules.kinds import (
    EosRamp,
    LogitRule,
    RuleSet,
    Steps,
    Token,
    TokenBias,
    UsedTokenPenalty,
)
from rnr_kernels.rules.vocabulary import Vocabulary

Scope = Literal["response", "prompt+response"]
Family = Literal["token", "opener", "eos", "used"]

FAMILIES: tuple[Family, ...] = ("token", "opener", "eos", "used")
"""A token at every step; the first token; EOS by position; tokens used already."""

OPENING: Steps = (0, 1)
ALWAYS: Steps = (0, None)


@dataclass(frozen=True)
class Feature:
    """1 on some tokens while `steps[0] <= t < steps[1]`, with `over` t / over; elsewhere 0."""

    family: Family
    token_ids: tuple[int, ...] = ()
    """Empty for the family "used", which is 1 on every token used so far."""
    steps: Steps = ALWAYS
    over: int | None = None

    def shape(self, position: Tensor) -> Tensor:
        """float64, like int64 `position`: its value at each t."""
        start, end = self.steps
        inside = (position >= start) & (position < (end if end is not None else torch.inf))
        return inside.double() if self.over is None else inside * (position.double() / self.over)

    @property
    def when(self) -> str:
        """In words, for tables."""
        start, end = self.steps
        if self.over is not None:
            return f"t / {self.over}"
        if end is None:
            return "every step" if start == 0 else f"from step {start} on"
        return f"step {start}" if end == start + 1 else f"steps {start} to {end - 1}"


def candidate_features(
    token_ids: Sequence[int],
    eos_token_ids: Sequence[int],
    last_step: int,
    families: Collection[str],
) -> list[Feature]:
    """The features that compete for a weight, on tokens and on EOS by position.

    EOS has a constant, a ramp t / last_step, and for 1, 2, 4, ... up to `last_step` a bias from
    there on and one up to the next of them.
    """
    eos = tuple(eos_token_ids)
    others = [token for token in token_ids if token not in eos]
    found = []
    if "token" in families:
        found += [Feature("token", (token,)) for token in others]
    if "opener" in families:
        found += [Feature("opener", (token,), OPENING) for token in others]
    if "eos" in families:
        found.append(Feature("eos", eos))
        if last_step > 0:
            found.append(Feature("eos", eos, over=last_step))
        start, end = 0, 1
        while start <= last_step:
            found.append(Feature("eos", eos, (start, end)))
            if start > 0:
                found.append(Feature("eos", eos, (start, None)))
            start, end = end, 2 * end
    if "used" in families:
        found.append(Feature("used"))
    return found


def rules_of(
    weights: Sequence[tuple[Feature, float]],
    vocabulary: Vocabulary,
    *,
    scope: Scope,
    name: str | None = None,
) -> RuleSet:
    """The weights as an ordinary rule set; its rules are labelled with their families."""
    tables: dict[tuple[Family, Steps], dict[Token, float]] = {}
    rest: list[LogitRule] = []
    for feature, weight in weights:
        if feature.family == "used":
            rest.append(UsedTokenPenalty(-weight, scope=scope, label="used"))
        elif feature.over is not None:
            rest.append(EosRamp(weight, over=feature.over, label="eos"))
        else:
            table = tables.setdefault((feature.family, feature.steps), {})
            table.update({token_name(token, vocabulary): weight for token in feature.token_ids})
    biases = [
        TokenBias(
            dict(sorted(table.items(), key=lambda item: -abs(item[1]))), steps=steps, label=family
        )
        for (family, steps), table in sorted(
            tables.items(), key=lambda item: (FAMILIES.index(item[0][0]), item[0][1][0])
        )
    ]
    return RuleSet([*biases, *rest], name=name)


def token_name(token_id: int, vocabulary: Vocabulary) -> Token:
    """What the token prints, if that names this token and no other; else its id."""
    try:
        text = vocabulary.printed(token_id).decode("utf-8")
    except UnicodeDecodeError:
        return token_id
    return text if text and vocabulary.find(text) == token_id else token_id
