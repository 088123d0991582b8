"""Markdown as the checks of kinds read it, as regular languages."""

from functools import cache

from rnr_kernels.automata.characters import Characters
from rnr_kernels.automata.languages import (
    EVERYTHING,
    Language,
    characters,
    concatenation,
    contains,
    is_blank,
    literal,
    union,
)
from rnr_kernels.automata.machines import machine
from rnr_kernels.roles.regular import NEWLINE, blanks_in_line, in_line, line_end, line_start

SPACES = Characters.of(" \t")


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

    A run of asterisks, other characters, and another run make one, whatever their lengths: the
    shorter length, at most 3, is what both ends give to it. What the second run has beyond that
    opens the next.
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
        return count, stars, "blank" if kind == "blank" and where != "seen" else "seen"
    if where in ("seen", "blank"):
        # The first asterisk of the closing run: it is certain now.
        count = min(count + (where == "seen"), least)
        return (count, 1, "opening") if stars == 0 else (count, stars - 1, "closing")
    if where == "closing" and stars > 0:
        return count, stars - 1, "closing"
    return count, 1 if where != "opening" else min(stars + 1, 3), "opening"


@cache
def no_markdown() -> Language:
    """Texts in which none of the patterns `kinds.format.MARKDOWN` is found."""
    spaces = characters(SPACES)
    heading = concatenation(
        literal(" ").repeated(0, 3), literal("#").repeated(1, 6), spaces, EVERYTHING
    )
    bullet = concatenation(
        spaces.repeated(), characters("*+-"), spaces.repeated(1), characters(~is_blank()),
        EVERYTHING,
    )  # fmt: skip
    rule = concatenation(
        spaces.repeated(), union(literal(each).repeated(3) for each in "*-_"), spaces.repeated(),
        line_end(),
    )  # fmt: skip
    table = concatenation(spaces.repeated(), literal("|"), EVERYTHING)
    code = concatenation(
        literal("`"), characters(~Characters.of("`\n")).repeated(1), literal("`")
    ) | literal("```")
    emphasis = concatenation(
        literal("*"), characters(~Characters.of("*\n")).repeated(1), literal("*")
    )
    at_line = union((heading, bullet, rule, table))
    return ~(line_start() + at_line) & ~contains(union((code, emphasis, literal("]("))))
