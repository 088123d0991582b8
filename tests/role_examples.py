"""Examples of roles and rules for tests, and a judge that follows a rule of its own."""

from rnr_kernels.roles.example import Example, Role, StatedRequirement
from rnr_kernels.roles.requirement import Requirement
from rnr_kernels.roles.verdict import Verdict

NO_COMMA = Requirement("punctuation:no_comma")
CLERK = Role("Harbour clerk", "You are the clerk of a small harbour.", "berths and tides")


def says(word: str, kind: str = "free_form:tone") -> Requirement:
    """A requirement for `WordJudge`."""
    return Requirement(kind, text=f"Say {word}")


def stated(*requirements: Requirement) -> tuple[StatedRequirement, ...]:
    return tuple(StatedRequirement(each, each.wording()) for each in requirements)


def example(
    name: str,
    *requirements: Requirement,
    response: str | None = None,
    role: Role | None = None,
    in_scope: bool = True,
    role_checks: tuple[Requirement, ...] = (),
) -> Example:
    return Example(
        name, role, stated(*requirements), ({"role": "user", "content": f"Question {name}?"},),
        response, in_scope, stated(*role_checks),
    )  # fmt: skip


class WordJudge:
    """Finds the last word of a requirement in the response; "(fail)" leaves it undecided."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, str]] = []

    def verdict(self, requirement: str, example: Example, response: str) -> Verdict:
        self.asked.append((requirement, example.id, response))
        if "(fail)" in response:
            return Verdict(False, "the judge came to no verdict: HTTP 503", undecided=True)
        word = requirement.rpartition(" ")[2]
        return Verdict(word in response, f"looked for {word}")


THREE = [
    example("1", NO_COMMA, says("aye"), response="It is aye."),
    example("2", NO_COMMA, response="Well, sure:\nIt is."),
    example("3", NO_COMMA, says("aye"), response="No, no."),
]
"""All followed: strictly 1 of 3, loosely 2; of the requirements: strictly 2 of 5, loosely 3."""
