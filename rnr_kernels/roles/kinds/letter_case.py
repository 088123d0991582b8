"""Requirements on upper and lower case."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from rnr_kernels.automata.characters import Characters
from rnr_kernels.automata.languages import Language, characters, contains, is_word
from rnr_kernels.automata.machines import machine
from rnr_kernels.roles.amounts import (
    LESS_THAN,
    RELATIONS,
    Interval,
    amount,
    compared,
    counted,
    interval,
)
from rnr_kernels.roles.kind import Kind
from rnr_kernels.roles.parameters import one_of, whole_number
from rnr_kernels.roles.regular import all_texts_of, cased, foreign_letters, letters, marks
from rnr_kernels.roles.text import foreign_letter, is_letter, words
from rnr_kernels.roles.token_rules import without_characters
from rnr_kernels.roles.verdict import FOLLOWED, Verdict, failed
from rnr_kernels.rules.kinds import RuleSet

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def _wrong_letters(wanted: str) -> Characters:
    """Letters that are not Latin, or for which the method `wanted` of str does not hold."""
    # Titlecase letters such as "ǅ" are of neither case.
    return (letters() - cased(wanted)) | foreign_letters("Latin")


def _of_case(wanted: str) -> Language:
    """Texts with a letter, and without `_wrong_letters`."""
    allowed = ~_wrong_letters(wanted)
    return all_texts_of(allowed) & contains(characters(letters() & cased(wanted) & allowed))


def _after_capitals(state: tuple[int, str], kind: str, most: int) -> tuple[int, str]:
    """The count of words in capitals before the running one, up to `most`, and what that one is."""
    count, word = state
    if kind == "mark":
        return state
    if kind == "between words":
        return min(count + (word == "capital"), most), kind
    if kind == "small":
        return count, "small"
    if kind == "capital" and word != "small":
        return count, "capital"
    return count, "other" if word == "between words" else word


class _OneCase(Kind):
    """Every letter is Latin and of one case, and there is one."""

    method: ClassVar[str]
    """Of str: it holds for letters of the case."""

    def has_case(self, text: str) -> bool:
        """Whether the letters of a text of ASCII characters, or one letter, are all of the case."""
        return bool(getattr(text, self.method)())

    def accepted(self) -> Language:
        return _of_case(self.method)

    def rules(self, tokenizer: "PreTrainedTokenizerBase") -> RuleSet:
        return without_characters(tokenizer, _wrong_letters(self.method), label=self.name)

    def check(self, response: str) -> Verdict:
        wrong = self._wrong(response)
        if wrong is not None:
            return failed(f"has the letter {wrong!r}")
        has_letters = any(map(is_letter, set(response)))
        return FOLLOWED if has_letters else failed("has no letters")

    def refuses(self, text: str, *, any_case: bool) -> bool:
        if any_case:
            return foreign_letter(text, "Latin") is not None
        return self._wrong(text) is not None

    def _wrong(self, text: str) -> str | None:
        """A character that may not stand in a response: of another case, of none, not Latin."""
        if text.isascii() and self.has_case(text):
            return None
        wrong = (each for each in set(text) if is_letter(each) and not self.has_case(each))
        return min(wrong, default=None) or foreign_letter(text, "Latin")


@dataclass(frozen=True)
class EnglishCapital(_OneCase):
    """Every letter is a Latin capital, and there is one.

    Only script and case are looked at; which language is written in Latin letters is for
    `language:response_language` to say. Titlecase letters are no capitals. What is no letter of
    either case may stand beside them (`text.is_letter`).
    """

    guarantee = "certain"
    name = "change_case:english_capital"
    method = "isupper"
    wordings = (
        "Write in English, and in all capital letters.",
        "Your entire response must be in English, with capital letters only.",
        "ANSWER IN ENGLISH AND USE ONLY CAPITAL LETTERS.",
    )


@dataclass(frozen=True)
class EnglishLowercase(_OneCase):
    """Every letter is a small Latin one, and there is one; what `EnglishCapital` says holds."""

    guarantee = "certain"
    name = "change_case:english_lowercase"
    method = "islower"
    wordings = (
        "Write in English, and in all lowercase letters. No capital letters are allowed.",
        "Your entire response must be in English and in lowercase letters only.",
        "answer in english and use only lowercase letters.",
    )

    def bounds(self) -> dict[str, Interval]:
        return {"words in capitals": (0, 0)}


@dataclass(frozen=True)
class CapitalWordFrequency(Kind):
    """At least, or less than, so many words have capitals and no small letters; "I" is one.

    Words as in `NumberWords`; IFEval's tokenizer keeps "U.S." together.
    """

    capital_relation: str = one_of(RELATIONS)
    capital_frequency: int = whole_number(1, 1000, drawn=(2, 12))

    guarantee = "certain"
    name = "change_case:capital_word_frequency"
    wordings = (
        "Use {capital_frequency} in all capital letters.",
        "Your response should have {capital_frequency} in full capitals.",
        "Write {capital_frequency} in all caps in every answer.",
    )

    def words(self) -> dict[str, str]:
        return {"capital_frequency": amount(self.capital_relation, self.capital_frequency, "word")}

    def check(self, response: str) -> Verdict:
        count = sum(word.isupper() for word in words(response))
        found = f"{counted(count, 'word')} in capitals"
        return compared(count, self.capital_relation, self.capital_frequency, found)

    def accepted(self) -> Language:
        small = (cased("islower") | cased("istitle")) - cased("isupper")
        kinds = {
            # Marks go on with a word, and begin none.
            "mark": marks(),
            "between words": ~is_word(),
            "capital": cased("isupper") & is_word(),
            "small": small & is_word(),
        }
        low, high = interval(self.capital_relation, self.capital_frequency)
        most = low if high is None else high + 1

        def accepts(state: tuple[int, str]) -> bool:
            count = state[0] + (state[1] == "capital")
            return low <= count and (high is None or count <= high)

        return machine(
            kinds,
            (0, "between words"),
            lambda state, kind: _after_capitals(state, kind, most),
            accepts,
        )

    def bounds(self) -> dict[str, Interval]:
        least, most = interval(self.capital_relation, self.capital_frequency)
        return {"words in capitals": (least, most), "words": (least, None)}

    def refuses(self, text: str, *, any_case: bool) -> bool:
        too_many = sum(word.isupper() for word in words(text)) >= self.capital_frequency
        return self.capital_relation == LESS_THAN and not any_case and too_many

    def conflict(self, other: Kind) -> str | None:
        if self.capital_relation == LESS_THAN and isinstance(other, EnglishCapital):
            return f"{other.name} makes every word one in capitals, {self.name} limits them"
        return super().conflict(other)
