"""Requirements on letter case, scripts, digits, emoji and commas."""

from typing import Any

import pytest

from rnr_kernels.roles.requirement import Requirement


def reason(kind: str, response: str, **parameters: Any) -> str:
    """Of the strict verdict; "" where the response follows."""
    return Requirement(kind, **parameters).check(response).reason


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        ("ALL IN CAPITALS, 24/7!", ""),
        ("CAFÉ NOËL", ""),
        ("HAWAI\u02bbI, 5 µM, Nº 1, 1ª", ""),
        ("ª º µ \u02bb", "has no letters"),
        ("\U0001d41a", "has the letter '\U0001d41a'"),
        ("DAS IST GUT", ""),  # which language it is, is another requirement
        ("NEARLY aLL", "has the letter 'a'"),
        ("ΩΣ", "has the letter 'Ω'"),
        ("A漢", "has the letter '漢'"),
        ("ǅ", "has the letter 'ǅ'"),
        ("STRAßE", "has the letter 'ß'"),
        ("1, 2, 3", "has no letters"),
    ],
)
def test_capitals_are_latin_and_upper(response: str, expected: str) -> None:
    assert reason("change_case:english_capital", response) == expected


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        ("all in small letters, 24/7!", ""),
        ("straße, café", ""),
        ("hawai\u02bbi, 5 µm, nº 1, 1ª", ""),
        ("\U0001d400", "has the letter '\U0001d400'"),
        ("i Am", "has the letter 'A'"),
        ("привет", "has the letter 'п'"),
        ("ǅ", "has the letter 'ǅ'"),
        ("chapter Ⅷ", "has the letter 'Ⅷ'"),
        ("?", "has no letters"),
    ],
)
def test_lowercase_is_latin_and_lower(response: str, expected: str) -> None:
    assert reason("change_case:english_lowercase", response) == expected


@pytest.mark.parametrize(
    ("relation", "limit", "response", "expected"),
    [
        ("at least", 3, "I am NASA's FAN", ""),
        ("at least", 4, "I am NASA's FAN", "3 words in capitals, not at least 4"),
        ("less than", 3, "I am NASA's FAN", "3 words in capitals, not less than 3"),
        ("less than", 1, "none here, 42", ""),
        ("at least", 1, "B2B", ""),
    ],
)
def test_words_in_capitals_are_counted(
    relation: str, limit: int, response: str, expected: str
) -> None:
    found = reason(
        "change_case:capital_word_frequency",
        response,
        capital_relation=relation,
        capital_frequency=limit,
    )
    assert found == expected


@pytest.mark.parametrize(
    ("script", "response", "expected"),
    [
        ("Latin", "Plain text, Ærøskøbing 12.", ""),
        ("Latin", "Hawai\u02bbi, 5 µm, 1º, 1ª", ""),
        ("Cyrillic", "5 µ, да", ""),
        ("Latin", "カー", "has the letter 'カ', which is not Latin"),
        ("Han", "5 µ", "has no letters"),
        ("Latin", "a ж", "has the letter 'ж', which is not Latin"),
        ("Cyrillic", "Привет, мир! 1", ""),
        ("Cyrillic", "Привет, world", "has the letter 'w', which is not Cyrillic"),
        ("Cyrillic", "Hi", "has the letter 'H', which is not Cyrillic"),
        ("Devanagari", "नमस्ते दुनिया।", ""),
        ("Han", "你好,世界", ""),
        ("Han", "ひ", "has the letter 'ひ', which is not Han"),
        ("Japanese", "カーは車です", ""),
        ("Greek", "123", "has no letters"),
    ],
)
def test_every_letter_is_of_the_script(script: str, response: str, expected: str) -> None:
    assert reason("characters:script", response, script=script) == expected


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        ("three", ""),
        ("3 of 12", "has the digits 1 2 3"),
        ("x²", "has the digits ²"),
        ("٣", "has the digits ٣"),
    ],
)
def test_digits_of_any_script_are_found(response: str, expected: str) -> None:
    assert reason("characters:no_digits", response) == expected


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        ("Fine :-) © 2024, 漢字 ♥", ""),
        ("Fine 😀", "has the emoji '😀'"),
        ("♥\ufe0f", "has the emoji '♥\ufe0f'"),
        ("🇩🇪", "has the emoji '🇩'"),
    ],
)
def test_emoji_are_found(response: str, expected: str) -> None:
    assert reason("characters:no_emoji", response) == expected


def test_commas_are_counted() -> None:
    assert reason("punctuation:no_comma", "a; b") == ""
    assert reason("punctuation:no_comma", "a, b") == "1 comma"
    assert reason("punctuation:no_comma", "a, b, c") == "2 commas"
