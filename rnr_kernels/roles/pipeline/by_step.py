"""One generator for responses, and another for everything around them."""

from threading import BoundedSemaphore, Event
from typing import Any

from rnr_kernels.roles.pipeline.asks import RESPONSES, Ask, Generator, Reply


class ByStep:
    """`responses` answers and repairs; `others` writes roles and requirements, and judges.

    So a model that writes no JSON gets its roles from a larger one, or from templates.
    """

    def __init__(self, responses: Generator, others: Generator) -> None:
        self._responses = responses
        self._others = others
        self._others_turn = BoundedSemaphore(others.in_flight)

    @property
    def name(self) -> str:
        """The one of responses first."""
        return f"{self._responses.name}, roles by {self._others.name}"

    @property
    def in_flight(self) -> int:
        """Of responses; the other is asked as often at once as it takes."""
        return self._responses.in_flight

    @property
    def batch_size(self) -> int:
        """Of responses; the other takes what falls to it at once."""
        return self._responses.batch_size

    def identity(self) -> dict[str, Any]:
        """Both."""
        return {"responses": self._responses.identity(), "others": self._others.identity()}

    def replies(self, asks: list[Ask], stopped: Event) -> list[Reply]:
        """As `Generator.replies`."""
        responses = [ask for ask in asks if ask.step in RESPONSES]
        others = [ask for ask in asks if ask.step not in RESPONSES]
        answered: list[Reply] = []
        if others:
            with self._others_turn:
                answered = self._others.replies(others, stopped)
        heard = iter(self._responses.replies(responses, stopped) if responses else ())
        told = iter(answered)
        return [next(heard if ask.step in RESPONSES else told) for ask in asks]
