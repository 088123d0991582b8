"""Constraints of requirements: what decoding under them promises, and what it still allows."""

import math
from typing import Any

import pytest
from automata_walks import random_response
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase

from rnr_kernels.automata import dfa
from rnr_kernels.automata.tokens import TokenTree
from rnr_kernels.loading import load_tokenizer
from rnr_kernels.roles.constraints import constrain, yielding
from rnr_kernels.roles.kinds import KINDS
from rnr_kernels.roles.requirement import Requirement
from rnr_kernels.rules.compiler import compile_rules
from rnr_kernels.rules.kinds import BanTokens, EosRamp, OnlyTokens, RuleSet, TokenBias

CERTAIN = [name for name, kind in KINDS.items() if kind.guarantee == "certain"]
PROMISED = (
    "change_case:english_capital",
    "change_case:english_lowercase",
    "combination:repeat_prompt",
    "detectable_content:postscript",
    "detectable_format:constrained_response",
    "detectable_format:json_format",
    "detectable_format:number_bullet_lists",
    "detectable_format:one_of_answers",
    "detectable_format:title",
    "keywords:forbidden_words",
    "length_constraints:number_paragraphs",
    "length_constraints:number_words",
    "punctuation:no_comma",
    "startend:end_checker",
    "startend:quotation",
    "startend:start_phrase",
)


@pytest.fixture(scope="module")
def embedded() -> PreTrainedTokenizerBase:
    """The embedded model's tokenizer: byte-level, small."""
    found: PreTrainedTokenizerBase = load_tokenizer("embedded")
    return found


@pytest.fixture(scope="module")
def tree(embedded: PreTrainedTokenizerBase) -> TokenTree:
    return TokenTree.of(embedded)


def assert_promise_is_kept(
    requirements: list[Requirement],
    tokenizer: PreTrainedTokenizerBase,
    tree: TokenTree,
    seed: int,
    more: int,
) -> None:
    """A random response within little more than the least budget follows what is certain."""
    constraint = constrain(requirements, tokenizer, tree=tree)
    left_out = {each.requirement for each in constraint.left_out}
    assert set(constraint.promises) | left_out == set(requirements)
    # Only what is too large together is left out.
    assert not left_out or len(requirements) > 1
    if constraint.automaton is None:
        return
    budget = max(48, constraint.automaton.tokens_needed) + more
    text = random_response(constraint.automaton, tokenizer, budget, seed)
    for requirement, promise in constraint.promises.items():
        verdict = requirement.check(text)
        assert verdict or promise == "likelier", (requirement, verdict.reason, text)


def test_a_vocabulary_that_cannot_spell_a_response_names_the_requirements(
    embedded: PreTrainedTokenizerBase,
) -> None:
    few = TokenTree.of(embedded, 60, [3])
    answer = Requirement("detectable_format:one_of_answers", answers=("Ünal",))
    with pytest.raises(ValueError, match=r"one_of_answers.*Ünal.*: no response of this language"):
        constrain([answer], embedded, tree=few)


def test_a_tree_and_a_size_beside_it_are_refused(
    embedded: PreTrainedTokenizerBase, tree: TokenTree
) -> None:
    with pytest.raises(ValueError, match="leave vocab_size and eos_token_ids out"):
        constrain([Requirement("punctuation:no_comma")], embedded, tree=tree, vocab_size=9)


def test_the_last_of_the_sections_may_end_the_response() -> None:
    constraint = [
        Requirement("detectable_format:one_of_answers", answers=("Section 1",)),
        Requirement("detectable_format:multiple_sections", section_spliter="Section",
                    num_sections=1),
    ]  # fmt: skip
    tokenizer = load_tokenizer("embedded")
    assert constrain(constraint, tokenizer).automaton is not None


def test_two_limits_that_are_far_apart_leave_no_room_for_a_large_requirement(
    embedded: PreTrainedTokenizerBase, tree: TokenTree
) -> None:
    """Between a least and a most number every count has costs of its own: it took a minute."""
    kind = "length_constraints:number_words"
    least = Requirement(kind, relation="at least", num_words=40)
    most = Requirement(kind, relation="less than", num_words=50_000)
    bullets = Requirement("detectable_format:number_bullet_lists", num_bullets=40)
    constraint = constrain([least, most, bullets], embedded, tree=tree)
    (left_out,) = constraint.left_out
    assert left_out.requirement == bullets
    assert left_out.reason.startswith("50,000 things to count in 247 states are more than")


