"""What every kind of requirement provides."""

import random
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from rnr_kernels.roles.amounts import Interval, disjoint, listed
from rnr_kernels.roles.clashes import clash
from rnr_kernels.roles.parameters import parameter_of
from rnr_kernels.roles.text import ends_with, shown, starts_with
from rnr_kernels.roles.verdict import Verdict

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from rnr_kernels.automata.counts import Count
    from rnr_kernels.automata.languages import Language
    from rnr_kernels.rules.kinds import RuleSet

Guarantee = Literal["certain", "likelier"]
"""What a constraint promises of a response under it: it passes the strict check, or that is
likelier than without."""


@dataclass(frozen=True)
class Needed:
    """Texts one of which a response contains."""

    texts: tuple[str, ...]
    any_case: bool = True
    """Whether the text may come in another letter case."""


@dataclass(frozen=True)
class Kind(ABC):
    """A kind of requirement with its parameters, which are the fields of the dataclass.

    Instances are checked when they are made: ValueError names the kind, the parameter, its range
    and what came.
    """

    name: ClassVar[str]
    """IFEval's name, such as "punctuation:no_comma", or one of ours."""
    wordings: ClassVar[tuple[str, ...]]
    """Sentences for a system prompt, with the parameters' names in braces."""
    guarantee: ClassVar[Guarantee | None] = None
    """What its constraint promises; None for a kind without one."""
    is_judged: ClassVar[bool] = False
    """Whether a model has to judge it, because no program can."""

    def __post_init__(self) -> None:
        for declared in fields(self):
            where = f"{self.name}: {declared.name}"
            value = parameter_of(declared).check(where, getattr(self, declared.name))
            object.__setattr__(self, declared.name, value)

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, Any]) -> Self:
        """ValueError for a parameter that is missing or that the kind does not have."""
        names = [declared.name for declared in fields(cls)]
        for name in parameters:
            if name not in names:
                has = ", ".join(names) or "none"
                raise ValueError(f"{cls.name} has no parameter {name!r}; it has {has}")
        for name in names:
            if name not in parameters:
                raise ValueError(f"{cls.name} needs the parameter {name!r}")
        return cls(**parameters)

    @classmethod
    def draw(cls, rng: random.Random) -> Self:
        """The kind with parameters drawn at random."""
        return cls(**{declared.name: parameter_of(declared).draw(rng) for declared in fields(cls)})

    def parameters(self) -> dict[str, Any]:
        """The parameters by name."""
        return {declared.name: getattr(self, declared.name) for declared in fields(self)}

    def words(self) -> dict[str, str]:
        """The parameters as they stand in a wording."""
        return {
            name: listed(value, "and") if isinstance(value, tuple) else str(value)
            for name, value in self.parameters().items()
        }

    @abstractmethod
    def check(self, response: str) -> Verdict:
        """The strict verdict. Total (any str) and deterministic."""

    def needs(self) -> tuple[Needed, ...]:
        """Texts that every response that follows contains."""
        return ()

    def refuses(self, text: str, *, any_case: bool) -> bool:
        """Whether no response that follows contains `text` (in any case if `any_case`)."""
        return False

    def allows_answer(self, answer: str) -> bool:
        """Whether a few words may be the whole response."""
        return bool(self.check(answer))

    def bounds(self) -> dict[str, Interval]:
        """Between which counts of what a response that follows has: {"words": (300, None)}."""
        return {}

    def opening(self) -> str | None:
        """What every response that follows starts with: lower case, no blanks or quotes around."""
        return None

    def closing(self) -> str | None:
        """What it ends with, likewise."""
        return None

    def conflict(self, other: "Kind") -> str | None:
        """Why no sensible response follows both, or None. Asked in both directions."""
        for needed in other.needs():
            if all(self.refuses(text, any_case=needed.any_case) for text in needed.texts):
                texts = " or ".join(shown(text) for text in needed.texts)
                return f"{self.name} rules out {texts}, which {other.name} needs"
        for mine, theirs, is_part, verb in (
            (self.opening(), other.opening(), starts_with, "start"),
            (self.closing(), other.closing(), ends_with, "end"),
        ):
            if mine and theirs and not is_part(mine, theirs) and not is_part(theirs, mine):
                return f"a response cannot {verb} with both {shown(mine)} and {shown(theirs)}"
        return disjoint(self.bounds(), other.bounds()) or clash(self.name, other.name)

    def accepted(self) -> "Language | None":
        """With `count`, the texts that pass the check, or a part of them that misses none to speak
        of; what it misses stands in a docstring of the kind's own. None where no automaton tells.
        """
        return None

    def count(self) -> "Count | None":
        """What a text of `accepted` may have how often besides, for kinds that count far."""
        return None

    def rules(self, tokenizer: "PreTrainedTokenizerBase") -> "RuleSet | None":
        """Rules over logits that serve this requirement, or None."""
        return None
