"""Requirements on the characters that a response is written in."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rnr_kernels.automata.languages import Language, characters, contains, literal
from rnr_kernels.roles.amounts import Interval
from rnr_kernels.roles.clashes import ENGLISH_CASES
from rnr_kernels.roles.kind import Kind
from rnr_kernels.roles.parameters import one_of
from rnr_kernels.roles.regular import all_texts_of, cased, foreign_letters, found, own_letters
from rnr_kernels.roles.text import foreign_letter, has_letter, library
from rnr_kernels.roles.token_rules import without_characters
from rnr_kernels.roles.verdict import FOLLOWED, Verdict, failed
from rnr_kernels.rules.kinds import RuleSet

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CASED_SCRIPTS = ("Armenian", "Cyrillic", "Greek", "Latin")
SCRIPTS = tuple(
    sorted(
        (
            *CASED_SCRIPTS,
            "Arabic", "Bengali", "Devanagari", "Ethiopic", "Georgian", "Gujarati", "Gurmukhi",
            "Han", "Hangul", "Hebrew", "Japanese", "Kannada", "Khmer", "Lao", "Malayalam",
            "Myanmar", "Oriya", "Sinhala", "Tamil", "Telugu", "Thai", "Tibetan",
        )
    )
)  # fmt: skip
"""As Unicode calls them, and Japanese, which is Hiragana, Katakana and Han."""

WITHOUT_SPACES = ("Han", "Japanese", "Khmer", "Lao", "Myanmar", "Thai", "Tibetan")
"""In which the words of a sentence are not divided, so that they cannot be counted."""

NUMBER_WORDS = "length_constraints:number_words"


@dataclass(frozen=True)
class NoDigits(Kind):
    """No digit of any script, superscripts and circled ones among them."""

    guarantee = "certain"
    name = "characters:no_digits"
    wordings = (
        "Do not use any digits; write numbers as words.",
        "Your response must not contain numerals such as 1, 2 or 3.",
        "Spell out every number instead of writing digits.",
    )

    def check(self, response: str) -> Verdict:
        found = sorted(each for each in set(response) if each.isdigit())
        return failed(f"has the digits {' '.join(found[:10])}") if found else FOLLOWED

    def accepted(self) -> Language:
        return all_texts_of(~cased("isdigit"))

    def rules(self, tokenizer: "PreTrainedTokenizerBase") -> RuleSet:
        return without_characters(tokenizer, cased("isdigit"), label=self.name)

    def refuses(self, text: str, *, any_case: bool) -> bool:
        return not self.check(text)


@dataclass(frozen=True)
class NoEmoji(Kind):
    """No emoji: nothing that is shown in colour by itself or by the mark that asks for it."""

    guarantee = "certain"
    name = "characters:no_emoji"
    wordings = (
        "Do not use emoji.",
        "Your response must be free of emojis.",
        "Never put emoji into your answers.",
    )

    def check(self, response: str) -> Verdict:
        if response.isascii():
            return FOLLOWED
        found = library("regex").search(r"\p{Emoji_Presentation}|\p{Emoji}\uFE0F|\u20E3", response)
        return failed(f"has the emoji {found[0]!r}") if found else FOLLOWED

    def accepted(self) -> Language:
        return ~contains(characters(found(r"[\p{Emoji_Presentation}\u20E3]+"))) & ~contains(
            characters(found(r"\p{Emoji}+")) + literal("\ufe0f")
        )

    def refuses(self, text: str, *, any_case: bool) -> bool:
        return not self.check(text)


@dataclass(frozen=True)
class Script(Kind):
    """Every letter is of one script, by Unicode's Script_Extensions, and there is one.

    Letters that all scripts share, such as the micro sign, may stand beside them.
    """

    script: str = one_of(
        SCRIPTS, drawn=("Arabic", "Cyrillic", "Devanagari", "Greek", "Han", "Hangul", "Latin")
    )

    guarantee = "certain"
    name = "characters:script"
    wordings = (
        "Write only in {script} script.",
        "Every letter of your response must belong to the {script} script.",
        "Use no letters other than those of {script} script.",
    )

    def words(self) -> dict[str, str]:
        spoken = {"Han": "Chinese (Han)", "Hangul": "Korean (Hangul)"}
        return {"script": spoken.get(self.script, self.script)}

    def check(self, response: str) -> Verdict:
        found = foreign_letter(response, self.script)
        if found is not None:
            return failed(f"has the letter {found!r}, which is not {self.script}")
        return FOLLOWED if has_letter(response, self.script) else failed("has no letters")

    def accepted(self) -> Language:
        own = ~foreign_letters(self.script)
        return all_texts_of(own) & contains(characters(own_letters(self.script)))

    def rules(self, tokenizer: "PreTrainedTokenizerBase") -> RuleSet:
        return without_characters(tokenizer, foreign_letters(self.script), label=self.name)

    def refuses(self, text: str, *, any_case: bool) -> bool:
        return foreign_letter(text, self.script) is not None

    def bounds(self) -> dict[str, Interval]:
        caseless = self.script not in CASED_SCRIPTS
        return {"words in capitals": (0, 0)} if caseless else {}

    def conflict(self, other: Kind) -> str | None:
        if isinstance(other, Script) and other.script != self.script:
            return f"no letter is both {self.script} and {other.script}"
        if self.script != "Latin" and other.name in ENGLISH_CASES:
            return f"{other.name} asks for Latin letters, {self.name} for {self.script} ones"
        if self.script in WITHOUT_SPACES and other.name == NUMBER_WORDS:
            return f"words in {self.script} script have no spaces between them to count them by"
        return super().conflict(other)
