"""compile_rules: from what a user writes to a RuleProgram."""

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from rnr_kernels.layout import MAX_CLASSES, NO_KNOT
from rnr_kernels.rules.kinds import (
    BanTokens,
    EosRamp,
    LogitRule,
    OnlyTokens,
    RuleSet,
    ScoreVector,
    Steps,
    Token,
    TokenBias,
    TokenIds,
    UsedTokenPenalty,
    as_int,
    as_token_ids,
)
from rnr_kernels.rules.program import Capacity, Knot, LoweredRules, RuleProgram, Scope
from rnr_kernels.rules.vocabulary import Vocabulary

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FLOAT32_MAX = torch.finfo(torch.float32).max


@dataclass(frozen=True)
class _Line:
    """`value + slope * (t - start)` while start <= t < end."""

    start: int
    end: int | None
    value: float
    slope: float = 0.0

    def __post_init__(self) -> None:
        if self.value != -math.inf:
            _check_float32(self.value, "a weight")
        _check_float32(self.slope, "a weight per step")
        for step in (self.start, self.end or 0):
            if step >= NO_KNOT:
                raise ValueError(f"a step must be below {NO_KNOT}, got {step}")

    def covers(self, step: int) -> bool:
        return self.start <= step and (self.end is None or step < self.end)


@dataclass(frozen=True)
class _Atom:
    """One line on a set of tokens, or on all others (`complement`)."""

    tokens: frozenset[int]
    complement: bool
    line: _Line


@dataclass(frozen=True)
class _Resolver:
    """Turns the tokens of one rule set into ids."""

    vocabulary: Vocabulary | None
    vocab_size: int
    eos_token_ids: tuple[int, ...]
    missing: list[str]
    """Filled with the skipped strings."""

    def token_id(self, token: Token) -> int:
        if self.vocabulary is not None:
            return self.vocabulary.resolve(token, vocab_size=self.vocab_size)
        if isinstance(token, str):
            raise ValueError(
                f"token {token!r} is a string: pass a tokenizer, or the token's id in its place"
            )
        if not 0 <= token < self.vocab_size:
            raise ValueError(f"a token id must be in [0, {self.vocab_size}), got {token}")
        return token

    def token_ids(self, tokens: Sequence[Token]) -> frozenset[int]:
        return frozenset(self.token_id(token) for token in tokens)

    def weights(self, rule: TokenBias) -> dict[int, float]:
        """Token id to weight; two names of one token must agree."""
        weights: dict[int, float] = {}
        for token, weight in rule.weights.items():
            if rule.skip_missing and isinstance(token, str) and self._lacks(token):
                self.missing.append(token)
                continue
            token_id = self.token_id(token)
            if weights.setdefault(token_id, weight) != weight:
                raise ValueError(
                    f"{token!r} is token {token_id}, which the rule already gives "
                    f"{weights[token_id]}, not {weight}; name it once"
                )
        return weights

    def _lacks(self, token: str) -> bool:
        return self.vocabulary is not None and self.vocabulary.find(token) is None


def compile_rules(
    rule_sets: RuleSet | Sequence[RuleSet],
    tokenizer: "PreTrainedTokenizerBase | None",
    vocab_size: int | None = None,
    *,
    eos_token_ids: TokenIds | None = None,
    capacity: Capacity | None = None,
    device: torch.device | str | None = None,
) -> RuleProgram:
    """Compiles rule sets; program id i is `rule_sets[i]`.

    `vocab_size` is the number of logits that count (default: the tokenizer's; a model may have
    more rows). `eos_token_ids` (default: the tokenizer's) are what an EosRamp acts on: pass a
    model's generation_config.eos_token_id where it has several. `capacity` leaves room for programs
    that are added later (default: none). Without a tokenizer every token must be an id.

    Raises ValueError for a token that is not in the vocabulary, a ramp without EOS ids, rules that
    allow no token at some step, more than 255 classes with schedules, or a capacity too small, and
    TypeError for `vocab_size` or `eos_token_ids` that are no ints.
    """
    sets = [rule_sets] if isinstance(rule_sets, RuleSet) else list(rule_sets)
    for rules in sets:
        if not isinstance(rules, RuleSet):
            raise TypeError(
                f"rule_sets must be a RuleSet or a list of them, got {type(rules).__name__}; "
                "load_rules reads one from a file"
            )
    vocabulary = None if tokenizer is None else Vocabulary.of(tokenizer)
    if vocab_size is None:
        if vocabulary is None:
            raise ValueError("without a tokenizer compile_rules needs vocab_size")
        vocab_size = vocabulary.size
    if as_int(vocab_size, "vocab_size") < 1:
        raise ValueError(f"vocab_size must be at least 1, got {vocab_size}")
    if eos_token_ids is None:
        eos_token_ids = () if vocabulary is None else vocabulary.eos_token_ids
    eos = as_token_ids(eos_token_ids)
    outside = [token for token in eos if not 0 <= token < vocab_size]
    if outside:
        raise ValueError(f"eos_token_ids must be in [0, {vocab_size}), got {outside[0]}")

    lowered = []
    for number, rules in enumerate(sets, start=1):
        title = f"rule set {number if rules.name is None else repr(rules.name)}"
        resolver = _Resolver(vocabulary, vocab_size, eos, [])
        lowered.append(_lower(rules, resolver, title))
        if resolver.missing:
            named = ", ".join(map(repr, resolver.missing))
            warnings.warn(
                f"{title}: this tokenizer has no single token for {named}; these are left out",
                stacklevel=2,
            )
    program = RuleProgram.allocate(vocab_size, capacity or Capacity.of(lowered), device)
    program.write(lowered)
    return program


