"""What all kinds of requirement share: ranges, draws, wordings, total and deterministic checks."""

import random
import re
import string
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rnr_kernels.roles.kinds import CHECKED, IFEVAL, JUDGED, KINDS
from rnr_kernels.roles.loose import loose_variants
from rnr_kernels.roles.requirement import Requirement
from rnr_kernels.roles.text import library

IFEVAL_KINDS = [
    "change_case:capital_word_frequency",
    "change_case:english_capital",
    "change_case:english_lowercase",
    "combination:repeat_prompt",
    "combination:two_responses",
    "detectable_content:number_placeholders",
    "detectable_content:postscript",
    "detectable_format:constrained_response",
    "detectable_format:json_format",
    "detectable_format:multiple_sections",
    "detectable_format:number_bullet_lists",
    "detectable_format:number_highlighted_sections",
    "detectable_format:title",
    "keywords:existence",
    "keywords:forbidden_words",
    "keywords:frequency",
    "keywords:letter_frequency",
    "language:response_language",
    "length_constraints:nth_paragraph_first_word",
    "length_constraints:number_paragraphs",
    "length_constraints:number_sentences",
    "length_constraints:number_words",
    "punctuation:no_comma",
    "startend:end_checker",
    "startend:quotation",
]

MARKS = [
    "*",
    "<<",
    ">>",
    "[",
    "]",
    "```json",
    '"',
    "\n\n",
    "***",
    "******",
    "P.S.",
    "- a",
    "1",
    ",",
]
TEXTS = st.one_of(
    st.text(st.characters(), max_size=80),  # surrogates and NUL among them
    st.lists(st.one_of(st.sampled_from(MARKS), st.text(max_size=5)), max_size=30).map("".join),
)


def test_all_kinds_of_ifeval_are_there_under_their_names() -> None:
    assert sorted(kind.name for kind in IFEVAL) == IFEVAL_KINDS
    assert all(KINDS[name].name == name for name in KINDS) and len(CHECKED) == 33
    assert KINDS.keys() - set(CHECKED) == {kind.name for kind in JUDGED}
    assert all(kind.is_judged == (kind in JUDGED) for kind in KINDS.values())


def test_every_prompt_of_ifeval_is_a_set_of_requirements(
    ifeval_prompts: list[dict[str, Any]],
) -> None:
    assert len(ifeval_prompts) == 541
    kinds = set()
    for record in ifeval_prompts:
        for name, parameters in zip(record["instruction_id_list"], record["kwargs"], strict=True):
            requirement = Requirement(name, **parameters)
            assert Requirement.from_record(requirement.as_record()) == requirement
            requirement.check(record["prompt"])
            kinds.add(name)
    assert sorted(kinds) == IFEVAL_KINDS


@pytest.mark.parametrize("name", CHECKED)
def test_draws_are_seeded_and_in_range(name: str) -> None:
    drawn = [Requirement.draw(seed, [name]) for seed in range(50)]
    assert drawn == [Requirement.draw(random.Random(seed), [name]) for seed in range(50)]
    assert len(set(drawn)) > 4 or not drawn[0].parameters
    for requirement in drawn:
        assert Requirement.from_record(requirement.as_record()) == requirement


@pytest.mark.parametrize("name", CHECKED)
def test_wordings_differ_and_show_every_parameter(name: str) -> None:
    kind = KINDS[name]
    assert len(set(kind.wordings)) >= 3
    for seed in range(20):
        requirement = Requirement.draw(seed, [name])
        words = KINDS[name].from_parameters(requirement.parameters).words()
        filled = [wording.format(**words) for wording in kind.wordings]
        assert len(set(filled)) == len(kind.wordings)
        for wording, text in zip(kind.wordings, filled, strict=True):
            named = {field for _, field, _, _ in string.Formatter().parse(wording) if field}
            assert named == words.keys()
            assert text == text.strip() and not re.search(
                r"[{}]|\b1 (?!is\b|must\b)\w+s\b|\beach\b|\b0 times", text
            )
        assert requirement.wording(seed) in filled


@pytest.mark.parametrize(
    ("name", "parameters", "wording"),
    [
        ("length_constraints:number_words", {"relation": "less than", "num_words": 2},
         "Answer with at most 1 word."),
        ("length_constraints:number_words", {"relation": "less than", "num_words": 20},
         "Answer with fewer than 20 words."),
        ("detectable_format:number_bullet_lists", {"num_bullets": 1},
         "Your answer must contain exactly 1 bullet point. Use Markdown bullets such as: "
         "* A point."),
        ("keywords:frequency", {"relation": "less than", "keyword": "so", "frequency": 1},
         'The word "so" must not appear in your response.'),
        ("keywords:frequency", {"relation": "at least", "keyword": "New York", "frequency": 2},
         'The phrase "New York" must appear at least twice in your response.'),
        ("keywords:letter_frequency",
         {"let_relation": "less than", "letter": "e", "let_frequency": 1},
         'The letter "e" must not appear in your response.'),
        ("keywords:letter_frequency",
         {"let_relation": "at least", "letter": "#", "let_frequency": 1},
         'The character "#" must appear at least once in your response.'),
        ("keywords:existence", {"keywords": ["a", "b c"]},
         'Include the keywords "a" and "b c" in your response.'),
        ("keywords:existence", {"keywords": ["learn"]},
         'Include the keyword "learn" in your response.'),
        ("keywords:forbidden_words", {"forbidden_words": ["a", "b", "c"]},
         'Do not use the words "a", "b" or "c".'),
        ("keywords:forbidden_words", {"forbidden_words": ["a"]}, 'Do not use the word "a".'),
        ("detectable_format:one_of_answers", {"answers": ["yes"]},
         'Answer with "yes" and nothing else.'),
        ("detectable_format:one_of_answers", {"answers": ["yes", "no"]},
         'Answer with "yes" or "no" and nothing else.'),
        ("detectable_format:multiple_sections", {"section_spliter": "Part", "num_sections": 1},
         'Your response must have 1 section, headed "Part 1".'),
        ("detectable_format:multiple_sections", {"section_spliter": "Part", "num_sections": 3},
         'Your response must have 3 sections, headed "Part 1", "Part 2" and "Part 3".'),
        ("detectable_format:multiple_sections", {"section_spliter": "Part", "num_sections": 4},
         'Your response must have 4 sections, headed "Part 1", "Part 2", "Part 3" and so on.'),
        ("language:response_language", {"language": "sw"},
         "Your entire response must be in Swahili; no other language is allowed."),
    ],
)  # fmt: skip
def test_wordings_are_plain_english(name: str, parameters: dict[str, Any], wording: str) -> None:
    kind = KINDS[name].from_parameters(parameters)
    assert kind.wordings[0].format(**kind.words()) == wording


