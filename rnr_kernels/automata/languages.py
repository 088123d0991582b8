"""Regular languages of texts: an algebra whose every value is a minimal automaton.

    lowered(contains(literal("tea")) & ~contains(literal("coffee")))

is the texts that name tea and not coffee, in any case. Intersection, complement and emptiness are
exact.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import cache, reduce

import numpy as np

from rnr_kernels.automata.characters import Characters, matching, partition
from rnr_kernels.automata.dfa import DEAD, Dfa, Jump, minimal, of_classes, product, sequence


class Language:
    """A regular language, immutable: `|` union, `&` intersection, `~` complement, `+` what follows.

    Operations raise TooManyStatesError (a ValueError) where the automaton grows too large.
    """

    __slots__ = ("dfa",)

    def __init__(self, dfa: Dfa) -> None:
        self.dfa = dfa

    def __or__(self, other: "Language") -> "Language":
        return Language(product(self.dfa, other.dfa, np.logical_or))

    def __and__(self, other: "Language") -> "Language":
        return Language(product(self.dfa, other.dfa, np.logical_and))

    def __sub__(self, other: "Language") -> "Language":
        return self & ~other

    def __invert__(self) -> "Language":
        dfa = self.dfa
        # The dead state becomes one that accepts everything, so a new one takes its place.
        table = np.concatenate([np.zeros((1, dfa.num_classes), np.int32), dfa.table + 1])
        accepts = np.concatenate([[False], ~dfa.accepts])
        return Language(minimal(Dfa(dfa.starts, dfa.class_of, table, accepts, dfa.start + 1)))

    def __add__(self, other: "Language") -> "Language":
        return concatenation(self, other)

    def __contains__(self, text: str) -> bool:
        return bool(self.dfa.accepts[self.dfa.after(text)])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Language) and all(
            np.array_equal(mine, others)
            for mine, others in zip(self._tables(), other._tables(), strict=True)
        )

    def __hash__(self) -> int:
        return hash(tuple(table.tobytes() for table in self._tables()))

    def __repr__(self) -> str:
        return f"Language({self.num_states} states, {self.dfa.num_classes} classes)"

    @property
    def num_states(self) -> int:
        """The states of its minimal automaton."""
        return self.dfa.num_states

    @property
    def is_empty(self) -> bool:
        """Whether it holds no text at all."""
        return self.dfa.start == DEAD

    def repeated(self, low: int = 0, high: int | None = None) -> "Language":
        """`low` to `high` texts of it, one after the other; no most without `high`."""
        if high == 0:
            return EMPTY
        parts = [self.dfa] * (max(low, 1) if high is None else high)
        jumps = [
            Jump((number,) if number < len(parts) else (), number >= low)
            for number in range(1, len(parts) + 1)
        ]
        if high is None:
            jumps[-1] = Jump((len(parts) - 1,), True)
        return Language(sequence(parts, jumps, accepts_empty=low == 0))

    @property
    def earliest(self) -> "Language":
        """Its texts of which no shorter start is in it."""
        dfa = self.dfa
        table = np.where(dfa.accepts[:, None], DEAD, dfa.table)
        return Language(minimal(Dfa(dfa.starts, dfa.class_of, table, dfa.accepts, dfa.start)))

    @property
    def optional(self) -> "Language":
        """Its texts and the empty one."""
        return self | EMPTY

    def mapped(self, change: Callable[[str], str]) -> "Language":
        """The texts that `change` brings into it, character by character, such as `str.lower`.

        `change` may make several characters of one; what it makes of a character must not depend on
        those around it.
        """
        dfa = self.dfa
        images, kinds = _changed(change)
        starts = sorted({*dfa.starts.tolist(), *(edge for edge, _ in kinds)})
        columns: dict[tuple[int, ...], int] = {}
        class_of = []
        at = 0
        everywhere = np.arange(dfa.num_states)
        for start in starts:
            while at + 1 < len(kinds) and kinds[at + 1][0] <= start:
                at += 1
            image = kinds[at][1]
            text = chr(start) if image is None else images[image]
            states = everywhere
            for each in dfa.classes(text).tolist():
                states = dfa.table[states, each]
            column = tuple(states.tolist())
            class_of.append(columns.setdefault(column, len(columns)))
        table = [list(row) for row in zip(*columns, strict=True)]
        return Language(of_classes(starts, class_of, table, dfa.accepts.tolist(), dfa.start))

    def shortest(self) -> str | None:
        """One of its shortest texts, None for the empty language."""
        dfa = self.dfa
        if self.is_empty:
            return None
        lowest = [int(dfa.starts[np.argmax(dfa.class_of == k)]) for k in range(dfa.num_classes)]
        texts = {dfa.start: ""}
        for state in (pending := [dfa.start]):
            if dfa.accepts[state]:
                return texts[state]
            for point, target in zip(lowest, dfa.table[state].tolist(), strict=True):
                if target not in texts and target != DEAD:
                    texts[target] = texts[state] + chr(point)
                    pending.append(target)
        raise AssertionError("a state that is not dead accepts nothing")

    def _tables(self) -> tuple[np.ndarray, ...]:
        dfa = self.dfa
        return dfa.starts, dfa.class_of, dfa.table, dfa.accepts, np.array(dfa.start)


@cache
def _changed(change: Callable[[str], str]) -> tuple[list[str], list[tuple[int, int | None]]]:
    """What a map makes of characters: images, and (start, image or None if it stays) of ranges."""
    images: dict[str, int] = {}
    kinds: list[tuple[int, int | None]] = [(0, None)]
    for start, end in Characters.where(lambda each: change(each) != each).ranges():
        for point in range(start, end):
            image = images.setdefault(change(chr(point)), len(images))
            kinds.append((point, image))
        kinds.append((end, None))
    return list(images), kinds


def characters(allowed: Characters | str) -> Language:
    """One character of a set, or of those of a text."""
    allowed = allowed if isinstance(allowed, Characters) else Characters.of(allowed)
    return Language(one_after_another([allowed]))


def one_after_another(sets: Sequence[Characters]) -> Dfa:
    """The automaton of texts whose nth character is in the nth set."""
    column = {each: number for number, each in enumerate(dict.fromkeys(sets))}
    starts, members = partition(column)
    numbers: dict[tuple[bool, ...], int] = {}
    class_of = [numbers.setdefault(each, len(numbers)) for each in members]
    table = [[DEAD] * len(numbers)]
    for state, each in enumerate(sets, start=1):
        table.append([(state + 1) * inside[column[each]] for inside in numbers])
    table.append([DEAD] * len(numbers))
    return of_classes(starts, class_of, table, [False] * (len(sets) + 1) + [True], 1)


def literal(text: str) -> Language:
    """Exactly a text."""
    return Language(one_after_another([Characters.of(each) for each in text]))


def concatenation(*parts: Language) -> Language:
    """A text of each part, one after the other."""
    last = len(parts) - 1
    jumps = [Jump(() if n == last else (n + 1,), n == last) for n in range(len(parts))]
    return Language(sequence([part.dfa for part in parts], jumps))


def union(languages: Iterable[Language]) -> Language:
    """The texts of any of them."""
    return reduce(Language.__or__, languages, NOTHING)


def intersection(languages: Iterable[Language]) -> Language:
    """The texts of all of them; smaller automata are combined first."""
    ordered = sorted(languages, key=lambda language: language.num_states)
    return reduce(Language.__and__, ordered, EVERYTHING)


def contains(part: Language) -> Language:
    """The texts in which one of `part` occurs."""
    return concatenation(EVERYTHING, part, EVERYTHING)


def at_least(part: Language, times: int) -> Language:
    """The texts in which texts of `part` occur so often, none overlapping another."""
    # The first one ends where the first prefix ends that has one; nothing is gained by waiting.
    found = (EVERYTHING + part).earliest
    return concatenation(*[found] * times, EVERYTHING)


@cache
def is_blank() -> Characters:
    """What `str.strip` takes away, which is also what r"\\s" matches."""
    return matching(r"\s")


@cache
def is_word() -> Characters:
    r"""What words are made of: "\w"."""
    return matching(r"\w")


def lowered(language: Language) -> Language:
    """Texts that `str.lower` brings into a language.

    A capital sigma becomes one of two small ones by where it stands. Where the language tells the
    two apart, texts with the capital are left out.
    """
    small, final = language.dfa.classes("\u03c3\u03c2").tolist()
    found = language.mapped(str.lower)
    return found if small == final else found - contains(literal("\u03a3"))


NOTHING = Language(of_classes([0], [0], [[0]], [False], 0))
"""The language without texts."""
EMPTY = Language(of_classes([0], [0], [[0], [0]], [False, True], 1))
"""The empty text alone."""
EVERYTHING = Language(of_classes([0], [0], [[0], [1]], [False, True], 1))
"""All texts."""
