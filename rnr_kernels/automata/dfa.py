"""Deterministic automata over classes of characters, as numpy tables, and what is made of them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rnr_kernels.automata.characters import END

Ints = npt.NDArray[np.int32]
Bools = npt.NDArray[np.bool_]

DEAD = 0
"""The state from which nothing is accepted; every automaton has it."""

MAX_STATES = 60_000
"""Beyond this, tables of some classes take seconds and hundreds of megabytes."""


class TooManyStatesError(ValueError):
    """A language takes an automaton that is too large to build."""


@dataclass(frozen=True, eq=False)
class Dfa:
    """A complete automaton; state 0 is dead."""

    starts: Ints
    """[ranges] Ascending code points, the first of them 0, where ranges of characters start."""
    class_of: Ints
    """[ranges] The class of each range; characters of a class are never told apart."""
    table: Ints
    """[states, classes] The next state."""
    accepts: Bools
    """[states]"""
    start: int

    @property
    def num_states(self) -> int:
        """With the dead one."""
        return len(self.table)

    @property
    def num_classes(self) -> int:
        """How many classes of characters it tells apart."""
        return int(self.table.shape[1])

    def classes(self, text: str) -> Ints:
        """The class of each character."""
        return self.classes_at(np.fromiter(map(ord, text), np.int32, len(text)))

    def classes_at(self, points: Ints) -> Ints:
        """The class of each code point."""
        classes: Ints = self.class_of[np.searchsorted(self.starts, points, side="right") - 1]
        return classes

    def after(self, text: str) -> int:
        """The state after a text."""
        state = self.start
        for each in self.classes(text).tolist():
            state = int(self.table[state, each])
        return state


def refined(dfas: Sequence[Dfa]) -> tuple[Ints, Ints, list[Ints]]:
    """The coarsest classes that all automata agree with: starts, classes, and theirs in each."""
    starts = np.unique(np.concatenate([dfa.starts for dfa in dfas])).astype(np.int32)
    theirs = np.stack([dfa.classes_at(starts) for dfa in dfas])
    distinct, class_of = np.unique(theirs, axis=1, return_inverse=True)
    return starts, class_of.ravel().astype(np.int32), list(distinct.astype(np.int32))


def product(first: Dfa, second: Dfa, combine: np.ufunc) -> Dfa:
    """Both automata side by side, minimal; `combine` makes one verdict of what both say."""
    starts, class_of, (in_first, in_second) = refined([first, second])
    width = second.num_states
    left = first.table[:, in_first].astype(np.int64) * width
    right = second.table[:, in_second]
    index = np.full(first.num_states * width, -1, np.int32)
    index[DEAD] = 0
    begin = first.start * width + second.start
    found = [np.array([DEAD])]
    frontier, count = np.array([begin]), 1
    while len(frontier):
        frontier = frontier[index[frontier] < 0]
        index[frontier] = np.arange(count, count + len(frontier))
        count += len(frontier)
        _check_size(count)
        found.append(frontier)
        frontier = np.unique(left[frontier // width] + right[frontier % width])
    states = np.concatenate(found)
    table = index[left[states // width] + right[states % width]]
    accepting = combine(first.accepts[states // width], second.accepts[states % width])
    return minimal(Dfa(starts, class_of, table, accepting, int(index[begin])))


def minimal(dfa: Dfa) -> Dfa:
    """The automaton with fewest states and classes; the order of states follows from the language.

    Moore's refinement, begun from the distances to acceptance and to rejection, which equivalent
    states share: counters and long texts would else take a round a step. Rows are compared by
    hashes, and the outcome is verified.
    """
    table, accepts = dfa.table, dfa.accepts
    distances = np.stack([_distances(table, accepts), _distances(table, ~accepts)], axis=1)
    colours = numbered(distances)
    random = np.random.default_rng(0)
    weights = random.integers(0, 2**64, table.shape[1] + 1, np.uint64)
    marks = random.integers(0, 2**64, len(table), np.uint64)
    count = 0
    while (found := int(colours.max()) + 1) > count:
        count = found
        hashes = (marks[colours][table] * weights[1:]).sum(axis=1, dtype=np.uint64)
        colours = np.unique(hashes + marks[colours] * weights[0], return_inverse=True)[1]
    members = np.unique(colours, return_index=True)[1]
    quotient = colours[table[members]]
    if not np.array_equal(colours[table], quotient[colours]):
        raise RuntimeError("two states that differ have one hash")
    return _in_order(dfa, quotient, accepts[members], int(colours[dfa.start]))


def _in_order(dfa: Dfa, table: npt.NDArray[np.int64], accepts: Bools, start: int) -> Dfa:
    """Classes that no state tells apart made one, and states in the order of a breadth-first search
    from the start, the dead one first."""
    _, members, classes = np.unique(table, axis=1, return_index=True, return_inverse=True)
    # Classes by their lowest code point, so that equal languages have equal tables.
    ranges = classes.ravel()[dfa.class_of]
    lowest = np.unique(ranges, return_index=True)[1]
    order = np.argsort(lowest)
    table = table[:, members[order]]
    ranges = np.argsort(order)[ranges]
    differs = np.flatnonzero(np.diff(ranges, prepend=-1))

    is_dead = (table == np.arange(len(table))[:, None]).all(axis=1) & ~accepts
    dead = int(np.flatnonzero(is_dead)[0]) if is_dead.any() else -1
    index = np.full(len(table) + 1, -1)
    index[dead] = DEAD
    found, frontier, count = [dead], np.array([start]), 1
    while len(frontier):
        frontier = frontier[index[frontier] < 0]
        frontier = frontier[np.sort(np.unique(frontier, return_index=True)[1])]
        index[frontier] = np.arange(count, count + len(frontier))
        count += len(frontier)
        found += frontier.tolist()
        frontier = table[frontier].ravel()
    rows = np.zeros((count, table.shape[1]), np.int32)
    rows[1:] = index[table[found[1:]]]
    accepting = np.concatenate([[False], accepts[found[1:]]])
    return Dfa(
        dfa.starts[differs], ranges[differs].astype(np.int32), rows, accepting, int(index[start])
    )


def _distances(table: Ints, goal: Bools) -> npt.NDArray[np.int64]:
    """How many characters each state is away from a goal; -1 for no way."""
    sources = np.repeat(np.arange(len(table)), table.shape[1])
    order = np.argsort(table, axis=None, kind="stable")
    sources = sources[order]
    offsets = np.searchsorted(table.ravel()[order], np.arange(len(table) + 1))
    distances = np.where(goal, 0, -1)
    frontier, distance = np.flatnonzero(goal), 0
    while len(frontier):
        distance += 1
        near = np.unique(sources[spans(offsets, frontier)])
        frontier = near[distances[near] < 0]
        distances[frontier] = distance
    return distances


def spans(offsets: npt.NDArray[np.int64], chosen: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The indices offsets[c] to offsets[c + 1] of each chosen c, one after the other."""
    lengths = offsets[chosen + 1] - offsets[chosen]
    ends = np.cumsum(lengths)
    indices: npt.NDArray[np.int64] = np.arange(ends[-1] if len(ends) else 0)
    indices += np.repeat(offsets[chosen] - (ends - lengths), lengths)
    return indices


