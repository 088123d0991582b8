"""Several requirements as one constraint on the decoder."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import reduce
from itertools import combinations
from typing import TYPE_CHECKING

from rnr_kernels.automata.automaton import Automaton
from rnr_kernels.automata.costs import is_possible
from rnr_kernels.automata.counts import Count
from rnr_kernels.automata.dfa import TooManyStatesError
from rnr_kernels.automata.languages import Language
from rnr_kernels.automata.tokens import TokenTree
from rnr_kernels.roles.kind import Guarantee
from rnr_kernels.roles.regular import not_blank
from rnr_kernels.roles.requirement import Requirement
from rnr_kernels.rules.kinds import (
    BanTokens,
    EosRamp,
    LogitRule,
    OnlyTokens,
    RuleSet,
    TokenBias,
    TokenIds,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

LARGE = 30.0
"""Nats: against it a token is chosen where there is hardly another."""


@dataclass(frozen=True)
class LeftOut:
    """A requirement that the automaton does not serve, though it may have rules."""

    requirement: Requirement
    reason: str


@dataclass(frozen=True)
class Constraint:
    """What `generate` takes to make responses follow requirements."""

    automaton: Automaton | None
    """Of the requirements that have a language and found room in it."""
    rules: RuleSet
    """Of the others; beside an automaton they only weigh, and forbid nothing."""
    promises: dict[Requirement, Guarantee]
    """What holds of each requirement; those without a constraint are missing."""
    left_out: tuple[LeftOut, ...]


@dataclass(frozen=True)
class _Part:
    """What one requirement, or several together, ask of a text."""

    language: Language
    count: Count | None = None

    def __and__(self, other: "_Part") -> "_Part":
        language, count = self.language & other.language, self.count
        if other.count is not None:
            merged = other.count if count is None else count & other.count
            if merged is None:
                # One count has layers of its own; a second one goes into the states.
                language &= other.count.language()
            else:
                count = merged
        if count is not None:
            count.check_size(language)
        return _Part(language, count)

    @property
    def is_empty(self) -> bool:
        return not is_possible(self.language, self.count)


def constrain(
    requirements: Iterable[Requirement],
    tokenizer: "PreTrainedTokenizerBase",
    *,
    vocab_size: int | None = None,
    eos_token_ids: TokenIds | None = None,
    tree: TokenTree | None = None,
) -> Constraint:
    """The constraint of all requirements together, for the tokens of one model.

    `vocab_size`: the model's (default: the tokenizer's); `eos_token_ids`: the ids that end its
    responses; `tree`: both of these, for whoever makes many constraints. Where the automaton would
    grow too large, requirements whose promise is "likelier" give way, then the largest. ValueError
    that names them where no text follows all requirements, two of them if two are enough, else all;
    and where the vocabulary spells none of the texts.
    """
    asked = tuple(dict.fromkeys(requirements))
    tree = TokenTree.of(tokenizer if tree is None else tree, vocab_size, eos_token_ids)
    parts: dict[Requirement, _Part] = {}
    unserved: dict[Requirement, str] = {}
    for requirement in asked:
        try:
            found = requirement.parts()
        except TooManyStatesError as error:
            unserved[requirement] = str(error)
            continue
        if found is not None:
            parts[requirement] = _Part(*found)
    whole = _Part(not_blank())
    kept: list[Requirement] = []
    for requirement in sorted(parts, key=lambda each: _rank(each, parts[each])):
        try:
            joined = whole & parts[requirement]
        except TooManyStatesError as error:
            unserved[requirement] = str(error)
            continue
        if requirement.guarantee != "certain" and joined.is_empty:
            # What makes it likelier leaves out texts that follow it all the same.
            unserved[requirement] = "what makes it likelier would break others"
            continue
        kept.append(requirement)
        whole = joined
        if whole.language.is_empty:
            break
    if whole.is_empty:
        raise ValueError(_incompatible({each: parts[each] for each in kept}))
    try:
        automaton = Automaton.compile(whole.language, tree, whole.count) if kept else None
    except ValueError as error:
        raise ValueError(f"{', '.join(map(repr, kept))}: {error}") from None
    promises: dict[Requirement, Guarantee] = {each: each.guarantee or "likelier" for each in kept}
    rules, left_out = RuleSet(), list[LeftOut]()
    for requirement in (each for each in asked if each not in kept):
        reason = unserved.get(requirement, "no automaton tells which texts follow it")
        own = requirement.rules(tokenizer)
        if own is not None:
            rules += own if automaton is None else yielding(own)
            promises[requirement] = "likelier"
        if own is None or requirement in unserved:
            left_out.append(LeftOut(requirement, reason))
    return Constraint(automaton, rules, promises, tuple(left_out))


def yielding(rules: RuleSet) -> RuleSet:
    """The rules with large weights in place of bans, and without "only these" and hard stops.

    An automaton may leave a single token at a step, and no rule must forbid that one.
    """
    soft: list[LogitRule] = []
    for rule in rules:
        if isinstance(rule, BanTokens):
            weights = dict.fromkeys(rule.tokens, -LARGE)
            soft.append(TokenBias(weights, rule.steps, label=rule.label))
        elif isinstance(rule, EosRamp):
            soft.append(replace(rule, force_at=None))
        elif not isinstance(rule, OnlyTokens):
            soft.append(rule)
    return RuleSet(soft)


def _rank(requirement: Requirement, part: _Part) -> tuple[bool, int]:
    """Who comes first when there is not room for all."""
    return requirement.guarantee != "certain", part.language.num_states


def _incompatible(parts: dict[Requirement, _Part]) -> str:
    """The message for requirements of which no text follows all."""
    for size in (1, 2):
        for some in combinations(parts, size):
            try:
                together = reduce(_Part.__and__, (parts[each] for each in some), _Part(not_blank()))
            except TooManyStatesError:
                continue
            if together.is_empty:
                return f"no text follows {' and '.join(map(repr, some))}; leave one out"
    return f"no text follows all of {', '.join(map(repr, parts))}; leave some out"
