"""Requests that came to nothing: whether that is the example's doing, or the model is away.

An outage must not reject what it happens to fall on. So a failure becomes one of its example when
the same model has answered a request that was sent later; until then it is kept back.
"""

from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from rnr_kernels.roles.pipeline.asks import Reply
from rnr_kernels.roles.pipeline.journal import Heard

MOST_FAILURES = 32
"""Requests in a row without an answer, after all their tries, until the run ends."""

ASK_AGAIN = "what is finished is kept, and the same command asks for the rest again"


class Timed(Protocol):
    """What came of a request, and when, in seconds of one clock."""

    @property
    def heard(self) -> Heard: ...

    @property
    def sent(self) -> float: ...

    @property
    def came(self) -> float: ...


T = TypeVar("T", bound=Timed)


def problem_of(heard: Heard) -> str:
    """Why there is no answer; "" where there is one."""
    if isinstance(heard, Reply):
        return heard.problem
    return (heard.reason or "no verdict") if heard.undecided else ""


class Unanswered(Generic[T]):
    """The failures of one model, by its `name`, that are kept back.

    `probe` asks it something simple and tells why there is no answer, or "" where there is one.
    """

    def __init__(self, name: str, probe: Callable[[T], str]) -> None:
        self._name = name
        self._probe = probe
        self._failed: list[T] = []
        self._in_a_row = 0
        self._has_answered = False

    def __len__(self) -> int:
        return len(self._failed)

    def take(self, result: T) -> list[T]:
        """What is settled by one more result: itself if it is an answer, after the failures that
        it came later than. ConnectionError after `MOST_FAILURES` in a row."""
        if problem := problem_of(result.heard):
            self._failed.append(result)
            self._in_a_row += 1
            if self._in_a_row >= MOST_FAILURES:
                raise ConnectionError(
                    f"{self._name} has not answered {MOST_FAILURES} requests in a row ({problem}); "
                    f"{ASK_AGAIN}"
                )
            return []
        self._in_a_row, self._has_answered = 0, True
        settled = [each for each in self._failed if each.came <= result.sent]
        self._failed = [each for each in self._failed if each.came > result.sent]
        return [*settled, result]

    def settle(self) -> list[T]:
        """All failures, where nothing else is left to wait for. ConnectionError if the model does
        not answer something simple either."""
        if self._failed and (problem := self._probe(self._failed[-1])):
            failures = f"{len(self._failed)} requests ({problem})"
            if not self._has_answered:
                raise ConnectionError(
                    f"{self._name} has answered none of {failures}; check the model and its "
                    f"endpoint: {ASK_AGAIN}"
                )
            raise ConnectionError(
                f"{self._name} no longer answers: nothing came of {failures}; {ASK_AGAIN}"
            )
        settled, self._failed = self._failed, []
        self._in_a_row = 0
        return settled
