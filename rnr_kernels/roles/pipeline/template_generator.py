"""A generator without a model: templates that are right or wrong at stated rates.

It knows which of its responses are wrong, and says so beside them: yield, repair and pass rates can
be checked against what is true.
"""

import json
import random
from collections.abc import Callable, Mapping
from threading import Event
from typing import Any

from rnr_kernels.roles.example import Example
from rnr_kernels.roles.pipeline.asks import Ask, Reply
from rnr_kernels.roles.pipeline.template_breaks import broken
from rnr_kernels.roles.pipeline.template_texts import SPOKEN, CannotWriteError, write_response

RIGHT = "right"
BREAKS = "breaks requirement {number}"
"""What a response's note says."""

PLACES = ("Harbour", "Library", "Museum", "Station", "Garden", "Theatre", "Market", "Observatory")
OFFICES = ("clerk", "guide", "keeper", "steward", "tutor", "archivist", "planner", "host")
TOWNS = ("Alden", "Brimfield", "Corvale", "Dunmere", "Eastholt", "Farrow", "Glenside", "Holm")

MANNERS = {
    "tone": "Sound as {} as {}",
    "persona": "Speak as somebody {} who lives by {}",
    "scope": "Keep to what is {} about {}",
    "refusal": "Decline what is not {}, and think of {}",
}
ADJECTIVES = (
    "calm", "cheerful", "curious", "earnest", "gentle", "honest", "lively", "modest", "patient",
    "plain", "proud", "quiet", "sober", "steady", "thoughtful", "warm",
)  # fmt: skip
THINGS = (
    "the sea", "a lighthouse", "an old bridge", "the orchard", "a night train", "the mill",
    "a river boat", "the north wind", "a long winter", "the town hall", "a stone wall",
    "the first snow", "a quiet street", "an open window", "the ferry", "a garden gate",
)  # fmt: skip
SAYINGS = (
    "golden morning", "river and stone", "early light", "open water", "long road home",
    "calm harbour", "winter garden", "over the meadow", "north of town", "silver cloud",
    "warm bread", "quiet valley", "apple wood", "evening song", "wide island", "snow and fire",
    "green field", "slow ship", "old market", "south window",
)  # fmt: skip
"""As many as an example may have requirements, at least."""


class TemplateGenerator:
    """Writes responses of which a share `wrong` breaks one requirement; of repairs, a share `mends`
    is right. Deterministic: everything follows from a request's own seed.

    It finds a conflict in requirements that its templates have no response to, unless another
    `writes` the responses.
    """

    name = "templates"
    in_flight = 1
    batch_size = 8

    def __init__(self, *, wrong: float = 0.3, mends: float = 0.5, writes: bool = True) -> None:
        for name, value in (("wrong", wrong), ("mends", mends)):
            if not 0 <= value <= 1:
                raise ValueError(f"{name} must be from 0 to 1, got {value}")
        self._wrong = wrong
        self._mends = mends
        self._writes = writes
        self._steps: Mapping[str, Callable[[Ask, random.Random], str]] = {
            "role": _role,
            "requirements": _requirements,
            "conflict": _conflict if writes else _no_conflict,
            "judge": _judge,
        }

    def identity(self) -> dict[str, Any]:
        """The rates, and who writes responses."""
        return {
            "kind": "templates",
            "wrong": self._wrong,
            "mends": self._mends,
            "writes": self._writes,
        }

    def replies(self, asks: list[Ask], stopped: Event) -> list[Reply]:
        """As `Generator.replies`; CannotWriteError for a response that templates do not have."""
        return [self._reply(ask) for ask in asks]

    def _reply(self, ask: Ask) -> Reply:
        rng = random.Random(ask.seed)
        step = self._steps.get(ask.step)
        text, note = self._response(ask, rng) if step is None else (step(ask, rng), "")
        num_read = sum(len(message["content"].split()) for message in ask.messages)
        return Reply(text, num_read=num_read, num_written=len(text.split()), note=note)

    def _response(self, ask: Ask, rng: random.Random) -> tuple[str, str]:
        """A response, and whether it is right."""
        wrong = self._wrong if ask.step == "response" else 1 - self._mends
        is_wrong = rng.random() < wrong
        requirements = [each.requirement for each in ask.example.requirements]
        text = write_response(requirements, rng)
        if not is_wrong:
            return text, RIGHT
        place = rng.randrange(len(requirements))
        return broken(text, requirements[place]), BREAKS.format(number=place + 1)


def _role(ask: Ask, rng: random.Random) -> str:
    place, office, town = rng.choice(PLACES), rng.choice(OFFICES), rng.choice(TOWNS)
    return json.dumps(
        {
            "name": f"{place} {office}",
            "description": f"You are the {place.lower()} {office} of {town}.",
            "scope": f"the {place.lower()} of {town}, and what people there ask",
        }
    )


def _requirements(ask: Ask, rng: random.Random) -> str:
    kinds = [rng.choice([*MANNERS]) for _ in range(ask.num_wanted)]
    # Each says something else, or the responses to two would be the same.
    sayings = rng.sample(SAYINGS, ask.num_wanted)
    written = []
    for kind, saying in zip(kinds, sayings, strict=True):
        manner = MANNERS[kind].format(rng.choice(ADJECTIVES), rng.choice(THINGS))
        written.append({"kind": kind, "text": f'{manner}, and say "{saying}" once.'})
    return json.dumps({"requirements": written})


def _conflict(ask: Ask, rng: random.Random) -> str:
    """Requirements that have to go until the templates have a response to the others."""
    kept = list(enumerate(each.requirement for each in ask.example.requirements))
    conflicts = []
    while kept:
        reason = _in_the_way([requirement for _, requirement in kept])
        if reason is None:
            break
        # The one without which there is a response, else the last.
        for number in (*range(len(kept)), len(kept) - 1):
            others = [each for place, (_, each) in enumerate(kept) if place != number]
            if _in_the_way(others) is None:
                break
        place, _ = kept.pop(number)
        conflicts.append({"requirement": place + 1, "reason": reason})
    return json.dumps({"conflicts": conflicts})


def _no_conflict(ask: Ask, rng: random.Random) -> str:
    return json.dumps({"conflicts": []})


def _in_the_way(requirements: list[Any]) -> str | None:
    """Why there is no response to all of them, whatever the random choices; or None."""
    try:
        for seed in range(2):
            write_response(requirements, random.Random(seed))
    except CannotWriteError as error:
        return str(error)
    return None


def _judge(ask: Ask, rng: random.Random) -> str:
    return json.dumps(_verdict(ask.example, ask.subject))


def _verdict(example: Example, subject: int) -> dict[str, Any]:
    said = SPOKEN.findall(example.checks[subject].wording)
    response = (example.response or "").lower()
    missing = [each for each in said if each.lower() not in response]
    reason = f"does not say {', '.join(missing)}" if missing else "says what it has to"
    return {"reason": reason, "followed": not missing}