def test_the_kinds_that_must_be_certain_are() -> None:
    assert set(PROMISED) <= set(CERTAIN)


@pytest.mark.parametrize("name", CERTAIN)
def test_a_random_response_under_a_certain_constraint_passes_the_check(
    name: str, embedded: PreTrainedTokenizerBase, tree: TokenTree
) -> None:
    for seed in range(6):
        requirement = Requirement.draw(seed, [name])
        assert_promise_is_kept([requirement], embedded, tree, seed, more=seed)


@pytest.mark.parametrize("name", CERTAIN)
def test_it_passes_on_a_vocabulary_of_sentencepiece(
    name: str, llama2_tokenizer: PreTrainedTokenizerBase
) -> None:
    tree = TokenTree.of(llama2_tokenizer)
    for seed in range(2):
        requirement = Requirement.draw(seed, [name])
        assert_promise_is_kept([requirement], llama2_tokenizer, tree, seed, more=9 * seed)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.integers(2, 5))
def test_drawn_sets_of_requirements_hold_together_or_are_said_to_be_incompatible(
    embedded: PreTrainedTokenizerBase, tree: TokenTree, seed: int, number: int
) -> None:
    requirements = [Requirement.draw(seed + n, CERTAIN) for n in range(number)]
    try:
        assert_promise_is_kept(requirements, embedded, tree, seed, more=12)
    except ValueError as error:
        assert "no text follows" in str(error)


def test_incompatible_requirements_are_named_in_the_smallest_number(
    embedded: PreTrainedTokenizerBase, tree: TokenTree
) -> None:
    lower = Requirement("change_case:english_lowercase")
    upper = Requirement("change_case:english_capital")
    comma = Requirement("punctuation:no_comma")
    with pytest.raises(ValueError) as error:
        constrain([comma, lower, Requirement("detectable_format:title"), upper], embedded)
    assert "no_comma" not in str(error.value) and "title" not in str(error.value)
    assert repr(lower) in str(error.value) and repr(upper) in str(error.value)

    # Any two of these go together: the third would be a word too many, as brackets divide words.
    words = Requirement("length_constraints:number_words", relation="less than", num_words=3)
    tea = Requirement("keywords:existence", keywords=("(tea)",))
    milk = Requirement("keywords:existence", keywords=("(milk)",))
    bread = Requirement("keywords:existence", keywords=("(bread)",))
    for pair in ((tea, milk), (milk, bread), (tea, bread), (tea, words)):
        assert constrain(pair, embedded, tree=tree).automaton is not None
    with pytest.raises(ValueError, match="no text follows all of"):
        constrain([words, tea, milk, bread], embedded, tree=tree)


def test_counts_that_exclude_each_other_are_incompatible(
    embedded: PreTrainedTokenizerBase, tree: TokenTree
) -> None:
    few = Requirement("length_constraints:number_words", relation="less than", num_words=5)
    many = Requirement("length_constraints:number_words", relation="at least", num_words=5)
    with pytest.raises(ValueError, match="no text follows"):
        constrain([few, many], embedded, tree=tree)
    short = Requirement(
        "length_constraints:number_characters", relation="less than", num_characters=9
    )
    with pytest.raises(ValueError, match="no text follows"):
        constrain([many, short], embedded, tree=tree)  # five words take nine characters
    assert_promise_is_kept([few, short], embedded, tree, 0, 5)


def test_requirements_without_an_automaton_get_rules_or_are_left_out_with_a_reason(
    embedded: PreTrainedTokenizerBase, tree: TokenTree
) -> None:
    sentences = Requirement(
        "length_constraints:number_sentences", relation="at least", num_sentences=3
    )
    tone = Requirement("free_form:tone", text="Be kind")
    comma = Requirement("punctuation:no_comma")
    constraint = constrain([sentences, tone, comma], embedded, tree=tree)
    assert constraint.promises == {comma: "certain", sentences: "likelier"}
    assert [each.requirement for each in constraint.left_out] == [tone]
    assert len(constraint.rules) > 0
    alone = constrain([sentences], embedded, tree=tree)
    assert alone.automaton is None and alone.rules == sentences.rules(embedded)


def test_what_grows_too_large_gives_way_and_is_reported(
    embedded: PreTrainedTokenizerBase, tree: TokenTree, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dfa, "MAX_STATES", 300)
    many = Requirement("detectable_content:number_placeholders", num_placeholders=60)
    title = Requirement("detectable_format:title")
    constraint = constrain([many, title], embedded, tree=tree)
    assert constraint.promises == {title: "certain"}
    (left,) = constraint.left_out
    assert left.requirement == many and "more than 300 states" in left.reason


