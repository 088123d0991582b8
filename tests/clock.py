"""A clock for tests of what takes time."""


class Clock:
    """Moves on by a second at every look."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now
