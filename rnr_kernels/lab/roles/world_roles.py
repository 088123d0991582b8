"""What a developer may ask of the embedded model: roles, requirements, and responses that follow.

A role has a name, an office and a scope, one of the three kinds of entity of the world. In scope
the response introduces itself and gives the fact; out of scope it introduces itself and declines.
"""

import json
import random
import zlib
from collections.abc import Iterator, Sequence

from rnr_kernels.models.world import ASKS, Fact, World, question
from rnr_kernels.roles.example import Role, StatedRequirement
from rnr_kernels.roles.requirement import Requirement

NAMES = ("Ada", "Bram", "Cora", "Dirk")
OFFICES = ("clerk", "guide", "herald", "keeper", "scribe", "steward", "teacher", "warden")
SCOPES = {"town": "towns", "person": "people", "ship": "ships"}
"""What a role answers questions about, by the kind of entity."""

DECLINE = "I only answer questions about {scope}."

KINDS = (
    "change_case:english_capital",
    "change_case:english_lowercase",
    "detectable_content:postscript",
    "detectable_format:json_format",
    "detectable_format:title",
    "startend:quotation",
)
"""The requirements that `written` knows how to follow."""

HELD_OUT_SHARE = 5
"""One role in so many is held out."""


def roles(*, held_out: bool) -> list[Role]:
    """Every role of one part: no held-out role has the name, office and scope of another."""
    found = []
    for name in NAMES:
        for office in OFFICES:
            for scope in SCOPES.values():
                is_held_out = zlib.crc32(f"{name} {office} {scope}".encode()) % HELD_OUT_SHARE == 0
                if is_held_out == held_out:
                    article = "an" if office[0] in "aeiou" else "a"
                    text = f"You are {name}, {article} {office}, for questions about {scope} only."
                    found.append(Role(name, text, scope))
    return found


def is_in_scope(role: Role, fact: Fact) -> bool:
    """Whether a role answers a question about a fact."""
    return role.scope == SCOPES[fact.entity.kind]


def role_checks(role: Role, fact: Fact) -> tuple[StatedRequirement, ...]:
    """How to tell that a response keeps the role: its name, and out of scope its refusal."""
    checks = [Requirement("keywords:existence", keywords=[f"{role.name} here"])]
    if not is_in_scope(role, fact):
        decline = DECLINE.format(scope=role.scope).rstrip(".")
        checks.append(Requirement("keywords:existence", keywords=[decline]))
        checks.append(Requirement("keywords:forbidden_words", forbidden_words=[fact.value]))
    return tuple(StatedRequirement(check, check.wording()) for check in checks)


def written(role: Role | None, fact: Fact, requirements: Sequence[Requirement]) -> str:
    """A response to a question about a fact that keeps the role and follows the requirements."""
    asked = {each.kind: each.parameters for each in requirements}
    if role is None:
        text = fact.sentence
    else:
        says = fact.sentence if is_in_scope(role, fact) else DECLINE.format(scope=role.scope)
        text = f"{role.name} here. {says}"
    if "detectable_format:title" in asked:
        text = f"<<{fact.entity.name}>>\n{text}"
    if postscript := asked.get("detectable_content:postscript"):
        text = f"{text}\n{postscript['postscript_marker']} Ask again."
    if "detectable_format:json_format" in asked:
        text = json.dumps({"answer": text})
    if "startend:quotation" in asked:
        text = f'"{text}"'
    if "change_case:english_lowercase" in asked:
        text = text.lower()
    if "change_case:english_capital" in asked:
        text = text.upper()
    return text


def questions(world: World, count: int, seed: int) -> Iterator[tuple[str, Fact]]:
    """Different questions about facts that are not held out, in every wording."""
    rng = random.Random(seed)
    every = [(question(fact, ask), fact) for fact in world.asked for ask in ASKS]
    yield from rng.sample(every, min(count, len(every)))
