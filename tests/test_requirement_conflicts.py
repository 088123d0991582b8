"""Which requirements exclude each other, and draws of sets in which none do."""

import random
from itertools import combinations
from typing import Any

import pytest

from rnr_kernels.roles.conflicts import conflicts, draw_requirements
from rnr_kernels.roles.kinds import DRAWN, KINDS
from rnr_kernels.roles.requirement import Requirement

NO_COMMA = Requirement("punctuation:no_comma")
CAPITAL = Requirement("change_case:english_capital")
LOWER = Requirement("change_case:english_lowercase")
JSON = Requirement("detectable_format:json_format")
QUOTED = Requirement("startend:quotation")
CONSTRAINED = Requirement("detectable_format:constrained_response")
TWO = Requirement("combination:two_responses")
TITLE = Requirement("detectable_format:title")
PLAIN = Requirement("detectable_format:no_markdown")
ONE_LINE = Requirement("detectable_format:single_paragraph")
NO_DIGITS = Requirement("characters:no_digits")


def number(what: str, relation: str, limit: int) -> Requirement:
    parameters: dict[str, Any] = {"relation": relation, f"num_{what}": limit}
    return Requirement(f"length_constraints:number_{what}", **parameters)


def keywords(*words: str) -> Requirement:
    return Requirement("keywords:existence", keywords=words)


def forbidden(*words: str) -> Requirement:
    return Requirement("keywords:forbidden_words", forbidden_words=words)


def frequency(keyword: str, relation: str, limit: int) -> Requirement:
    return Requirement("keywords:frequency", keyword=keyword, relation=relation, frequency=limit)


def letters(letter: str, relation: str, limit: int) -> Requirement:
    return Requirement(
        "keywords:letter_frequency", letter=letter, let_relation=relation, let_frequency=limit
    )


def capitals(relation: str, limit: int) -> Requirement:
    return Requirement(
        "change_case:capital_word_frequency", capital_relation=relation, capital_frequency=limit
    )


def start(phrase: str) -> Requirement:
    return Requirement("startend:start_phrase", start_phrase=phrase)


def end(phrase: str) -> Requirement:
    return Requirement("startend:end_checker", end_phrase=phrase)


def repeat(prompt: str) -> Requirement:
    return Requirement("combination:repeat_prompt", prompt_to_repeat=prompt)


def language(code: str) -> Requirement:
    return Requirement("language:response_language", language=code)


def script(name: str) -> Requirement:
    return Requirement("characters:script", script=name)


def paragraphs(count: int) -> Requirement:
    return Requirement("length_constraints:number_paragraphs", num_paragraphs=count)


def nth(count: int, which: int, word: str) -> Requirement:
    return Requirement(
        "length_constraints:nth_paragraph_first_word",
        num_paragraphs=count,
        nth_paragraph=which,
        first_word=word,
    )


def bullets(count: int) -> Requirement:
    return Requirement("detectable_format:number_bullet_lists", num_bullets=count)


def sections(splitter: str, count: int) -> Requirement:
    return Requirement(
        "detectable_format:multiple_sections", section_spliter=splitter, num_sections=count
    )


def answers(*texts: str) -> Requirement:
    return Requirement("detectable_format:one_of_answers", answers=texts)


