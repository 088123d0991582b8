"""Requirements on words, sentences, characters and paragraphs."""

from typing import Any

import pytest

from rnr_kernels.roles.requirement import Requirement

PREFIX = "length_constraints:"


def reason(kind: str, response: str, **parameters: Any) -> str:
    """Of the strict verdict; "" where the response follows."""
    return Requirement(PREFIX + kind, **parameters).check(response).reason


@pytest.mark.parametrize(
    ("relation", "num_words", "response", "expected"),
    [
        ("at least", 3, "one two three", ""),
        ("at least", 4, "one two three", "3 words, not at least 4"),
        ("less than", 4, "one two three", ""),
        ("less than", 3, "one two three", "3 words, not less than 3"),
        ("at least", 2, "don't", ""),  # as IFEval counts
        ("at least", 2, "?! -- ...", "0 words, not at least 2"),
        ("at least", 2, "well", "1 word, not at least 2"),
        ("at least", 2, "Ça va?", ""),
        ("at least", 5, "बच्चे हर सुबह पढ़ते", "4 words, not at least 5"),
        ("at least", 3, "cafe\u0301 \u0301 x", "2 words, not at least 3"),
        ("at least", 3, "one ⚠\ufe0f two", "2 words, not at least 3"),
    ],
)
def test_words_are_runs_of_letters_and_digits(
    relation: str, num_words: int, response: str, expected: str
) -> None:
    assert reason("number_words", response, relation=relation, num_words=num_words) == expected


@pytest.mark.parametrize(
    ("response", "count"),
    [
        ("It works. Does it? Yes!", 3),
        ("Dr. Smith paid 3.50 dollars.", 1),
        ("A line\nthat goes on. Then another.", 2),
        ("- one\n- two\n- three", 3),
        ("A heading\n\nA sentence.", 2),
        ("...\n\n!", 0),
        ("पहला वाक्य। दूसरा वाक्य।", 2),
        ("half a \ud800 pair. And more.", 2),
    ],
)
def test_sentences_are_counted(response: str, count: int) -> None:
    said = f"{count} sentence{'' if count == 1 else 's'}, not at least 9"
    assert reason("number_sentences", response, relation="at least", num_sentences=9) == said


def test_a_long_text_has_as_many_sentences_as_its_parts() -> None:
    assert reason(
        "number_sentences", "It is so. " * 2000, relation="at least", num_sentences=2001
    ) == ("2000 sentences, not at least 2001")


@pytest.mark.parametrize(
    ("relation", "limit", "response", "expected"),
    [
        ("at least", 5, "  12345\n", ""),
        ("at least", 6, "  12345\n", "5 characters, not at least 6"),
        ("less than", 5, "1 3 5", "5 characters, not less than 5"),
        ("less than", 3, "😀é", ""),
    ],
)
def test_characters_are_counted_between_the_outer_blanks(
    relation: str, limit: int, response: str, expected: str
) -> None:
    found = reason("number_characters", response, relation=relation, num_characters=limit)
    assert found == expected


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        ("one\n\n***\n\ntwo", ""),
        ("one *** two", ""),
        ("one***two", ""),
        ("***\none\n***\ntwo\n***", ""),
        ("one\n\ntwo", "1 paragraph, not 2"),
        ("one\n***\ntwo\n***\nthree", "3 paragraphs, not 2"),
        ("one\n***\n***\ntwo", "paragraph 2 is empty"),
        ("***", "0 paragraphs, not 2"),
        ("***\n***\none", "paragraph 1 is empty"),
    ],
)
def test_paragraphs_have_asterisks_between_them(response: str, expected: str) -> None:
    assert reason("number_paragraphs", response, num_paragraphs=2) == expected


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        ("One.\n\nSummary of it.", ""),
        ("One.\n\n\n\n  \n\nSummary.", ""),  # blank paragraphs do not move the second
        ('\n\nOne.\n\n"Summary" it is.', ""),
        ("One.\n\n## SUMMARY", ""),
        ("One.\n\nThe summary.", "paragraph 2 starts with 'the', not 'summary'"),
        ("One.\n\nSummary\u0301.", "paragraph 2 starts with 'summary\u0301', not 'summary'"),
        ("One.\n\nSummaryless.", "paragraph 2 starts with 'summaryless', not 'summary'"),
        ("One.\n\n?!", "paragraph 2 has no word, not 'summary'"),
        ("One.\nSummary.", "1 paragraph, not 2"),
        ("One.\n\nSummary.\n\nThree.", "3 paragraphs, not 2"),
    ],
)
def test_the_nth_paragraph_starts_with_a_word(response: str, expected: str) -> None:
    parameters = {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "summary"}
    assert reason("nth_paragraph_first_word", response, **parameters) == expected


def test_the_nth_paragraph_is_one_of_the_paragraphs() -> None:
    with pytest.raises(ValueError, match="nth_paragraph must be at most num_paragraphs, 2, got 3"):
        reason("nth_paragraph_first_word", "", num_paragraphs=2, nth_paragraph=3, first_word="a")
    with pytest.raises(ValueError, match="first_word must begin with a letter or digit, got '#a'"):
        reason("nth_paragraph_first_word", "", num_paragraphs=2, nth_paragraph=2, first_word="#a")


@pytest.mark.parametrize("what", ["words", "sentences", "characters"])
def test_less_than_one_is_refused(what: str) -> None:
    with pytest.raises(ValueError, match=f"num_{what}: no response has less than 1"):
        Requirement(f"{PREFIX}number_{what}", **{"relation": "less than", f"num_{what}": 1})
