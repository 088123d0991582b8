"""The algebra of languages, against Python's regular expressions and str methods."""

import itertools
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rnr_kernels.automata import dfa
from rnr_kernels.automata.characters import ALL, Characters, found_by, matching
from rnr_kernels.automata.counts import Count
from rnr_kernels.automata.languages import (
    EMPTY,
    EVERYTHING,
    NOTHING,
    Language,
    at_least,
    characters,
    concatenation,
    contains,
    intersection,
    is_word,
    literal,
    lowered,
    union,
)
from rnr_kernels.automata.machines import machine

TEXTS = ["".join(text) for n in range(6) for text in itertools.product("ab ", repeat=n)]
"""Every text of up to five characters of three."""

Both = tuple[Language, str]
"""A language, and a regular expression for it."""

ATOMS: st.SearchStrategy[Both] = st.sampled_from(
    [
        (literal("a"), "a"),
        (literal("ba"), "ba"),
        (characters("ab"), "[ab]"),
        (characters(~Characters.of("a")), "[^a]"),
        (EMPTY, "(?:)"),
        (NOTHING, "(?!)"),
        (EVERYTHING, "(?:.|\n)*"),
    ]
)


def grown(inner: st.SearchStrategy[Both]) -> st.SearchStrategy[Both]:
    """Languages made of smaller ones."""
    bounds = st.tuples(st.integers(0, 2), st.integers(0, 2)).map(sorted)
    return st.one_of(
        st.tuples(inner, inner).map(lambda p: (p[0][0] | p[1][0], f"(?:{p[0][1]}|{p[1][1]})")),
        st.tuples(inner, inner).map(lambda p: (p[0][0] + p[1][0], f"(?:{p[0][1]}{p[1][1]})")),
        inner.map(lambda each: (each[0].repeated(), f"(?:{each[1]})*")),
        inner.map(lambda each: (each[0].repeated(2), f"(?:{each[1]}){{2,}}")),
        st.tuples(inner, bounds).map(
            lambda p: (p[0][0].repeated(*p[1]), f"(?:{p[0][1]}){{{p[1][0]},{p[1][1]}}}")
        ),
    )


LANGUAGES = st.recursive(ATOMS, grown, max_leaves=6)


def texts_of(language: Language) -> set[str]:
    return {text for text in TEXTS if text in language}


@settings(max_examples=150, deadline=None)
@given(LANGUAGES)
def test_a_language_holds_what_its_regular_expression_matches(both: Both) -> None:
    language, pattern = both
    assert texts_of(language) == {text for text in TEXTS if re.fullmatch(pattern, text)}


@settings(max_examples=80, deadline=None)
@given(LANGUAGES, LANGUAGES)
def test_intersection_difference_and_complement_are_those_of_sets(a: Both, b: Both) -> None:
    first, second = texts_of(a[0]), texts_of(b[0])
    assert texts_of(a[0] & b[0]) == first & second
    assert texts_of(a[0] - b[0]) == first - second
    assert texts_of(~a[0]) == set(TEXTS) - first
    assert (a[0] - a[0]).is_empty and (a[0] & ~a[0]).is_empty


@settings(max_examples=80, deadline=None)
@given(LANGUAGES, LANGUAGES)
def test_equal_languages_have_equal_automata(a: Both, b: Both) -> None:
    first, second = a[0], b[0]
    assert ~~first == first
    assert first | second == second | first and hash(first | second) == hash(second | first)
    assert ~(first | second) == ~first & ~second
    assert (first == second) == ((first - second).is_empty and (second - first).is_empty)


@settings(max_examples=80, deadline=None)
@given(LANGUAGES)
def test_the_shortest_text_is_in_the_language_and_none_is_shorter(both: Both) -> None:
    language, _ = both
    shortest = language.shortest()
    assert (shortest is None) == language.is_empty
    if shortest is not None:
        assert shortest in language
        assert all(len(text) >= len(shortest) for text in texts_of(language))


def test_minimal_automata_have_the_states_that_theory_says() -> None:
    # A dead state, one for each character read, and the end.
    assert literal("hello").num_states == 7
    # Three remainders and the dead state.
    assert characters("ab").repeated(3, 3).repeated().num_states == 4
    assert EVERYTHING.num_states == 2 and NOTHING.num_states == 1
    # A long chain of counters is no matter of rounds: this takes seconds if each state takes one.
    assert characters("a").repeated(0, 5000).num_states == 5002


def test_too_many_states_are_an_error_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dfa, "MAX_STATES", 50)
    with pytest.raises(dfa.TooManyStatesError, match="more than 50 states"):
        at_least(literal("ab"), 10) & at_least(literal("ba"), 10)
    with pytest.raises(ValueError, match="more than 50 states"):
        concatenation(EVERYTHING, literal("a"), characters("ab").repeated(6, 6))


