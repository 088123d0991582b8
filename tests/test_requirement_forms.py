"""Requirements on the form of the whole response, and on parts of it."""

from typing import Any

import pytest

from rnr_kernels.roles.requirement import Requirement


def reason(kind: str, response: str, **parameters: Any) -> str:
    """Of the strict verdict; "" where the response follows."""
    return Requirement(kind, **parameters).check(response).reason


@pytest.mark.parametrize(
    ("response", "follows"),
    [
        ("My answer is yes.", True),
        ("Hmm. My answer is maybe. That is all.", True),
        ("my answer is yes.", False),
        ("My answer is yes", False),
    ],
)
def test_a_constrained_response_has_one_of_three_sentences(response: str, follows: bool) -> None:
    found = reason("detectable_format:constrained_response", response)
    without = "without any of 'My answer is yes.', 'My answer is no.', 'My answer is maybe.'"
    assert found == ("" if follows else without)


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        ("yes", ""),
        (" not sure\n", ""),
        ("Yes", "'Yes' is none of 'yes', 'not sure'"),
        ("yes.", "'yes.' is none of 'yes', 'not sure'"),
        ("yes, not sure", "'yes, not sure' is none of 'yes', 'not sure'"),
    ],
)
def test_the_whole_response_is_one_of_the_answers(response: str, expected: str) -> None:
    found = reason("detectable_format:one_of_answers", response, answers=["yes", "not sure"])
    assert found == expected


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        ('{"a": [1, 2.5, null, true]}', ""),
        ('```json\n{"a": 1}\n```', ""),
        ("```JSON [1] ```", ""),
        ("```\n[]\n```\n", ""),
        ("``` []", ""),
        ('"text"', ""),
        ("9" * 5000, ""),  # more digits than Python makes an int of
        ("[" * 200 + "]" * 200, ""),
        ('["' + "[" * 300 + '"]', ""),
        ("[" * 201 + "]" * 201, "nested deeper than 200"),
        ("[" * 100_000, "nested deeper than 200"),
        ("{'a': 1}", "not JSON: Expecting property name enclosed in double quotes "
         "at line 1, column 2"),
        ("Here: {}", "not JSON: Expecting value at line 1, column 1"),
        ("[NaN]", "not JSON: NaN is no JSON value"),
        ("-Infinity", "not JSON: -Infinity is no JSON value"),
        ("{} {}", "not JSON: Extra data at line 1, column 4"),
    ],
)  # fmt: skip
def test_the_whole_response_is_json(response: str, expected: str) -> None:
    assert reason("detectable_format:json_format", response) == expected


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        ("SECTION 1\na\nSECTION 2\nb", ""),
        ("SECTION1 a SECTION  2 b SECTION 3", ""),
        ("Section 1\na\nSection 2", "0 of 2 sections"),
        ("SECTION 1\na\nSECTION two", "1 of 2 sections"),
    ],
)
def test_sections_start_with_a_splitter_and_a_number(response: str, expected: str) -> None:
    parameters = {"section_spliter": "SECTION", "num_sections": 2}
    assert reason("detectable_format:multiple_sections", response, **parameters) == expected


