"""Responses that follow requirements, written without a model and without a check.

A response has a head (what it has to start with), a middle (words and marks that are asked for,
plain sentences, bullets) and a tail (postscript, end phrase). What comes out follows by
construction, so that checks, pass rates and repair can be measured against it.
"""

import random
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rnr_kernels.roles.amounts import AT_LEAST, LESS_THAN
from rnr_kernels.roles.kinds.format import OPTIONS
from rnr_kernels.roles.requirement import Requirement

WORDS = (
    "above", "and", "apple", "are", "around", "bread", "bring", "calm", "city", "cloud", "cold",
    "coming", "early", "east", "even", "evening", "family", "field", "find", "fire", "fish", "for",
    "forest", "friend", "garden", "gives", "glass", "golden", "green", "harbour", "have", "house",
    "inside", "into", "island", "keep", "kind", "lake", "leaves", "light", "long", "make",
    "market", "meadow", "moon", "morning", "mountain", "near", "night", "north", "ocean", "old",
    "open", "orange", "over", "paper", "park", "path", "quiet", "rain", "river", "road", "room",
    "shade", "ship", "silver", "slow", "snow", "song", "south", "spring", "stone", "street",
    "summer", "table", "taking", "their", "there", "town", "tree", "under", "valley", "village",
    "walk", "wall", "warm", "water", "west", "wide", "wind", "window", "winter", "wood", "yellow",
)  # fmt: skip
"""What sentences are made of."""
SENTENCE = 8
"""Words of a sentence."""
SHORT = 3
"""The same where something limits a response."""
MARGIN = 5
"""Words and characters more than are asked for at least."""

SPOKEN = re.compile(r'"([^"]+)"')
"""In a requirement that a template wrote: the words that a response has to say."""

WRITTEN = (
    "change_case:capital_word_frequency",
    "change_case:english_capital",
    "change_case:english_lowercase",
    "characters:no_digits",
    "characters:no_emoji",
    "combination:repeat_prompt",
    "combination:two_responses",
    "detectable_content:number_placeholders",
    "detectable_content:postscript",
    "detectable_format:constrained_response",
    "detectable_format:json_format",
    "detectable_format:multiple_sections",
    "detectable_format:no_markdown",
    "detectable_format:number_bullet_lists",
    "detectable_format:number_highlighted_sections",
    "detectable_format:one_of_answers",
    "detectable_format:single_paragraph",
    "detectable_format:title",
    "free_form:persona",
    "free_form:refusal",
    "free_form:scope",
    "free_form:tone",
    "keywords:existence",
    "keywords:forbidden_words",
    "keywords:frequency",
    "keywords:letter_frequency",
    "length_constraints:nth_paragraph_first_word",
    "length_constraints:number_characters",
    "length_constraints:number_paragraphs",
    "length_constraints:number_sentences",
    "length_constraints:number_words",
    "punctuation:no_comma",
    "startend:end_checker",
    "startend:quotation",
    "startend:start_phrase",
)
"""The kinds that there are templates for."""

_WORD = re.compile(r"\w+")
_END_OF_SENTENCE = re.compile(r"[.!?:]+|\n")


class CannotWriteError(ValueError):
    """The templates have no response to a set of requirements; the message says what is in the
    way."""


@dataclass(frozen=True)
class _Limit:
    """How much of something a response has: at least, and at most."""

    least: int
    most: int | None


class _Asked:
    """The parameters of a set's requirements by kind."""

    def __init__(self, requirements: Iterable[Requirement]) -> None:
        self._by_kind: dict[str, list[Mapping[str, Any]]] = {}
        for each in requirements:
            if each.kind not in WRITTEN:
                raise CannotWriteError(f"there is no template for {each.kind}")
            self._by_kind.setdefault(each.kind, []).append(each.parameters)

    def __contains__(self, kind: str) -> bool:
        return kind in self._by_kind

    def __len__(self) -> int:
        return len(self._by_kind)

    def of(self, kind: str) -> Sequence[Mapping[str, Any]]:
        return self._by_kind.get(kind, ())

    def limit(self, kind: str, relation: str, amount: str) -> _Limit:
        found = self.of(kind)
        least = max((each[amount] for each in found if each[relation] == AT_LEAST), default=0)
        most = min(
            (each[amount] - 1 for each in found if each[relation] == LESS_THAN), default=None
        )
        return _Limit(least, most)


def write_response(requirements: Sequence[Requirement], rng: random.Random) -> str:
    """A response that follows all; CannotWriteError if the templates have none."""
    return _Writer(_Asked(requirements), rng).write()