@contextmanager
def _errors_name(where: str) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _lower(rules: RuleSet, resolver: _Resolver, title: str) -> LoweredRules:
    atoms: list[_Atom] = []
    vectors: list[Tensor] = []
    penalty = 0.0
    scope: Scope = "none"
    for number, rule in enumerate(rules, start=1):
        label = "" if rule.label is None else f" {rule.label!r}"
        with _errors_name(f"{title}, rule {number} ({type(rule).__name__}{label})"):
            atoms += _atoms(rule, resolver)
            if isinstance(rule, UsedTokenPenalty):
                penalty, scope = rule.penalty, rule.scope
                _check_float32(penalty, "a penalty")
            if isinstance(rule, ScoreVector):
                vectors.append(_checked_vector(rule, resolver.vocab_size))
    with _errors_name(title):
        return _joined(atoms, vectors, penalty, scope, rules.name, resolver.vocab_size)


def _joined(
    atoms: list[_Atom],
    vectors: list[Tensor],
    penalty: float,
    scope: Scope,
    name: str | None,
    vocab_size: int,
) -> LoweredRules:
    token_class, schedule, overflow = _classes(atoms, vocab_size)
    if overflow is not None:
        vectors = [overflow, *vectors]
    vector = None
    if vectors:
        total = torch.stack(vectors).sum(0)
        largest = total.where(total > -math.inf, 0.0).abs().max().item()
        _check_float32(largest, "the sum of score vectors")
        vector = total.float()
    lowered = LoweredRules(token_class, schedule, vector, penalty, scope, name)
    _check_something_is_allowed(lowered)
    return lowered


def _atoms(rule: LogitRule, resolver: _Resolver) -> list[_Atom]:
    if isinstance(rule, TokenBias):
        groups: dict[float, set[int]] = {}
        for token_id, weight in resolver.weights(rule).items():
            groups.setdefault(weight, set()).add(token_id)
        return [
            _Atom(frozenset(tokens), False, _constant(weight, rule.steps))
            for weight, tokens in groups.items()
        ]
    if isinstance(rule, BanTokens | OnlyTokens):
        tokens = resolver.token_ids(rule.tokens)
        return [_Atom(tokens, isinstance(rule, OnlyTokens), _constant(-math.inf, rule.steps))]
    if isinstance(rule, EosRamp):
        if not resolver.eos_token_ids:
            raise ValueError(
                "EosRamp needs an end-of-sequence token and the tokenizer has none; "
                "pass eos_token_ids=[...]"
            )
        eos = frozenset(resolver.eos_token_ids)
        ramp = _Line(0, rule.until, 0.0, rule.weight / rule.over)
        atoms = [_Atom(eos, False, ramp)]
        if rule.force_at is not None:
            atoms.append(_Atom(eos, True, _Line(rule.force_at, None, -math.inf)))
        return atoms
    return []


def _constant(weight: float, steps: Steps) -> _Line:
    return _Line(steps[0], steps[1], weight)


def _checked_vector(rule: ScoreVector, vocab_size: int) -> Tensor:
    if len(rule.scores) != vocab_size:
        raise ValueError(
            f"a ScoreVector must have vocab_size={vocab_size} scores, got {len(rule.scores)}"
        )
    return rule.scores.double()


