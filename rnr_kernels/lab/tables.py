"""Tables of estimates with intervals, beside published figures, and what is claimed of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from rnr_kernels.intervals import bootstrap_interval, ratio_interval


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval over seeds and prompts."""

    value: float
    low: float
    high: float
    digits: int = 1

    def __str__(self) -> str:
        value, low, high = (f"{x:.{self.digits}f}" for x in (self.value, self.low, self.high))
        return value if low == high == value else f"{value} ({low} to {high})"


Cell = Estimate | str


@dataclass(frozen=True)
class Finding:
    """Something published, whether it came out here, and what there is to say about it."""

    claim: str
    holds: bool
    numbers: str
    """What decides it, in words."""
    why_not: str
    """What may be the reason where it does not hold."""

    @property
    def comment(self) -> str:
        """The numbers, and a reason if there is something to explain."""
        return self.numbers if self.holds else f"{self.numbers} {self.why_not}"


@dataclass(frozen=True)
class Table:
    """One of the published tables in miniature."""

    key: str
    title: str
    caption: str
    columns: Sequence[str]
    rows: Mapping[str, Sequence[Cell]]
    """A cell for each column, by the row's title."""
    findings: Sequence[Finding] = ()


def percent(values: ArrayLike) -> Estimate:
    """The mean of [prompts] or [seeds, prompts], as a percentage."""
    low, high = bootstrap_interval(values)
    return Estimate(100 * float(np.asarray(values).mean()), 100 * low, 100 * high)


def percent_of(numerators: ArrayLike, denominators: ArrayLike) -> Estimate:
    """The ratio of two sums over [seeds, prompts], as a percentage."""
    low, high = ratio_interval(numerators, denominators)
    return Estimate(100 * float(np.sum(numerators) / np.sum(denominators)), 100 * low, 100 * high)