@pytest.mark.parametrize(
    ("one", "other", "reason"),
    [
        (CAPITAL, LOWER, "no letter is of both cases"),
        (LOWER, capitals("at least", 2), "at least 2 words in capitals, the other for at most 0"),
        (CAPITAL, capitals("less than", 3), "makes every word one in capitals"),
        (CAPITAL, CONSTRAINED, "english_capital rules out 'My answer is yes.' or"),
        (CAPITAL, sections("Section", 2), "rules out 'Section 1'"),
        (CAPITAL, keywords("мир"), "rules out 'мир'"),
        (CAPITAL, language("de"), "change_case:english_capital asks for English"),
        (LOWER, script("Greek"), "asks for Latin letters"),
        (NO_COMMA, keywords("a, b"), "no_comma rules out 'a, b', which keywords:existence needs"),
        (NO_COMMA, repeat("Well, why?"), "rules out 'Well, why?'"),
        (NO_COMMA, letters(",", "at least", 1), "rules out ','"),
        (NO_DIGITS, end("Call 555"), "rules out 'Call 555'"),
        (NO_DIGITS, sections("Part", 2), "rules out 'Part 1'"),
        (number("words", "at least", 300), number("words", "less than", 200), "least 300 words"),
        (number("words", "less than", 5), number("sentences", "at least", 5), "least 5 words"),
        (number("words", "at least", 100), number("characters", "less than", 199), "characters"),
        (number("words", "less than", 3), end("That is all."), "rules out 'That is all.'"),
        (number("sentences", "less than", 4), paragraphs(4), "least 4 sentences"),
        (number("words", "at least", 300), number("sentences", "less than", 3), "most 160"),
        (number("words", "less than", 20), number("characters", "at least", 900), "most 380"),
        (letters("e", "less than", 3), number("words", "at least", 100), "hardly have fewer"),
        (letters("e", "less than", 3), number("characters", "at least", 600), "100 words hardly"),
        (letters("t", "less than", 3), number("words", "at least", 300), "hardly have fewer"),
        (letters("q", "at least", 30), number("words", "less than", 40), "39 words hardly have 30"),
        (letters("q", "at least", 30), number("characters", "less than", 240), "39 words hardly"),
        (letters("b", "at least", 30), number("sentences", "less than", 2), "80 words hardly"),
        (number("sentences", "less than", 4), bullets(8), "least 8 sentences"),
        (number("sentences", "less than", 4), sections("Part", 4), "least 4 sentences"),
        (number("sentences", "less than", 2), TWO, "least 2 sentences"),
        (ONE_LINE, repeat("One.\nTwo."), "rules out 'One.\\nTwo.'"),
        (ONE_LINE, end("One.\nTwo."), "rules out 'One.\\nTwo.'"),
        (PLAIN, repeat("# Title\nText"), "'# title\\ntext', which combination:repeat_prompt needs"),
        (PLAIN, repeat("Why:\n- this"), "is Markdown"),
        (PLAIN, end("*Bye.*"), "rules out '*Bye.*'"),
        (PLAIN, keywords("`code`"), "rules out '`code`'"),
        (language("de"), CONSTRAINED, "asks for an English sentence, language:response_language"),
        (language("ru"), answers("Yes", "No"), "none of the answers"),
        (language("az"), script("Cyrillic"), "Azerbaijani is not written in Cyrillic"),
        (start("To begin with"), start("To begin without it"), "cannot start with both"),
        (bullets(2), bullets(3), "at least 3 bullet points, the other for at most 2"),
        (paragraphs(2), paragraphs(3), "paragraphs"),
        (keywords("great cat"), forbidden("cat"), "rules out 'great cat'"),
        (frequency("cat", "at least", 1), forbidden("CAT"), "rules out 'cat'"),
        (frequency("cat", "at least", 3), frequency("Cat", "less than", 3), "times 'cat'"),
        (frequency("cat", "less than", 1), start("Cat!"), "rules out 'Cat!'"),
        (letters("a", "at least", 5), letters("A", "less than", 5), "the letter 'a'"),
        (letters("a", "less than", 3), keywords("banana"), "rules out 'banana'"),
        (start("Well."), forbidden("well"), "rules out 'Well.'"),
        (CONSTRAINED, forbidden("answer"), "rules out 'My answer is yes.' or"),
        (start("Yes."), start("No."), "a response cannot start with both"),
        (start("Yes."), repeat("Why?"), "cannot start with both"),
        (start("In short"), nth(2, 1, "summary"), "paragraph 1 cannot start with both 'summary'"),
        (nth(2, 2, "a"), nth(2, 2, "b"), "paragraph 2 cannot start with both"),
        (nth(2, 2, "a"), nth(3, 2, "a"), "paragraphs"),
        (end("Yes."), end("No."), "a response cannot end with both"),
        (QUOTED, forbidden('"'), "rules out '\"'"),
        (QUOTED, repeat("Why?"), "leaves no place for the quotation mark"),
        (JSON, QUOTED, "the whole response is JSON"),
        (JSON, TITLE, "the whole response is JSON"),
        (JSON, bullets(1), "the whole response is JSON"),
        (TWO, CONSTRAINED, "two responses"),
        (TWO, paragraphs(2), "two responses"),
        (nth(2, 1, "a"), paragraphs(2), "one counts paragraphs between asterisks"),
        (PLAIN, bullets(1), "that is Markdown"),
        (ONE_LINE, paragraphs(2), "at least 3 lines, the other for at most 1"),
        (ONE_LINE, bullets(2), "at least 2 lines"),
        (answers("yes", "no"), TITLE, "none of the answers"),
        (answers("yes", "no"), number("words", "at least", 2), "none of the answers"),
        (answers("yes", "no"), CAPITAL, "none of the answers"),
        (answers("yes", "no"), answers("ja", "nein"), "none of the answers"),
        (language("de"), language("nl"), "a response is not both in"),
        (language("hi"), script("Latin"), "Hindi is not written in Latin letters"),
        (language("hi"), capitals("at least", 1), "words in capitals"),
        (language("hi"), letters("n", "at least", 2), "rules out 'n'"),
        (language("zh"), number("words", "at least", 50), "no spaces between them"),
        (script("Han"), number("words", "less than", 50), "no spaces between them"),
        (script("Latin"), script("Greek"), "no letter is both"),
        (script("Greek"), keywords("cat"), "rules out 'cat'"),
    ],
)  # fmt: skip
def test_what_cannot_be_followed_together_conflicts(
    one: Requirement, other: Requirement, reason: str
) -> None:
    for a, b in ((one, other), (other, one)):
        found = a.conflict(b)
        assert found is not None and (reason in found or pytest.fail(f"{found!r}"))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (CAPITAL, keywords("cat")),
        (CAPITAL, sections("SECTION", 2)),
        (CAPITAL, language("en")),
        (LOWER, capitals("less than", 3)),
        (NO_COMMA, JSON),
        (NO_COMMA, keywords("cat")),
        (JSON, keywords("cat")),
        (JSON, ONE_LINE),
        (JSON, language("ko")),
        (QUOTED, start("In short:")),
        (QUOTED, end("Bye.")),
        (QUOTED, repeat('"Why?" he asked.')),
        (ONE_LINE, bullets(1)),
        (number("words", "at least", 100), number("words", "less than", 101)),
        (number("words", "at least", 100), number("characters", "less than", 200)),
        (keywords("cats"), forbidden("cat")),
        (frequency("cat", "less than", 2), keywords("cat")),
        (letters("a", "less than", 4), keywords("banana")),
        (letters("z", "less than", 3), number("words", "at least", 100)),
        (letters("c", "less than", 1), number("words", "at least", 250)),  # IFEval's prompt 1300
        (letters("q", "at least", 3), number("words", "less than", 10)),
        (letters("e", "at least", 30), number("words", "less than", 40)),
        (letters("#", "at least", 30), number("words", "less than", 40)),
        (letters("e", "at least", 3), answers("yes", "eeee")),
        (frequency("苹果", "at least", 3), number("characters", "less than", 7)),
        (frequency("苹果", "at least", 3), number("words", "less than", 2)),
        (frequency("!", "at least", 3), number("characters", "less than", 4)),
        (language("en"), answers("Yes", "No")),
        (language("en"), CONSTRAINED),
        (language("sr"), script("Latin")),
        (language("uz"), script("Cyrillic")),
        (JSON, CONSTRAINED),
        (PLAIN, start("In short:")),
        (PLAIN, sections("Part", 2)),
        (ONE_LINE, end("Bye.")),
        (number("sentences", "less than", 9), bullets(8)),
        (letters("e", "less than", 3), number("words", "less than", 100)),
        (CONSTRAINED, forbidden("maybe")),
        (start("In short"), start("In short: no")),
        (start("Summary of it"), nth(2, 1, "summary")),
        (start("In short"), nth(2, 2, "summary")),
        (end("for asking."), end("Thanks for asking.")),
        (answers("yes", "no"), LOWER),
        (answers("yes", "NO"), CAPITAL),
        (answers("yes", "no"), answers("no", "unsure")),
        (language("de"), script("Latin")),
        (language("ko"), keywords("management")),  # in IFEval's prompt 3311
        (PLAIN, TITLE),
    ],
)
def test_what_can_be_followed_together_does_not(one: Requirement, other: Requirement) -> None:
    assert one.conflict(other) is None and other.conflict(one) is None


