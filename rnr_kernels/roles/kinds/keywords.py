"""Requirements on words that a response uses or avoids."""

import random
from dataclasses import dataclass, replace
from typing import Self

from rnr_kernels.automata.languages import (
    Language,
    at_least,
    contains,
    intersection,
    literal,
    lowered,
)
from rnr_kernels.roles.amounts import (
    AT_LEAST,
    LESS_THAN,
    RELATIONS,
    Interval,
    appear,
    compared,
    counted,
    implied,
    interval,
    listed,
)
from rnr_kernels.roles.kind import Kind, Needed
from rnr_kernels.roles.parameters import character, one_of, text, texts, whole_number
from rnr_kernels.roles.pools import COMMON_WORDS, KEYWORDS, LETTERS
from rnr_kernels.roles.regular import occurring
from rnr_kernels.roles.text import is_within_word, occurrences, shown, words
from rnr_kernels.roles.verdict import FOLLOWED, Verdict, failed

IN_A_WORD = {
    "a": 0.38, "b": 0.07, "c": 0.13, "d": 0.20, "e": 0.60, "f": 0.10, "g": 0.09, "h": 0.29,
    "i": 0.33, "j": 0.01, "k": 0.04, "l": 0.19, "m": 0.11, "n": 0.32, "o": 0.35, "p": 0.09,
    "q": 0.01, "r": 0.28, "s": 0.30, "t": 0.43, "u": 0.13, "v": 0.05, "w": 0.11, "x": 0.01,
    "y": 0.09, "z": 0.01,
}  # fmt: skip
"""About how often English has each letter in a word, on average."""
COMMON = 0.25
"""In a word: more, and nobody writes a long text without the letter. Without others one can."""
CHARACTERS_A_WORD = 6
"""Of English, a blank included."""
UNUSUAL = 4
"""Times more, or less, often than usual is about what somebody can write who takes care to."""
SOUGHT_AFTER = 0.2
"""In a word, by somebody who looks for words with a rare letter."""

RAREST_LETTERS = "jqxz"
FEW = (1, 4)
"""How often they are drawn at least."""


@dataclass(frozen=True)
class Existence(Kind):
    """Every keyword stands somewhere, as it is written, in any case, also inside a longer word.

    IFEval takes keywords as regular expressions; here they are literal, so "." is a full stop.
    Inside longer words, as there: "farmers" has the keyword "farmer".
    """

    keywords: tuple[str, ...] = texts(drawn=KEYWORDS, count=(1, 3))

    guarantee = "certain"
    name = "keywords:existence"
    wordings = (
        "Include {keywords} in your response.",
        "Your response must contain {keywords}.",
        "Every answer must mention {keywords}.",
    )

    def words(self) -> dict[str, str]:
        noun = "keyword" if len(self.keywords) == 1 else "keywords"
        return {"keywords": f"the {noun} {listed(self.keywords, 'and')}"}

    def check(self, response: str) -> Verdict:
        lower = response.lower()
        missing = [keyword for keyword in self.keywords if keyword.lower() not in lower]
        return failed(f"without {', '.join(map(shown, missing))}") if missing else FOLLOWED

    def accepted(self) -> Language:
        return lowered(intersection(contains(literal(each.lower())) for each in self.keywords))

    def needs(self) -> tuple[Needed, ...]:
        return tuple(Needed((keyword,)) for keyword in self.keywords)


@dataclass(frozen=True)
class ForbiddenWords(Kind):
    """None of the words stands anywhere as a whole word, in any case (`text.occurrences`)."""

    forbidden_words: tuple[str, ...] = texts(drawn=COMMON_WORDS, count=(1, 4))

    guarantee = "certain"
    name = "keywords:forbidden_words"
    wordings = (
        "Do not use {forbidden_words}.",
        "Never write {forbidden_words}.",
        "Your answers must not contain {forbidden_words}.",
    )

    def words(self) -> dict[str, str]:
        noun = "word" if len(self.forbidden_words) == 1 else "words"
        return {"forbidden_words": f"the {noun} {listed(self.forbidden_words, 'or')}"}

    def check(self, response: str) -> Verdict:
        found = [word for word in self.forbidden_words if occurrences(response, word)]
        return failed(f"with {', '.join(map(shown, found))}") if found else FOLLOWED

    def accepted(self) -> Language:
        return intersection(occurring(word, LESS_THAN, 1) for word in self.forbidden_words)

    def refuses(self, text: str, *, any_case: bool) -> bool:
        return any(occurrences(text, word) for word in self.forbidden_words)


