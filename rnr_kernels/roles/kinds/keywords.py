"""Requirements on words that a response uses or avoids."""

from dataclasses import dataclass

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
    compared,
    counted,
    interval,
    times,
)
from rnr_kernels.roles.kind import Kind, Needed
from rnr_kernels.roles.parameters import character, one_of, text, texts, whole_number
from rnr_kernels.roles.pools import COMMON_WORDS, KEYWORDS, LETTERS
from rnr_kernels.roles.regular import occurring
from rnr_kernels.roles.text import occurrences, shown, words
from rnr_kernels.roles.verdict import FOLLOWED, Verdict, failed

COMMONEST_LETTERS = "aeinorst"
"""English has each of them once in three words or more often."""


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
        "Include these keywords in your response: {keywords}.",
        "Use each of the following words at least once: {keywords}.",
        "Every answer must mention {keywords}.",
    )

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
        "Do not use any of these words: {forbidden_words}.",
        "Never write the following words: {forbidden_words}.",
        "Avoid {forbidden_words} in your answers.",
    )

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
        'The word "{keyword}" must appear {frequency} in your response.',
        'In every answer, "{keyword}" should appear {frequency}.',
        'Make sure that the word "{keyword}" occurs {frequency}.',
    )

    def words(self) -> dict[str, str]:
        return {"keyword": self.keyword, "frequency": times(self.relation, self.frequency)}

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
        return {
            f"times {self.keyword.lower()!r}": (least, most),
            "words": (least * len(words(self.keyword)), None),
            "characters": (least * (len(self.keyword) + 1) - 1, None),
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
        "The {letter} must appear {let_frequency} in your response.",
        "In every answer, the {letter} should appear {let_frequency}.",
        "Make sure that your response has the {letter} {let_frequency}.",
    )

    def words(self) -> dict[str, str]:
        what = "letter" if self.letter.isalpha() else "character"
        return {
            "letter": f'{what} "{self.letter}"',
            "let_frequency": times(self.let_relation, self.let_frequency),
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
        num_words = other.bounds().get("words", (0, None))[0]
        is_rare = self.let_relation == LESS_THAN and num_words > 10 * self.let_frequency
        if is_rare and self.letter.lower() in COMMONEST_LETTERS:
            return (
                f"{num_words} words are hardly written with {self.letter!r} "
                f"{times(self.let_relation, self.let_frequency)}"
            )
        return super().conflict(other)