@pytest.mark.parametrize("name", KINDS)
def test_no_requirement_conflicts_with_itself(name: str) -> None:
    for seed in range(20):
        requirement = Requirement.draw(seed, [name])
        assert requirement.conflict(requirement) is None


def test_two_that_one_response_follows_do_not_conflict() -> None:
    # A conflict between requirements that a text follows both would be false.
    texts = [
        "In short: My answer is yes. <<Title>> [name] [place] *so* and *so*",
        "One.\n\n***\n\nTwo.",
        "SECTION 1\n* ONE\n* TWO\nSECTION 2\nP.S. DONE",
        '{"key": "value, with 3"}',
        "yes",
        "Дети пьют молоко каждое утро.",
    ]
    rng = random.Random(0)
    pairs = 0
    for text in texts:
        drawn = [r for _ in range(2000) if (r := Requirement.draw(rng)).check(text)]
        for one, other in combinations(drawn[:150], 2):
            pairs += 1
            reason = one.conflict(other)
            assert reason is None or is_clash(reason), (one, other, reason, text)
    assert pairs > 30_000


def is_clash(reason: str) -> bool:
    """Whether it is of what no sensible response does, though some text may."""
    return any(each in reason for each in (" with ", "every word one in capitals"))


def test_conflicts_are_listed_by_index() -> None:
    found = conflicts([NO_COMMA, CAPITAL, keywords("a, b"), LOWER])
    assert [(i, j) for i, j, _ in found] == [(0, 2), (1, 3)]
    assert conflicts([]) == conflicts([NO_COMMA]) == []


