"""Requirements on punctuation."""

from dataclasses import dataclass

from rnr_kernels.roles.kind import Kind
from rnr_kernels.roles.verdict import FOLLOWED, Verdict, failed


@dataclass(frozen=True)
class NoComma(Kind):
    """No "," anywhere."""

    name = "punctuation:no_comma"
    wordings = (
        "Do not use any commas in your response.",
        "Write without commas.",
        "Your answer must not contain a comma.",
    )

    def check(self, response: str) -> Verdict:
        count = response.count(",")
        return failed(f"{count} commas") if count else FOLLOWED
