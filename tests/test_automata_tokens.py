"""Automata over tokens: kernels against numpy, masks against the text that tokens make."""

import random
import re
import string
from functools import cache

import numpy as np
import pytest
import torch
from automata_walks import allowed_tokens, ids_of, random_response
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from rnr_kernels.automata import automaton as automaton_module
from rnr_kernels.automata import counts
from rnr_kernels.automata.automaton import Automaton
from rnr_kernels.automata.characters import Characters, matching
from rnr_kernels.automata.counts import Count
from rnr_kernels.automata.languages import (
    EVERYTHING,
    NOTHING,
    Language,
    characters,
    concatenation,
    contains,
    is_word,
    literal,
    lowered,
    union,
)
from rnr_kernels.automata.matcher import Matcher, allocate_bitmask
from rnr_kernels.automata.tokens import TokenTree
from rnr_kernels.automata.utf8 import INVALID, ROOT, byte_classes
from rnr_kernels.automata.walk import (
    IMPOSSIBLE,
    Place,
    lower_costs_by_numpy_,
    token_mask_,
    token_mask_by_numpy_,
)
from rnr_kernels.backends import native

HINDI = "नमस्ते दुनिया"
FAMILY = "👨‍👩‍👧 and 🇮🇳"
LANGUAGES = {
    "everything": EVERYTHING,
    "not tea": ~lowered(contains(literal("tea"))),
    "small letters": characters(~matching("[A-Z]")).repeated(),
    "no combining marks": characters(~Characters.of("\u093e\u094d\u0928")).repeated(),
    "a start and an end": concatenation(literal("We see "), EVERYTHING, literal("the sea.")),
    "one of three": union(map(literal, ("yes", "no", "a long answer, " * 5))),
    "not all letters in turn": ~contains(literal(string.printable)),  # more than 63 classes
    "two greetings": concatenation(literal(HINDI), literal(" "), literal(FAMILY)),
}
COUNTS = {
    "no count": None,
    "up to 7 words": Count(is_word(), 0, 7),
    "from 5 words on": Count(is_word(), 5),
    "9 to 12 letters": Count(matching("[a-z]"), 9, 12, in_runs=False),
}
TOKENIZERS = ("tiny_bpe", "embedded", "sentencepiece_32k", "tekken_131k")

native_library = pytest.mark.skipif(
    native.unavailable() is not None, reason=f"the kernels are missing: {native.unavailable()}"
)


@pytest.fixture(scope="module", params=TOKENIZERS)
def tokenizer(request: pytest.FixtureRequest) -> PreTrainedTokenizerBase:
    if request.param == "embedded":
        from rnr_kernels.loading import load_tokenizer

        found: PreTrainedTokenizerBase = load_tokenizer("embedded")
        return found
    found = request.getfixturevalue(request.param)
    return found


@pytest.fixture(scope="module")
def tree(tokenizer: PreTrainedTokenizerBase) -> TokenTree:
    return TokenTree.of(tokenizer)


@cache
def compiled(language: str, count: str, tree: TokenTree) -> Automaton | None:
    """None where a language and a count have nothing in common."""
    return newly_compiled(language, count, tree)


def newly_compiled(language: str, count: str, tree: TokenTree) -> Automaton | None:
    try:
        return Automaton.compile(LANGUAGES[language], tree, COUNTS[count])
    except ValueError:
        return None


def places(automaton: Automaton, number: int) -> list[Place]:
    """Some, between characters and within them, dead ones among them."""
    rng = random.Random(0)
    num_nodes = len(automaton.tables.rest)
    return [
        Place(
            rng.randrange(automaton.num_states),
            rng.choice((ROOT, rng.randrange(num_nodes))),
            rng.randrange(automaton.layers.count),
        )
        for _ in range(number)
    ]