def test_drawn_sets_are_seeded_and_without_conflict() -> None:
    for seed in range(100):
        count = seed % 7
        drawn = draw_requirements(random.Random(seed), count)
        assert drawn == draw_requirements(random.Random(seed), count)
        assert len({each.kind for each in drawn}) == count and conflicts(drawn) == []


def test_every_kind_is_drawn() -> None:
    kinds = {each.kind for n in range(60) for each in draw_requirements(random.Random(n), 6)}
    assert kinds == set(DRAWN)


def test_a_prompt_to_repeat_is_drawn_only_where_it_is_asked_for() -> None:
    name = "combination:repeat_prompt"
    assert name not in DRAWN
    assert name not in {Requirement.draw(n).kind for n in range(400)}
    assert draw_requirements(random.Random(0), 1, [name])[0].kind == name


def test_a_set_that_cannot_be_drawn_ends_in_an_error() -> None:
    both = ["change_case:english_capital", "change_case:english_lowercase"]
    with pytest.raises(ValueError, match="no 2 requirements without a conflict, at most 1"):
        draw_requirements(random.Random(0), 2, both)
    with pytest.raises(ValueError, match="count must be from 0 to 2, the number of kinds, got 3"):
        draw_requirements(random.Random(0), 3, both)
    with pytest.raises(ValueError, match="unknown kind"):
        draw_requirements(random.Random(0), 1, ["no:such"])


def test_five_prompts_of_ifeval_ask_for_what_excludes_itself(
    ifeval_prompts: list[dict[str, Any]],
) -> None:
    # Each has the prompt repeated that says what is not to be written, or has commas.
    found = []
    for record in ifeval_prompts:
        stated = zip(record["instruction_id_list"], record["kwargs"], strict=True)
        if conflicts([Requirement(name, **parameters) for name, parameters in stated]):
            found.append(record["key"])
    assert found == [1627, 3369, 3371, 3718, 374]