def numbered(rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """A number for each distinct row."""
    numbers: npt.NDArray[np.int64] = np.unique(rows, axis=0, return_inverse=True)[1].ravel()
    return numbers


def _check_size(num_states: int) -> None:
    if num_states > MAX_STATES:
        raise TooManyStatesError(
            f"the automaton takes more than {MAX_STATES:,} states; combine fewer requirements, or "
            "lower their counts"
        )


@dataclass(frozen=True)
class Jump:
    """Parts of a sequence: where one of them is accepted, those in `to` may begin."""

    to: tuple[int, ...] = ()
    is_final: bool = False
    """Whether the whole may end where this part is accepted."""


def sequence(parts: Sequence[Dfa], jumps: Sequence[Jump], *, accepts_empty: bool = False) -> Dfa:
    """The automaton of parts that follow one another as their jumps say, from the first on.

    Determinised by sets of states; once a set holds a final state that accepts everything, nothing
    else of it matters.
    """
    starts, class_of, theirs = refined(parts)
    num_classes = int(class_of.max()) + 1
    # The last state is of its own: accepted as it is, and left by the first character.
    *offsets, empty = np.cumsum([0, *(dfa.num_states for dfa in parts)]).tolist()
    rows: list[list[int]] = []
    final: list[bool] = []
    universal: list[bool] = []
    for dfa, classes, offset, jump in zip(parts, theirs, offsets, jumps, strict=True):
        rows += (dfa.table[:, classes] + offset).tolist()
        final += (dfa.accepts & jump.is_final).tolist()
        loops = (dfa.table == np.arange(dfa.num_states)[:, None]).all(axis=1)
        universal += (loops & dfa.accepts & jump.is_final).tolist()
    begins = [offset + dfa.start for dfa, offset in zip(parts, offsets, strict=True)]
    dead = set(offsets)
    jumps_of: list[tuple[int, ...]] = []
    for dfa, jump in zip(parts, jumps, strict=True):
        to = tuple(begins[part] for part in jump.to)
        jumps_of += [to if accepts else () for accepts in dfa.accepts.tolist()]

    def closed(states: set[int]) -> frozenset[int]:
        pending = list(states)
        while pending:
            for state in jumps_of[pending.pop()]:
                if state not in states:
                    states.add(state)
                    pending.append(state)
        states -= dead
        for state in states:
            if universal[state]:
                return frozenset((state,))
        return frozenset(states)

    jumps_of.append(())
    final.append(accepts_empty)
    universal.append(False)
    rows.append([offsets[0]] * num_classes)
    begin = closed({begins[0], empty})
    index = {frozenset[int](): DEAD, begin: 1}
    table = [[DEAD] * num_classes]
    accepting = [False]
    pending = [begin]
    for states in pending:
        accepting.append(any(final[state] for state in states))
        members = [rows[state] for state in states]
        row = []
        seen: dict[tuple[int, ...], int] = {}
        for targets in zip(*members, strict=True):
            number = seen.get(targets)
            if number is None:
                after = closed(set(targets))
                number = index.get(after, -1)
                if number < 0:
                    number = index[after] = len(index)
                    pending.append(after)
                    _check_size(number)
                seen[targets] = number
            row.append(number)
        table.append(row)
    return minimal(
        Dfa(starts, class_of, np.array(table, np.int32), np.array(accepting), index[begin])
    )


def of_classes(starts: Sequence[int], class_of: Sequence[int], table: Sequence[Sequence[int]],
               accepts: Sequence[bool], start: int) -> Dfa:  # fmt: skip
    """The minimal automaton of tables given as lists; state 0 must be dead."""
    assert starts[0] == 0 and starts[-1] < END
    return minimal(
        Dfa(
            np.array(starts, np.int32),
            np.array(class_of, np.int32),
            np.array(table, np.int32),
            np.array(accepts, np.bool_),
            start,
        )
    )
