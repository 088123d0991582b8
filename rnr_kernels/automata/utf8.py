"""Classes of characters as an automaton over the bytes of UTF-8."""

from bisect import bisect_right
from dataclasses import dataclass

import numpy as np

from rnr_kernels.automata.characters import END, SURROGATES
from rnr_kernels.automata.dfa import Dfa, Ints

INVALID = -1

ROOT = 0
"""The node between two characters."""

_LEADS = ((0xC0, 0xE0, 1), (0xE0, 0xF0, 2), (0xF0, 0xF8, 3))
"""Lead bytes, and how many bytes follow them."""

_FIRST_POINT = {1: 0x80, 2: 0x800, 3: 0x10000}
"""The lowest code point that is written with so many following bytes; lower ones are invalid."""


@dataclass(frozen=True)
class ByteClasses:
    """A tree of nodes: what stands between the bytes of a character, equal subtrees shared."""

    next: Ints
    """[nodes, 256] A node; or, where a character ends, nodes + its class; INVALID elsewhere."""
    rest: Ints
    """[nodes] The bytes that are missing to a whole character; 0 at the root."""
    offsets: Ints
    """[nodes + 1] Where a node's part of `classes` starts."""
    classes: Ints
    """The classes of characters that can still come of a node."""

    @property
    def num_nodes(self) -> int:
        """The root included."""
        return len(self.rest)


def byte_classes(dfa: Dfa) -> ByteClasses:
    """The bytes of an automaton's classes; surrogates and overlong forms are invalid."""
    starts = dfa.starts.tolist()
    ends = [*starts[1:], END]
    nodes: dict[tuple[int, ...], int] = {(): ROOT}
    rest = [0]

    def classes_from(low: int, number: int) -> list[int]:
        """-2 - the class of each of some code points."""
        points = np.arange(low, low + number, dtype=np.int32)
        found: list[int] = (-2 - dfa.classes_at(points)).tolist()
        return found

    def part(low: int, following: int) -> int:
        """What the code points from `low` on give whose last `following` bytes are open."""
        high = low + 64**following
        valid_from = max(low, lowest)
        is_surrogate = SURROGATES.start <= low and high <= SURROGATES.stop
        if is_surrogate or valid_from >= min(high, END):
            return INVALID
        if following == 1:
            # What is invalid begins and ends with a whole part of 64.
            return node(tuple(classes_from(low, 64)), following)
        step = 64 ** (following - 1)
        at = bisect_right(starts, low) - 1
        is_plain = valid_from == low and high <= END and ends[at] >= high
        is_plain &= high <= SURROGATES.start or low >= SURROGATES.stop
        if is_plain:
            return node((part(low, following - 1),) * 64, following)
        return node(tuple(part(low + n * step, following - 1) for n in range(64)), following)

    def node(children: tuple[int, ...], following: int) -> int:
        number = nodes.setdefault(children, len(nodes))
        if number == len(rest):
            rest.append(following)
        return number

    root = classes_from(0, 0x80) + [INVALID] * 0x80
    for first, last, following in _LEADS:
        lowest = _FIRST_POINT[following]
        for lead in range(first, last):
            root[lead] = part((lead - first) * 64**following, following)
    following_bytes = np.full((len(nodes), 256), INVALID, np.int32)
    following_bytes[ROOT] = root
    for children, number in nodes.items():
        if number != ROOT:
            following_bytes[number, 0x80:0xC0] = children
    is_class = following_bytes < INVALID
    following_bytes[is_class] = len(nodes) - 2 - following_bytes[is_class]

    reached: list[set[int]] = [set() for _ in rest]
    for number in sorted(range(1, len(rest)), key=lambda each: rest[each]):
        for child in set(following_bytes[number, 0x80:0xC0].tolist()) - {INVALID}:
            reached[number] |= reached[child] if child < len(rest) else {child - len(rest)}
    counts = [len(each) for each in reached]
    return ByteClasses(
        following_bytes,
        np.array(rest, np.int32),
        np.cumsum([0, *counts]).astype(np.int32),
        np.array([each for classes in reached for each in sorted(classes)], np.int32),
    )
