"""What checks and a judge find of responses, one example after the other."""

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from rnr_kernels.roles.example import Example, StatedRequirement
from rnr_kernels.roles.judge import Judge
from rnr_kernels.roles.requirement import Requirement
from rnr_kernels.roles.verdict import Verdict


@dataclass(frozen=True)
class Finding:
    """The verdicts on a response by one requirement."""

    stated: StatedRequirement
    strict: Verdict
    loose: Verdict
    """IFEval's (Zhou et al. 2023, section 2.3); a judge has one verdict, which is both."""

    def followed(self, *, loose: bool = False) -> bool:
        """By one of the two."""
        return bool(self.loose if loose else self.strict)

    def as_record(self) -> dict[str, Any]:
        """For a JSON file."""
        return {
            **self.stated.requirement.as_record(),
            "wording": self.stated.wording,
            "strict": self.strict.followed,
            "loose": self.loose.followed,
            "undecided": self.strict.undecided,
            "reason": self.strict.reason,
        }


@dataclass(frozen=True)
class Findings:
    """All verdicts on one example's response."""

    example: Example
    """With the response."""
    requirements: tuple[Finding, ...]
    """Of the system prompt, in its order."""
    role: tuple[Finding, ...]
    """Of the role; none where nothing tells whether it is kept."""
    num_skipped: int = 0
    """Requirements and role checks that are left out because there is no judge."""

    @property
    def judged(self) -> tuple[Verdict, ...]:
        """What a judge was asked, with or without an answer; none of an empty response."""
        if not (self.example.response or "").strip():
            return ()
        every = (*self.requirements, *self.role)
        return tuple(each.strict for each in every if each.stated.requirement.is_judged)

    def num_followed(self, *, loose: bool = False) -> int:
        """How many of the requirements the response follows."""
        return sum(each.followed(loose=loose) for each in self.requirements)

    def all_followed(self, *, loose: bool = False) -> bool:
        """Whether it follows each of them."""
        return all(each.followed(loose=loose) for each in self.requirements)

    def role_followed(self, *, loose: bool = False) -> bool:
        """Whether it follows all of the role's checks."""
        return all(each.followed(loose=loose) for each in self.role)

    def as_record(self) -> dict[str, Any]:
        """For a JSON file."""
        return {
            "id": self.example.id,
            "in_scope": self.example.in_scope,
            "instruction": self.example.instruction,
            "response": self.example.response,
            "requirements": [each.as_record() for each in self.requirements],
            "role": [each.as_record() for each in self.role],
            "skipped": self.num_skipped,
        }


def role_checks(example: Example) -> tuple[StatedRequirement, ...]:
    """What tells that a response keeps the role: the example's own checks, else a judge's.

    A judge is asked whether the role is kept, and whether a question that it does not cover is
    declined.
    """
    role = example.role
    if example.role_checks or role is None:
        return example.role_checks
    who = f"the assistant's role ({role.name})" if role.name else "the assistant's role"
    if example.in_scope:
        kind = "free_form:persona"
        text = f"The response keeps {who} throughout, and answers the question rather than decline."
    else:
        kind = "free_form:refusal"
        text = (
            f"The response keeps {who}, and declines the question: it is out of the role's scope."
        )
    return (StatedRequirement(Requirement(kind, text=text), text),)


def check_unjudged(examples: Sequence[Example]) -> None:
    """ValueError where an example has a requirement, or a role check of its own, for a judge."""
    judged = [
        example
        for example in examples
        if any(each.requirement.is_judged for each in (*example.requirements, *example.role_checks))
    ]
    if judged:
        raise ValueError(
            f"{len(judged)} of {len(examples)} examples, the first of them {judged[0].id!r}, have "
            "requirements in free words, and only a judge can tell whether they are followed; name "
            "one (--judge-model), or leave such requirements out (--skip-judged)"
        )


def check_something_counts(examples: Sequence[Example], *, has_judge: bool) -> None:
    """ValueError where no example has a requirement, or a role check, that will be looked at."""
    every = (
        each for example in examples for each in (*example.requirements, *role_checks(example))
    )
    if not any(has_judge or not each.requirement.is_judged for each in every):
        advice = "" if has_judge else "; what is in free words, and roles, count with a judge"
        raise ValueError(f"no example has a requirement that counts{advice}")


def find(
    examples: Sequence[Example], judge: Judge | None, requests_in_flight: int
) -> Generator[Findings, None, None]:
    """Findings in the examples' order, of examples with a response.

    The judge is asked `requests_in_flight` questions at once, ahead of the findings; without one
    what is judged is left out. Raises what the judge raises. Close the iterator to ask no more.
    """
    threads = ThreadPoolExecutor(requests_in_flight, thread_name_prefix="judge")
    try:
        begun = [_begin(example, judge, threads) for example in examples]
        for example, (requirements, role, num_skipped) in zip(examples, begun, strict=True):
            yield Findings(
                example,
                tuple(finish() for finish in requirements),
                tuple(finish() for finish in role),
                num_skipped,
            )
    finally:  # an error, Ctrl-C, or a caller that wants no more
        threads.shutdown(wait=False, cancel_futures=True)


Finish = Callable[[], Finding]


def _begin(
    example: Example, judge: Judge | None, threads: ThreadPoolExecutor
) -> tuple[list[Finish], list[Finish], int]:
    """Asks the judge; what is returned waits for it, and checks what has a check."""

    def kept(some: Sequence[StatedRequirement]) -> list[StatedRequirement]:
        return [each for each in some if judge is not None or not each.requirement.is_judged]

    requirements, role = kept(example.requirements), kept(role_checks(example))
    # A role without checks of its own states nothing that could be left out.
    stated = len(example.requirements) + len(example.role_checks)
    num_skipped = stated - len(requirements) - len(role) if judge is None else 0
    return (
        [_begin_one(each, example, judge, threads) for each in requirements],
        [_begin_one(each, example, judge, threads) for each in role],
        num_skipped,
    )


def _begin_one(
    stated: StatedRequirement, example: Example, judge: Judge | None, threads: ThreadPoolExecutor
) -> Finish:
    requirement, response = stated.requirement, example.response or ""
    # An empty response follows nothing, which needs no judge to tell.
    if judge is not None and requirement.is_judged and response.strip():
        wording = stated.wording or requirement.wording()
        asked = threads.submit(judge.verdict, wording, example, response)

        def wait() -> Finding:
            verdict = asked.result()
            return Finding(stated, verdict, verdict)

        return wait

    def check() -> Finding:
        strict = requirement.check(response)
        return Finding(stated, strict, strict or requirement.check(response, loose=True))

    return check
