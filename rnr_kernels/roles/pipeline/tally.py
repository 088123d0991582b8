"""What became of a build's instructions, in numbers."""

from collections import Counter
from dataclasses import dataclass, field

from rnr_kernels.roles.pipeline.outcome import Outcome

DUPLICATE = "duplicate"
"""The step of what is left out as another's near duplicate."""


@dataclass
class Passes:
    """Of responses, or requirements: how many were followed, of how many."""

    passed: int = 0
    total: int = 0

    def count(self, passed: bool) -> None:
        """One more."""
        self.passed += passed
        self.total += 1

    @property
    def rate(self) -> float:
        """From 0 to 1; NaN of none."""
        return self.passed / self.total if self.total else float("nan")


@dataclass
class Tally:
    """Counts over the outcomes that were given to `count`."""

    num_sources: int = 0
    num_plain: int = 0
    num_accepted: int = 0
    """Without plain ones."""
    num_declined: int = 0
    """Those among them in which the role declines the question."""
    rejected: Counter[str] = field(default_factory=Counter)
    """By step."""
    num_unheard: int = 0
    """Of the rejected, those for which a model gave nothing that could be used."""
    dropped: int = 0
    """Requirements that were taken out before the response, because of a conflict."""
    unreadable: Counter[str] = field(default_factory=Counter)
    """Replies that were no JSON as described, by step."""
    rounds: Counter[int] = field(default_factory=Counter)
    """Accepted examples by repair rounds."""
    first: Passes = field(default_factory=Passes)
    """First responses that follow all requirements."""
    last: Passes = field(default_factory=Passes)
    """The same after repair."""
    by_number: dict[int, Passes] = field(default_factory=dict)
    """First responses that follow all, by how many requirements there are."""
    by_kind: dict[str, Passes] = field(default_factory=dict)
    """Requirements that the first response follows, by kind."""
    kept_by_number: Counter[int] = field(default_factory=Counter)
    """Accepted examples by how many requirements they have."""
    kept_by_kind: Counter[str] = field(default_factory=Counter)
    """Requirements of accepted examples by kind."""

    @property
    def num_rejected(self) -> int:
        """At all steps, duplicates among them."""
        return sum(self.rejected.values())

    @property
    def num_examples(self) -> int:
        """Rows of the data set."""
        return self.num_accepted + self.num_plain

    @property
    def all_unheard(self) -> bool:
        """Whether examples were to be made, and for each of them a model gave nothing of use."""
        num_failed = self.num_rejected - self.rejected[DUPLICATE]
        return self.num_accepted == 0 and 0 < num_failed == self.num_unheard

    @property
    def yield_(self) -> Passes:
        """Accepted examples, of all that were to be made."""
        return Passes(self.num_accepted, self.num_accepted + self.num_rejected)

    def count(self, outcome: Outcome) -> None:
        """One more instruction."""
        self.num_sources += 1
        self.dropped += len(outcome.dropped)
        self.unreadable.update(outcome.unreadable)
        if outcome.attempts:
            self._count_attempts(outcome)
        if not outcome.is_accepted:
            self.rejected[outcome.step] += 1
            self.num_unheard += outcome.is_unheard
        elif outcome.is_plain:
            self.num_plain += 1
        else:
            self.num_accepted += 1
            self.num_declined += not outcome.example.in_scope
            self.rounds[len(outcome.attempts) - 1] += 1
            self.kept_by_number[len(outcome.example.requirements)] += 1
            self.kept_by_kind.update(q.requirement.kind for q in outcome.example.requirements)

    def _count_attempts(self, outcome: Outcome) -> None:
        first, last = outcome.attempts[0], outcome.attempts[-1]
        stated = outcome.example.requirements
        self.first.count(first.is_accepted)
        self.last.count(last.is_accepted)
        self.by_number.setdefault(len(stated), Passes()).count(first.is_accepted)
        for each, verdict in zip(stated, first.verdicts, strict=False):
            self.by_kind.setdefault(each.requirement.kind, Passes()).count(verdict.followed)