def test_rules_beside_an_automaton_forbid_nothing() -> None:
    hard = RuleSet(
        [BanTokens([1, 2], steps=(0, 5)), OnlyTokens([3]), EosRamp(force_at=9), TokenBias({4: 1.0})]
    )
    soft = yielding(hard)
    assert not any(isinstance(rule, BanTokens | OnlyTokens) for rule in soft)
    assert all(rule.force_at is None for rule in soft if isinstance(rule, EosRamp))
    weights = [rule.weights for rule in soft if isinstance(rule, TokenBias)]
    assert [dict(each) for each in weights] == [{1: -30.0, 2: -30.0}, {4: 1.0}]
    assert -math.inf not in {w for each in weights for w in each.values()}


@pytest.mark.parametrize("name", [name for name in KINDS if not KINDS[name].is_judged])
def test_rules_of_kinds_compile(name: str, embedded: PreTrainedTokenizerBase) -> None:
    for seed in range(4):
        rules = Requirement.draw(seed, [name]).rules(embedded)
        if rules is not None:
            compile_rules(rules, embedded, len(embedded))


def test_rules_ban_the_characters_that_a_requirement_bans(
    embedded: PreTrainedTokenizerBase,
) -> None:
    rules = Requirement("punctuation:no_comma").rules(embedded)
    assert rules is not None
    (ban,) = rules
    assert isinstance(ban, BanTokens)
    printed = [embedded.decode([int(token)]) for token in ban.tokens]
    assert "," in printed and all("," in each for each in printed)


@pytest.mark.parametrize(
    ("name", "banned", "left"),
    [
        ("english_capital", ["a", " the", "é", "я", "Я", "ß", "ǅ"], ["A", "É", "7", ", ", "€"]),
        ("english_lowercase", ["A", "The", "É", "я", "Я", "ǅ"], ["a", " the", "é", "ß", "7", "€"]),
    ],
)
def test_rules_of_a_letter_case_ban_the_other_case_and_other_scripts(
    name: str, banned: list[str], left: list[str]
) -> None:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    vocabulary = {text: number for number, text in enumerate(["</s>", *banned, *left])}
    tokenizer = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=Tokenizer(models.WordLevel(vocabulary, unk_token="</s>")),
        eos_token="</s>",
    )
    rules = Requirement(f"change_case:{name}").rules(tokenizer)
    assert rules is not None
    (ban,) = rules
    assert isinstance(ban, BanTokens)
    assert set(ban.tokens) == {vocabulary[text] for text in banned}


def test_a_requirement_gives_its_own_automaton(
    embedded: PreTrainedTokenizerBase, tree: TokenTree
) -> None:
    automaton = Requirement("startend:quotation").automaton(embedded)
    assert automaton is not None and automaton.tokens_needed <= 3
    assert Requirement("startend:quotation").automaton(tree) is not None
    sentences = Requirement(
        "length_constraints:number_sentences", relation="at least", num_sentences=3
    )
    assert sentences.automaton(tree) is None and sentences.language() is None
    assert sentences.guarantee == "likelier"


def test_requirement_sets_of_ifeval_hold_together(
    ifeval_prompts: list[dict[str, Any]], embedded: PreTrainedTokenizerBase, tree: TokenTree
) -> None:
    incompatible = []
    for record in ifeval_prompts[::6]:
        requirements = [
            Requirement(kind, **{name: v for name, v in given.items() if v is not None})
            for kind, given in zip(record["instruction_id_list"], record["kwargs"], strict=True)
        ]
        try:
            assert_promise_is_kept(requirements, embedded, tree, record["key"], more=20)
        except ValueError as error:
            incompatible.append(str(error))
    # Prompts that forbid a comma or a word and want themselves repeated with it.
    assert len(incompatible) <= 2 and all("repeat_prompt" in each for each in incompatible)


@settings(max_examples=20, deadline=None)
@given(st.text(min_size=1, max_size=12), st.booleans())
def test_phrases_of_any_characters_keep_their_promise(
    embedded: PreTrainedTokenizerBase, tree: TokenTree, phrase: str, ends: bool
) -> None:
    assume(phrase.strip())
    try:
        requirement = (
            Requirement("startend:end_checker", end_phrase=phrase)
            if ends
            else Requirement("startend:start_phrase", start_phrase=phrase)
        )
    except ValueError:
        return
    assert_promise_is_kept([requirement], embedded, tree, len(phrase), more=0)
