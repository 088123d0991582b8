"""What the loop is measured on: held-out facts, roles, and combinations of requirements."""

import random
import zlib
from collections.abc import Iterable

from rnr_kernels.lab.roles.world_roles import KINDS, is_in_scope, role_checks, roles
from rnr_kernels.models.world import World, held_out_questions
from rnr_kernels.roles.conflicts import draw_requirements
from rnr_kernels.roles.example import Example, StatedRequirement

IN_SCOPE = 0.7
HELD_OUT_SHARE = 4
"""One combination of kinds in so many is held out."""


def is_held_out(kinds: Iterable[str]) -> bool:
    """Whether training leaves a combination of kinds out; single kinds it does not."""
    names = sorted(kinds)
    return len(names) > 1 and zlib.crc32(" ".join(names).encode()) % HELD_OUT_SHARE == 0


def held_out_examples(
    world: World, counts: tuple[int, int], count: int, seed: int
) -> list[Example]:
    """Examples about held-out facts with held-out roles.

    `counts` are the least and most requirements of an example; two and more are of a combination
    that `is_held_out`.
    """
    rng = random.Random(seed)
    found = []
    for number, (text, fact) in enumerate(held_out_questions(world)[:count]):
        wants_scope = rng.random() < IN_SCOPE
        fitting = [each for each in roles(held_out=True) if is_in_scope(each, fact) == wants_scope]
        role = rng.choice(fitting)
        size = rng.randint(*counts)
        requirements = draw_requirements(rng, size, KINDS)
        while size > 1 and not is_held_out(each.kind for each in requirements):
            requirements = draw_requirements(rng, size, KINDS)
        stated = tuple(StatedRequirement(q, q.wording(rng.getrandbits(31))) for q in requirements)
        found.append(
            Example(
                id=f"held-out-{number}",
                role=role,
                requirements=stated,
                messages=({"role": "user", "content": text},),
                in_scope=wants_scope,
                role_checks=role_checks(role, fact),
            )
        )
    return found
