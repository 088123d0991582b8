"""How checks divide a text: lines, words, sentences, paragraphs, occurrences, letters of a script.

Everything here takes any str, half surrogate pairs included, in time proportional to its length.
"""

import importlib
import re
from collections.abc import Iterator
from functools import cache
from typing import Any

from rnr_kernels.loading import check_installed

WORD = re.compile(r"\w+")
"""IFEval counts these runs as words, so that our figures can stand beside its: "don't" is two."""

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
    """Runs of letters, digits and underscores."""
    return WORD.findall(text)


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


def lines(text: str) -> list[str]:
    """The lines, without surrounding blanks, and without blank ones."""
    return [line for line in map(str.strip, text.split("\n")) if line]


def occurrences(text: str, keyword: str) -> int:
    """How often a keyword stands in a text as a whole word, whatever its case; none overlap.

    Where the keyword begins (ends) with a letter, digit or underscore, none may stand before
    (after) it. So "C++" occurs in "C++17" and "!" in "Oh!", and "cat" not in "cats".
    """
    text, keyword = text.lower(), keyword.lower()
    opens, closes = _is_word(keyword[0]), _is_word(keyword[-1])
    count, start = 0, text.find(keyword)
    while start >= 0:
        end = start + len(keyword)
        if (opens and start and _is_word(text[start - 1])) or (
            closes and end < len(text) and _is_word(text[end])
        ):
            end = start + 1
        else:
            count += 1
        start = text.find(keyword, end)
    return count


def foreign_letter(text: str, script: str) -> str | None:
    """The first letter that is not of a script (of Unicode's names, such as Latin), or None.

    Japanese is Hiragana, Katakana and Han. Marks, digits and punctuation are no letters.
    """
    if text.isascii():
        if script == "Latin":
            return None
        found = re.search("[A-Za-z]", text)
        return found[0] if found else None
    other = library("regex").search(foreign_letters(script), text)
    return other[0][0] if other else None


def foreign_letters(script: str) -> str:
    """The letters that are not of a script, as a pattern of the library regex."""
    parts = ("Hiragana", "Katakana", "Han") if script == "Japanese" else (script,)
    own = "".join(rf"\p{{Script_Extensions={part}}}" for part in parts)
    return rf"(?:(?![{own}])\p{{L}})+"


def is_letter(character: str) -> bool:
    """Whether it is a letter or has a case, as the Roman numeral sign has."""
    return character.isalpha() or character.lower() != character or character.upper() != character


def bare(text: str) -> str:
    """In lower case, without the blanks and quotation marks at both ends."""
    return text.strip().strip(QUOTE).strip().lower()


def shown(text: str) -> str:
    """A text in quotes, as reasons show it: the start of a long one."""
    return repr(text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 3] + "...")


def _is_word(character: str) -> bool:
    return WORD.match(character) is not None
