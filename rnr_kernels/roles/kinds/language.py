"""Requirements on the language of a response."""

from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING

from rnr_kernels.automata.characters import Characters
from rnr_kernels.automata.languages import Language, union
from rnr_kernels.roles.amounts import Interval
from rnr_kernels.roles.clashes import ENGLISH_CASES
from rnr_kernels.roles.kind import Kind
from rnr_kernels.roles.kinds.characters import CASED_SCRIPTS, NUMBER_WORDS, WITHOUT_SPACES, Script
from rnr_kernels.roles.parameters import one_of
from rnr_kernels.roles.regular import all_texts_of, foreign_letters
from rnr_kernels.roles.spoken_languages import LANGUAGES, language_of, scripts_of
from rnr_kernels.roles.text import foreign_letter
from rnr_kernels.roles.token_rules import without_characters
from rnr_kernels.roles.verdict import FOLLOWED, Verdict, failed
from rnr_kernels.rules.kinds import RuleSet

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CONSTRAINED_RESPONSE = "detectable_format:constrained_response"

DRAWN = ("de", "es", "fr", "hi", "it", "ja", "ko", "nl", "pl", "pt", "ru", "tr", "zh")


@dataclass(frozen=True)
class ResponseLanguage(Kind):
    """The whole response is most likely in the language, an ISO 639-1 code (`language_of`).

    A text without letters, or in which nothing tells the language, does not follow; in IFEval it
    does. Nor may one of a few words, such as "No.", in which the language is a guess: do not ask
    for answers as short as that in a language.
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
        """Texts in the letters of the language, of one script of its own."""
        return union(all_texts_of(~foreign_letters(each)) for each in scripts_of(self.language))

    def rules(self, tokenizer: "PreTrainedTokenizerBase") -> RuleSet:
        foreign = reduce(Characters.__and__, map(foreign_letters, scripts_of(self.language)))
        return without_characters(tokenizer, foreign, label=self.name)

    def refuses(self, text: str, *, any_case: bool) -> bool:
        # A foreign keyword or phrase has a place in any language, counts of foreign letters none.
        return len(text) == 1 and not self.allows_answer(text)

    def allows_answer(self, answer: str) -> bool:
        """By its letters alone: in a word or two the language is a guess."""
        return any(foreign_letter(answer, each) is None for each in scripts_of(self.language))

    def bounds(self) -> dict[str, Interval]:
        caseless = not set(scripts_of(self.language)) & set(CASED_SCRIPTS)
        return {"words in capitals": (0, 0)} if caseless else {}

    def conflict(self, other: Kind) -> str | None:
        name, scripts = LANGUAGES[self.language][0], scripts_of(self.language)
        if isinstance(other, ResponseLanguage) and other.language != self.language:
            return f"a response is not both in {name} and in {LANGUAGES[other.language][0]}"
        if isinstance(other, Script) and other.script not in scripts:
            return f"{name} is not written in {other.script} letters"
        if other.name in ENGLISH_CASES and self.language != "en":
            return f"{other.name} asks for English, {self.name} for {name}"
        if other.name == CONSTRAINED_RESPONSE and self.language != "en":
            return f"{other.name} asks for an English sentence, {self.name} for {name}"
        if set(scripts) & set(WITHOUT_SPACES) and other.name == NUMBER_WORDS:
            return f"words in {name} have no spaces between them to count them by"
        return super().conflict(other)