@native_library
@pytest.mark.parametrize("count", COUNTS)
def test_the_kernel_and_numpy_set_the_same_bits(tree: TokenTree, count: str) -> None:
    # Numpy takes tens of milliseconds for a mask of a hundred thousand tokens.
    is_small = tree.vocab_size < 10_000
    for language in LANGUAGES if is_small else ["not tea", "not all letters in turn"]:
        automaton = compiled(language, count, tree)
        if automaton is None:
            continue
        for place in places(automaton, 6 if is_small else 3):
            for limit in (0, 3, 20, IMPOSSIBLE - 1) if is_small else (3, IMPOSSIBLE - 1):
                masks = torch.full((2, tree.num_words), 7, dtype=torch.int32)
                highest = (
                    token_mask_(masks[0], automaton.tables, place, limit),
                    token_mask_by_numpy_(masks[1], automaton.tables, place, limit),
                )
                assert highest[0] == highest[1], (language, place, limit)
                assert torch.equal(masks[0], masks[1]), (language, place, limit)


@native_library
@pytest.mark.parametrize("tokenizer", TOKENIZERS[:3], indirect=True)
@pytest.mark.parametrize("count", COUNTS)
def test_the_kernel_and_numpy_lower_costs_alike(
    tree: TokenTree, count: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Python takes a second for a tree of tens of thousands of tokens.
    for language in LANGUAGES if tree.vocab_size < 10_000 else ["a start and an end"]:
        by_kernel = compiled(language, count, tree)
        with monkeypatch.context() as patch:
            patch.setattr(automaton_module, "lower_costs_", lower_costs_by_numpy_)
            by_numpy = newly_compiled(language, count, tree)
        assert (by_kernel is None) == (by_numpy is None)
        if by_kernel is not None and by_numpy is not None:
            assert torch.equal(by_kernel.tables.costs, by_numpy.tables.costs), language


def test_a_token_is_allowed_if_and_only_if_its_text_leads_on(
    tiny_bpe: PreTrainedTokenizerBase,
) -> None:
    """By brute force: every token after every prefix of some texts."""
    tree = TokenTree.of(tiny_bpe)
    wanted = ("We see the sea.", "We go! é", "\n")
    automaton = Automaton.compile(union(map(literal, wanted)), tree)
    raw = [text.encode() for text in wanted]
    for text in wanted:
        matcher = Matcher(automaton)
        before = b""
        for token_id in [*tiny_bpe.encode(text, add_special_tokens=False), 1]:
            expected = {
                v
                for v, printed in enumerate(tree.printed)
                if printed and any(each.startswith(before + printed) for each in raw)
            }
            assert set(allowed_tokens(matcher)) == expected | ({1} if before in raw else set())
            assert matcher.accept_token(token_id)
            before += tree.printed[token_id]
        assert matcher.is_terminated()


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=12), st.integers(0, 2**32))
def test_any_text_is_written_byte_by_byte(
    tiny_bpe: PreTrainedTokenizerBase, text: str, seed: int
) -> None:
    text = text.encode("utf-8", "ignore").decode()
    automaton = Automaton.compile(literal(text), TokenTree.of(tiny_bpe))
    budget = automaton.tokens_needed
    assert budget <= len(text.encode()) + 1
    matcher = Matcher(automaton, budget)
    written = b""
    while not matcher.is_terminated():
        token_id = random.Random(seed).choice(allowed_tokens(matcher))
        assert matcher.accept_token(token_id)
        written += automaton.tree.printed[token_id]
    assert written == text.encode()


@pytest.mark.parametrize("count", COUNTS)
def test_random_responses_end_within_the_budget_and_in_the_language(
    tokenizer: PreTrainedTokenizerBase, tree: TokenTree, count: str
) -> None:
    limits = COUNTS[count]
    counted = EVERYTHING if limits is None else limits.language()
    for seed, language in enumerate(LANGUAGES):
        automaton = compiled(language, count, tree)
        if automaton is None:
            continue
        for more in (0, 1, 30):
            text = random_response(automaton, tokenizer, automaton.tokens_needed + more, seed)
            assert text in LANGUAGES[language] and text in counted


