"""Which tokenizers automata take, and which of their tokens: those that decoding only joins."""

import copy

import pytest
import torch
from automata_walks import allowed_tokens, ids_of
from tokenizers import AddedToken, Tokenizer, decoders, models
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from rnr_kernels.automata.automaton import Automaton
from rnr_kernels.automata.languages import EVERYTHING, characters, contains, literal
from rnr_kernels.automata.matcher import Matcher
from rnr_kernels.automata.tokens import TokenTree
from rnr_kernels.automata.walk import IMPOSSIBLE, Place, token_mask_by_numpy_

JOINED = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])


def tokenizer_of(*pieces: str, decoder: object = JOINED) -> PreTrainedTokenizerBase:
    """A vocabulary of EOS, id 0, and of pieces."""
    vocabulary = {piece: number for number, piece in enumerate(["</s>", *pieces])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="</s>"))
    if decoder is not None:
        tokenizer.decoder = decoder
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer, eos_token="</s>"
    )


def test_a_character_without_tokens_is_no_way_to_the_end() -> None:
    """A vocabulary without bytes."""
    tree = TokenTree.of(tokenizer_of("a", "b", "é"))
    assert not tree.has_bytes
    assert allowed_tokens(Matcher(Automaton.compile(characters("bécd"), tree))) == [2, 3]
    with pytest.raises(ValueError, match="no response of this language"):
        Automaton.compile(literal("a€"), tree)


def test_a_byte_that_no_other_completes_is_never_allowed() -> None:
    """A vocabulary with some bytes: the first of "é", and those of "€" but the last."""
    tree = TokenTree.of(tokenizer_of("a", "b", "é", "<0xC3>", "<0xE2>", "<0x82>"))
    assert not tree.has_bytes
    for language in (
        literal("a") | literal("é"),
        literal("aé") | literal("ab"),
        characters("a€") + literal("b"),
        EVERYTHING - contains(literal("€")),
    ):
        matcher = Matcher(Automaton.compile(language, tree), 20)
        while not matcher.is_terminated():
            allowed = allowed_tokens(matcher)
            assert allowed and not {4, 5, 6} & set(allowed)
            assert not any(matcher.fork().accept_token(token_id) for token_id in (4, 5, 6))
            assert matcher.accept_token(allowed[0])


def test_numpy_takes_what_is_impossible_twice_for_impossible() -> None:
    tree = TokenTree.of(tokenizer_of("a", "b", "é", "<0xC3>", "<0xE2>", "<0x82>"))
    automaton = Automaton.compile(literal("a") | literal("é"), tree)
    mask = torch.zeros(tree.num_words, dtype=torch.int32)
    place = Place(automaton.start)
    assert token_mask_by_numpy_(mask, automaton.tables, place, IMPOSSIBLE - 1) == 0
    assert ids_of(mask).tolist() == [1, 3]


@pytest.mark.parametrize(
    ("pieces", "decoder", "decoded"),
    [
        (("a", "b"), None, "'a a', and not to 'aa'"),
        (("a", "##b", "c"), decoders.WordPiece(), "'a a', and not to 'aa'"),
        (("a", "b</w>", "c</w>"), decoders.BPEDecoder(), "'b b', and not to 'b</w>b</w>'"),
        (("a", "b"), decoders.CTC(), "'a', and not to 'aa'"),
    ],
    ids=["words", "parts of words", "word ends", "repetitions"],
)
def test_a_tokenizer_whose_decoder_does_not_join_is_refused(
    pieces: tuple[str, ...], decoder: object, decoded: str
) -> None:
    with pytest.raises(ValueError, match=r"decodes tokens \[\d, \d\] to " + decoded):
        TokenTree.of(tokenizer_of(*pieces, decoder=decoder))


def test_a_decoder_that_changes_two_tokens_side_by_side_is_refused() -> None:
    decoder = decoders.Sequence([decoders.Fuse(), decoders.Replace("bc", "x")])
    with pytest.raises(ValueError, match=r"tokens \[2, 2, 3, 3\] to 'bxc', and not to 'bbcc'"):
        TokenTree.of(tokenizer_of("a", "b", "c", "d", decoder=decoder))


def test_added_tokens_that_decode_to_other_text_are_never_allowed(
    tiny_bpe: PreTrainedTokenizerBase,
) -> None:
    """A byte-level decoder reads Latin-1 letters as bytes, and "Ġ" as a space."""
    tokenizer = copy.deepcopy(tiny_bpe)
    first = len(tokenizer)
    tokenizer.add_tokens([AddedToken(each) for each in ("café", "<tool>", "Ġx", "hi € there")])
    tree = TokenTree.of(tokenizer)
    assert tree.printed[first:] == [b"", b"<tool>", b"", "hi € there".encode()]
    allowed = allowed_tokens(Matcher(Automaton.compile(EVERYTHING, tree)))
    assert [v - first for v in allowed if v >= first] == [1, 3]


def test_added_tokens_of_sentencepiece_with_its_space_are_never_allowed(
    llama2_tokenizer: PreTrainedTokenizerBase,
) -> None:
    tokenizer = copy.deepcopy(llama2_tokenizer)
    first = len(tokenizer)
    tokenizer.add_tokens([AddedToken(each) for each in ("a▁b", "<0x41>x", "<tool>")])
    assert TokenTree.of(tokenizer).printed[first:] == [b"", b"<0x41>x", b"<tool>"]


def test_a_tree_needs_a_token_that_ends_responses(tiny_bpe: PreTrainedTokenizerBase) -> None:
    with pytest.raises(ValueError, match="pass eos_token_ids"):
        TokenTree.of(tiny_bpe, eos_token_ids=[5000])
    tree = TokenTree.of(tiny_bpe, len(tiny_bpe) + 7, [1, 2])
    assert tree.eos_token_ids == (1, 2) and tree.vocab_size == len(tiny_bpe) + 7
    automaton = Automaton.compile(literal("a").optional, tree)
    assert {1, 2} < set(allowed_tokens(Matcher(automaton)))


def test_a_tree_has_its_size_and_its_ends_already(tiny_bpe: PreTrainedTokenizerBase) -> None:
    tree = TokenTree.of(tiny_bpe)
    assert TokenTree.of(tree) is tree
    for vocab_size, ends in ((400, None), (None, [1]), (tree.vocab_size, [1])):
        with pytest.raises(ValueError, match=r"the tree was made for \d+ ids, of which \[1\] end"):
            TokenTree.of(tree, vocab_size, ends)


def test_a_tokenizer_that_rewrites_spaces_is_refused(tiny_bpe: PreTrainedTokenizerBase) -> None:
    tokenizer = copy.deepcopy(tiny_bpe)
    tokenizer.clean_up_tokenization_spaces = True
    with pytest.raises(ValueError, match="clean_up_tokenization_spaces to False"):
        TokenTree.of(tokenizer)
