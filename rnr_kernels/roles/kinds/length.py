"""Requirements on how much a response says."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rnr_kernels.automata.characters import ALL
from rnr_kernels.automata.counts import Count
from rnr_kernels.automata.languages import (
    EVERYTHING,
    Language,
    characters,
    concatenation,
    is_word,
    literal,
    lowered,
)
from rnr_kernels.roles.amounts import (
    LESS_THAN,
    RELATIONS,
    Interval,
    amount,
    compared,
    counted,
    exactly,
    interval,
)
from rnr_kernels.roles.kind import Kind, Needed
from rnr_kernels.roles.parameters import one_of, text, whole_number
from rnr_kernels.roles.pools import FIRST_WORDS
from rnr_kernels.roles.regular import (
    after_word,
    blanks_in_line,
    divided,
    in_line,
    not_blank,
    of_words,
    without_lone_marks,
    without_outer_blanks,
)
from rnr_kernels.roles.text import (
    WORD,
    is_within_word,
    paragraphs,
    sentences,
    shown,
    starts_with,
    words,
)
from rnr_kernels.roles.text import divided as text_parts
from rnr_kernels.roles.token_rules import TOKENS_A_WORD, WORDS_A_SENTENCE, of_length
from rnr_kernels.roles.verdict import FOLLOWED, Verdict, failed
from rnr_kernels.rules.kinds import RuleSet

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def _tokens(limits: Interval, each: float) -> Interval:
    """About how many tokens so many words or sentences take."""
    least, most = limits
    return round(least * each), None if most is None else max(round(most * each), 1)


def check_possible(name: str, relation: str, limit: int) -> None:
    """ValueError for less than 1 of what every response has."""
    if relation == LESS_THAN and limit == 1:
        raise ValueError(f"{name}: no response has less than 1; take at least 2")


@dataclass(frozen=True)
class NumberWords(Kind):
    """At least, or less than, so many words: runs of letters, digits, underscores and marks."""

    relation: str = one_of(RELATIONS)
    num_words: int = whole_number(1, 100_000, drawn=(40, 400))

    guarantee = "certain"
    name = "length_constraints:number_words"
    wordings = (
        "Answer with {num_words}.",
        "Your response must contain {num_words}.",
        "Write {num_words} in every answer.",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_possible(f"{self.name}: num_words", self.relation, self.num_words)

    def words(self) -> dict[str, str]:
        return {"num_words": amount(self.relation, self.num_words, "word")}

    def check(self, response: str) -> Verdict:
        count = len(words(response))
        return compared(count, self.relation, self.num_words, counted(count, "word"))

    def accepted(self) -> Language:
        """Marks that stand alone are words to the count: none where so many are asked for."""
        return EVERYTHING if self.relation == LESS_THAN else without_lone_marks()

    def count(self) -> Count:
        return Count(of_words(), *interval(self.relation, self.num_words))

    def rules(self, tokenizer: "PreTrainedTokenizerBase") -> RuleSet:
        limits = interval(self.relation, self.num_words)
        return of_length(tokenizer, *_tokens(limits, TOKENS_A_WORD), label=self.name)

    def refuses(self, text: str, *, any_case: bool) -> bool:
        return self.relation == LESS_THAN and len(words(text)) >= self.num_words

    def bounds(self) -> dict[str, Interval]:
        return {"words": interval(self.relation, self.num_words)}


@dataclass(frozen=True)
class NumberSentences(Kind):
    """At least, or less than, so many sentences, as sentencex divides text.

    Items of a list and headings count as sentences; what has no word in it does not.
    """

    relation: str = one_of(RELATIONS)
    num_sentences: int = whole_number(1, 10_000, drawn=(3, 20))

    guarantee = "likelier"
    name = "length_constraints:number_sentences"
    wordings = (
        "Answer in {num_sentences}.",
        "Your response must have {num_sentences}.",
        "Write {num_sentences} in every answer.",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_possible(f"{self.name}: num_sentences", self.relation, self.num_sentences)

    def words(self) -> dict[str, str]:
        return {"num_sentences": amount(self.relation, self.num_sentences, "sentence")}

    def check(self, response: str) -> Verdict:
        count = len(sentences(response))
        return compared(count, self.relation, self.num_sentences, counted(count, "sentence"))

    def rules(self, tokenizer: "PreTrainedTokenizerBase") -> RuleSet:
        limits = interval(self.relation, self.num_sentences)
        a_sentence = TOKENS_A_WORD * WORDS_A_SENTENCE
        return of_length(tokenizer, *_tokens(limits, a_sentence), label=self.name)

    def bounds(self) -> dict[str, Interval]:
        return {"sentences": interval(self.relation, self.num_sentences)}


@dataclass(frozen=True)
class NumberCharacters(Kind):
    """At least, or less than, so many characters (code points), blanks at both ends apart."""

    relation: str = one_of(RELATIONS)
    num_characters: int = whole_number(1, 1_000_000, drawn=(200, 2000))

    guarantee = "certain"
    name = "length_constraints:number_characters"
    wordings = (
        "Answer with {num_characters}, spaces included.",
        "Your response must have {num_characters}, counting spaces.",
        "Write {num_characters} in every answer, spaces and punctuation included.",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_possible(f"{self.name}: num_characters", self.relation, self.num_characters)

    def words(self) -> dict[str, str]:
        return {"num_characters": amount(self.relation, self.num_characters, "character")}

    def check(self, response: str) -> Verdict:
        count = len(response.strip())
        return compared(count, self.relation, self.num_characters, counted(count, "character"))

    def accepted(self) -> Language:
        """At least so many without blanks at the ends, which the count would take in."""
        return EVERYTHING if self.relation == LESS_THAN else without_outer_blanks()

    def count(self) -> Count:
        return Count(ALL, *interval(self.relation, self.num_characters), in_runs=False)

    def refuses(self, text: str, *, any_case: bool) -> bool:
        return self.relation == LESS_THAN and len(text.strip()) >= self.num_characters

    def bounds(self) -> dict[str, Interval]:
        return {"characters": interval(self.relation, self.num_characters)}


@dataclass(frozen=True)
class NumberParagraphs(Kind):
    """Exactly so many paragraphs with *** between them; none but the outer ends may be blank."""

    num_paragraphs: int = whole_number(1, 1000, drawn=(2, 6))

    guarantee = "certain"
    name = "length_constraints:number_paragraphs"
    wordings = (
        "Write exactly {num_paragraphs}, with the Markdown divider *** between one and the next.",
        "Your response must have {num_paragraphs}; the line between two paragraphs is ***",
        "Give every answer {num_paragraphs}, with three asterisks (***) wherever a new one begins.",
    )

    def words(self) -> dict[str, str]:
        return {"num_paragraphs": counted(self.num_paragraphs, "paragraph")}

    def check(self, response: str) -> Verdict:
        # As IFEval divides them: from six asterisks two dividers come, with nothing between.
        parts = text_parts(response, "***")
        if "" in parts:
            return failed(f"paragraph {parts.index('') + 1} is empty")
        return exactly(len(parts), self.num_paragraphs, "paragraph")

    def accepted(self) -> Language:
        return divided("***", self.num_paragraphs)

    def bounds(self) -> dict[str, Interval]:
        wanted = self.num_paragraphs
        return {
            "paragraphs": (wanted, wanted),
            "lines": (2 * wanted - 1, None),
            "sentences": (wanted, None),
        }


@dataclass(frozen=True)
class NthParagraphFirstWord(Kind):
    """Exactly so many paragraphs between blank lines, the nth of which starts with a word.

    Blank paragraphs do not count (n counts the others). Case, and what comes before the first
    letter or digit of a paragraph, such as quotation marks or a heading's #, do not matter.
    """

    num_paragraphs: int = whole_number(1, 1000, drawn=(2, 5))
    nth_paragraph: int = whole_number(1, 1000, drawn=(1, 2))
    first_word: str = text(drawn=FIRST_WORDS, longest=100)

    guarantee = "certain"
    name = "length_constraints:nth_paragraph_first_word"
    wordings = (
        "Write exactly {num_paragraphs}, with a blank line between one and the next; paragraph "
        '{nth_paragraph} must start with the word "{first_word}".',
        "Your response has {num_paragraphs}; two line breaks begin a new one, and the first word "
        'of paragraph {nth_paragraph} is "{first_word}".',
        'Start paragraph {nth_paragraph} with "{first_word}", and give {num_paragraphs} in all, '
        "with an empty line wherever a new one begins.",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.nth_paragraph > self.num_paragraphs:
            raise ValueError(
                f"{self.name}: nth_paragraph must be at most num_paragraphs, "
                f"{self.num_paragraphs}, got {self.nth_paragraph}"
            )
        if not words(self.first_word[0]):
            raise ValueError(
                f"{self.name}: first_word must begin with a letter or digit, "
                f"got {self.first_word!r}"
            )

    def words(self) -> dict[str, str]:
        return {
            **super().words(),
            "num_paragraphs": counted(self.num_paragraphs, "paragraph"),
        }

    def check(self, response: str) -> Verdict:
        found = paragraphs(response)
        if len(found) != self.num_paragraphs:
            return exactly(len(found), self.num_paragraphs, "paragraph")
        return starts_with_word(
            found[self.nth_paragraph - 1], self.first_word, f"paragraph {self.nth_paragraph}"
        )

    def accepted(self) -> Language:
        line = in_line() & not_blank()
        paragraph = line + (literal("\n") + line).repeated()
        empty_line = blanks_in_line() + literal("\n")
        gap = literal("\n") + empty_line.repeated(1)
        starts = concatenation(
            characters(~is_word()).repeated(),
            lowered(literal(self.first_word.lower())),
            after_word(self.first_word),
        )
        parts = [paragraph & starts if n == self.nth_paragraph else paragraph
                 for n in range(1, self.num_paragraphs + 1)]  # fmt: skip
        joined = [parts[0], *(each for part in parts[1:] for each in (gap, part))]
        after = (literal("\n") + blanks_in_line()).repeated()
        return concatenation(empty_line.repeated(), *joined, after)

    def bounds(self) -> dict[str, Interval]:
        wanted = self.num_paragraphs
        return {
            "paragraphs": (wanted, wanted),
            "lines": (wanted, None),
            "sentences": (wanted, None),
        }

    def needs(self) -> tuple[Needed, ...]:
        return (Needed((self.first_word,)),)

    def conflict(self, other: Kind) -> str | None:
        where, word = f"paragraph {self.nth_paragraph}", self.first_word.lower()
        opening = other.opening() if self.nth_paragraph == 1 else None
        if isinstance(other, NthParagraphFirstWord) and self.nth_paragraph == other.nth_paragraph:
            opening = other.first_word.lower()
        if opening and words(opening) and not starts_with_word(opening, word, where):
            return f"{where} cannot start with both {shown(word)} and {shown(opening)}"
        return super().conflict(other)


def starts_with_word(paragraph: str, word: str, where: str) -> Verdict:
    """Whether a text starts with a whole word, from its first letter, digit or underscore on."""
    first = WORD.search(paragraph)
    if first is None:
        return failed(f"{where} has no word, not {word!r}")
    start, end = first.span()
    # Some capitals are two characters in lower case, so both are compared there.
    if starts_with(paragraph[start:].lower(), word.lower()):
        return FOLLOWED
    while is_within_word(paragraph, end):
        end += 1  # marks
    return failed(f"{where} starts with {shown(paragraph[start:end].lower())}, not {word!r}")