@pytest.mark.parametrize("in_runs", [True, False])
def test_layers_that_are_left_out_change_nothing(
    tiny_bpe: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch, in_runs: bool
) -> None:
    """Far from the most that is allowed, layers of costs are alike; few of them are kept."""
    tree = TokenTree.of(tiny_bpe)
    language = contains(
        concatenation(literal("a b "), characters(matching("[a-z ]")).repeated(), literal("c d"))
    )
    count = Count(is_word(), 0, 150, in_runs)
    few = Automaton.compile(language, tree, count)
    monkeypatch.setattr(counts, "FEW_LAYERS", 1000)
    all_of_them = Automaton.compile(language, tree, count)
    assert few.layers.count < 100 < all_of_them.layers.count == 152
    assert few.tokens_needed == all_of_them.tokens_needed
    rng = random.Random(0)
    for budget in (90, 250):
        matchers = Matcher(few, budget), Matcher(all_of_them, budget)
        while not matchers[0].is_terminated():
            allowed = allowed_tokens(matchers[0])
            assert allowed == allowed_tokens(matchers[1])
            # Not the end before there is nothing else, so that the count comes near its most.
            going_on = [v for v in allowed if v not in tree.eos_token_ids] or allowed
            token_id = rng.choice(going_on)
            assert all(matcher.accept_token(token_id) for matcher in matchers)


@pytest.mark.parametrize(
    "count", [Count(is_word(), 3, 40), Count(is_word(), 9, None), Count(is_word(), 0, 90, False)]
)
def test_masks_that_are_kept_equal_those_that_are_computed(tree: TokenTree, count: Count) -> None:
    """A cached mask serves places of other counts and budgets: each must be as if it were new."""
    automaton, fresh = (Automaton.compile(~contains(literal("tea")), tree, count) for _ in "ab")
    matcher = Matcher(automaton, 60)
    rng = random.Random(0)
    kept, new = torch.empty(2, 1, tree.num_words, dtype=torch.int32)
    while not matcher.is_terminated():
        matcher.fill_next_token_bitmask(kept)
        fresh.masks.clear()
        fresh.fill(new[0], matcher._place, 60 - matcher.num_tokens)
        assert torch.equal(kept, new)
        assert matcher.accept_token(int(rng.choice(ids_of(kept[0]))))
    assert automaton.masks


def test_what_the_mask_does_not_allow_is_not_accepted(tiny_bpe: PreTrainedTokenizerBase) -> None:
    automaton = Automaton.compile(LANGUAGES["a start and an end"], TokenTree.of(tiny_bpe))
    matcher = Matcher(automaton, automaton.tokens_needed + 2)
    rng = random.Random(0)
    while not matcher.is_terminated():
        allowed = allowed_tokens(matcher)
        for token_id in range(-2, len(tiny_bpe) + 2):
            assert matcher.fork().accept_token(token_id) == (token_id in allowed)
        matcher.accept_token(rng.choice(allowed))
    assert not matcher.accept_token(1)
    with pytest.raises(ValueError, match="has ended"):
        allowed_tokens(matcher)


def test_characters_of_several_bytes_stay_possible(
    tokenizer: PreTrainedTokenizerBase, tree: TokenTree
) -> None:
    automaton = Automaton.compile(~contains(literal("tea")), tree)
    for text in (HINDI, FAMILY, "naïve £3 “so”"):
        matcher = Matcher(automaton, 100)
        token_ids = tokenizer.encode(text, add_special_tokens=False)
        assert all(map(matcher.accept_token, token_ids)), text
        assert matcher.accept_token(tree.eos_token_ids[0])


