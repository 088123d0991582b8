"""Texts that are nearly another's: MinHash finds candidates, their words decide.

Two texts are alike by the Jaccard index of their shingles, runs of three words (Broder 1997, "On
the resemblance and containment of documents").
"""

import re
from collections.abc import Hashable, Iterable
from typing import Generic, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

SHINGLE = 3
"""Words."""
NUM_PERMUTATIONS = 64
SLACK = 0.1
"""The sketch looks for pairs this much less alike than is asked for, so that few are missed."""

Hashes: TypeAlias = NDArray[np.int64]

Key = TypeVar("Key", bound=Hashable)

_WORD = re.compile(r"\w+")


def shingles(text: str) -> set[str]:
    """Runs of three words in lower case; the words themselves of a text with fewer."""
    words = _WORD.findall(text.casefold())
    if len(words) < SHINGLE:
        return set(words) or {text.strip()}
    return {" ".join(words[i : i + SHINGLE]) for i in range(len(words) - SHINGLE + 1)}


class NearDuplicates(Generic[Key]):
    """Texts that were added, to be asked about. Depends on nothing but their order."""

    def __init__(self, likeness: float) -> None:
        """`likeness` is the least Jaccard index of texts that count as duplicates, above 0."""
        try:
            from datasketch import MinHash, MinHashLSH
        except ImportError:
            raise ValueError(
                "near duplicates are found by datasketch; pip install 'rnr_kernels[roles]'"
            ) from None
        if not 0 < likeness <= 1:
            raise ValueError(f"the likeness of duplicates must be in (0, 1], got {likeness}")
        self._likeness = likeness
        self._sketch = MinHash(num_perm=NUM_PERMUTATIONS, seed=1)
        least = max(likeness - SLACK, SLACK / 2)
        self._index = MinHashLSH(threshold=least, num_perm=NUM_PERMUTATIONS)
        self._added: dict[Key, tuple[int, Hashes]] = {}

    def like(self, text: str) -> list[Key]:
        """The keys of texts that are like `text`, in the order in which they were added."""
        return self._like(*self._sketched(text))

    def add(self, key: Key, text: str) -> None:
        """Adds a text."""
        self._insert(key, *self._sketched(text))

    def add_unless_like(self, key: Key, text: str) -> Key | None:
        """The first that is like `text`; if there is none, adds it."""
        sketch, hashes = self._sketched(text)
        if like := self._like(sketch, hashes):
            return like[0]
        self._insert(key, sketch, hashes)
        return None

    def _insert(self, key: Key, sketch: object, hashes: Hashes) -> None:
        self._index.insert(key, sketch)
        self._added[key] = len(self._added), hashes

    def _sketched(self, text: str) -> tuple[object, Hashes]:
        found = shingles(text)
        sketch = self._sketch.copy()
        sketch.update_batch([shingle.encode() for shingle in found])
        # Of a text in memory, eight bytes a shingle.
        hashes = np.fromiter(map(hash, found), dtype=np.int64, count=len(found))
        return sketch, hashes

    def _like(self, sketch: object, hashes: Hashes) -> list[Key]:
        candidates: Iterable[Key] = self._index.query(sketch)
        like = [key for key in candidates if self._are_alike(hashes, self._added[key][1])]
        return sorted(like, key=lambda key: self._added[key][0])

    def _are_alike(self, one: Hashes, other: Hashes) -> bool:
        shared = np.intersect1d(one, other, assume_unique=True).size
        return shared >= self._likeness * (one.size + other.size - shared)
