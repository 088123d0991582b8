"""A requirement: a sentence of a system prompt with a check and, where there is one, a constraint.

Wang et al. 2024 (RNR) call these rules; in this package a rule changes logits.
"""

import json
import random
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from itertools import islice
from typing import TYPE_CHECKING, Any, Self

from rnr_kernels.automata.automaton import Automaton
from rnr_kernels.automata.counts import Count
from rnr_kernels.automata.languages import Language
from rnr_kernels.automata.tokens import TokenTree
from rnr_kernels.roles.kind import Guarantee, Kind
from rnr_kernels.roles.kinds import DRAWN, KINDS
from rnr_kernels.roles.loose import loose_variants
from rnr_kernels.roles.regular import not_blank
from rnr_kernels.roles.verdict import Verdict, failed
from rnr_kernels.rules.kinds import TokenIds

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from rnr_kernels.rules.kinds import RuleSet


def kind_named(name: str) -> type[Kind]:
    """The kind of that name; ValueError for none of `KINDS`."""
    if name not in KINDS:
        nearest = _nearest(name)
        hint = f"did you mean {nearest}? " if nearest else ""
        raise ValueError(f"unknown kind of requirement {name!r}; {hint}known: {', '.join(KINDS)}")
    return KINDS[name]


def _nearest(name: str) -> str | None:
    """The kind whose name is most like this one, with its family or without; None for none."""
    of_name = {kind.rpartition(":")[2]: kind for kind in KINDS} | {kind: kind for kind in KINDS}
    for wanted in (name, name.rpartition(":")[2]):
        if found := get_close_matches(wanted, of_name, n=1):
            return of_name[found[0]]
    return None


class Requirement:
    """One requirement, by the name of its kind and the kind's parameters.

        Requirement("length_constraints:number_words", relation="at least", num_words=300)

    Immutable and hashable. Raises ValueError for a kind that is not in `KINDS`, for a parameter
    that is missing, unknown or out of its range.
    """

    __slots__ = ("_kind",)

    def __init__(self, kind: str, /, **parameters: Any) -> None:
        self._kind = kind_named(kind).from_parameters(parameters)

    @classmethod
    def draw(cls, seed: int | random.Random, kinds: Iterable[str] | None = None) -> Self:
        """A requirement of a random kind, of `DRAWN` or of `kinds`, with random parameters."""
        rng = seed if isinstance(seed, random.Random) else random.Random(seed)
        names = list(DRAWN if kinds is None else kinds)
        drawn = kind_named(rng.choice(names)).draw(rng)
        return cls(drawn.name, **drawn.parameters())

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """From {"kind": ..., "parameters": {...}}; parameters may be JSON text, as in Parquet."""
        if not isinstance(record, Mapping) or not isinstance(record.get("kind"), str):
            raise ValueError(f"a requirement must be an object with a 'kind', got {record!r:.80}")
        parameters = record.get("parameters")
        if parameters is None:
            parameters = {}
        if isinstance(parameters, str):
            try:
                parameters = json.loads(parameters)
            except json.JSONDecodeError as error:
                raise ValueError(
                    f"{record['kind']}: its parameters are not JSON: {error.msg}"
                ) from None
        if not isinstance(parameters, Mapping):
            raise ValueError(
                f"{record['kind']}: parameters must be an object, got {parameters!r:.80}"
            )
        return cls(record["kind"], **parameters)

    def as_record(self) -> dict[str, Any]:
        """What `from_record` reads; parameters as JSON text, so that every table has one schema."""
        return {"kind": self.kind, "parameters": json.dumps(self.parameters, ensure_ascii=False)}

    @property
    def kind(self) -> str:
        """Its kind's name."""
        return self._kind.name

    @property
    def parameters(self) -> dict[str, Any]:
        """Its parameters by name."""
        return self._kind.parameters()

    @property
    def guarantee(self) -> Guarantee | None:
        """What its constraint promises, None without one."""
        return self._kind.guarantee

    @property
    def is_judged(self) -> bool:
        """Whether a model has to judge it."""
        return self._kind.is_judged

    def wording(self, seed: int = 0) -> str:
        """A sentence for a system prompt, one of the kind's several."""
        chosen = random.Random(seed).choice(self._kind.wordings)
        return chosen.format(**self._kind.words())

    def check(self, response: str, *, loose: bool = False) -> Verdict:
        """Whether a response follows it; an empty one follows nothing.

        `loose` is IFEval's: it is enough if the response follows without its first or last line, or
        without asterisks. ValueError for a kind that a model has to judge.
        """
        if not isinstance(response, str):
            raise TypeError(f"a response must be a str, got {type(response).__name__}")
        if not response.strip():
            return failed("the response is empty")
        verdict = self._kind.check(response)
        if verdict or not loose:
            return verdict
        for variant in islice(loose_variants(response), 1, None):
            if variant.strip() and (lenient := self._kind.check(variant)):
                return lenient
        return verdict

    def conflict(self, other: "Requirement") -> str | None:
        """Why no sensible response follows both, or None."""
        return self._kind.conflict(other._kind) or other._kind.conflict(self._kind)

    def language(self) -> Language | None:
        """Texts that pass the strict check, all that a sensible response is among; None where no
        automaton tells them from others.

        ValueError where the automaton grows too large, as for 10,000 placeholders.
        """
        parts = self.parts()
        if parts is None:
            return None
        language, count = parts
        return language if count is None else language & count.language()

    def parts(self) -> tuple[Language, Count | None] | None:
        """`language` in two, a count apart, as automata keep counts apart."""
        accepted = self._kind.accepted()
        return None if accepted is None else (accepted & not_blank(), self._kind.count())

    def automaton(
        self,
        tokenizer: "PreTrainedTokenizerBase | TokenTree",
        *,
        vocab_size: int | None = None,
        eos_token_ids: TokenIds | None = None,
    ) -> Automaton | None:
        """What keeps a response within `language`, for `generate(automata=...)`; None without one.

        `vocab_size`: the model's (default: the tokenizer's); `eos_token_ids` as for the model.
        """
        parts = self.parts()
        if parts is None:
            return None
        language, count = parts
        tree = TokenTree.of(tokenizer, vocab_size, eos_token_ids)
        return Automaton.compile(language, tree, count)

    def rules(self, tokenizer: "PreTrainedTokenizerBase") -> "RuleSet | None":
        """Rules over logits that serve it, or None."""
        return self._kind.rules(tokenizer)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Requirement) and self._kind == other._kind

    def __hash__(self) -> int:
        return hash(self._kind)

    def __repr__(self) -> str:
        given = "".join(f", {name}={value!r}" for name, value in self.parameters.items())
        return f"Requirement({self.kind!r}{given})"