def test_bytes_that_are_no_character_are_never_allowed(tiny_bpe: PreTrainedTokenizerBase) -> None:
    tree = TokenTree.of(tiny_bpe)
    token_of = {printed[0]: v for v, printed in enumerate(tree.printed) if len(printed) == 1}
    automaton = Automaton.compile(EVERYTHING, tree)

    def follows(start: bytes) -> set[int]:
        matcher = Matcher(automaton)
        assert all(matcher.accept_token(token_of[byte]) for byte in start)
        return {byte for byte in range(256) if matcher.fork().accept_token(token_of[byte])}

    assert follows(b"") == {*range(0x80), *range(0xC2, 0xF5)}
    assert follows(b"\xe0") == set(range(0xA0, 0xC0))
    assert follows(b"\xed") == set(range(0x80, 0xA0))  # surrogates
    assert follows(b"\xf0") == set(range(0x90, 0xC0))
    assert follows(b"\xf4") == set(range(0x80, 0x90))  # beyond the last code point
    assert follows(b"\xf0\x9f") == set(range(0x80, 0xC0))


def test_a_part_of_a_character_is_allowed_only_towards_one_of_the_language(
    tiny_bpe: PreTrainedTokenizerBase,
) -> None:
    tree = TokenTree.of(tiny_bpe)
    token_of = {printed[0]: v for v, printed in enumerate(tree.printed) if len(printed) == 1}
    matcher = Matcher(Automaton.compile(characters("é€"), tree), 4)
    assert set(allowed_tokens(matcher)) == {token_of[0xC3], token_of[0xE2]}
    assert matcher.accept_token(token_of[0xE2])
    assert allowed_tokens(matcher) == [token_of[0x82]]
    # In a budget of three tokens only two bytes and an end of sequence fit.
    assert allowed_tokens(Matcher(Automaton.compile(characters("é€"), tree), 3)) == [token_of[0xC3]]


@settings(max_examples=200, deadline=None)
@given(st.characters(exclude_categories=["Cs"]))
def test_the_byte_tree_gives_each_character_its_class(character: str) -> None:
    dfa = LANGUAGES["no combining marks"].dfa
    tree = byte_classes(dfa)
    node = ROOT
    for byte in character.encode():
        assert 0 <= node < tree.num_nodes
        node = int(tree.next[node, byte])
    assert node - tree.num_nodes == dfa.classes(character)[0]


def test_the_byte_tree_has_no_way_for_bytes_that_utf_8_does_not_know() -> None:
    tree = byte_classes(EVERYTHING.dfa)
    for invalid in (b"\x80", b"\xc1\x80", b"\xe0\x80", b"\xed\xa0", b"\xf5", b"\xf4\x90"):
        node = ROOT
        for byte in invalid[:-1]:
            node = int(tree.next[node, byte]) if node >= 0 else INVALID
        assert node < 0 or int(tree.next[node, invalid[-1]]) == INVALID


def test_special_tokens_are_never_allowed(tokenizer: PreTrainedTokenizerBase) -> None:
    tree = TokenTree.of(tokenizer)
    allowed = set(allowed_tokens(Matcher(Automaton.compile(EVERYTHING, tree))))
    assert allowed & set(tokenizer.all_special_ids) == set(tree.eos_token_ids)
    assert all(tree.printed[token_id] for token_id in allowed - set(tree.eos_token_ids))


def test_a_first_space_that_decoding_drops_is_no_part_of_the_text(
    tokenizer: PreTrainedTokenizerBase, tree: TokenTree
) -> None:
    word = next(
        (v, printed.decode()[1:])
        for v, printed in enumerate(tree.printed)
        if re.fullmatch(rb" [a-z]+", printed)
    )
    matcher = Matcher(Automaton.compile(literal(word[1]), tree))
    is_dropped = tokenizer.decode([word[0]]) == word[1]
    assert matcher.accept_token(word[0]) == is_dropped == tree.drops_first_space


