"""A generator for `build_dataset` that knows the world: right responses without a model."""

import json
import random
from dataclasses import asdict
from threading import Event
from typing import Any

from rnr_kernels.lab.roles.world_roles import DECLINE, is_in_scope, roles, written
from rnr_kernels.models.world import ASKS, World, question
from rnr_kernels.roles.example import Example
from rnr_kernels.roles.pipeline.asks import Ask, Reply


class WorldGenerator:
    """Answers what a build asks about the world's questions; of responses, a share `wrong` leaves
    the requirements out, so that verification and repair have something to do."""

    name = "the invented world"
    in_flight = 1
    batch_size = 64

    def __init__(self, world: World, *, wrong: float = 0.1) -> None:
        self._facts = {question(fact, ask): fact for fact in world.asked for ask in ASKS}
        self._roles = roles(held_out=False)
        self._wrong = wrong

    def identity(self) -> dict[str, Any]:
        """What its replies depend on."""
        return {"kind": "world", "wrong": self._wrong, "decline": DECLINE}

    def replies(self, asks: list[Ask], stopped: Event) -> list[Reply]:
        """As `Generator.replies`; KeyError for a question of another world."""
        return [Reply(self._reply(ask, random.Random(ask.seed))) for ask in asks]

    def _reply(self, ask: Ask, rng: random.Random) -> str:
        example = ask.example
        fact = self._facts[example.instruction]
        if ask.step == "role":
            fitting = [each for each in self._roles if is_in_scope(each, fact) == example.in_scope]
            return json.dumps(asdict(rng.choice(fitting)))
        if ask.step == "conflict":
            return json.dumps({"conflicts": []})
        if ask.step == "judge":
            return json.dumps(_declines(example))
        requirements = [each.requirement for each in example.requirements]
        if ask.step == "response" and rng.random() < self._wrong:
            requirements = []
        return written(example.role, fact, requirements)


def _declines(example: Example) -> dict[str, Any]:
    """The verdict on a response to a question that is none of its role's business."""
    decline = "" if example.role is None else DECLINE.format(scope=example.role.scope).lower()
    says_so = decline in (example.response or "").lower()
    return {"reason": "declines" if says_so else "does not decline", "followed": says_so}
