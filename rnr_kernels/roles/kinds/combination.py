"""Requirements that a response has parts of its own kind."""

from dataclasses import dataclass

from rnr_kernels.automata.languages import EVERYTHING, Language, literal, lowered
from rnr_kernels.roles.amounts import Interval, counted
from rnr_kernels.roles.kind import Kind, Needed
from rnr_kernels.roles.kinds.startend import Quotation
from rnr_kernels.roles.parameters import text
from rnr_kernels.roles.pools import QUESTIONS
from rnr_kernels.roles.regular import blanks, divided
from rnr_kernels.roles.text import QUOTE, bare, shown
from rnr_kernels.roles.verdict import FOLLOWED, Verdict, failed

DIVIDER = "******"


@dataclass(frozen=True)
class RepeatPrompt(Kind):
    """The response starts with the prompt, in any case, blanks at both ends of either apart."""

    prompt_to_repeat: str = text(drawn=QUESTIONS, longest=100_000)

    guarantee = "certain"
    name = "combination:repeat_prompt"
    wordings = (
        "First repeat the following request word for word, then give your answer: "
        "{prompt_to_repeat}",
        "Start your response with this text, unchanged, and answer after it: {prompt_to_repeat}",
        "Before you answer, write out this request exactly as it stands: {prompt_to_repeat}",
    )

    def check(self, response: str) -> Verdict:
        prompt = self.prompt_to_repeat.strip()
        if response.strip().lower().startswith(prompt.lower()):
            return FOLLOWED
        return failed(f"starts with {shown(response.strip())}, not {shown(prompt)}")

    def accepted(self) -> Language:
        prompt = literal(self.prompt_to_repeat.strip().lower())
        return lowered(blanks() + prompt + EVERYTHING)

    def needs(self) -> tuple[Needed, ...]:
        return (Needed((self.prompt_to_repeat.strip(),)),)

    def opening(self) -> str:
        return bare(self.prompt_to_repeat)

    def conflict(self, other: Kind) -> str | None:
        if isinstance(other, Quotation) and not self.prompt_to_repeat.strip().startswith(QUOTE):
            return f"{self.name} leaves no place for the quotation mark in front"
        return super().conflict(other)


@dataclass(frozen=True)
class TwoResponses(Kind):
    """Two different responses with ****** between them; another may stand first or last."""

    guarantee = "likelier"
    name = "combination:two_responses"
    wordings = (
        "Give two different responses. Separate them with six asterisks: ******",
        "Answer twice, in two different ways, with ****** between the two responses.",
        "Always offer exactly two different responses, divided by 6 asterisk symbols (******).",
    )

    def check(self, response: str) -> Verdict:
        parts = [part.strip() for part in response.split(DIVIDER)]
        if len(parts) > 1:
            parts = parts[not parts[0] :]
            parts = parts[: len(parts) - (not parts[-1])]
        if "" in parts:
            return failed(f"response {parts.index('') + 1} is empty")
        if len(parts) != 2:
            return failed(f"{counted(len(parts), 'response')}, not 2")
        return FOLLOWED if parts[0] != parts[1] else failed("the two responses are the same")

    def accepted(self) -> Language:
        """Two responses, which may be the same: no automaton compares them."""
        return divided(DIVIDER, 2)

    def needs(self) -> tuple[Needed, ...]:
        return (Needed((DIVIDER,)),)

    def bounds(self) -> dict[str, Interval]:
        return {"lines": (3, None)}