@pytest.mark.parametrize("pattern", [r"\w", r"\s", "[a-f]", r"\d"])
def test_characters_are_those_that_the_pattern_matches(pattern: str) -> None:
    found = matching(pattern)
    for text in ("a", "Z", "_", "0", "٣", " ", "\x1c", "é", "हि", "😀", "\ud800", "\U0010ffff"):
        for each in text:
            assert (each in found) == (re.fullmatch(pattern, each) is not None)


@given(st.sets(st.integers(0, 300)), st.sets(st.integers(0, 300)))
def test_sets_of_characters_combine_as_sets_do(a: set[int], b: set[int]) -> None:
    first, second = Characters.of(map(chr, a)), Characters.of(map(chr, b))

    def members(found: Characters) -> set[int]:
        return {point for start, end in found.ranges() for point in range(start, min(end, 400))}

    assert members(first) == a and len(first) == len(a)
    assert members(first | second) == a | b
    assert members(first & second) == a & b
    assert members(first - second) == a - b
    assert members(~first) == set(range(400)) - a and ~~first == first


def test_the_ends_of_unicode_are_in_the_set_of_all() -> None:
    assert Characters() == ~ALL and ~Characters() == ALL
    assert Characters.where(lambda each: True) == ALL == found_by(re.compile(".+", re.DOTALL))


def test_lowered_holds_what_str_lower_brings_into_the_language() -> None:
    tea = lowered(contains(literal("tk")))
    assert all(text in tea for text in ("tk", "TK", "t\u212a", "xTky"))
    assert "tK\u017f" in tea and "t\u212b" not in tea
    # One capital letter that becomes two characters: i and a dot above.
    dotted = lowered(contains(literal("di")))
    assert "D\u0130" in dotted and "D\u0130x" in dotted
    assert "\u0130" in lowered(contains(literal("\u0307")))


def test_lowered_is_never_wider_than_str_lower() -> None:
    wanted = contains(literal("\u03b1\u03c3"))
    language = lowered(wanted)
    for text in ("\u0391\u03a3", "\u0391\u03a3\u0391", "\u03b1\u03c3", "\u0391\u03c3"):
        assert text not in language or text.lower() in wanted
    # Where no sigma matters, the capital one may stand.
    assert "\u03a3 TEA" in lowered(contains(literal("tea")))


LOWERED = {part: lowered(contains(literal(part))) for part in ("ea", "i", "k", "ss", "\u0307")}


@settings(max_examples=300, deadline=None)
@given(st.text("tTeEaA\u0130\u212aß \n", max_size=8))
def test_lowered_agrees_with_str_lower_where_no_sigma_stands(text: str) -> None:
    for part, language in LOWERED.items():
        assert (text in language) == (part in text.lower())


@pytest.mark.parametrize("times", [1, 2, 3])
def test_at_least_counts_without_overlap(times: int) -> None:
    language = at_least(literal("aa"), times)
    assert texts_of(language) == {text for text in TEXTS if text.count("aa") >= times}


@pytest.mark.parametrize("high", [None, 0, 1, 2])
@pytest.mark.parametrize("low", [0, 1, 2])
@pytest.mark.parametrize("in_runs", [True, False])
def test_counts_as_languages_count_words_and_characters(
    low: int, high: int | None, in_runs: bool
) -> None:
    count = Count(is_word() if in_runs else Characters.of("a"), low, high, in_runs)
    if count.is_empty:
        return
    pattern = r"\w+" if in_runs else "a"
    expected = {
        text
        for text in TEXTS
        if low <= len(re.findall(pattern, text)) <= (len(text) if high is None else high)
    }
    assert texts_of(count.language()) == expected


def test_counts_of_the_same_things_merge() -> None:
    words, letters = Count(is_word(), 2, 9), Count(Characters.of("a"), in_runs=False)
    assert words & Count(is_word(), 3) == Count(is_word(), 3, 9)
    assert (words & Count(is_word(), 0, 1)) == Count(is_word(), 2, 1)
    assert words & letters is None and Count(is_word(), 2, 1).is_empty


def test_a_machine_reads_the_first_kind_that_holds_a_character() -> None:
    # Balanced brackets, two deep.
    brackets = machine(
        {"(": Characters.of("("), ")": Characters.of(")"), "bracket": Characters.of("([")},
        0,
        lambda depth, kind: (
            {"(": depth + 1, ")": depth - 1}.get(kind, depth)
            if 0 <= {"(": depth + 1, ")": depth - 1}.get(kind, depth) <= 2
            else None
        ),
        lambda depth: depth == 0,
    )
    assert all(text in brackets for text in ("", "(x)", "(())()", "["))
    assert not any(text in brackets for text in ("(", ")(", "((()))"))


def test_union_and_intersection_of_none_are_their_neutral_elements() -> None:
    assert union([]) == NOTHING and intersection([]) == EVERYTHING
