"""The languages of requirements against their checks: no text too many, no natural one missing."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rnr_kernels.roles.kinds import KINDS
from rnr_kernels.roles.requirement import Requirement

CERTAIN = [name for name, kind in KINDS.items() if kind.guarantee == "certain"]

NATURAL: list[tuple[Requirement, str]] = [
    (Requirement("punctuation:no_comma"), "It rains. 雨が降る、と言った 😀"),
    (Requirement("change_case:english_capital"), "  CAFÉ NO. 7 — “OPEN”!\n\n"),
    (Requirement("change_case:english_lowercase"), "the straße is 5 km long…"),
    (
        Requirement("combination:repeat_prompt", prompt_to_repeat="Who am I? "),
        "\nWHO am I? You are you.",
    ),
    (Requirement("combination:two_responses"), "Yes.\n******\nNo, *never*."),
    (Requirement("combination:two_responses"), "****** Yes. ****** No. ******"),
    (Requirement("detectable_content:number_placeholders", num_placeholders=2), "[a] [b c] [d"),
    (
        Requirement("detectable_content:postscript", postscript_marker="P.P.S"),
        "Hello.\n\n**p.p. s. more**",
    ),
    (
        Requirement("detectable_content:postscript", postscript_marker="One more thing:"),
        "Hello.\nONE more\tthing: bye",
    ),
    (Requirement("detectable_format:constrained_response"), "So: My answer is maybe. Good?"),
    (Requirement("detectable_format:one_of_answers", answers=("yes", "no idea")), "no idea"),
    (Requirement("detectable_format:json_format"), '{"a": [1.5e3, {"b": "\\u00e9 ü"}], "c": null}'),
    (Requirement("detectable_format:json_format"), '```json\n{\n  "a": [],\n  "b": {}\n}\n```'),
    (Requirement("detectable_format:json_format"), '"a text, \\"quoted\\""'),
    (
        Requirement("detectable_format:multiple_sections", section_spliter="Section",
                    num_sections=2),
        "Section 1\nA\n\nSection 2\nB",
    ),
    (
        Requirement("detectable_format:multiple_sections", section_spliter="Section",
                    num_sections=2),
        "Section 1, section 3, Section 2",
    ),
    (
        Requirement("detectable_format:number_bullet_lists", num_bullets=2),
        "List:\n * one\n - two\n-----\n*Note*: -3",
    ),
    (
        Requirement("detectable_format:number_highlighted_sections", num_highlights=3),
        "*a* and **b c**\n* x\n***d***",
    ),
    (
        Requirement("detectable_format:number_highlighted_sections", num_highlights=2),
        "* Note **this** well *\n* and *that *one*",
    ),
    (Requirement("detectable_format:title"), "Here it is:\n<<< The sea >>\n\nWaves."),
    (Requirement("detectable_format:no_markdown"), "5 * 3 - 2 = 13 #1 (see note)\n-- a dash"),
    (Requirement("detectable_format:no_markdown"),
     "    5 * 3 * 2 is 30\n    \"Yes\""),
    (Requirement("detectable_format:no_markdown"),
     "2*3*4=24, f(x)=a*b and c*d, my_own_name, a > b ~ c\n1. one\n2. two\n\n===="),
    (Requirement("detectable_format:single_paragraph"), "\n\nOne line, no more.\n"),
    (Requirement("keywords:existence", keywords=("Sea", "a.b")), "The SEASIDE has A.B"),
    (Requirement("keywords:existence", keywords=("पुस्तक",)), "यह पुस्तक है।"),
    (Requirement("keywords:forbidden_words", forbidden_words=("苹果", "कल")), "我喜欢香蕉。कला"),
    (Requirement("keywords:frequency", relation="at least", keyword="苹果", frequency=3),
     "苹果和苹果苹果。"),
    (Requirement("keywords:forbidden_words", forbidden_words=("rock", "C++")), "Rocket or c+ +"),
    (Requirement("keywords:frequency", relation="at least", keyword="sea", frequency=2),
     "Sea! Overseas: sea"),
    (Requirement("keywords:frequency", relation="less than", keyword="sea", frequency=2),
     "The seaside, the sea, seas."),
    (Requirement("keywords:letter_frequency", let_relation="at least", letter="q",
                 let_frequency=3), "Q, qq"),
    (Requirement("keywords:letter_frequency", let_relation="less than", letter="z",
                 let_frequency=2), "A zoo"),
    (Requirement("length_constraints:nth_paragraph_first_word", num_paragraphs=2,
                 nth_paragraph=2, first_word="many"), "One\nline.\n \n\n“MANY more."),
    (Requirement("length_constraints:nth_paragraph_first_word", num_paragraphs=1,
                 nth_paragraph=1, first_word="İstanbul"), "# İSTANBUL, i\u0307stanbul"),
    (Requirement("length_constraints:nth_paragraph_first_word", num_paragraphs=1,
                 nth_paragraph=1, first_word="İstanbul"), "i\u0307stanbul"),
    (Requirement("length_constraints:number_characters", relation="at least",
                 num_characters=5), "a b\nc"),
    (Requirement("length_constraints:number_paragraphs", num_paragraphs=2), "One.\n***\nTwo."),
    (Requirement("length_constraints:number_words", relation="less than", num_words=4),
     "Don't — go!"),
    (Requirement("length_constraints:number_words", relation="less than", num_words=3),
     "बच्चे पढ़ते"),
    (Requirement("length_constraints:number_words", relation="at least", num_words=2),
     "बच्चे ⚠\ufe0f पढ़ते"),
    (Requirement("change_case:capital_word_frequency", capital_relation="at least",
                 capital_frequency=2), "I saw NASA2 and iOS"),
    (Requirement("change_case:capital_word_frequency", capital_relation="at least",
                 capital_frequency=2), "NASA USA Hello."),
    (Requirement("change_case:capital_word_frequency", capital_relation="less than",
                 capital_frequency=1), "A1 is not, so: iOS"[3:]),
    (Requirement("characters:no_digits"), "Seven swans."),
    (Requirement("characters:no_emoji"), "Numbers 1 and #, ☎ or ©."),
    (Requirement("characters:script", script="Devanagari"), "नमस्ते, दुनिया! 5 😀"),
    (Requirement("characters:script", script="Latin"), "Hawai\u02bbi, 5 µm, 1º"),
    (Requirement("change_case:english_capital"), "HAWAI\u02bbI, 5 µM, 1ª"),
    (Requirement("change_case:english_lowercase"), "hawai\u02bbi, 5 µm, 1º"),
    (Requirement("startend:start_phrase", start_phrase="Of course."), '"of course. I do."'),
    (Requirement("startend:start_phrase", start_phrase="To begin with"), "To begin with: no."),
    (Requirement("startend:start_phrase", start_phrase="好的"), "好的我们开始。"),
    (Requirement("startend:end_checker", end_phrase="no"), "I say NO"),
    (Requirement("startend:end_checker", end_phrase='"That is all."'), "So: THAT is all."),
    (Requirement("startend:quotation"), '"He said "no" to me."'),
]  # fmt: skip


@pytest.mark.parametrize(("requirement", "text"), NATURAL, ids=lambda value: str(value)[:60])
def test_natural_responses_that_follow_are_allowed(requirement: Requirement, text: str) -> None:
    language = requirement.language()
    assert requirement.check(text)
    assert language is not None and text in language


REAL = [
    "",
    " ",
    "Yes.",
    "Dear all,\n\nThe *report* is due on 5 May. <<Plan>>\n\n* one\n* two\n\nP.S. Thanks, ANNA",
    '{"a": 1}',
    '"Quoted, twice"',
    "First.\n***\nSecond.\n***\nThird.",
    "SECTION 1: TEA\nSECTION 2: [NAME] AND [DATE]",
    "a****** b",
    "***x***y**z*",
    "[[x]] [ ] [\t] [a\nb]",
    "<<>> <<a>",
    "no markdown # here\n# but here",
    "İstanbul ΣΑΣ ﬁ ǅ ⅷ 5️⃣ 1\u20e3 😀 \ud83d",
    "P.S\nPS. x\n- p. s. y",
    "I think that I am not IT.",
    "One more\nthing: P.\nS. x",
    "* Note **this** well* and *that *",
    "__a__ ~~b~~ a_b_c 2*3*4\n> c\nd\n===\r\n e",
    "我喜欢苹果 बच्चे पढ़ते हैं \u0301\u0302 x\u0301y ⚠\ufe0f हैं",
    "Hawai\u02bbi HAWAI\u02bbI ªºµ \u1da0 \U0001d400\U0001d41a ー",
    "To begin without a casino 1\u0301",
]


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from(CERTAIN), st.sampled_from(REAL), st.data())
def test_no_text_of_the_language_of_a_certain_kind_fails_the_check(
    seed: int, name: str, text: str, data: st.DataObject
) -> None:
    """Also of texts near to real ones: a slice, doubled, with one character more."""
    requirement = Requirement.draw(seed, [name])
    language = requirement.language()
    assert language is not None
    start, end = sorted(data.draw(st.tuples(*[st.integers(0, len(text))] * 2)))
    more = data.draw(st.sampled_from(["", "*", "\n", '"', "1", "]", ">", " ", "a", "A"]))
    for each in (text, text[start:end], text[:start] + more + text[start:], text * 2):
        assert each not in language or requirement.check(each), each


CHOSEN = [
    Requirement("keywords:forbidden_words", forbidden_words=("苹果", "हैं", "no")),
    Requirement("keywords:frequency", relation="at least", keyword="x", frequency=2),
    Requirement("keywords:frequency", relation="less than", keyword="हैं", frequency=2),
    Requirement("detectable_content:postscript", postscript_marker="One more thing:"),
    Requirement("detectable_format:number_highlighted_sections", num_highlights=1),
    Requirement("detectable_format:number_highlighted_sections", num_highlights=2),
    Requirement("detectable_format:no_markdown"),
    Requirement("detectable_format:multiple_sections", section_spliter="2", num_sections=2),
    Requirement("startend:start_phrase", start_phrase="To begin with"),
    Requirement("startend:end_checker", end_phrase="no"),
    Requirement("length_constraints:number_words", relation="at least", num_words=3),
    Requirement("length_constraints:number_words", relation="less than", num_words=5),
    Requirement("change_case:english_capital"),
    Requirement("change_case:english_lowercase"),
    Requirement("characters:script", script="Latin"),
    Requirement("characters:script", script="Han"),
    Requirement(
        "change_case:capital_word_frequency", capital_relation="at least", capital_frequency=1
    ),
    Requirement(
        "change_case:capital_word_frequency", capital_relation="less than", capital_frequency=2
    ),
    Requirement(
        "length_constraints:nth_paragraph_first_word",
        num_paragraphs=1, nth_paragraph=1, first_word="x",
    ),
]  # fmt: skip
PIECES = [
    "*", "**", "_", "~~", "=", "===", ">", "\n", "\n\n", " ", "  ", "a", "x", "No", "NO", "2", "#",
    "\u0301", "हैं", "ि", "苹果", "果", "\u02bb", "µ", "ª", "ー", "\ufe0f", ".", '"', "To begin with",
    "\r", "One more", "thing:", "more", "-", "\u0345",
]  # fmt: skip


@pytest.mark.parametrize("requirement", CHOSEN, ids=lambda each: str(each)[13:70])
@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=9).map("".join))
def test_languages_agree_with_checks_on_marks_scripts_and_asterisks(
    requirement: Requirement, text: str
) -> None:
    language = requirement.language()
    assert language is not None
    assert text not in language or requirement.check(text)


def test_what_a_kind_misses_is_little_for_random_words() -> None:
    """Texts of words and marks that follow are nearly all in the language."""
    missed = []
    for name in CERTAIN:
        requirement = Requirement.draw(1, [name])
        language = requirement.language()
        assert language is not None
        for text in REAL:
            text = text.strip().encode("utf-8", "ignore").decode()
            if requirement.check(text) and text not in language:
                missed.append((name, text))
    assert missed == []


def test_a_word_that_begins_in_capitals_takes_none_of_those_before_it_away() -> None:
    requirement = Requirement(
        "change_case:capital_word_frequency", capital_relation="less than", capital_frequency=2
    )
    language = requirement.language()
    assert language is not None
    assert "X and Cs" in language and "X R Cs" not in language
    assert not requirement.check("X R Cs")


@pytest.mark.parametrize(
    ("text", "is_plain"),
    [
        ("    # x", False), ("# x", False), ("a\n    # x", True), ("\x0b\n # x", False),
        ("\u2028- x\n", False), ("a\n---\x0b", False), ("a\r\n---\r\nb", False),
        ("a\n# ", True), ("  \n\n    x  \n", True),
    ],
)  # fmt: skip
def test_blanks_at_both_ends_are_no_part_of_plain_text(text: str, is_plain: bool) -> None:
    """Neither for the check nor for the language, as a text is stripped sooner or later."""
    requirement = Requirement("detectable_format:no_markdown")
    language = requirement.language()
    assert language is not None
    for each in (text, text.strip()):
        assert bool(requirement.check(each)) == (each in language) == is_plain, each


@pytest.mark.parametrize(
    ("kind", "parameters", "text"),
    [
        ("change_case:capital_word_frequency",
         {"capital_relation": "less than", "capital_frequency": 2}, "A B C Dd Ee"),
        ("detectable_content:postscript", {"postscript_marker": "P.S."}, "Hi\nP.\nS. x"),
        ("length_constraints:nth_paragraph_first_word",
         {"num_paragraphs": 1, "nth_paragraph": 1, "first_word": "i"}, "İstanbul"),
        ("detectable_format:multiple_sections",
         {"section_spliter": "1", "num_sections": 2}, "1 11"),
    ],
)  # fmt: skip
def test_a_language_leaves_out_what_fails_the_check(
    kind: str, parameters: dict[str, str | int], text: str
) -> None:
    requirement = Requirement(kind, **parameters)
    language = requirement.language()
    assert language is not None
    assert not requirement.check(text) and text not in language
