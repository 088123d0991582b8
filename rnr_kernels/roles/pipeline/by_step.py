"""One generator for responses, and another for everything around them."""

from threading import Event
from typing import Any

from rnr_kernels.roles.pipeline.asks import RESPONSES, Ask, Generator, Reply


class ByStep:
    """`responses` answers and repairs; `others` writes roles and requirements, and judges.

    So a model that writes no JSON gets its roles from a larger one, or from templates.
    """

    def __init__(self, responses: Generator, others: Generator) -> None:
        self._responses = responses
        self._others = others

    @property
    def name(self) -> str:
        """The one of responses first."""
        return f"{self._responses.name}, roles by {self._others.name}"

    @property
    def in_flight(self) -> int:
        """As many as both take."""
        return min(self._responses.in_flight, self._others.in_flight)

    @property
    def batch_size(self) -> int:
        """Of responses; the other takes what falls to it at once."""
        return self._responses.batch_size

    def identity(self) -> dict[str, Any]:
        """Both."""
        return {"responses": self._responses.identity(), "others": self._others.identity()}

    def replies(self, asks: list[Ask], stopped: Event) -> list[Reply]:
        """As `Generator.replies`."""
        found: list[Reply | None] = [None] * len(asks)
        for generator, is_response in ((self._others, False), (self._responses, True)):
            places = [n for n, ask in enumerate(asks) if (ask.step in RESPONSES) == is_response]
            if places:
                replies = generator.replies([asks[place] for place in places], stopped)
                for place, reply in zip(places, replies, strict=True):
                    found[place] = reply
        return [reply for reply in found if reply is not None]
