"""Sets of Unicode characters, as sorted ranges of code points."""

import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from itertools import pairwise
from typing import Any, Protocol

SURROGATES = range(0xD800, 0xE000)
"""Code points that no text has."""
END = 0x110000
"""One past the last code point."""


class Characters:
    """A set of code points: immutable, hashable, with `|`, `&`, `-` and `~`.

    `edges` are the code points at which membership changes, ascending: in from the first, out from
    the second, and so on. Surrogates may be members; no text in UTF-8 holds them.
    """

    __slots__ = ("edges",)

    def __init__(self, edges: Iterable[int] = ()) -> None:
        self.edges = tuple(edges)

    @classmethod
    def of(cls, text: Iterable[str]) -> "Characters":
        """The characters of a text."""
        edges: list[int] = []
        for point in sorted({ord(character) for character in text}):
            if edges and edges[-1] == point:
                edges[-1] = point + 1
            else:
                edges += [point, point + 1]
        return cls(edges)

    @classmethod
    def where(cls, predicate: Callable[[str], bool]) -> "Characters":
        """The characters for which a predicate such as `str.isupper` holds; takes 0.1 s or more."""
        members = bytes(bool(predicate(chr(point))) for point in range(END))
        return cls(_edges(re.finditer(rb"\x01+", members)))

    def __contains__(self, character: str) -> bool:
        return bisect_right(self.edges, ord(character)) % 2 == 1

    def __bool__(self) -> bool:
        return bool(self.edges)

    def __invert__(self) -> "Characters":
        edges = self.edges
        edges = edges[1:] if edges[:1] == (0,) else (0, *edges)
        return Characters(edges[:-1] if edges[-1:] == (END,) else (*edges, END))

    def __and__(self, other: "Characters") -> "Characters":
        return self._combined(other, lambda mine, others: mine and others)

    def __or__(self, other: "Characters") -> "Characters":
        return self._combined(other, lambda mine, others: mine or others)

    def __sub__(self, other: "Characters") -> "Characters":
        return self._combined(other, lambda mine, others: mine and not others)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Characters) and self.edges == other.edges

    def __hash__(self) -> int:
        return hash(self.edges)

    def __len__(self) -> int:
        return sum(end - start for start, end in self.ranges())

    def __repr__(self) -> str:
        shown = ", ".join(f"{start:#x}-{end - 1:#x}" for start, end in self.ranges()[:4])
        return f"Characters({len(self)}: {shown}{', ...' if len(self.edges) > 8 else ''})"

    def ranges(self) -> list[tuple[int, int]]:
        """The ranges [start, end) of code points."""
        return list(zip(self.edges[::2], self.edges[1::2], strict=True))

    def _combined(self, other: "Characters", keeps: Callable[[bool, bool], bool]) -> "Characters":
        mine, others = set(self.edges), set(other.edges)
        inside_mine = inside_others = is_kept = False
        edges = []
        for edge in sorted(mine | others):
            inside_mine ^= edge in mine
            inside_others ^= edge in others
            if keeps(inside_mine, inside_others) != is_kept:
                is_kept = not is_kept
                edges.append(edge)
        return Characters(edges)


class Pattern(Protocol):
    """A compiled regular expression, of `re` or of a library like it."""

    def finditer(self, string: str, /) -> Iterator[Any]:
        """The matches."""
        ...


def found_by(pattern: Pattern) -> Characters:
    """The characters that are part of a match in the text of all characters, in their order."""
    return Characters(_edges(pattern.finditer(_every_character())))


@cache
def matching(element: str) -> Characters:
    r"""The characters that one element of a regular expression matches, as "[a-z]" or r"\w"."""
    return found_by(re.compile(f"{element}+", re.DOTALL))


def _edges(matches: "Iterator[Any]") -> list[int]:
    return [edge for found in matches for edge in found.span()]


@cache
def _every_character() -> str:
    return "".join(map(chr, range(END)))


ALL = Characters((0, END))
"""Every character."""


def partition(sets: Iterable[Characters]) -> tuple[list[int], list[tuple[bool, ...]]]:
    """Cuts all code points where a set has an edge: starts of ranges, and which sets hold each."""
    listed = list(sets)
    cuts = sorted({0, END}.union(*(each.edges for each in listed)))
    toggles = [set(each.edges) for each in listed]
    inside = [False] * len(listed)
    members = []
    for start, _ in pairwise(cuts):
        inside = [now ^ (start in edges) for now, edges in zip(inside, toggles, strict=True)]
        members.append(tuple(inside))
    return cuts[:-1], members
