"""Requirements on the language of a response."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rnr_kernels.automata.languages import Language
from rnr_kernels.roles.amounts import Interval
from rnr_kernels.roles.clashes import ENGLISH_CASES
from rnr_kernels.roles.kind import Kind
from rnr_kernels.roles.kinds.characters import CASED_SCRIPTS, NUMBER_WORDS, WITHOUT_SPACES, Script
from rnr_kernels.roles.languages import LANGUAGES, language_of
from rnr_kernels.roles.parameters import one_of
from rnr_kernels.roles.regular import all_texts_of, foreign_letters
from rnr_kernels.roles.text import foreign_letter
from rnr_kernels.roles.token_rules import without_characters
from rnr_kernels.roles.verdict import FOLLOWED, Verdict, failed
from rnr_kernels.rules.kinds import RuleSet

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

DRAWN = ("de", "es", "fr", "hi", "it", "ja", "ko", "nl", "pl", "pt", "ru", "tr", "zh")


@dataclass(frozen=True)
class ResponseLanguage(Kind):
    """The whole response is most likely in the language, an ISO 639-1 code (`language_of`).

    A text without letters, or in which nothing tells the language, does not follow; in IFEval it
    does.
    """

    language: str = one_of(tuple(LANGUAGES), drawn=DRAWN)

    guarantee = "likelier"
    name = "language:response_language"
    wordings = (
        "Your entire response must be in {language}; no other language is allowed.",
        "Answer in {language}, whatever the language of the question.",
        "Write only in {language}.",
    )

    def words(self) -> dict[str, str]:
        return {"language": LANGUAGES[self.language][0]}

    def check(self, response: str) -> Verdict:
        found = language_of(response)
        if found == self.language:
            return FOLLOWED
        wanted = LANGUAGES[self.language][0]
        if found is None:
            return failed(f"nothing tells that it is {wanted}")
        return failed(f"{LANGUAGES[found][0]}, not {wanted}")

    def accepted(self) -> Language:
        """Texts in the letters of the language."""
        return all_texts_of(~foreign_letters(LANGUAGES[self.language][1]))

    def rules(self, tokenizer: "PreTrainedTokenizerBase") -> RuleSet:
        foreign = foreign_letters(LANGUAGES[self.language][1])
        return without_characters(tokenizer, foreign, label=self.name)

    def refuses(self, text: str, *, any_case: bool) -> bool:
        # A foreign keyword or phrase has a place in any language, counts of foreign letters none.
        return len(text) == 1 and foreign_letter(text, LANGUAGES[self.language][1]) is not None

    def bounds(self) -> dict[str, Interval]:
        caseless = LANGUAGES[self.language][1] not in CASED_SCRIPTS
        return {"words in capitals": (0, 0)} if caseless else {}

    def conflict(self, other: Kind) -> str | None:
        name, script = LANGUAGES[self.language]
        if isinstance(other, ResponseLanguage) and other.language != self.language:
            return f"a response is not both in {name} and in {LANGUAGES[other.language][0]}"
        if isinstance(other, Script) and other.script != script:
            return f"{name} is not written in {other.script} letters"
        if other.name in ENGLISH_CASES and self.language != "en":
            return f"{other.name} asks for English, {self.name} for {name}"
        if script in WITHOUT_SPACES and other.name == NUMBER_WORDS:
            return f"words in {name} have no spaces between them to count them by"
        return super().conflict(other)