def test_repeating_a_text_takes_the_tokens_of_the_tokenizer_not_its_characters(
    llama2_tokenizer: PreTrainedTokenizerBase,
) -> None:
    text = "Write a story about two people who meet at the harbour every Sunday morning."
    automaton = Automaton.compile(literal(text), TokenTree.of(llama2_tokenizer))
    tokens = llama2_tokenizer.encode(text, add_special_tokens=False)
    assert automaton.tokens_needed <= len(tokens) + 1 < 25


def test_a_budget_that_is_too_small_says_what_is_needed(tiny_bpe: PreTrainedTokenizerBase) -> None:
    automaton = Automaton.compile(literal("aaaaa"), TokenTree.of(tiny_bpe))
    with pytest.raises(ValueError, match=r"up to 6 tokens.*max_new_tokens is 5"):
        Matcher(automaton, 5)
    assert Matcher(automaton, 6).num_tokens == 0


def test_no_response_at_all_is_an_error(tiny_bpe: PreTrainedTokenizerBase) -> None:
    tree = TokenTree.of(tiny_bpe)
    with pytest.raises(ValueError, match="language is empty"):
        Automaton.compile(NOTHING, tree)
    with pytest.raises(ValueError, match="no response of this language"):
        Automaton.compile(literal("tea"), tree, Count(is_word(), 2, 3))


def test_forks_go_their_own_ways_and_reset_begins_anew(tiny_bpe: PreTrainedTokenizerBase) -> None:
    automaton = Automaton.compile(literal("ab") | literal("ac"), TokenTree.of(tiny_bpe))
    a, b, c = (tiny_bpe.convert_tokens_to_ids(each) for each in "abc")
    matcher = Matcher(automaton, 10)
    assert matcher.accept_token(a)
    fork = matcher.fork()
    assert matcher.accept_token(b) and fork.accept_token(c)
    assert not matcher.accept_token(c) and matcher.accept_token(1) and matcher.is_terminated()
    assert not fork.is_terminated() and fork.num_tokens == 2
    matcher.reset()
    assert allowed_tokens(matcher) == [a] and matcher.num_tokens == 0


def test_a_mask_is_written_whole_into_its_row_alone(tiny_bpe: PreTrainedTokenizerBase) -> None:
    tree = TokenTree.of(tiny_bpe)
    matcher = Matcher(Automaton.compile(literal("a"), tree))
    bitmask = allocate_bitmask(3, len(tiny_bpe) + 64)
    matcher.fill_next_token_bitmask(bitmask, 1)
    assert (bitmask[[0, 2]] == -1).all() and (bitmask[1, tree.num_words :] == 0).all()
    assert ids_of(bitmask[1]).tolist() == [tiny_bpe.convert_tokens_to_ids("a")]
    wrong: list[Tensor] = [
        bitmask[:, : tree.num_words - 1], bitmask.long(), bitmask[0], bitmask[:, :-1],
        bitmask.t().contiguous().t(), bitmask.to("meta"),
    ]  # fmt: skip
    for each in wrong:
        with pytest.raises(
            ValueError, match=r"int32 \[rows, at least \d+\], contiguous and on the CPU, got"
        ):
            matcher.fill_next_token_bitmask(each)


def test_the_tree_holds_every_token_once(tree: TokenTree) -> None:
    held = tree.token_ids.tolist()
    assert sorted(held) == [v for v, printed in enumerate(tree.printed) if printed]
    nodes = tree.nodes.numpy()
    depth = nodes[:-1, 0] >> 8
    at = np.repeat(np.arange(len(depth)), np.diff(nodes[:, 2]))
    assert all(
        len(tree.printed[token]) == depth[node]
        for token, node in zip(held, at.tolist(), strict=True)
    )
    assert (nodes[:-1, 1] > np.arange(len(depth))).all() and nodes[0, 1] == len(depth)


def test_a_language_is_a_language_of_text_not_of_regular_expressions() -> None:
    dots: Language = literal("a.c")
    assert "a.c" in dots and "abc" not in dots and re.fullmatch("a.c", "abc")
