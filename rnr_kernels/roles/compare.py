"""Two systems compared on the same examples."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rnr_kernels.intervals import bootstrap_interval, ratio_interval
from rnr_kernels.roles.findings import Findings
from rnr_kernels.roles.pass_rate import PassRate
from rnr_kernels.roles.requirement import Requirement


@dataclass(frozen=True)
class Difference:
    """A's rate less B's."""

    value: float
    interval: tuple[float, float]
    """95 %, by bootstrap over examples, of each the two systems together."""


@dataclass(frozen=True)
class Comparison:
    """Which of two systems follows all requirements more often, on examples that have some."""

    both: int
    """Examples on which both follow all."""
    only_a: int
    only_b: int
    neither: int
    p_value: float
    """Of McNemar's exact test (McNemar 1947), two-sided: how often chance alone splits the
    examples that only one follows at least as unevenly."""
    all_followed: Difference
    each_followed: Difference
    """Of the requirements, as `PassRate.each_followed`."""

    def as_record(self) -> dict[str, Any]:
        """For a JSON file."""
        return asdict(self)


def compare(a: PassRate, b: PassRate, *, loose: bool = False) -> Comparison:
    """A beside B by the strict verdicts, or the loose ones.

    Raises ValueError if they are not of the same examples with the same requirements, in any order,
    or if no example has a requirement.
    """
    try:
        from scipy.stats import binomtest  # type: ignore[import-untyped]
    except ImportError:
        raise ValueError("the paired test needs scipy; pip install 'rnr_kernels[roles]'") from None
    pairs = [(x, y) for x, y in _paired(a.findings, b.findings) if x.requirements]
    if not pairs:
        raise ValueError("no example has a requirement: there is nothing to compare")
    followed = [(x.all_followed(loose=loose), y.all_followed(loose=loose)) for x, y in pairs]
    only_a, only_b = followed.count((True, False)), followed.count((False, True))
    gains = [int(x) - int(y) for x, y in followed]
    counts = [x.num_followed(loose=loose) - y.num_followed(loose=loose) for x, y in pairs]
    totals = [len(x.requirements) for x, _ in pairs]
    return Comparison(
        both=followed.count((True, True)),
        only_a=only_a,
        only_b=only_b,
        neither=followed.count((False, False)),
        p_value=float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0,
        all_followed=Difference(sum(gains) / len(gains), bootstrap_interval(gains)),
        each_followed=Difference(sum(counts) / sum(totals), ratio_interval(counts, totals)),
    )


def _paired(a: Sequence[Findings], b: Sequence[Findings]) -> list[tuple[Findings, Findings]]:
    of_b = {each.example.id: each for each in b}
    only_one = of_b.keys() ^ {each.example.id for each in a}
    if only_one:
        raise ValueError(
            f"{len(only_one)} examples are of one system only, such as {min(only_one)!r}; both "
            "must answer the same examples"
        )
    pairs = [(each, of_b[each.example.id]) for each in a]
    for x, y in pairs:
        if _stated(x) != _stated(y):
            raise ValueError(
                f"example {x.example.id!r} has other requirements in one system than in the other; "
                "evaluate both on one file, both with a judge or both without"
            )
    return pairs


def _stated(findings: Findings) -> list[Requirement]:
    return [each.stated.requirement for each in findings.requirements]
