"""A generator behind an OpenAI-compatible endpoint."""

from threading import Event
from typing import Any

from rnr_kernels.endpoint import Endpoint
from rnr_kernels.roles.pipeline.asks import Ask, Reply

REQUESTS_IN_FLIGHT = 32


class EndpointGenerator:
    """Asks `endpoint`, at most `requests_in_flight` at once."""

    batch_size = 1

    def __init__(self, endpoint: Endpoint, *, requests_in_flight: int = REQUESTS_IN_FLIGHT) -> None:
        if requests_in_flight < 1:
            raise ValueError(f"requests_in_flight must be at least 1, got {requests_in_flight}")
        self._endpoint = endpoint
        self.in_flight = requests_in_flight

    @property
    def name(self) -> str:
        """The model's."""
        return self._endpoint.model

    def identity(self) -> dict[str, Any]:
        """The model and how it decodes; it may move to another address."""
        return {
            "kind": "endpoint",
            "model": self.name,
            "temperature": self._endpoint.temperature,
            "max_tokens": self._endpoint.max_tokens,
        }

    def replies(self, asks: list[Ask], stopped: Event) -> list[Reply]:
        """As `Generator.replies`; raises as `Endpoint.ask` does."""
        return [self._reply(ask, stopped) for ask in asks]

    def _reply(self, ask: Ask, stopped: Event) -> Reply:
        answer = self._endpoint.reply(
            ask.messages, schema=ask.schema, seed=ask.seed, stopped=stopped
        )
        failures = answer.failures + answer.nonsense
        if answer.value is None:
            return Reply("", answer.problem, failures=failures)
        words = answer.value
        return Reply(
            words.text,
            is_cut=words.is_cut,
            num_read=words.num_read,
            num_written=words.num_written,
            failures=failures,
        )
