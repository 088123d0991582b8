"""How much time a run has left."""

from collections.abc import Callable
from time import monotonic


class Budget:
    """Seconds from now on."""

    def __init__(self, seconds: float, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._start = clock()
        self._seconds = seconds

    def spent(self) -> float:
        return self._clock() - self._start

    def left(self) -> float:
        return self._seconds - self.spent()

    def part(self, seconds: float) -> "Budget":
        """One that ends after so many seconds, or with this one."""
        return Budget(min(seconds, self.left()), self._clock)
