"""Requirements on words and letters that a response uses or avoids."""

from typing import Any

import pytest

from rnr_kernels.roles.requirement import Requirement
from rnr_kernels.roles.text import occurrences


def reason(kind: str, response: str, **parameters: Any) -> str:
    """Of the strict verdict; "" where the response follows."""
    return Requirement(f"keywords:{kind}", **parameters).check(response).reason


@pytest.mark.parametrize(
    ("text", "keyword", "count"),
    [
        ("The cat, a CAT and cats", "cat", 2),
        ("concatenate", "cat", 0),
        ("cat_cat cat-cat", "cat", 2),
        ("C++, C++17 and (C++)", "C++", 3),
        ("ac++", "C++", 0),
        ("Oh! No!! ", "!", 3),
        ("a.b", ".", 1),
        ("a b a b a", "a b a", 1),
        ("New\nYork", "new york", 0),
        ("ÉTÉ été", "été", 2),
        ("aaa", "aa", 0),
        ("caa aa", "aa", 1),
        ("我喜欢苹果和香蕉。", "苹果", 1),
        ("苹果苹果", "苹果", 2),
        ("用Python编程", "python", 1),
        ("ฉันกินข้าวทุกวัน", "ข้าว", 1),
        ("कला और कल", "कल", 1),  # the vowel sign goes on with the word
        ("हैं हैं", "हैं", 2),
        ("cafe\u0301 cafe", "cafe", 1),
    ],
)
def test_keywords_occur_as_whole_words_in_any_case(text: str, keyword: str, count: int) -> None:
    assert occurrences(text, keyword) == count


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        ("A Farmer by the river.", ""),
        ("Farmers and riverbanks.", ""),  # inside longer words, as in IFEval
        ("A farmer.", "without 'river'"),
        ("Nothing.", "without 'farmer', 'river'"),
    ],
)
def test_every_keyword_exists(response: str, expected: str) -> None:
    assert reason("existence", response, keywords=["farmer", "river"]) == expected


def test_blanks_around_keywords_are_no_part_of_them() -> None:
    assert reason("forbidden_words", "It is bad.", forbidden_words=[" bad"]) == "with 'bad'"
    assert reason("existence", "Bad!", keywords=["bad ", " bad"]) == ""
    requirement = Requirement("keywords:existence", keywords=["bad ", " bad\n"])
    assert requirement.parameters == {"keywords": ("bad",)}


def test_keywords_are_no_regular_expressions() -> None:
    assert reason("existence", "abc", keywords=["a.c"]) == "without 'a.c'"
    assert reason("existence", "what? (", keywords=["(", "?"]) == ""
    assert reason("forbidden_words", "abc", forbidden_words=["a.c", "["]) == ""
    assert reason("frequency", "a+ aa", relation="at least", keyword="a+", frequency=1) == ""


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        ("A small thing.", ""),
        ("Very well.", "with 'very'"),
        ("Everything is GOOD, very good.", "with 'good', 'very'"),
        ("everything", ""),
        ("very-good", "with 'good', 'very'"),
        ("very\u0301", ""),
    ],
)
def test_forbidden_words_are_found_whole(response: str, expected: str) -> None:
    assert reason("forbidden_words", response, forbidden_words=["good", "very"]) == expected


@pytest.mark.parametrize(
    ("relation", "frequency", "response", "expected"),
    [
        ("at least", 2, "The end of the line", ""),
        ("at least", 2, "other", "'the' occurs 0 times, not at least 2"),
        ("less than", 2, "the other", ""),
        ("less than", 1, "The end", "'the' occurs 1 time, not less than 1"),
    ],
)
def test_a_keyword_occurs_so_often(
    relation: str, frequency: int, response: str, expected: str
) -> None:
    found = reason("frequency", response, relation=relation, keyword="the", frequency=frequency)
    assert found == expected


@pytest.mark.parametrize(
    ("letter", "relation", "frequency", "response", "expected"),
    [
        ("a", "at least", 3, "A banana", ""),
        ("A", "at least", 5, "A banana", "'A' occurs 4 times, not at least 5"),
        ("#", "at least", 4, "#### heading", ""),
        ("#", "at least", 4, "### heading", "'#' occurs 3 times, not at least 4"),
        ("!", "less than", 1, "No!", "'!' occurs 1 time, not less than 1"),
        ("é", "less than", 2, "É", ""),
    ],
)
def test_a_character_occurs_so_often(
    letter: str, relation: str, frequency: int, response: str, expected: str
) -> None:
    found = reason(
        "letter_frequency",
        response,
        letter=letter,
        let_relation=relation,
        let_frequency=frequency,
    )
    assert found == expected


def test_the_same_letter_is_counted_every_time() -> None:
    # IFEval's prompt 1122; its checker counts a random letter in place of "#".
    requirement = Requirement(
        "keywords:letter_frequency", letter="#", let_relation="at least", let_frequency=4
    )
    response = "#### " + "abcdefghijklmnopqrstuvwxyz"
    assert [requirement.check(response).followed for _ in range(200)] == [True] * 200
    assert not any(requirement.check("z" * n) for n in range(1, 200))


@pytest.mark.parametrize("letter", ["", "ab", " ", None, 3, "\ud800"])
def test_a_letter_is_one_character(letter: object) -> None:
    with pytest.raises(ValueError, match="keywords:letter_frequency: letter"):
        Requirement(
            "keywords:letter_frequency", letter=letter, let_relation="at least", let_frequency=4
        )


@pytest.mark.parametrize("relation", ["at lest", "more than", "", None, "AT LEAST"])
def test_a_relation_that_is_none_is_refused(relation: object) -> None:
    with pytest.raises(ValueError, match="relation must be one of 'at least', 'less than', got"):
        Requirement("keywords:frequency", relation=relation, keyword="a", frequency=1)


def test_rare_letters_are_drawn_a_few_times_at_least() -> None:
    drawn = [Requirement.draw(n, ["keywords:letter_frequency"]).parameters for n in range(1500)]
    rare = [each for each in drawn if each["letter"] in "jqxz"]
    at_least = [each for each in rare if each["let_relation"] == "at least"]
    assert {each["let_frequency"] for each in at_least} == {1, 2, 3, 4}
    assert max(each["let_frequency"] for each in rare if each not in at_least) > 20
    assert max(each["let_frequency"] for each in drawn if each["letter"] == "e") > 20
