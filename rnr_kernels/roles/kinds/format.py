"""Requirements on the form of the whole response."""

import json
import re
from dataclasses import dataclass

from rnr_kernels.automata.characters import Characters, matching
from rnr_kernels.automata.languages import (
    EVERYTHING,
    Language,
    at_least,
    characters,
    concatenation,
    contains,
    is_blank,
    literal,
    union,
)
from rnr_kernels.roles.amounts import Interval, counted, enough, exactly, listed
from rnr_kernels.roles.json_language import json_values
from rnr_kernels.roles.kind import Kind, Needed
from rnr_kernels.roles.markdown_languages import bullet_line, highlights, no_markdown
from rnr_kernels.roles.parameters import text, text_set, whole_number
from rnr_kernels.roles.pools import ANSWERS, SECTIONS
from rnr_kernels.roles.regular import blanks, in_line
from rnr_kernels.roles.text import lines, shown, words
from rnr_kernels.roles.verdict import FOLLOWED, Verdict, failed

OPTIONS = ("My answer is yes.", "My answer is no.", "My answer is maybe.")

FENCE = re.compile(r"```[ \t]*(?:json)?[ \t]*\n?(.*?)(?:```)?", re.DOTALL | re.IGNORECASE)
DEEPEST_JSON = 200
"""The json module's own limit moves with the caller's depth, ours does not."""

JSON_STRING = re.compile(r'"(?:[^"\\]|\\.)*+(?:"|\Z|\\\Z)', re.DOTALL)
"""One without an end reaches to the end, so that no text is read twice."""

HIGHLIGHT = re.compile(r"(\*{1,3})(?=\S)[^*\n]+(?<=\S)\1")
MARKDOWN = (
    ("a heading", re.compile(r"^ {0,3}#{1,6}[ \t]", re.MULTILINE)),
    ("a heading", re.compile(r"\S[ \t\r]*\n {0,3}=+[ \t\r]*$", re.MULTILINE)),
    ("a list", re.compile(r"^[ \t]*[*+-][ \t]+\S", re.MULTILINE)),
    ("a rule", re.compile(r"^[ \t]*(?:\*{3,}|-{3,}|_{3,})[ \t\r]*$", re.MULTILINE)),
    ("a quotation", re.compile(r"^ {0,3}>", re.MULTILINE)),
    ("emphasis", re.compile(r"(?<![\w*])\*++(?=\S)[^*\n]+(?<=\S)\*++(?!\w)")),
    ("emphasis", re.compile(r"(?<!\w)_++(?=\S)[^_\n]+(?<=\S)_++(?!\w)")),
    ("struck out text", re.compile(r"~~(?=\S)[^~\n]+(?<=\S)~~")),
    ("code", re.compile(r"`[^`\n]+`|```|~~~")),
    ("a link", re.compile(r"\]\(")),
    ("a table", re.compile(r"^[ \t]*\|", re.MULTILINE)),
)


@dataclass(frozen=True)
class ConstrainedResponse(Kind):
    """One of three sentences stands somewhere, as it is written here."""

    guarantee = "certain"
    name = "detectable_format:constrained_response"
    wordings = (
        "Answer with one of the following options: 'My answer is yes.', 'My answer is no.', "
        "'My answer is maybe.'",
        'Your response must contain "My answer is yes.", "My answer is no." or "My answer is '
        'maybe."',
        'Say "My answer is yes.", "My answer is no." or "My answer is maybe." in every answer.',
    )

    def check(self, response: str) -> Verdict:
        if any(option in response for option in OPTIONS):
            return FOLLOWED
        return failed(f"without any of {', '.join(map(repr, OPTIONS))}")

    def accepted(self) -> Language:
        return contains(union(map(literal, OPTIONS)))

    def needs(self) -> tuple[Needed, ...]:
        return (Needed(OPTIONS, any_case=False),)

    def bounds(self) -> dict[str, Interval]:
        return {"words": (4, None), "characters": (len(OPTIONS[1]), None)}


@dataclass(frozen=True)
class OneOfAnswers(Kind):
    """The whole response, blanks at both ends apart, is one of the answers as it is written."""

    answers: tuple[str, ...] = text_set(drawn=ANSWERS)

    guarantee = "certain"
    name = "detectable_format:one_of_answers"
    wordings = (
        "Answer with {answers} and nothing else.",
        "Your whole response must be {answers}.",
        "Reply only with {answers}, without any explanation.",
    )

    def words(self) -> dict[str, str]:
        return {"answers": listed(self.answers, "or")}

    def check(self, response: str) -> Verdict:
        if response.strip() in self.answers:
            return FOLLOWED
        return failed(f"{shown(response.strip())} is none of {', '.join(map(repr, self.answers))}")

    def accepted(self) -> Language:
        """The answers without blanks around them."""
        return union(map(literal, self.answers))

    def conflict(self, other: Kind) -> str | None:
        if any(self.allows_answer(each) and other.allows_answer(each) for each in self.answers):
            return None
        return f"none of the answers of {self.name} follows {other.name}"


