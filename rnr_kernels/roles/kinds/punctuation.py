"""Requirements on punctuation."""

from dataclasses import dataclass

from rnr_kernels.roles.amounts import counted
from rnr_kernels.roles.kind import Kind
from rnr_kernels.roles.verdict import FOLLOWED, Verdict, failed


@dataclass(frozen=True)
class NoComma(Kind):
    """No "," anywhere; the commas of other scripts are other characters."""

    name = "punctuation:no_comma"
    wordings = (
        "Do not use any commas in your response.",
        "Write without commas.",
        "Your answer must not contain a comma.",
    )

    def check(self, response: str) -> Verdict:
        count = response.count(",")
        return failed(counted(count, "comma")) if count else FOLLOWED

    def refuses(self, text: str, *, any_case: bool) -> bool:
        return "," in text