def _classes(
    atoms: list[_Atom], vocab_size: int
) -> tuple[Tensor, tuple[tuple[Knot, ...], ...], Tensor | None]:
    """Class codes uint8 [V], the classes' knots, and what overflows as a float64 vector [V].

    Tokens named by the same atoms form a class; classes are numbered by their lowest token, so
    rule sets that differ in numbers alone have equal codes and share a class map.
    """
    everywhere = tuple(index for index, atom in enumerate(atoms) if atom.complement)
    touched: dict[int, list[int]] = {}
    for index, atom in enumerate(atoms):
        for token in atom.tokens:
            touched.setdefault(token, [])
            if not atom.complement:
                touched[token].append(index)
    members: dict[tuple[int, ...], list[int]] = {}
    for token in sorted(touched):
        covering = [i for i in everywhere if token not in atoms[i].tokens]
        members.setdefault(tuple(sorted(touched[token] + covering)), []).append(token)

    token_class = torch.zeros(vocab_size, dtype=torch.uint8)
    lowest = {signature: tokens[0] for signature, tokens in members.items()}
    if everywhere and len(touched) < vocab_size:
        untouched = next(token for token in range(vocab_size) if token not in touched)
        members.setdefault(everywhere, [])
        lowest[everywhere] = min(untouched, lowest.get(everywhere, untouched))
    lowest.pop((), None)
    signatures = sorted(lowest, key=lowest.__getitem__)
    classed, rest = _fit_into_codes(signatures, members, atoms)

    codes = {signature: code for code, signature in enumerate(classed, start=1)}
    if everywhere in codes:
        token_class.fill_(codes[everywhere])
    for signature, tokens in members.items():
        token_class[tokens] = codes.get(signature, 0)
    schedule = tuple(_knots([atoms[i].line for i in signature]) for signature in classed)
    if not rest:
        return token_class, schedule, None
    vector = torch.zeros(vocab_size, dtype=torch.float64)
    for signature in rest:
        vector[members[signature]] = _knots([atoms[i].line for i in signature])[0].value
    return token_class, schedule, vector


def _fit_into_codes(
    signatures: list[tuple[int, ...]],
    members: Mapping[tuple[int, ...], list[int]],
    atoms: list[_Atom],
) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
    """Which signatures get a class code, and which constant ones move to the score vector."""
    if len(signatures) <= MAX_CLASSES:
        return signatures, []

    def must_be_class(signature: tuple[int, ...]) -> bool:
        lines = [atoms[i].line for i in signature]
        constant = all(line.start == 0 and line.end is None and line.slope == 0 for line in lines)
        return not constant or any(atoms[i].complement for i in signature)

    needed = [signature for signature in signatures if must_be_class(signature)]
    if len(needed) > MAX_CLASSES:
        raise ValueError(
            f"a rule set can give at most {MAX_CLASSES} groups of tokens a schedule of their own, "
            f"got {len(needed)}; make some weights equal or constant over all steps"
        )
    constant = [signature for signature in signatures if not must_be_class(signature)]
    constant.sort(key=lambda signature: -len(members[signature]))
    chosen = {*needed, *constant[: MAX_CLASSES - len(needed)]}
    classed = [signature for signature in signatures if signature in chosen]
    return classed, [signature for signature in signatures if signature not in chosen]


def _knots(lines: list[_Line]) -> tuple[Knot, ...]:
    """The union of the lines' starts and ends, values and slopes re-summed in float64 at each."""
    starts = sorted({line.start for line in lines} | {e for line in lines if (e := line.end)})
    knots = []
    for start, end in zip(starts, [*starts[1:], NO_KNOT], strict=True):
        active = [line for line in lines if line.covers(start)]
        value = math.fsum(line.value + line.slope * (start - line.start) for line in active)
        slope = math.fsum(line.slope for line in active)
        if value == -math.inf:
            slope = 0.0
        else:
            _check_float32(value, f"the sum of weights at step {start}")
            _check_float32(value + slope * (end - start), f"the sum of weights by step {end}")
        knots.append(Knot(start, value, slope))
    return tuple(knots)


def _check_float32(number: float, what: str) -> None:
    if not abs(number) <= FLOAT32_MAX:
        raise ValueError(f"{what} must fit in float32, got {number:g}; make it smaller")


def _score(knots: tuple[Knot, ...], step: int) -> float:
    current = [knot for knot in knots if knot.start <= step]
    return current[-1].value if current else 0.0


def _check_something_is_allowed(rules: LoweredRules) -> None:
    """ValueError if at some knot every token is banned; between knots nothing changes."""
    open_tokens = rules.token_class
    if rules.score_vector is not None:
        open_tokens = open_tokens[rules.score_vector > -math.inf]
    counts = open_tokens.long().bincount(minlength=1).tolist()
    schedules = ((), *rules.schedule)
    occupied = [schedule for schedule, count in zip(schedules, counts, strict=False) if count]
    steps = sorted({0} | {knot.start for knots in rules.schedule for knot in knots})
    for step in steps:
        if not any(_score(knots, step) > -math.inf for knots in occupied):
            raise ValueError(
                f"the rules allow no token at step {step}; "
                "check BanTokens, OnlyTokens and force_at against each other"
            )
