"""One system, or two, evaluated on the same examples."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from rnr_kernels.roles.compare import Comparison, compare
from rnr_kernels.roles.findings import Findings
from rnr_kernels.roles.pass_rate import PassRate


def system_records(systems: Mapping[str, PassRate]) -> list[dict[str, Any]]:
    """For a JSON file: of each system its name, rates, and every verdict with its reason."""
    return [{"name": name, **each.as_record()} for name, each in systems.items()]


def check_decided(findings: Iterable[Findings]) -> None:
    """ValueError where a judge was asked and came to no verdict at all.

    One that fails now and then costs a few verdicts; of this one every rate would be made up.
    """
    verdicts = [verdict for each in findings for verdict in each.judged]
    if verdicts and all(verdict.undecided for verdict in verdicts):
        raise ValueError(
            f"the judge came to none of {len(verdicts)} verdicts; of the last one: "
            f"{verdicts[-1].reason}; check the judge's name, its base URL and its prompt"
        )


@dataclass(frozen=True)
class Evaluation:
    """The pass rates of systems by name, at most two of them."""

    systems: Mapping[str, PassRate]

    def comparison(self, *, loose: bool = False) -> Comparison | None:
        """The first beside the second; None for one system, or without any requirement."""
        rates = list(self.systems.values())
        if len(rates) < 2 or rates[0].all_followed is None:
            return None
        return compare(*rates, loose=loose)

    def as_record(self) -> dict[str, Any]:
        """For a JSON file: the systems, and their comparison."""
        strict, loose = self.comparison(), self.comparison(loose=True)
        return {
            "systems": system_records(self.systems),
            "comparison": None
            if strict is None or loose is None
            else {"strict": strict.as_record(), "loose": loose.as_record()},
        }