@dataclass(frozen=True)
class JsonFormat(Kind):
    """The whole response is one JSON value, of any type, in a fence of ``` or ```json or in none.

    NaN and Infinity are not JSON. Lists and objects may be nested 200 deep.
    """

    guarantee = "certain"
    name = "detectable_format:json_format"
    wordings = (
        "Give your entire response as JSON. You may wrap it in Markdown ticks such as ```.",
        "Your whole response must be valid JSON.",
        "Answer in JSON format only, without any text around it.",
    )

    def check(self, response: str) -> Verdict:
        stripped = response.strip()
        fenced = FENCE.fullmatch(stripped)
        value = fenced[1] if fenced else stripped
        if nesting(value) > DEEPEST_JSON:
            return failed(f"nested deeper than {DEEPEST_JSON}")
        try:
            # A number is not converted: Python limits how many digits an int may have.
            json.loads(value, parse_int=str, parse_float=str, parse_constant=_no_constant)
        except json.JSONDecodeError as error:
            return failed(f"not JSON: {error.msg} at line {error.lineno}, column {error.colno}")
        except ValueError as error:
            return failed(f"not JSON: {error}")
        return FOLLOWED

    def accepted(self) -> Language:
        """JSON of which lists and objects are nested up to `json_language.DEEPEST`."""
        return json_values()


def nesting(value: str) -> int:
    """How deep lists and objects are nested, if the text is JSON."""
    if value.count("[") + value.count("{") <= DEEPEST_JSON:
        return 0  # as deep as allowed at most
    depth = deepest = 0
    for bracket in re.findall(r"[\[{\]}]", JSON_STRING.sub("", value)):
        depth += 1 if bracket in "[{" else -1
        deepest = max(deepest, depth)
    return deepest


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON value")


@dataclass(frozen=True)
class MultipleSections(Kind):
    """The splitter with a number after it, such as "Section 1", stands at least so often."""

    section_spliter: str = text(drawn=SECTIONS, longest=100)
    num_sections: int = whole_number(1, 1000, drawn=(2, 5))

    guarantee = "certain"
    name = "detectable_format:multiple_sections"
    wordings = (
        "Your response must have {num_sections}, headed {section_spliter}.",
        "Mark {num_sections} of every answer with {section_spliter}.",
        "Organise the response in {num_sections} and write {section_spliter} in front.",
    )

    def words(self) -> dict[str, str]:
        named = [f"{self.section_spliter} {n}" for n in range(1, min(self.num_sections, 3) + 1)]
        headings = listed(named, "and")
        if len(named) < self.num_sections:
            headings = ", ".join(f'"{each}"' for each in named) + " and so on"
        return {
            "section_spliter": headings,
            "num_sections": counted(self.num_sections, "section"),
        }

    def check(self, response: str) -> Verdict:
        pattern = re.escape(self.section_spliter) + r"\s?\d+"
        return enough(len(re.findall(pattern, response)), self.num_sections, "section")

    def accepted(self) -> Language:
        """With something other than a digit after each number but the last.

        Where the splitter begins with a digit, a number would else take it for its own.
        """
        digit, other = characters(matching(r"\d")), characters(matching(r"\D"))
        begun = literal(self.section_spliter) + characters(is_blank()).optional
        before = at_least(concatenation(begun, digit.repeated(1), other), self.num_sections - 1)
        return concatenation(before, begun, digit, EVERYTHING)

    def needs(self) -> tuple[Needed, ...]:
        return (Needed((f"{self.section_spliter} 1",), any_case=False),)

    def bounds(self) -> dict[str, Interval]:
        # Each has a sentence at least, though the check runs lines without full stops into one.
        least = self.num_sections * len(words(self.section_spliter + " 1"))
        return {
            "lines": (self.num_sections, None),
            "sentences": (self.num_sections, None),
            "words": (least, None),
        }


@dataclass(frozen=True)
class NumberBulletLists(Kind):
    """Exactly so many lines start with * or -, a blank and some text.

    So a line in *emphasis*, a rule of dashes and a negative number are no bullet points, as they
    are in IFEval.
    """

    num_bullets: int = whole_number(1, 1000, drawn=(2, 8))

    guarantee = "certain"
    name = "detectable_format:number_bullet_lists"
    wordings = (
        "Your answer must contain exactly {num_bullets}. Use Markdown bullets such as: * A point.",
        "Include exactly {num_bullets} in Markdown, with * or - at the start of the line.",
        "Every response has {num_bullets}, no more and no fewer, written like this: - A point.",
    )

    def words(self) -> dict[str, str]:
        return {"num_bullets": counted(self.num_bullets, "bullet point")}

    def check(self, response: str) -> Verdict:
        count = sum(is_bullet(line) for line in lines(response))
        return exactly(count, self.num_bullets, "bullet point")

    def accepted(self) -> Language:
        bullet = bullet_line()
        other = in_line() - bullet
        ends = literal("\n")
        first = (other + ends).repeated() + bullet
        more = (ends + first).repeated(self.num_bullets - 1, self.num_bullets - 1)
        return concatenation(first, more, (ends + other).repeated())

    def bounds(self) -> dict[str, Interval]:
        wanted = self.num_bullets
        return {
            "bullet points": (wanted, wanted),
            "lines": (wanted, None),
            "sentences": (wanted, None),
        }


