"""Rates of what is followed, strict and loose, with intervals over examples."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rnr_kernels.intervals import exact_interval, ratio_interval
from rnr_kernels.roles.findings import Finding


@dataclass(frozen=True)
class Share:
    """`followed` of `total`."""

    followed: int
    total: int
    interval: tuple[float, float]
    """95 %, by bootstrap over examples; exact where all of them have the same share."""

    @property
    def value(self) -> float:
        """From 0 to 1."""
        return self.followed / self.total

    def as_record(self) -> dict[str, Any]:
        """For a JSON file."""
        return {
            "rate": self.value,
            "interval": list(self.interval),
            "followed": self.followed,
            "total": self.total,
        }


@dataclass(frozen=True)
class Rate:
    """One rate by the strict and by the loose verdicts."""

    strict: Share
    loose: Share

    def as_record(self) -> dict[str, Any]:
        """For a JSON file."""
        return {"strict": self.strict.as_record(), "loose": self.loose.as_record()}


def response_rate(responses: Sequence[Sequence[Finding]]) -> Rate | None:
    """The share of responses whose findings all say followed; None of none.

    A response without findings does not count.
    """
    return _rate(
        [
            (
                int(all(each.strict for each in findings)),
                int(all(each.loose for each in findings)),
                1,
            )
            for findings in responses
            if findings
        ]
    )


def finding_rate(responses: Sequence[Sequence[Finding]]) -> Rate | None:
    """The share of findings that say followed, of all responses; None of none."""
    return _rate(
        [
            (
                sum(bool(each.strict) for each in findings),
                sum(bool(each.loose) for each in findings),
                len(findings),
            )
            for findings in responses
            if findings
        ]
    )


def _rate(rows: list[tuple[int, int, int]]) -> Rate | None:
    """From (followed strictly, followed loosely, all) of each response."""
    if not rows:
        return None
    strict, loose, totals = (list(column) for column in zip(*rows, strict=True))
    first = _share(strict, totals)
    return Rate(first, first if loose == strict else _share(loose, totals))


def _share(followed: list[int], totals: list[int]) -> Share:
    every, all_of = sum(followed), sum(totals)
    if all(f * all_of == every * total for f, total in zip(followed, totals, strict=True)):
        # Every draw of a bootstrap would be the same, as if such a rate were certain. So examples
        # count as wholes: as if a share of them followed everything, and the others nothing.
        interval = exact_interval(len(totals) * every / all_of, len(totals))
    else:
        interval = ratio_interval(followed, totals)
    return Share(every, all_of, interval)
