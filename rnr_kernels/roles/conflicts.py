"""Which requirements exclude each other, and requirements drawn so that none do."""

import random
from collections.abc import Iterable, Sequence
from itertools import combinations

from rnr_kernels.roles.kinds import DRAWN
from rnr_kernels.roles.requirement import Requirement

SHUFFLES = 20
"""Of the kinds, before a draw gives up."""
TRIES = 5
"""Draws of one kind's parameters before another kind takes its turn."""


def conflicts(requirements: Sequence[Requirement]) -> list[tuple[int, int, str]]:
    """The pairs that no sensible response follows, by index, each with the reason in words."""
    return [
        (i, j, reason)
        for (i, one), (j, other) in combinations(enumerate(requirements), 2)
        if (reason := one.conflict(other)) is not None
    ]


def draw_requirements(
    rng: random.Random, count: int, kinds: Iterable[str] | None = None
) -> list[Requirement]:
    """`count` requirements of different kinds, no two of which conflict.

    Of the kinds `DRAWN`, or of `kinds`. Raises ValueError if there are fewer
    kinds, and if no such set was found.
    """
    names = list(dict.fromkeys(DRAWN if kinds is None else kinds))
    if not 0 <= count <= len(names):
        raise ValueError(f"count must be from 0 to {len(names)}, the number of kinds, got {count}")
    best: list[Requirement] = []
    for _ in range(SHUFFLES):
        found = _compatible(rng, count, rng.sample(names, len(names)))
        if len(found) == count:
            return found
        best = max(best, found, key=len)
    raise ValueError(
        f"found no {count} requirements without a conflict, at most {len(best)}, among the kinds "
        f"{', '.join(names)}; ask for fewer or allow more kinds"
    )


def _compatible(rng: random.Random, count: int, names: Sequence[str]) -> list[Requirement]:
    found: list[Requirement] = []
    for name in names:
        if len(found) == count:
            break
        for _ in range(TRIES):
            drawn = Requirement.draw(rng, [name])
            if not any(drawn.conflict(other) for other in found):
                found.append(drawn)
                break
    return found
