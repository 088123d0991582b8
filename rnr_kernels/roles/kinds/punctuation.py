"""Requirements on punctuation."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rnr_kernels.automata.characters import Characters
from rnr_kernels.automata.languages import Language, characters
from rnr_kernels.roles.amounts import counted
from rnr_kernels.roles.kind import Kind
from rnr_kernels.roles.token_rules import without_characters
from rnr_kernels.roles.verdict import FOLLOWED, Verdict, failed
from rnr_kernels.rules.kinds import RuleSet

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class NoComma(Kind):
    """No "," anywhere; the commas of other scripts are other characters."""

    guarantee = "certain"
    name = "punctuation:no_comma"
    wordings = (
        "Do not use any commas in your response.",
        "Write without commas.",
        "Your answer must not contain a comma.",
    )

    def check(self, response: str) -> Verdict:
        count = response.count(",")
        return failed(counted(count, "comma")) if count else FOLLOWED

    def accepted(self) -> Language:
        return characters(~Characters.of(",")).repeated()

    def rules(self, tokenizer: "PreTrainedTokenizerBase") -> RuleSet:
        return without_characters(tokenizer, Characters.of(","), label=self.name)

    def refuses(self, text: str, *, any_case: bool) -> bool:
        return "," in text