@pytest.mark.parametrize(
    ("name", "parameters", "error"),
    [
        ("no:such_kind", {}, "unknown kind of requirement 'no:such_kind'; known: change_case"),
        ("length_constraints:number_words", {"relation": "at least"},
         "length_constraints:number_words needs the parameter 'num_words'"),
        ("punctuation:no_comma", {"relation": "at least"},
         "punctuation:no_comma has no parameter 'relation'; it has none"),
        ("length_constraints:number_paragraphs", {"num_paragraphs": 0},
         "length_constraints:number_paragraphs: num_paragraphs must be a whole number from 1 to "
         "1000, got 0"),
        ("length_constraints:number_paragraphs", {"num_paragraphs": None},
         "num_paragraphs must be a whole number from 1 to 1000, got None"),
        ("keywords:existence", {"keywords": "word"},
         "keywords:existence: keywords must be a list of 1 to 100 texts, got 'word'"),
        ("keywords:existence", {"keywords": []}, "must be a list of 1 to 100 texts"),
        ("keywords:existence", {"keywords": ["a", " "]}, "must be text of 1 to 1000 characters"),
        ("keywords:forbidden_words", {"forbidden_words": None}, "must be a list of 1 to 100"),
        ("startend:end_checker", {"end_phrase": ""}, "end_phrase must be text of 1 to 10000"),
        ("startend:end_checker", {"end_phrase": ' "" '}, "end_phrase must be more than quotation"),
        ("startend:start_phrase", {"start_phrase": '"'}, "start_phrase must be more than"),
        ("characters:script", {"script": "latin"}, "script must be one of .*nearest: 'Latin'"),
    ],
)  # fmt: skip
def test_bad_parameters_name_the_kind_the_parameter_and_its_range(
    name: str, parameters: dict[str, Any], error: str
) -> None:
    with pytest.raises(ValueError, match=error):
        Requirement(name, **parameters)


@pytest.mark.parametrize("name", CHECKED)
@settings(deadline=None)  # the first text of all waits for the languages' model
@given(seed=st.integers(0, 20), text=TEXTS)
def test_checks_are_total_and_deterministic(name: str, seed: int, text: str) -> None:
    requirement = Requirement.draw(seed, [name])
    strict = requirement.check(text)
    assert requirement.check(text) == strict and strict.followed == (strict.reason == "")
    assert strict.followed <= requirement.check(text, loose=True).followed


@pytest.mark.parametrize("text", ["", " \n\t"])
@pytest.mark.parametrize("name", CHECKED)
def test_an_empty_response_follows_nothing(name: str, text: str) -> None:
    requirement = Requirement.draw(0, [name])
    for loose in (False, True):
        assert requirement.check(text, loose=loose).reason == "the response is empty"


def test_loose_variants_lack_outer_lines_and_asterisks() -> None:
    assert list(loose_variants("*a*\nb\nc")) == [
        "*a*\nb\nc", "b\nc", "*a*\nb", "b", "a\nb\nc", "a\nb",
    ]  # fmt: skip
    assert list(loose_variants("one line")) == ["one line", ""]


def test_the_loose_verdict_forgives_a_first_line_a_last_line_and_asterisks() -> None:
    requirement = Requirement("startend:start_phrase", start_phrase="In short:")
    response = "Sure!\n**In short:** no."
    assert not requirement.check(response) and requirement.check(response, loose=True)
    no_comma = Requirement("punctuation:no_comma")
    assert not no_comma.check("Well, so:\nIt is so.")
    assert no_comma.check("Well, so:\nIt is so.", loose=True)
    assert not no_comma.check("Well, so:\nIt is, so.", loose=True)


def test_a_missing_package_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    library.cache_clear()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    requirement = Requirement.draw(0, ["length_constraints:number_sentences"])
    with pytest.raises(ValueError, match=r"needs sentencex; pip install 'rnr_kernels\[roles\]'"):
        requirement.check("It is so.")


HOSTILE = (
    "a", "\n", "[", "<<", "*", "*a", "* ", "- ", " \n", "```", "`", '"', '"\\', '[{"a":', "P. ",
    "Section ", "\ud800", "\0", "字", "\u201c", "ǅ", "1", "***a", "|", "\ufe0f", "a. ", "# ",
)  # fmt: skip


@pytest.mark.parametrize("name", CHECKED)
def test_long_hostile_responses_take_no_time_to_speak_of(name: str) -> None:
    # Square time would be hours: the tests' own limit, or patience, ends it.
    requirement = Requirement.draw(1, [name])
    for piece in HOSTILE:
        requirement.check(piece * (200_000 // len(piece)))
