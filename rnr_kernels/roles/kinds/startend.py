"""Requirements on how a response starts and ends."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rnr_kernels.automata.characters import Characters
from rnr_kernels.automata.languages import (
    EVERYTHING,
    Language,
    characters,
    concatenation,
    is_blank,
    literal,
    lowered,
)
from rnr_kernels.roles.kind import Kind, Needed
from rnr_kernels.roles.parameters import text
from rnr_kernels.roles.pools import END_PHRASES, START_PHRASES
from rnr_kernels.roles.regular import after_word, before_word
from rnr_kernels.roles.text import QUOTE, SHOWN_CHARACTERS, bare, ends_with, shown, starts_with
from rnr_kernels.roles.token_rules import starting_with
from rnr_kernels.roles.verdict import FOLLOWED, Verdict, failed
from rnr_kernels.rules.kinds import RuleSet

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def _seen() -> Language:
    """A character that `bare` takes away nowhere."""
    return characters(~is_blank() - Characters.of(QUOTE))


def check_bare(where: str, phrase: str) -> None:
    """ValueError for quotation marks alone, with which every response starts and ends."""
    if not bare(phrase):
        raise ValueError(
            f"{where} must be more than quotation marks, got {phrase!r}; for those there is "
            "startend:quotation"
        )


@dataclass(frozen=True)
class StartPhrase(Kind):
    """The response starts with the phrase, in any case, quotation marks around either apart.

    No word that ends the phrase goes on: "to begin without" does not start with "to begin with".
    """

    start_phrase: str = text(drawn=START_PHRASES)

    guarantee = "certain"
    name = "startend:start_phrase"
    wordings = (
        'Begin your response with the exact phrase "{start_phrase}"',
        'Every answer starts with these words: "{start_phrase}"',
        'The first words of your response must be "{start_phrase}" and nothing may come before.',
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_bare(f"{self.name}: start_phrase", self.start_phrase)

    def check(self, response: str) -> Verdict:
        if starts_with(bare(response), bare(self.start_phrase)):
            return FOLLOWED
        return failed(f"starts with {shown(response.strip())}, not {shown(self.start_phrase)}")

    def accepted(self) -> Language:
        """With one quotation mark before the phrase at most."""
        phrase = bare(self.start_phrase)
        before = literal(f"{QUOTE} ") if phrase.startswith(QUOTE) else literal(QUOTE).optional
        # A quotation mark that ends the phrase must not stand at the end, where it is taken away.
        after = _seen() + EVERYTHING if phrase.endswith(QUOTE) else after_word(phrase)
        return lowered(concatenation(before, literal(phrase), after))

    def rules(self, tokenizer: "PreTrainedTokenizerBase") -> RuleSet:
        return starting_with(tokenizer, self.start_phrase, label=self.name)

    def needs(self) -> tuple[Needed, ...]:
        return (Needed((self.start_phrase,)),)

    def opening(self) -> str:
        return bare(self.start_phrase)


@dataclass(frozen=True)
class EndChecker(Kind):
    """The response ends with the phrase, in any case, quotation marks around either apart.

    The phrase does not begin within a word: "casino" does not end with "no".
    """

    end_phrase: str = text(drawn=END_PHRASES)

    guarantee = "certain"
    name = "startend:end_checker"
    wordings = (
        'Finish your response with the exact phrase "{end_phrase}" No other words should follow.',
        'End every answer with these words: "{end_phrase}"',
        'The last words of your response must be "{end_phrase}" and nothing may come after.',
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_bare(f"{self.name}: end_phrase", self.end_phrase)

    def check(self, response: str) -> Verdict:
        if ends_with(bare(response), bare(self.end_phrase)):
            return FOLLOWED
        end = response.strip()[-SHOWN_CHARACTERS:]
        return failed(f"ends with {shown(end)}, not {shown(self.end_phrase)}")

    def accepted(self) -> Language:
        """With one quotation mark after the phrase at most."""
        phrase = bare(self.end_phrase)
        after = literal(f" {QUOTE}") if phrase.endswith(QUOTE) else literal(QUOTE).optional
        before = EVERYTHING + _seen() if phrase.startswith(QUOTE) else before_word(phrase)
        return lowered(concatenation(before, literal(phrase), after))

    def needs(self) -> tuple[Needed, ...]:
        return (Needed((self.end_phrase,)),)

    def closing(self) -> str:
        return bare(self.end_phrase)


@dataclass(frozen=True)
class Quotation(Kind):
    """The response starts and ends with a straight double quotation mark, two different ones."""

    guarantee = "certain"
    name = "startend:quotation"
    wordings = (
        "Wrap your entire response in double quotation marks.",
        'Your whole response must stand between double quotation marks: "..."',
        'Start every answer with " and end it with " as well.',
    )

    def check(self, response: str) -> Verdict:
        stripped = response.strip()
        if len(stripped) < 2 or stripped[0] != QUOTE:
            return failed("does not start with a double quotation mark")
        return FOLLOWED if stripped[-1] == QUOTE else failed("ends without its quotation mark")

    def accepted(self) -> Language:
        """Without blanks around the quotation marks."""
        return concatenation(literal(QUOTE), EVERYTHING, literal(QUOTE))

    def needs(self) -> tuple[Needed, ...]:
        return (Needed((QUOTE,)),)