def test_a_splitter_is_no_regular_expression() -> None:
    parameters = {"section_spliter": "(P.", "num_sections": 1}
    assert reason("detectable_format:multiple_sections", "(P. 1", **parameters) == ""
    found = reason("detectable_format:multiple_sections", "(Px 1", **parameters)
    assert found == "0 of 1 section"


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        ("* one\n* two", ""),
        ("List:\n\n  - one\n\t*\ttwo\n\nEnd.", ""),
        ("* one", "1 bullet point, not 2"),
        ("* one\n* two\n- three", "3 bullet points, not 2"),
        ("* one\n* two\n---\n*so* it is\n**And** this\n-5 degrees\n- - -\n*", ""),
        ("1. one\n2. two", "0 bullet points, not 2"),
    ],
)
def test_bullet_points_are_counted_exactly(response: str, expected: str) -> None:
    assert reason("detectable_format:number_bullet_lists", response, num_bullets=2) == expected


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        ("*one* and *two*", ""),
        ("**one** and ***two***", ""),
        ("*one*", "1 of 2 highlighted sections"),
        ("***one***", "1 of 2 highlighted sections"),
        ("** ** and * * and *", "0 of 2 highlighted sections"),
        ("*one\ntwo*", "0 of 2 highlighted sections"),
        ("* one\n* two\n", "0 of 2 highlighted sections"),
        ("* Note **this** well", "1 of 2 highlighted sections"),
        ("* a *b* c\n* d *e*", ""),
        ("*one *two*", "1 of 2 highlighted sections"),
    ],
)
def test_highlighted_sections_are_counted_once(response: str, expected: str) -> None:
    found = reason("detectable_format:number_highlighted_sections", response, num_highlights=2)
    assert found == expected


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        ("<<A poem>>\n\nText.", ""),
        ("It is <<A -> B>> then", ""),
        ("<<<deep>>>", ""),
        ("<< >> but <<here>>", ""),
        ("<< >>", "its title is blank"),
        ("<< >> and << >>", "its title is blank"),
        ("<A poem>", "no <<title>>"),
        ("<<A\npoem>>", "no <<title>>"),
        (">>A poem<<", "no <<title>>"),
    ],
)
def test_a_title_stands_in_double_brackets(response: str, expected: str) -> None:
    assert reason("detectable_format:title", response) == expected


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        ("Plain text. 1. First, 2 * 3 = 6.\n#tag, snake_case, a - b", ""),
        ("# Heading", "has a heading"),
        ("text\n- item", "has a list"),
        ("a\n***\nb", "has a rule"),
        ("a **bold** word", "has emphasis"),
        ("call `f`", "has code"),
        ("[here](http://a.b)", "has a link"),
        ("| a | b |", "has a table"),
        ("2*3*4=24", ""),
        ("f(x)=a*b and c*d", ""),
        ("2**3**2 and a*(b+c)*d", ""),
        ("snake_case_name, a_b and c_d", ""),
        ("1. one\n2. two", ""),  # so does plain text
        ("a > b, a -> b\n~5\n\n=====", ""),
        ("a __bold__ word", "has emphasis"),
        ("so _slanted words_.", "has emphasis"),
        ("(*so*)", "has emphasis"),
        ("***so***", "has emphasis"),
        ("as he said:\n> quote", "has a quotation"),
        ("Title\n=====\nText", "has a heading"),
        ("Title\r\n=====\r\nText", "has a heading"),
        ("~~gone~~", "has struck out text"),
        ("a\r\n---\r\nb", "has a rule"),
    ],
)
def test_markdown_is_named(response: str, expected: str) -> None:
    assert reason("detectable_format:no_markdown", response) == expected


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        ("\nOne line. Two sentences.\n\n", ""),
        ("a\nb", "2 lines, not 1"),
        ("a\n\n\nb\nc", "3 lines, not 1"),
    ],
)
def test_a_single_paragraph_has_one_line(response: str, expected: str) -> None:
    assert reason("detectable_format:single_paragraph", response) == expected


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        ("Dear [name], see [address].", ""),
        ("[a][b]", ""),
        ("Dear [name], see [].", "1 of 2 placeholders"),
        ("[ ] open, [x", "0 of 2 placeholders"),
        ("[na\nme] ]", "0 of 2 placeholders"),
    ],
)
def test_placeholders_stand_in_brackets(response: str, expected: str) -> None:
    found = reason("detectable_content:number_placeholders", response, num_placeholders=2)
    assert found == expected


