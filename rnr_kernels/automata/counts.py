"""Counts of things in a text, kept beside an automaton instead of in its states.

A count of up to 400 words would multiply an automaton's states by 400. Beside it, only the costs of
completions have a layer for each number; tables and masks are shared.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from rnr_kernels.automata.characters import Characters
from rnr_kernels.automata.dfa import DEAD, Bools, Dfa, Ints, TooManyStatesError, refined
from rnr_kernels.automata.languages import Language, characters, concatenation

FEW_LAYERS = 16

MAX_COSTS = 4_000_000
"""States times layers up to which costs are worked out: some seconds, and 16 MB."""


@dataclass(frozen=True)
class Count:
    r"""How many things a text may have: characters of a set, or runs of them that stand alone.

    Runs of "\w" are words. Without `high` there is no most.
    """

    of: Characters
    low: int = 0
    high: int | None = None
    in_runs: bool = True

    def __and__(self, other: "Count") -> "Count | None":
        """Both limits in one; None where other things are counted."""
        if (self.of, self.in_runs) != (other.of, other.in_runs):
            return None
        highs = [each.high for each in (self, other) if each.high is not None]
        return Count(self.of, max(self.low, other.low), min(highs, default=None), self.in_runs)

    @property
    def is_empty(self) -> bool:
        """Whether no number is allowed."""
        return self.high is not None and self.high < self.low

    def check_size(self, language: Language) -> None:
        """TooManyStatesError where so many things are too much to count for a language.

        Without a least number, the last few layers are nearly always enough (`Layers.ever_more`).
        """
        has_all_layers = self.low > 0 or self.high is None
        most = self.low if self.high is None else self.high + 1
        size = language.num_states * (most + 1)
        if has_all_layers and size > MAX_COSTS:
            raise TooManyStatesError(
                f"{most:,} things to count in {language.num_states:,} states are more than "
                f"{MAX_COSTS:,} costs to work out; combine fewer requirements, or lower the count"
            )

    def language(self) -> Language:
        """The same limits in an automaton's states, for comparison and for small numbers."""
        inside, outside = characters(self.of), characters(~self.of)
        if not self.in_runs:
            return (outside.repeated() + inside).repeated(self.low, self.high) + outside.repeated()
        thing = inside.repeated(1)
        if self.high is not None and self.high == 0:
            return outside.repeated()
        # All but the last thing are followed by something else.
        high = None if self.high is None else self.high - 1
        first = (thing + outside.repeated(1)).repeated(max(self.low - 1, 0), high)
        some = concatenation(outside.repeated(), first, thing, outside.repeated())
        return some if self.low else some | outside.repeated()


@dataclass(frozen=True)
class Layers:
    """The numbers that costs are kept for, one after the other; the last stands for all above."""

    accepts: Bools
    """[layers] Whether a text with so many things may end."""
    is_open: bool
    """Whether the last layer goes on: more things than it says are allowed."""
    skipped: int = 0
    """The number of layer 0, which stands for all below too."""

    @classmethod
    def of(cls, count: Count | None, skipped: int = 0) -> "Layers":
        """For a count; a single layer without one."""
        if count is None:
            return cls(np.array([True]), True)
        if count.high is None:
            return cls(np.arange(count.low + 1) == count.low, True)
        numbers = np.arange(skipped, count.high + 2)
        return cls((numbers >= count.low) & (numbers <= count.high), False, skipped)

    @classmethod
    def ever_more(cls, count: Count | None, reach: int) -> Iterator["Layers"]:
        """The last few layers of a count without least number, then twice as many, then all.

        Far from the most that is allowed, one thing more or less costs nothing; but how far that is
        depends on what else a text must have.
        """
        if count is not None and count.high is not None and count.low == 0:
            few = FEW_LAYERS + reach
            while few < count.high:
                yield cls.of(count, count.high - few)
                few *= 2
        yield cls.of(count)

    @property
    def count(self) -> int:
        """How many layers there are."""
        return len(self.accepts)


AnyInts = TypeVar("AnyInts", int, Ints)

OUTSIDE, INSIDE, ALONE = range(3)
"""What the last character is: no part of a thing, part of a run, a thing of its own."""


def things_begun(before: AnyInts, after: AnyInts) -> AnyInts:
    """1 where a character begins a thing, by what it and the one before it are; else 0."""
    return (after & ~before & 1) | (after >> 1)


def tracked(dfa: Dfa, count: Count | None) -> tuple[Dfa, Ints]:
    """An automaton whose states also tell what the last character is, and that by state.

    State 2q + 1 is q after one that is counted, 2q is q after another; not minimal, as no text is
    told apart.
    """
    if count is None:
        return dfa, np.full(dfa.num_states, OUTSIDE, np.int32)
    one = characters(count.of).dfa
    starts, class_of, (theirs, classes) = refined([dfa, one])
    is_of = one.table[one.start, classes] != DEAD
    targets = dfa.table[:, theirs]
    targets = np.where(targets == DEAD, DEAD, targets * 2 + is_of)
    both = Dfa(
        starts,
        class_of,
        np.repeat(targets, 2, axis=0).astype(np.int32),
        np.repeat(dfa.accepts, 2),
        dfa.start * 2,
    )
    last = np.tile([OUTSIDE, INSIDE if count.in_runs else ALONE], dfa.num_states)
    return both, last.astype(np.int32)
