"""What the languages of several kinds of requirement are made of."""

from functools import cache

from rnr_kernels.automata.characters import Characters, found_by
from rnr_kernels.automata.languages import (
    EMPTY,
    EVERYTHING,
    Language,
    characters,
    concatenation,
    contains,
    is_blank,
    is_word,
    literal,
    lowered,
)
from rnr_kernels.roles import text
from rnr_kernels.roles.amounts import AT_LEAST

NEWLINE = Characters.of("\n")


@cache
def blanks() -> Language:
    """Any number of characters that `str.strip` takes away."""
    return characters(is_blank()).repeated()


@cache
def not_blank() -> Language:
    """The texts with something to see, which alone can follow a requirement."""
    return contains(characters(~is_blank()))


@cache
def without_outer_blanks() -> Language:
    """The texts, but the empty one, that `str.strip` leaves as they are."""
    seen = characters(~is_blank())
    return seen | concatenation(seen, EVERYTHING, seen)


@cache
def blanks_in_line() -> Language:
    """Blanks without a line break."""
    return characters(is_blank() - NEWLINE).repeated()


@cache
def in_line() -> Language:
    """Any text without a line break."""
    return characters(~NEWLINE).repeated()


@cache
def line_start() -> Language:
    """What may stand before the start of a line: nothing, or a text that ends with a line break."""
    return EMPTY | (EVERYTHING + literal("\n"))


@cache
def line_end() -> Language:
    """What may stand after the end of a line."""
    return EMPTY | (literal("\n") + EVERYTHING)


@cache
def all_texts_of(allowed: Characters) -> Language:
    """The texts of these characters alone."""
    return characters(allowed).repeated()


def divided(divider: str, parts: int) -> Language:
    """Texts that `str.split(divider)` cuts into so many parts that are not blank.

    A blank part more may stand first, and last. The divider is one character several times: a
    longer run of it is a divider and the start of the next part.
    """
    cut = literal(divider)
    part = ~contains(cut) & not_blank()
    before_cut = part - (EVERYTHING + characters(divider[0]))
    outer = blanks() + cut
    first = (before_cut + cut).repeated(parts - 1, parts - 1)
    return concatenation(outer.optional, first, part | concatenation(before_cut, cut, blanks()))


def occurring(keyword: str, relation: str, times: int) -> Language:
    """Texts in which `text.occurrences` counts so many."""
    keyword = keyword.lower()
    opens, closes = text.joins(keyword[0]), text.joins(keyword[-1])
    other = characters(~joining())
    after = after_word(keyword)
    found = before_word(keyword) + literal(keyword)
    if closes and not opens:
        # What ends one occurrence may begin the next, as in "-a-a".
        often = EVERYTHING + (literal(keyword) + after).repeated(times, times)
    else:
        first = (found + other if closes else found).earliest
        often = concatenation(first.repeated(times - 1, times - 1), found, after)
    return lowered(often if relation == AT_LEAST else ~often)


def before_word(phrase: str) -> Language:
    """What may stand before a phrase that does not begin within a word."""
    return EMPTY | (EVERYTHING + characters(~joining())) if text.joins(phrase[0]) else EVERYTHING


def after_word(phrase: str) -> Language:
    """What may stand after a phrase that does not end within a word."""
    return EMPTY | (characters(~joining()) + EVERYTHING) if text.joins(phrase[-1]) else EVERYTHING


@cache
def marks() -> Characters:
    """The marks that are parts of words, `text.MARK`."""
    return found(text.MARK)


@cache
def of_words() -> Characters:
    """What stands in words: "\\w" and marks."""
    return is_word() | marks()


@cache
def without_lone_marks() -> Language:
    """The texts in which every mark is part of a word."""
    lone = characters(marks())
    return ~((lone + EVERYTHING) | contains(characters(~of_words()) + lone))


@cache
def joining() -> Characters:
    """The characters that `text.joins` says are of one word side by side."""
    return of_words() - found(text.SPACELESS)


@cache
def foreign_letters(script: str) -> Characters:
    """The characters that `text.foreign_letter` finds."""
    return found(text.foreign_letters(script))


@cache
def own_letters(script: str) -> Characters:
    """The letters that `text.has_letter` looks for."""
    return found(text.own_letters(script))


@cache
def found(pattern: str) -> Characters:
    """The characters that a pattern of the `regex` library matches."""
    return found_by(text.library("regex").compile(pattern))


@cache
def letters() -> Characters:
    """What `text.is_letter` calls letters."""
    return Characters.where(text.is_letter)


@cache
def cased(is_of_case: str) -> Characters:
    """The characters for which `str.isupper`, `str.islower` or another such method holds."""
    method = getattr(str, is_of_case)
    return Characters.where(method)
