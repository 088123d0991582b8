"""Sampling: how a token is drawn from the adjusted distribution."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Sampling:
    """Temperature, filters and seed of one request.

    Temperature 0 is greedy and ignores the filters. `top_k` <= 0, `top_p` >= 1 and `min_p` <= 0
    are off. Filters look at the adjusted distribution before temperature for `top_k`, at the
    tempered one for `top_p` and `min_p`; top_p acts on what top_k left. Without a seed one is drawn
    from torch's generator when the request is admitted. Raises ValueError for a temperature other
    than 0 outside [1e-4, 1e30], top_p <= 0 and min_p > 1, and TypeError for what is no number.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int | None = None

    def __post_init__(self) -> None:
        for name, off in (
            ("temperature", "0 is greedy"),
            ("top_p", "1 is off"),
            ("min_p", "0 is off"),
        ):
            _check_number(getattr(self, name), name, off)
        if not (self.temperature == 0 or 1e-4 <= self.temperature <= 1e30):
            raise ValueError(
                f"temperature must be 0 (greedy) or in [1e-4, 1e30], got {self.temperature}"
            )
        if not self.top_p > 0:
            raise ValueError(f"top_p must be above 0 (1 is off), got {self.top_p}")
        if not self.min_p <= 1:
            raise ValueError(f"min_p must be at most 1 (0 is off), got {self.min_p}")
        if isinstance(self.top_k, bool) or not isinstance(self.top_k, int):
            raise TypeError(f"top_k must be an int (0 is off), got {self.top_k!r}")
        if self.seed is not None:
            check_seed(self.seed)

    @property
    def is_greedy(self) -> bool:
        return self.temperature == 0

    def device_parameters(self) -> tuple[float, float, float, float]:
        """A row of `StateTensors.sampling`: what kernels read needs no logarithm or division."""
        if self.is_greedy:
            return 0.0, 0.0, 1.0, -math.inf
        threshold = self.temperature * math.log(self.min_p) if self.min_p > 0 else -math.inf
        # A float32 of 0 would keep no token; this keeps the largest, as any tiny top_p does.
        top_p = max(self.top_p, 2.0**-100)
        return self.temperature, math.log2(math.e) / self.temperature, top_p, threshold


def check_sampling(sampling: object) -> None:
    """TypeError unless `sampling` is a Sampling."""
    if not isinstance(sampling, Sampling):
        raise TypeError(
            f"sampling must be a Sampling, got {type(sampling).__name__}; "
            "pass Sampling(temperature=...), or temperature=0 for greedy"
        )


def _check_number(value: object, name: str, hint: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number ({hint}), got {type(value).__name__} {value!r}")


def check_seed(seed: int) -> None:
    """TypeError or ValueError unless `seed` is an int of 64 bits with a sign."""
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise TypeError(f"a seed must be an int, got {seed!r}")
    if not -(2**63) <= seed < 2**63:
        raise ValueError(f"a seed must be in [-2**63, 2**63), got {seed}")


GREEDY = Sampling(temperature=0.0)
