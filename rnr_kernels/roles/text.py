"""How checks divide a text: lines, words, sentences, paragraphs, occurrences, letters of a script.

Everything here takes any str, half surrogate pairs included, in time proportional to its length.
"""

import importlib
import re
from collections.abc import Iterator
from functools import cache
from typing import Any
from unicodedata import category

from rnr_kernels.loading import check_installed

WORD = re.compile(r"\w+")
"""IFEval counts these runs as words, so that our figures can stand beside its: "don't" is two.

Marks apart (`MARK`), of which it takes each for the end of a word.
"""
MARK = r"[^\P{M}\uFE00-\uFE0F]+"
"""What combines with the letter before it, such as the vowel signs of Devanagari, as a pattern of
the library regex. Not the selectors that follow emoji, which belong to no word.
"""
SPACELESS_SCRIPTS = (
    "Han", "Hiragana", "Katakana", "Khmer", "Lao", "Myanmar", "Thai", "Tibetan"
)  # fmt: skip
"""Scripts in which no spaces stand between words."""
SPACELESS = "[" + "".join(rf"\p{{Script_Extensions={each}}}" for each in SPACELESS_SCRIPTS) + "]+"

QUOTE = '"'
BLANK_LINE = re.compile(r"\n\s*\n")
LONGEST_PIECE = 5000
"""Characters that are divided into sentences at once."""

SHOWN_CHARACTERS = 40


@cache
def library(name: str) -> Any:
    """A package of the extra `roles`; ValueError says how to install one that is missing."""
    check_installed((name,), "a check of a requirement", "roles")
    return importlib.import_module(name)


def words(text: str) -> list[str]:
    """Runs of letters, digits and underscores, without the marks in them."""
    return WORD.findall(text if text.isascii() else _pattern(MARK).sub("", text))


def sentences(text: str) -> list[str]:
    """Sentences with at least one word in them; a list's items and a heading count as sentences."""
    # Half a surrogate pair cannot pass to the library; it is no end of a sentence either.
    whole = text.encode("utf-8", "replace").decode()
    found = (each for piece in _pieces(whole) for each in library("sentencex").segment("en", piece))
    return [each for each in found if WORD.search(each)]


def _pieces(text: str) -> Iterator[str]:
    """The text in pieces that end where a sentence does, if one does.

    The library's time grows with the square of the number of quotation marks: minutes for a
    megabyte of them.
    """
    start = 0
    while len(text) - start > LONGEST_PIECE:
        limit = start + LONGEST_PIECE
        ends = (text.rfind(end, start, limit) + len(end) for end in ("\n\n", ". "))
        end = next((each for each in ends if each > start + 2), limit)
        yield text[start:end]
        start = end
    yield text[start:]


def paragraphs(text: str) -> list[str]:
    """What stands between blank lines, without what is blank itself."""
    return [found.strip() for found in BLANK_LINE.split(text) if found.strip()]


def divided(text: str, divider: str) -> list[str]:
    """What stands between dividers, stripped; a blank part at either end is left out."""
    parts = [part.strip() for part in text.split(divider)]
    if len(parts) > 1:
        parts = parts[not parts[0] :]
        parts = parts[: len(parts) - (not parts[-1])]
    return parts


def lines(text: str) -> list[str]:
    """The lines, without surrounding blanks, and without blank ones."""
    return [line for line in map(str.strip, text.split("\n")) if line]


def occurrences(text: str, keyword: str) -> int:
    """How often a keyword stands in a text as a whole word, whatever its case; none overlap.

    Where the keyword begins (ends) with a character that `joins`, none may stand before (after)
    it. So "C++" occurs in "C++17" and "!" in "Oh!", and "cat" not in "cats".
    """
    text, keyword = text.lower(), keyword.lower()
    count, start = 0, text.find(keyword)
    while start >= 0:
        end = start + len(keyword)
        if is_within_word(text, start) or is_within_word(text, end):
            end = start + 1
        else:
            count += 1
        start = text.find(keyword, end)
    return count


def joins(character: str) -> bool:
    """Whether another such character beside it is of the same word.

    Letters, digits, underscores and marks; not those of scripts without spaces, in which nothing
    tells where a word ends.
    """
    if character.isascii():
        return character.isalnum() or character == "_"
    is_of_word = character.isalnum() or _pattern(MARK).match(character)
    return bool(is_of_word and not _pattern(SPACELESS).match(character))


def is_within_word(text: str, at: int) -> bool:
    """Whether a cut before the character `at` is one through a word."""
    return 0 < at < len(text) and joins(text[at - 1]) and joins(text[at])


def starts_with(text: str, phrase: str) -> bool:
    """Whether a text starts with a phrase and no word of it goes on behind."""
    return text.startswith(phrase) and not is_within_word(text, len(phrase))


def ends_with(text: str, phrase: str) -> bool:
    """Whether a text ends with a phrase that does not begin within a word."""
    return text.endswith(phrase) and not is_within_word(text, len(text) - len(phrase))


def foreign_letter(text: str, script: str) -> str | None:
    """The first letter that is not of a script (of Unicode's names, such as Latin), or None.

    Japanese is Hiragana, Katakana and Han. Marks, digits and punctuation are no letters, and
    letters that all scripts share, such as the micro sign, are foreign in none.
    """
    if text.isascii():
        if script == "Latin":
            return None
        found = re.search("[A-Za-z]", text)
        return found[0] if found else None
    other = _pattern(foreign_letters(script)).search(text)
    return other[0][0] if other else None


def has_letter(text: str, script: str) -> bool:
    """Whether one of its letters is of a script."""
    if text.isascii():
        return script == "Latin" and re.search("[A-Za-z]", text) is not None
    return _pattern(own_letters(script)).search(text) is not None


def foreign_letters(script: str) -> str:
    """The letters that are not of a script, as a pattern of the library regex."""
    return rf"(?:(?![{_own(script)}\p{{Script_Extensions=Common}}])\p{{L}})+"


def own_letters(script: str) -> str:
    """The letters of a script, as a pattern of the library regex."""
    return rf"(?:(?=[{_own(script)}])\p{{L}})+"


def _own(script: str) -> str:
    parts = ("Hiragana", "Katakana", "Han") if script == "Japanese" else (script,)
    return "".join(rf"\p{{Script_Extensions={part}}}" for part in parts)


def is_letter(character: str) -> bool:
    """Whether it has a case, as a Roman numeral sign has too, or is a letter of none.

    Not those that stand beside letters of either case: the ordinal signs, the micro sign, and
    modifiers such as the turned comma of Hawaiian.
    """
    if character in "\u00aa\u00b5\u00ba":
        return False
    if character.lower() != character or character.upper() != character:
        return True
    return character.isalpha() and category(character) != "Lm"


def bare(text: str) -> str:
    """In lower case, without the blanks and quotation marks at both ends."""
    return text.strip().strip(QUOTE).strip().lower()


def shown(text: str) -> str:
    """A text in quotes, as reasons show it: the start of a long one."""
    return repr(text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 3] + "...")


@cache
def _pattern(pattern: str) -> Any:
    return library("regex").compile(pattern)