@pytest.mark.parametrize(
    ("marker", "response", "expected"),
    [
        ("P.S.", "Text.\n\nP.S. More.", ""),
        ("P.S.", "Text.\n  p. s. more", ""),
        ("P.S.", "Text.\n**P.S.** More", ""),
        ("P.P.S", "Text.\nP.P.S. More", ""),
        ("P.P.S", "Text.\nP. P. S More", ""),
        ("P.S.", "Text with p.s. inside", "no line starts with 'P.S.'"),
        ("P.S.", "Text.\nP.P.S. More", "no line starts with 'P.S.'"),
        ("P.S.", "Text.\nPS: more", "no line starts with 'P.S.'"),
        ("(note)", "Text.\n(Note) more", ""),
        ("One more thing:", "Text.\nOne more thing: bye", ""),
        ("One more thing:", "Text.\n*one  more thing: bye*", ""),
        ("One more thing:", "Text.\nOne more\nthing: bye", "no line starts with 'One more thing:'"),
    ],
)
def test_a_line_starts_with_the_postscript_marker(
    marker: str, response: str, expected: str
) -> None:
    found = reason("detectable_content:postscript", response, postscript_marker=marker)
    assert found == expected


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        ("It is so. That is all!", ""),
        ('"It is so. THAT IS ALL!"\n', ""),
        ("That is all! Bye.", "ends with 'That is all! Bye.', not 'That is all!'"),
    ],
)
def test_a_response_ends_with_the_phrase(response: str, expected: str) -> None:
    assert reason("startend:end_checker", response, end_phrase="That is all!") == expected


@pytest.mark.parametrize(
    ("phrase", "response", "follows"),
    [
        ("no", "I say no", True),
        ("no", 'He said "no"', True),
        ("no", "At the casino", False),
        ("no.", "At the casino.", False),
        ("!", "Well!", True),
        ("再见", "我们再见", True),
    ],
)
def test_an_end_phrase_does_not_begin_within_a_word(
    phrase: str, response: str, follows: bool
) -> None:
    assert (reason("startend:end_checker", response, end_phrase=phrase) == "") == follows


@pytest.mark.parametrize(
    ("phrase", "response", "follows"),
    [
        ("To begin with", "To begin with, no.", True),
        ("To begin with", "To begin with", True),
        ("To begin with", "To begin without it", False),
        ("My answer:", "My answer:no", True),
        ("好的", "好的我们开始。", True),
        ("कल", "कला", False),
    ],
)
def test_a_start_phrase_does_not_end_within_a_word(
    phrase: str, response: str, follows: bool
) -> None:
    assert (reason("startend:start_phrase", response, start_phrase=phrase) == "") == follows


def test_quotation_marks_of_the_phrase_itself_do_not_matter() -> None:
    assert reason("startend:end_checker", 'He said "so"', end_phrase='said "so"') == ""
    assert reason("startend:start_phrase", '"So" he said', start_phrase='"So"') == ""


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        ("In short: no.", ""),
        ('"in short: no."', ""),
        ("Well, in short: no.", "starts with 'Well, in short: no.', not 'In short:'"),
    ],
)
def test_a_response_starts_with_the_phrase(response: str, expected: str) -> None:
    assert reason("startend:start_phrase", response, start_phrase="In short:") == expected


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        ('"All of it."', ""),
        ('\n "All" and "more"  ', ""),
        ("'All'", "does not start with a double quotation mark"),
        ('"', "does not start with a double quotation mark"),
        ('"All', "ends without its quotation mark"),
        ("“All”", "does not start with a double quotation mark"),
    ],
)
def test_a_response_is_quoted(response: str, expected: str) -> None:
    assert reason("startend:quotation", response) == expected


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        ("Why?\n\nBecause.", ""),
        ("  WHY? Because.", ""),
        ("You ask: Why?", "starts with 'You ask: Why?', not 'Why?'"),
    ],
)
def test_the_prompt_is_repeated_first(response: str, expected: str) -> None:
    assert reason("combination:repeat_prompt", response, prompt_to_repeat="Why? ") == expected


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        ("One.\n******\nTwo.", ""),
        ("******\nOne.\n******\nTwo.\n******", ""),
        ("One.\n******\nOne.", "the two responses are the same"),
        ("One. ***** Two.", "1 response, not 2"),
        ("1\n******\n2\n******\n3", "3 responses, not 2"),
        ("1\n******\n \n******\n3", "response 2 is empty"),
        ("******", "0 responses, not 2"),
    ],
)
def test_two_different_responses_are_given(response: str, expected: str) -> None:
    assert reason("combination:two_responses", response) == expected