def is_bullet(line: str) -> bool:
    """Whether a line, without blanks before and after, is a Markdown bullet point."""
    return line[0] in "*-" and line[1:2].isspace() and not set(line) <= set("*- \t")


@dataclass(frozen=True)
class NumberHighlightedSections(Kind):
    """At least so many parts of lines stand between asterisks: *so*, **so** or ***so***.

    Each counts once (IFEval counts ***so*** twice); as in Markdown, no blank stands next to the
    asterisks inside, so the one of a bullet point begins none.
    """

    num_highlights: int = whole_number(1, 1000, drawn=(1, 5))

    guarantee = "certain"
    name = "detectable_format:number_highlighted_sections"
    wordings = (
        "Highlight at least {num_highlights} in your answer with Markdown, i.e. *highlighted "
        "section*.",
        "Your response must have at least {num_highlights} put in *asterisks*.",
        "Emphasise at least {num_highlights} of every answer, like *this*.",
    )

    def words(self) -> dict[str, str]:
        return {"num_highlights": counted(self.num_highlights, "section")}

    def check(self, response: str) -> Verdict:
        count = sum(1 for _ in HIGHLIGHT.finditer(response))
        return enough(count, self.num_highlights, "highlighted section")

    def accepted(self) -> Language:
        return highlights(self.num_highlights)

    def needs(self) -> tuple[Needed, ...]:
        return (Needed(("*",)),)

    def bounds(self) -> dict[str, Interval]:
        return {"words": (self.num_highlights, None)}


@dataclass(frozen=True)
class Title(Kind):
    """A line holds a title that is not blank, in double angular brackets."""

    guarantee = "certain"
    name = "detectable_format:title"
    wordings = (
        "Your answer must contain a title in double angular brackets, such as <<poem of joy>>.",
        "Give every response a title wrapped in double angular brackets: <<title>>.",
        "Include a title, and put it into << and >>.",
    )

    def check(self, response: str) -> Verdict:
        blank = False
        for line in response.split("\n"):
            for part in line.split("<<")[1:]:
                title, closed, _ = part.partition(">>")
                if closed and title.strip("<> \t\r"):
                    return FOLLOWED
                blank = blank or bool(closed)
        return failed("its title is blank" if blank else "no <<title>>")

    def accepted(self) -> Language:
        """A title without angular brackets in it."""
        between = characters(~Characters.of("<>\n"))
        some = characters(~Characters.of("<> \t\r\n"))
        title = concatenation(between.repeated(), some, between.repeated())
        return contains(concatenation(literal("<<"), title, literal(">>")))

    def needs(self) -> tuple[Needed, ...]:
        return (Needed(("<<",)), Needed((">>",)))


@dataclass(frozen=True)
class NoMarkdown(Kind):
    """No Markdown heading, list, rule, quotation, emphasis, struck out text, code, link or table.

    Numbered lists may stand: plain text has them as well. Asterisks within a word, as in 2*3*4 or
    f(x)=a*b, are no emphasis, nor are underscores, as in snake_case. Blanks at both ends do not
    count: a heading behind four spaces, which is code in Markdown, is one where they are cut off.
    """

    guarantee = "certain"
    name = "detectable_format:no_markdown"
    wordings = (
        "Write in plain text, without any Markdown.",
        "Do not use Markdown formatting such as headings, bullet points or bold text.",
        "Your response is shown as plain text: no Markdown.",
    )

    def check(self, response: str) -> Verdict:
        stripped = response.strip()
        for what, pattern in MARKDOWN:
            if pattern.search(stripped):
                return failed(f"has {what}")
        return FOLLOWED

    def accepted(self) -> Language:
        return no_markdown()

    def refuses(self, text: str, *, any_case: bool) -> bool:
        # Within a line: at the start of one, ">>" would be a quotation.
        return not self.check(f"so {text} so")

    def conflict(self, other: Kind) -> str | None:
        opening = other.opening()
        if opening and not self.check(opening):
            return f"{shown(opening)}, which {other.name} needs in front, is Markdown"
        return super().conflict(other)


@dataclass(frozen=True)
class SingleParagraph(Kind):
    """No line break, except before and after the text."""

    guarantee = "certain"
    name = "detectable_format:single_paragraph"
    wordings = (
        "Answer in a single paragraph, without line breaks.",
        "Your whole response must be one paragraph with no line breaks.",
        "Write everything in one paragraph on one line.",
    )

    def check(self, response: str) -> Verdict:
        count = len(lines(response))
        return exactly(count, 1, "line")

    def accepted(self) -> Language:
        return concatenation(blanks(), in_line(), blanks())

    def refuses(self, text: str, *, any_case: bool) -> bool:
        return len(lines(text)) > 1

    def bounds(self) -> dict[str, Interval]:
        return {"lines": (1, 1), "paragraphs": (1, 1)}
