"""How an example ended, and its record in files."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from rnr_kernels.roles.example import Example, example_of
from rnr_kernels.roles.pipeline.typed import made
from rnr_kernels.roles.verdict import Verdict


@dataclass(frozen=True)
class Attempt:
    """One response, and a verdict for each requirement, then for each check of the role."""

    response: str
    verdicts: tuple[Verdict, ...]
    is_cut: bool = False
    """It stops at a limit of tokens, and so is not accepted."""
    note: str = ""
    """What its generator says of it."""

    @property
    def is_accepted(self) -> bool:
        """Whether all requirements are followed."""
        return not self.is_cut and all(self.verdicts)


@dataclass(frozen=True)
class Dropped:
    """A requirement that was taken out of an example before the response, and why."""

    wording: str
    kind: str
    parameters: str
    reason: str


@dataclass(frozen=True)
class Outcome:
    """An example that is finished."""

    index: int
    """Of its source."""
    example: Example
    """As far as it came; with its response if it was accepted."""
    step: str = ""
    """Where it was rejected; "" for one that was accepted."""
    reason: str = ""
    is_plain: bool = False
    attempts: tuple[Attempt, ...] = ()
    """The last is the example's response, if it was accepted."""
    dropped: tuple[Dropped, ...] = ()
    unreadable: Mapping[str, int] = field(default_factory=dict)
    """Replies that were no JSON as described, by step."""
    is_unheard: bool = False
    """It was rejected because a model gave no reply or verdict at all that could be used."""

    @property
    def is_accepted(self) -> bool:
        """Whether it becomes part of the data set."""
        return not self.step

    def as_record(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {
            "index": self.index,
            "step": self.step,
            "reason": self.reason,
            "is_plain": self.is_plain,
            **self._course(),
            "is_unheard": self.is_unheard,
            "example": self.example.as_record(),
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """From `as_record`; ValueError, LookupError or TypeError for what is none."""
        values = dict(record)
        values["example"] = example_of(values["example"], f"outcome {values['index']}")
        values["attempts"] = tuple(
            made(Attempt, {**each, "verdicts": tuple(made(Verdict, v) for v in each["verdicts"])})
            for each in values["attempts"]
        )
        values["dropped"] = tuple(made(Dropped, each) for each in values["dropped"])
        if any(type(count) is not int for count in dict(values["unreadable"]).values()):
            raise TypeError("unreadable replies are counted in whole numbers")
        return made(cls, values)

    def provenance(self, generator: str) -> dict[str, Any]:
        """How the example came about: every response with every verdict."""
        return {
            "source": self.index,
            "generator": "" if self.is_plain else generator,
            **self._course(),
        }

    def _course(self) -> dict[str, Any]:
        return {
            "attempts": [asdict(attempt) for attempt in self.attempts],
            "dropped": [asdict(each) for each in self.dropped],
            "unreadable": dict(sorted(self.unreadable.items())),
        }

    def train_record(self, generator: str) -> dict[str, Any]:
        """A row of the data set. Provenance is JSON text, so that all rows have one schema."""
        return {
            **self.example.as_record(),
            "provenance": json.dumps(self.provenance(generator), ensure_ascii=False),
        }

    def rejected_record(self, where: str, generator: str) -> dict[str, Any]:
        """A line of the file of what is not in the data set."""
        return {
            "source": self.index,
            "where": where,
            "step": self.step,
            "reason": self.reason,
            "example": self.example.as_record(),
            "provenance": self.provenance(generator),
        }
