"""The pass rate: how often responses follow all that a system prompt requires, and its role."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, TypeVar

from rnr_kernels.roles.example import Example
from rnr_kernels.roles.findings import Finding, Findings, check_unjudged, find
from rnr_kernels.roles.judge import Judge
from rnr_kernels.roles.rates import Rate, finding_rate, response_rate
from rnr_kernels.roles.requirement import Requirement
from rnr_kernels.templates import check_text

REQUESTS_IN_FLIGHT = 8

K = TypeVar("K")


@dataclass(frozen=True)
class PassRate:
    """Rates over examples, each strict and loose (Zhou et al. 2023, section 2.3).

    None, or no key, where nothing counts for a rate. A verdict that a judge could not reach counts
    as not followed, and among `num_undecided`.
    """

    findings: tuple[Findings, ...]
    all_followed: Rate | None
    """Responses that follow every requirement: the metric of Wang et al. 2024, and IFEval's
    prompt-level accuracy. Examples without requirements do not count."""
    in_scope: Rate | None
    """The same, of questions that the role answers."""
    out_of_scope: Rate | None
    """The same, of questions that it declines."""
    each_followed: Rate | None
    """Requirements that are followed: IFEval's instruction-level accuracy."""
    by_count: dict[int, Rate]
    """`all_followed` by how many requirements count for an example."""
    by_kind: dict[str, Rate]
    """`each_followed` by kind."""
    by_requirement: dict[Requirement, Rate]
    """`each_followed` by kind and parameters."""
    role_kept: Rate | None
    """Of questions that the role answers, responses that follow all of its checks."""
    role_declined: Rate | None
    """The same, of questions that it declines."""

    @property
    def num_skipped(self) -> int:
        """Requirements and role checks that were left out because there is no judge."""
        return sum(each.num_skipped for each in self.findings)

    @property
    def num_undecided(self) -> int:
        """Verdicts that the judge could not reach."""
        return sum(
            finding.strict.undecided
            for each in self.findings
            for finding in (*each.requirements, *each.role)
        )

    def as_record(self) -> dict[str, Any]:
        """For a JSON file: all rates, then every verdict with its reason."""
        return {
            "rates": {
                **{name: _record(getattr(self, name)) for name in SINGLE_RATES},
                "by_count": {str(count): rate.as_record() for count, rate in self.by_count.items()},
                "by_kind": {kind: rate.as_record() for kind, rate in self.by_kind.items()},
                "by_requirement": [
                    {**requirement.as_record(), **rate.as_record()}
                    for requirement, rate in self.by_requirement.items()
                ],
            },
            "skipped": self.num_skipped,
            "undecided": self.num_undecided,
            "examples": [each.as_record() for each in self.findings],
        }


SINGLE_RATES = (
    "all_followed", "in_scope", "out_of_scope", "each_followed", "role_kept", "role_declined",
)  # fmt: skip


def kind_label(kind: str) -> str:
    """A kind's name for tables and figures: without its family, in words."""
    return kind.rpartition(":")[2].replace("_", " ")


def pass_rate(
    examples: Sequence[Example],
    responses: Sequence[str] | None = None,
    *,
    judge: Judge | None = None,
    skip_judged: bool = False,
    requests_in_flight: int = REQUESTS_IN_FLIGHT,
    on_findings: Callable[[Findings], None] | None = None,
) -> PassRate:
    """How many of the `responses`, one an example, follow all requirements.

    Without `responses` the examples' own count. Requirements in free words, and roles without
    checks of their own, are the `judge`'s, who is asked `requests_in_flight` questions at once.
    Without a judge such roles do not count, and such requirements are left out with `skip_judged`.
    `on_findings` is called with each example's findings in their order, so that a caller can show
    progress and keep what an interruption would lose.

    Raises ValueError, before anything is checked, for no examples, for one without a response, for
    responses that are not as many, and for requirements that need a judge; and what a judge raises.
    """
    answered = _answered(examples, responses)
    if requests_in_flight < 1:
        raise ValueError(f"requests_in_flight must be at least 1, got {requests_in_flight}")
    if judge is None and not skip_judged:
        check_unjudged(answered)
    found = []
    with closing(find(answered, judge, requests_in_flight)) as findings:
        for each in findings:
            found.append(each)
            if on_findings is not None:
                on_findings(each)
    return pass_rate_of(found)


def pass_rate_of(findings: Sequence[Findings]) -> PassRate:
    """The rates of what was found."""
    by_count: defaultdict[int, list[Sequence[Finding]]] = defaultdict(list)
    for each in findings:
        by_count[len(each.requirements)].append(each.requirements)
    return PassRate(
        tuple(findings),
        all_followed=response_rate([each.requirements for each in findings]),
        in_scope=response_rate([f.requirements for f in findings if f.example.in_scope]),
        out_of_scope=response_rate([f.requirements for f in findings if not f.example.in_scope]),
        each_followed=finding_rate([each.requirements for each in findings]),
        by_count=_without_none({n: response_rate(by_count[n]) for n in sorted(by_count)}),
        by_kind=dict(sorted(_grouped(findings, lambda each: each.kind).items())),
        by_requirement=_grouped(findings, lambda each: each),
        role_kept=response_rate([each.role for each in findings if each.example.in_scope]),
        role_declined=response_rate([each.role for each in findings if not each.example.in_scope]),
    )


def _grouped(findings: Sequence[Findings], key: Callable[[Requirement], K]) -> dict[K, Rate]:
    """The rate of the findings with one key, for each key in the order of its first."""
    groups: defaultdict[K, list[list[Finding]]] = defaultdict(list)
    for each in findings:
        own: defaultdict[K, list[Finding]] = defaultdict(list)
        for finding in each.requirements:
            own[key(finding.stated.requirement)].append(finding)
        for name, some in own.items():
            groups[name].append(some)
    return _without_none({name: finding_rate(group) for name, group in groups.items()})


def _without_none(rates: dict[K, Rate | None]) -> dict[K, Rate]:
    return {name: rate for name, rate in rates.items() if rate is not None}


def _record(rate: Rate | None) -> dict[str, Any] | None:
    return None if rate is None else rate.as_record()


def _answered(examples: Sequence[Example], responses: Sequence[str] | None) -> list[Example]:
    """The examples with their responses."""
    if not examples:
        raise ValueError("there are no examples to evaluate")
    if len({example.id for example in examples}) < len(examples):
        raise ValueError("an id comes twice; ids tell examples apart")
    if responses is None:
        for example in examples:
            if example.response is None:
                raise ValueError(f"example {example.id!r} has no response; give the responses")
        return list(examples)
    if isinstance(responses, str) or len(responses) != len(examples):
        raise ValueError(
            f"there must be {len(examples)} responses, one an example, got {len(responses)}"
        )
    for example, response in zip(examples, responses, strict=True):
        check_text(response, f"the response to example {example.id!r}")
    return [each.answered(text) for each, text in zip(examples, responses, strict=True)]