@dataclass(frozen=True)
class Frequency(Kind):
    """A keyword stands at least, or less than, so often as a whole word (`text.occurrences`).

    IFEval counts it inside longer words too, where "the" stands in "other".
    """

    relation: str = one_of(RELATIONS)
    keyword: str = text(drawn=KEYWORDS, longest=1000)
    frequency: int = whole_number(1, 1000, drawn=(1, 4))

    guarantee = "certain"
    name = "keywords:frequency"
    wordings = (
        "The {keyword} must {frequency} in your response.",
        "In every answer, the {keyword} should {frequency}.",
        "Whatever you write, the {keyword} must {frequency} in it.",
    )

    def words(self) -> dict[str, str]:
        what = "phrase" if len(self.keyword.split()) > 1 else "word"
        return {
            "keyword": f'{what} "{self.keyword}"',
            "frequency": appear(self.relation, self.frequency),
        }

    def check(self, response: str) -> Verdict:
        count = occurrences(response, self.keyword)
        found = f"{shown(self.keyword)} occurs {counted(count, 'time')}"
        return compared(count, self.relation, self.frequency, found)

    def accepted(self) -> Language:
        return occurring(self.keyword, self.relation, self.frequency)

    def needs(self) -> tuple[Needed, ...]:
        return (Needed((self.keyword,)),) if self.relation == AT_LEAST else ()

    def refuses(self, text: str, *, any_case: bool) -> bool:
        too_many = occurrences(text, self.keyword) >= self.frequency
        return self.relation == LESS_THAN and too_many

    def bounds(self) -> dict[str, Interval]:
        least, most = interval(self.relation, self.frequency)
        keyword = self.keyword.lower()
        # Where one may follow another without a gap, the last word of it runs into the next.
        gap = is_within_word(keyword[-1] + keyword[0], 1)
        shared = 0 if gap or not words(keyword) else least - 1
        return {
            f"times {keyword!r}": (least, most),
            "words": (max(least * len(words(keyword)) - shared, 0), None),
            "characters": (max(least * (len(keyword) + gap) - gap, 0), None),
        }


@dataclass(frozen=True)
class LetterFrequency(Kind):
    """One character stands at least, or less than, so often; letters in either case."""

    let_relation: str = one_of(RELATIONS)
    letter: str = character(drawn=LETTERS)
    let_frequency: int = whole_number(1, 10_000, drawn=(3, 30))

    guarantee = "certain"
    name = "keywords:letter_frequency"
    wordings = (
        "The {letter} must {let_frequency} in your response.",
        "In every answer, the {letter} should {let_frequency}.",
        "Whatever you write, the {letter} must {let_frequency} in it.",
    )

    @classmethod
    def draw(cls, rng: random.Random) -> Self:
        drawn = super().draw(rng)
        if drawn.let_relation == AT_LEAST and drawn.letter in RAREST_LETTERS:
            return replace(drawn, let_frequency=rng.randint(*FEW))
        return drawn

    def words(self) -> dict[str, str]:
        what = "letter" if self.letter.isalpha() else "character"
        return {
            "letter": f'{what} "{self.letter}"',
            "let_frequency": appear(self.let_relation, self.let_frequency),
        }

    def check(self, response: str) -> Verdict:
        count = response.lower().count(self.letter.lower())
        found = f"{self.letter!r} occurs {counted(count, 'time')}"
        return compared(count, self.let_relation, self.let_frequency, found)

    def accepted(self) -> Language:
        often = at_least(literal(self.letter.lower()), self.let_frequency)
        return lowered(often if self.let_relation == AT_LEAST else ~often)

    def needs(self) -> tuple[Needed, ...]:
        return (Needed((self.letter,)),) if self.let_relation == AT_LEAST else ()

    def refuses(self, text: str, *, any_case: bool) -> bool:
        too_many = text.lower().count(self.letter.lower()) >= self.let_frequency
        return self.let_relation == LESS_THAN and too_many

    def bounds(self) -> dict[str, Interval]:
        least, most = interval(self.let_relation, self.let_frequency)
        return {
            f"times the letter {self.letter.lower()!r}": (least, most),
            "characters": (least, None),
        }

    def conflict(self, other: Kind) -> str | None:
        return self._unlikely_beside(other.bounds()) or super().conflict(other)

    def _unlikely_beside(self, bounds: dict[str, Interval]) -> str | None:
        """Why a text of about so many words hardly has the letter so often, or so seldom."""
        per_word = IN_A_WORD.get(self.letter.lower())
        if per_word is None:
            return None
        least, most = _about_words(bounds)
        usual = least * per_word if per_word >= COMMON else 0
        if self.let_relation == LESS_THAN and usual > UNUSUAL * self.let_frequency:
            return f"{least} words hardly have fewer than {self.let_frequency} {self.letter!r}"
        sought = max(UNUSUAL * per_word, SOUGHT_AFTER)
        few = None if most is None else max(most * sought, FEW[1])
        if self.let_relation == AT_LEAST and few is not None and self.let_frequency > few:
            return f"{most} words hardly have {self.let_frequency} {self.letter!r}"
        return None


def _about_words(bounds: dict[str, Interval]) -> Interval:
    """About how many words a text within bounds has."""
    found = implied(bounds)
    least, most = found.get("words", (0, None))
    characters_least, characters_most = found.get("characters", (0, None))
    if characters_most is not None:
        about = max(characters_most // CHARACTERS_A_WORD, 1)
        most = about if most is None else min(most, about)
    return max(least, characters_least // CHARACTERS_A_WORD), most