class _Writer:
    def __init__(self, asked: _Asked, rng: random.Random) -> None:
        self._asked = asked
        self._rng = rng
        self._words_limit = asked.limit("length_constraints:number_words", "relation", "num_words")
        self._characters = asked.limit(
            "length_constraints:number_characters", "relation", "num_characters"
        )
        self._sentences = asked.limit(
            "length_constraints:number_sentences", "relation", "num_sentences"
        )
        # A text in quotation marks is also JSON, if it is one line.
        self._is_quoted = "startend:quotation" in asked or "detectable_format:json_format" in asked
        self._separator = self._chosen_separator()
        self._vocabulary = [word for word in WORDS if self._may_say(word)]
        if len(self._vocabulary) < 2:
            raise CannotWriteError("nearly every word of the templates is ruled out")

    def write(self) -> str:
        """The shortest that is long enough."""
        if "detectable_format:one_of_answers" in self._asked:
            if len(self._asked) > 1:
                raise CannotWriteError("one of some answers, and nothing else")
            return str(self._asked.of("detectable_format:one_of_answers")[0]["answers"][0])
        limits = (self._words_limit, self._characters, self._sentences)
        num_words = SHORT if any(limit.most is not None for limit in limits) else 3 * SENTENCE
        while True:
            text = self._text(num_words)
            short_of = max(
                self._words_limit.least - len(_WORD.findall(text)),
                (self._characters.least - len(text)) // MARGIN,
            )
            if short_of <= 0:
                break
            num_words += short_of + MARGIN
        self._check_limits(text)
        return text

    def _chosen_separator(self) -> str:
        asked = self._asked
        if (
            "detectable_format:single_paragraph" in asked
            or "detectable_format:json_format" in asked
        ):
            return " "
        return "\n"

    def _may_say(self, word: str) -> bool:
        asked = self._asked
        forbidden = [each["forbidden_words"] for each in asked.of("keywords:forbidden_words")]
        limited = [
            each["keyword"]
            for each in asked.of("keywords:frequency")
            if each["relation"] == LESS_THAN
        ]
        letters = [
            each["letter"].lower()
            for each in asked.of("keywords:letter_frequency")
            if each["let_relation"] == LESS_THAN
        ]
        if word in (
            text.lower() for text in [*limited, *(w for words in forbidden for w in words)]
        ):
            return False
        return not any(letter in word for letter in letters)

    def _some(self, count: int) -> str:
        return " ".join(self._rng.choices(self._vocabulary, k=count))

    def _sentence(self, num_words: int) -> str:
        return f"{self._some(max(1, num_words)).capitalize()}."

    def _text(self, num_words: int) -> str:
        """All parts in order, in the paragraphs that are asked for."""
        asked = self._asked
        head, tail = self._head(), self._tail()
        middle = [*self._marks(), self._sentences_of(num_words), *self._bullets()]
        count, between = 1, self._separator
        for each in asked.of("length_constraints:number_paragraphs"):
            count, between = each["num_paragraphs"], "\n***\n"
        for each in asked.of("length_constraints:nth_paragraph_first_word"):
            count, between = each["num_paragraphs"], "\n\n"
        if "combination:two_responses" in asked:
            count, between = 2, "\n******\n"
        paragraphs = [[*head, *middle], *([self._sentence(SHORT)] for _ in range(count - 1))]
        for each in asked.of("length_constraints:nth_paragraph_first_word"):
            if each["nth_paragraph"] == 1 and head:
                raise CannotWriteError("the first paragraph starts with something else")
            paragraphs[each["nth_paragraph"] - 1].insert(
                0, f"{each['first_word'].capitalize()} so."
            )
        paragraphs[-1] += tail
        text = between.join(self._separator.join(parts) for parts in paragraphs)
        if "change_case:english_capital" in asked:
            text = text.upper()
        if "change_case:english_lowercase" in asked:
            text = text.lower()
        return f'"{text}"' if self._is_quoted else text

    def _head(self) -> list[str]:
        prompts = [each["prompt_to_repeat"] for each in self._asked.of("combination:repeat_prompt")]
        phrases = [each["start_phrase"] for each in self._asked.of("startend:start_phrase")]
        for prompt in prompts:
            if re.search(r"[\n*#`|\[<>_~=\"-]", prompt):
                raise CannotWriteError("the prompt to be repeated has marks of its own")
        starts = [*prompts, *phrases]
        return [max(starts, key=len)] if starts else []

    def _marks(self) -> list[str]:
        """What has to stand anywhere."""
        asked, marks, lines = self._asked, [], []
        for _ in asked.of("detectable_format:title"):
            lines.append(f"<<{self._some(2).capitalize()}>>")
        for each in asked.of("detectable_format:multiple_sections"):
            splitter = each["section_spliter"]
            numbers = range(1, each["num_sections"] + 1)
            lines += [f"{splitter} {number}" for number in numbers]
        for each in asked.of("detectable_format:number_highlighted_sections"):
            marks += [f"*{self._some(1)}*" for _ in range(each["num_highlights"])]
        for each in asked.of("detectable_content:number_placeholders"):
            marks += [f"[{self._some(1)}]" for _ in range(each["num_placeholders"])]
        for each in asked.of("keywords:existence"):
            marks += each["keywords"]
        for each in asked.of("keywords:frequency"):
            if each["relation"] == AT_LEAST:
                marks += [each["keyword"]] * each["frequency"]
        for each in asked.of("keywords:letter_frequency"):
            if each["let_relation"] == AT_LEAST:
                marks.append(each["letter"] * each["let_frequency"])
        for each in asked.of("change_case:capital_word_frequency"):
            if each["capital_relation"] == AT_LEAST:
                marks.append(self._some(each["capital_frequency"]).upper())
        sentences = [OPTIONS[0]] * ("detectable_format:constrained_response" in asked)
        for kind in ("tone", "persona", "scope", "refusal"):
            for each in asked.of(f"free_form:{kind}"):
                sentences += [f"{said.capitalize()}." for said in SPOKEN.findall(each["text"])[:1]]
        return [*lines, *([" ".join(marks)] if marks else []), *sentences]

    def _sentences_of(self, num_words: int) -> str:
        count = 1 if self._sentences.most is not None else max(1, num_words // SENTENCE)
        if self._sentences.least:
            # What stands around them may run into a sentence, or be none.
            count = max(count, self._sentences.least + 1)
        each = max(1, num_words // count)
        return " ".join(
            self._sentence(each + (number < num_words % count)) for number in range(count)
        )

    def _bullets(self) -> list[str]:
        counts = [each["num_bullets"] for each in self._asked.of(BULLETS)]
        return [f"- {self._some(2).capitalize()}." for _ in range(max(counts, default=0))]

    def _tail(self) -> list[str]:
        tail = [
            f"{each['postscript_marker']} {self._sentence(2)}"
            for each in self._asked.of("detectable_content:postscript")
        ]
        ends = [each["end_phrase"] for each in self._asked.of("startend:end_checker")]
        return [*tail, max(ends, key=len)] if ends else tail

    def _check_limits(self, text: str) -> None:
        """Of what is limited, how much the parts have that are not ours to choose."""
        asked, words = self._asked, _WORD.findall(text)
        lower = [word.lower() for word in words]
        capitals = asked.limit(
            "change_case:capital_word_frequency", "capital_relation", "capital_frequency"
        )
        counts = [
            ("words", len(words), self._words_limit.most),
            ("characters", len(text), self._characters.most),
            ("sentences", len(_END_OF_SENTENCE.findall(text)) + 1, self._sentences.most),
            ("words in capitals", sum(map(str.isupper, words)), capitals.most),
        ]
        for each in asked.of("keywords:letter_frequency"):
            if each["let_relation"] == LESS_THAN:
                count = text.lower().count(each["letter"].lower())
                counts.append(("letters", count, each["let_frequency"] - 1))
        for each in asked.of("keywords:frequency"):
            if each["relation"] == LESS_THAN:
                count = " ".join(lower).count(each["keyword"].lower())
                counts.append(("keywords", count, each["frequency"] - 1))
        for each in asked.of("keywords:forbidden_words"):
            for word in each["forbidden_words"]:
                counts.append(("forbidden words", " ".join(lower).count(word.lower()), 0))
        if "punctuation:no_comma" in asked:
            counts.append(("commas", text.count(","), 0))
        if "characters:no_digits" in asked:
            counts.append(("digits", sum(map(str.isdigit, text)), 0))
        if "characters:no_emoji" in asked or self._is_cased:
            counts.append(("foreign letters", sum(ord(each) > 127 for each in text), 0))
        for what, count, most in counts:
            if most is not None and count > most:
                raise CannotWriteError(f"too many {what} with all that is asked for")
        if self._sentences.least > 1 and (
            self._is_quoted or "change_case:english_lowercase" in asked
        ):
            raise CannotWriteError("sentences in small letters, or in quotation marks, are no more")
        if "detectable_format:json_format" in asked and (text.count('"') > 2 or "\\" in text):
            raise CannotWriteError("quotation marks inside of a JSON string")

    @property
    def _is_cased(self) -> bool:
        return any(kind in self._asked for kind in CASES)


BULLETS = "detectable_format:number_bullet_lists"
CASES = ("change_case:english_capital", "change_case:english_lowercase")
