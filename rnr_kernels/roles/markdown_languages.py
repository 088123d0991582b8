"""Markdown as the checks of kinds read it, as regular languages."""

from functools import cache

from rnr_kernels.automata.characters import Characters
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
    union,
)
from rnr_kernels.automata.machines import machine
from rnr_kernels.roles.regular import (
    NEWLINE,
    blanks,
    blanks_in_line,
    in_line,
    line_end,
    line_start,
    without_outer_blanks,
)


@cache
def bullet_line() -> Language:
    """A line that `kinds.format.is_bullet` takes for a bullet point."""
    blank = is_blank() - NEWLINE
    begun = concatenation(characters("*-"), characters(blank), in_line())
    ended = in_line() + characters(~is_blank())
    says = contains(characters(~Characters.of("*- \t")))
    return concatenation(blanks_in_line(), begun & ended & says, blanks_in_line())


def highlights(least: int) -> Language:
    """Texts with so many parts of lines between asterisks, as the pattern HIGHLIGHT finds them.

    A run of asterisks, other characters without blanks at both ends, and another run make one,
    whatever their lengths: the shorter length, at most 3, is what both ends give to it. What the
    second run has beyond that opens the next.
    """
    start: _Stars = (0, 0, "text")
    return machine(
        {"star": Characters.of("*"), "newline": NEWLINE, "blank": is_blank()},
        start,
        lambda state, kind: _after_star(state, kind, least),
        lambda state: state[0] == least,
    )


_Stars = tuple[int, int, str]
"""Highlights so far, asterisks that count, and where the text stands."""


def _after_star(state: _Stars, kind: str, least: int) -> _Stars:
    count, stars, where = state
    if kind == "newline":
        return count, 0, "text"
    if kind != "star":
        if where in ("text", "closing"):
            # After a closing run that was used up, nothing is open.
            return count, 0, "text"
        if where == "opening" and kind == "blank":
            return count, 0, "text"
        return count, stars, "blank" if kind == "blank" else "seen"
    if where == "seen":
        # The first asterisk of the closing run: it is certain now.
        return min(count + 1, least), stars - 1, "closing"
    if where == "closing" and stars > 0:
        return count, stars - 1, "closing"
    return count, 1 if where != "opening" else min(stars + 1, 3), "opening"


@cache
def no_markdown() -> Language:
    """Texts that, stripped, have none of the patterns `kinds.format.MARKDOWN`."""
    spaces = characters(" \t")
    trailing = characters(" \t\r").repeated()
    up_to_three = literal(" ").repeated(0, 3)
    heading = concatenation(up_to_three, literal("#").repeated(1, 6), spaces, EVERYTHING)
    underlined = concatenation(
        EVERYTHING, characters(~is_blank()), trailing, literal("\n"), up_to_three,
        literal("=").repeated(1), trailing, line_end(),
    )  # fmt: skip
    bullet = concatenation(
        spaces.repeated(), characters("*+-"), spaces.repeated(1), characters(~is_blank()),
        EVERYTHING,
    )  # fmt: skip
    rule = concatenation(
        spaces.repeated(), union(literal(each).repeated(3) for each in "*-_"), trailing, line_end()
    )  # fmt: skip
    quotation = concatenation(up_to_three, literal(">"), EVERYTHING)
    table = concatenation(spaces.repeated(), literal("|"), EVERYTHING)
    code = concatenation(
        literal("`"), characters(~Characters.of("`\n")).repeated(1), literal("`")
    ) | union(map(literal, ("```", "~~~")))
    struck_out = concatenation(literal("~~"), _enclosed("~"), literal("~~"))
    emphasis = union(map(_emphasis, "*_"))
    at_line = union((heading, bullet, rule, quotation, table))
    anywhere = contains(union((code, struck_out, literal("]("))))
    plain = ~(line_start() + at_line) & ~underlined & ~emphasis & ~anywhere
    return concatenation(blanks(), plain & without_outer_blanks(), blanks())


def _enclosed(mark: str) -> Language:
    """A part of a line that neither begins nor ends with a blank, without a mark."""
    inner = characters(~Characters.of(f"{mark}\n"))
    outer = characters(~is_blank() - Characters.of(mark))
    return outer | concatenation(outer, inner.repeated(), outer)


def _emphasis(mark: str) -> Language:
    """Texts with a part between runs of a mark that are not within a word."""
    outside = characters(~is_word() - Characters.of(mark))
    run = literal(mark).repeated(1)
    return concatenation(
        EMPTY | (EVERYTHING + outside), run, _enclosed(mark), run, EMPTY | (outside + EVERYTHING)
    )
