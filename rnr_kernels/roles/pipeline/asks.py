"""What an example asks of models, and what comes back."""

from collections.abc import Mapping
from dataclasses import dataclass
from threading import Event
from typing import Any, Protocol

from rnr_kernels.roles.example import Example
from rnr_kernels.templates import Messages

STEPS = ("role", "requirements", "conflict", "response", "repair", "judge")
"""In the order in which an example takes them."""
RESPONSES = ("response", "repair")
"""Those whose reply is to follow the example's requirements."""


@dataclass(frozen=True)
class Ask:
    """One request to a generator."""

    step: str
    """One of `STEPS`."""
    messages: Messages
    seed: int
    """Of this request: it follows from the build's seed and the example alone."""
    example: Example
    """What is known of the example; its requirements are those of a response that is asked for,
    its response the one that is to be mended or judged."""
    schema: Mapping[str, Any] | None = None
    """JSON schema of the reply; None for free text."""
    num_wanted: int = 0
    """Requirements to be written."""
    subject: int = 0
    """Of a judge: which of the example's checks, from 0."""


@dataclass(frozen=True)
class Reply:
    """What a generator answers."""

    text: str
    problem: str = ""
    """Why there is no text, if there is none."""
    is_cut: bool = False
    """The text stops at a limit of tokens."""
    num_read: int = 0
    """Tokens; 0 where they are not counted."""
    num_written: int = 0
    failures: int = 0
    """Requests that failed before."""
    note: str = ""
    """What a generator that knows says of its own response, kept beside it."""


class Generator(Protocol):
    """Answers requests. The scheduler calls it from `in_flight` threads at once, with up to
    `batch_size` requests each."""

    @property
    def name(self) -> str:
        """What the data set's card calls it."""

    @property
    def in_flight(self) -> int: ...

    @property
    def batch_size(self) -> int: ...

    def identity(self) -> dict[str, Any]:
        """Whatever its replies depend on, as JSON: a build goes on with the same one only."""

    def replies(self, asks: list[Ask], stopped: Event) -> list[Reply]:
        """One for each, in order. Raises ValueError or OSError where it would fail on all; sets
        out no further try once `stopped` is set."""
