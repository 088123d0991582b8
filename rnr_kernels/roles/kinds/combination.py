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
from rnr_kernels.roles.text import divided as text_parts
from rnr_kernels.roles.verdict import FOLLOWED, Verdict, failed

DIVIDER = "******"


@dataclass(frozen=True)
class RepeatPrompt(Kind):
    """The response starts with the prompt, in any case, blanks before it apart."""

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
        if response.strip().lower().startswith(self.prompt_to_repeat.lower()):
            return FOLLOWED
        start, wanted = shown(response.strip()), shown(self.prompt_to_repeat)
        return failed(f"starts with {start}, not {wanted}")

    def accepted(self) -> Language:
        prompt = literal(self.prompt_to_repeat.lower())
        return lowered(blanks() + prompt + EVERYTHING)

    def needs(self) -> tuple[Needed, ...]:
        return (Needed((self.prompt_to_repeat,)),)

    def opening(self) -> str:
        return bare(self.prompt_to_repeat)

    def conflict(self, other: Kind) -> str | None:
        if isinstance(other, Quotation) and not self.prompt_to_repeat.startswith(QUOTE):
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
        parts = text_parts(response, DIVIDER)
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
        # Each is a sentence at least, though the check of sentences may run two without full stops
        # into one.
        return {"lines": (3, None), "sentences": (2, None)}
