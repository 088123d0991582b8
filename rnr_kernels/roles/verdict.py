"""What a check says of a response."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Verdict:
    """Whether a response follows a requirement, and which part of it failed if not."""

    followed: bool
    reason: str = ""

    def __bool__(self) -> bool:
        return self.followed


FOLLOWED = Verdict(True)


def failed(reason: str) -> Verdict:
    """A response that does not follow, with what was asked for and what came."""
    return Verdict(False, reason)
