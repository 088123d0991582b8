"""What a check or a judge says of a response."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Verdict:
    """Whether a response follows a requirement, and which part of it failed if not."""

    followed: bool
    reason: str = ""
    undecided: bool = False
    """A judge came to no verdict; `reason` says what went wrong. Never followed."""

    def __post_init__(self) -> None:
        if self.undecided and self.followed:
            raise ValueError("a verdict that is undecided cannot be followed")

    def __bool__(self) -> bool:
        return self.followed


FOLLOWED = Verdict(True)


def failed(reason: str) -> Verdict:
    """A response that does not follow, with what was asked for and what came."""
    return Verdict(False, reason)
