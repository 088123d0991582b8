"""Requirements on parts that a response has."""

import re
from dataclasses import dataclass

from rnr_kernels.automata.characters import Characters
from rnr_kernels.automata.languages import (
    EVERYTHING,
    Language,
    at_least,
    characters,
    concatenation,
    is_blank,
    is_word,
    literal,
    lowered,
)
from rnr_kernels.roles.amounts import Interval, counted, enough
from rnr_kernels.roles.kind import Kind, Needed
from rnr_kernels.roles.parameters import text, whole_number
from rnr_kernels.roles.pools import POSTSCRIPTS
from rnr_kernels.roles.regular import NEWLINE, blanks_in_line, line_start
from rnr_kernels.roles.verdict import FOLLOWED, Verdict, failed


@dataclass(frozen=True)
class NumberPlaceholders(Kind):
    """At least so many placeholders: square brackets, on one line, with something between them."""

    num_placeholders: int = whole_number(1, 1000, drawn=(1, 5))

    guarantee = "certain"
    name = "detectable_content:number_placeholders"
    wordings = (
        "The response must contain at least {num_placeholders} in square brackets, such as "
        "[address].",
        "Use at least {num_placeholders} in square brackets, like [name].",
        "Leave at least {num_placeholders} to fill in, written like this: [date].",
    )

    def words(self) -> dict[str, str]:
        return {"num_placeholders": counted(self.num_placeholders, "placeholder")}

    def check(self, response: str) -> Verdict:
        count = sum(map(placeholders, response.split("\n")))
        return enough(count, self.num_placeholders, "placeholder")

    def accepted(self) -> Language:
        between = characters(~Characters.of("[]\n"))
        some = characters(~Characters.of("[] \t\r\n"))
        filled = concatenation(between.repeated(), some, between.repeated())
        placeholder = concatenation(literal("["), filled, literal("]"))
        return at_least(placeholder, self.num_placeholders)

    def needs(self) -> tuple[Needed, ...]:
        return (Needed(("[",)), Needed(("]",)))

    def bounds(self) -> dict[str, Interval]:
        return {"words": (self.num_placeholders, None)}


def placeholders(line: str) -> int:
    """How many there are in a line; each ends with the next "]"."""
    count, start = 0, line.find("[")
    while start >= 0 and (end := line.find("]", start)) >= 0:
        count += bool(line[start + 1 : end].strip("[ \t\r"))
        start = line.find("[", end)
    return count


@dataclass(frozen=True)
class Postscript(Kind):
    """A line starts with the marker, in either case, after anything that is no letter or digit.

    A blank may follow each full stop of the marker ("P. S."), and those in the marker may be any
    or none. IFEval takes a marker inside a line.
    """

    postscript_marker: str = text(drawn=POSTSCRIPTS, longest=100)

    guarantee = "certain"
    name = "detectable_content:postscript"
    wordings = (
        "At the end of your response, add a postscript that starts with {postscript_marker}",
        "Close every answer with a postscript on a line of its own that begins with "
        '"{postscript_marker}".',
        'Your response must have a postscript; write "{postscript_marker}" in front of it.',
    )

    def check(self, response: str) -> Verdict:
        marker = r"\s*".join(map(re.escape, self.postscript_marker.lower().split()))
        pattern = re.compile(r"\W*?" + marker.replace(r"\.", r"\.\s?"))
        if any(pattern.match(line) for line in response.lower().split("\n")):
            return FOLLOWED
        return failed(f"no line starts with {self.postscript_marker!r}")

    def accepted(self) -> Language:
        before = characters(~is_word() - NEWLINE).repeated()
        stop = literal(".") + characters(is_blank() - NEWLINE).optional
        *others, last = [
            concatenation(*(stop if each == "." else literal(each) for each in part))
            for part in self.postscript_marker.lower().split()
        ]
        parts = [each for part in others for each in (part, blanks_in_line())]
        return lowered(concatenation(line_start(), before, *parts, last, EVERYTHING))

    def needs(self) -> tuple[Needed, ...]:
        return (Needed((self.postscript_marker,)),)

    def bounds(self) -> dict[str, Interval]:
        return {"lines": (2, None)}
