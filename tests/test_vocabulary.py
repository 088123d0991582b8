"""What tokens print and which token prints a string, on every kind of tokenizer."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from rnr_kernels.rules.vocabulary import Vocabulary


def fast(backend: Tokenizer, **special: str) -> PreTrainedTokenizerBase:
    tokenizer: PreTrainedTokenizerBase = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=backend, **special
    )
    return tokenizer


def word_level(extra: Sequence[str] = ("the", "sea"), **special: str) -> PreTrainedTokenizerBase:
    words = ["<unk>", "</s>", "<eot>", "We", "see", "!", *extra]
    backend = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    return fast(backend, unk_token="<unk>", **special)


def bytes_bpe(merges: list[tuple[str, str]]) -> Tokenizer:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = [*alphabet, *("".join(pair) for pair in merges)]
    return Tokenizer(models.BPE({piece: i for i, piece in enumerate(pieces)}, merges))


def gpt2_like() -> PreTrainedTokenizerBase:
    backend = bytes_bpe([("Ġ", "I"), ("Ċ", "Ċ"), ("W", "e"), ("Ġ", "We"), (">", "Ċ")])
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["<|endoftext|>"])
    backend.add_tokens([AddedToken("<\uff5ctool▁call\uff5c>", normalized=False), "ĠWe we"])
    return fast(backend, eos_token="<|endoftext|>")


def test_llama2_forms(llama2_tokenizer: PreTrainedTokenizerBase) -> None:
    vocabulary = Vocabulary.of(llama2_tokenizer)
    assert vocabulary.size == 32000
    assert vocabulary.eos_token_ids == (2,)
    forms = {" I": 306, "I": 29902, "   ": 1678, "\n": 13, "!": 29991, " !": 1738, "</s>": 2}
    assert {form: vocabulary.find(form) for form in forms} == forms
    assert [vocabulary.find(form) for form in ("▁I", "<0x0A>", "ĠI", " Wee", "")] == [None] * 5
    assert vocabulary.printed(306) == b" I"
    assert vocabulary.printed(13) == b"\n"


def test_ordinary_pieces_win_over_byte_pieces(llama2_tokenizer: PreTrainedTokenizerBase) -> None:
    vocabulary = Vocabulary.of(llama2_tokenizer)
    assert llama2_tokenizer.convert_tokens_to_ids("<0x41>") == 68
    assert vocabulary.printed(68) == b"A"
    assert vocabulary.find("A") == 29909
    assert vocabulary.text(3 + 0xE2) == "<0xE2>"


@pytest.mark.parametrize("name", ["sentencepiece_32k", "tekken_131k", "llama2_tokenizer"])
def test_every_token_is_found_by_what_it_prints(name: str, request: pytest.FixtureRequest) -> None:
    vocabulary = Vocabulary.of(request.getfixturevalue(name))
    for token_id in range(0, vocabulary.size, 7):
        printed = vocabulary.printed(token_id)
        try:
            form = printed.decode()
        except UnicodeDecodeError:
            continue
        found = vocabulary.find(form)
        assert found is not None
        assert vocabulary.printed(found) == printed


def test_tekken_forms(tekken_131k: PreTrainedTokenizerBase) -> None:
    vocabulary = Vocabulary.of(tekken_131k)
    assert vocabulary.size == 131072
    assert vocabulary.eos_token_ids == (2,)
    forms = {" I": 1362, "I": 1073, "\n": 1010, "   ": 1293, " ##": 24650, "</s>": 2}
    assert {form: vocabulary.find(form) for form in forms} == forms
    assert vocabulary.printed(1000 + 0xE2) == b"\xe2"
    assert vocabulary.text(1000 + 0xE2) == "<0xE2>"
    # A special token that the tokenizer does not list as one still prints its name.
    assert vocabulary.text(5) == "[AVAILABLE_TOOLS]"


@pytest.mark.parametrize("name", ["sentencepiece_32k", "tekken_131k"])
def test_mistral_common_tokenizers_agree_with_the_fast_ones(
    name: str, request: pytest.FixtureRequest
) -> None:
    from transformers.tokenization_mistral_common import MistralCommonBackend

    folder: Path = request.getfixturevalue(f"{name}_folder")
    own = Vocabulary.of(MistralCommonBackend.from_pretrained(folder))
    other = Vocabulary.of(request.getfixturevalue(name))
    assert own.size == other.size
    assert own.eos_token_ids == (2,)
    for token_id in range(3, own.size, 97):
        assert own.printed(token_id) == other.printed(token_id)
    forms = [" I", "I", "\n", "   ", " should", "é", "no such token"]
    assert [own.find(form) for form in forms] == [other.find(form) for form in forms]
    assert own.find(" I") is not None and own.find("no such token") is None


def test_slow_sentencepiece_tokenizers_agree_with_the_fast_ones(
    sentencepiece_32k_folder: Path, sentencepiece_32k: PreTrainedTokenizerBase
) -> None:
    from transformers.tokenization_utils_sentencepiece import SentencePieceBackend

    model = str(sentencepiece_32k_folder / "tokenizer.model")
    slow: PreTrainedTokenizerBase = SentencePieceBackend(  # type: ignore[no-untyped-call]
        vocab_file=model, eos_token="</s>", unk_token="<unk>"
    )
    assert not slow.is_fast
    own, other = Vocabulary.of(slow), Vocabulary.of(sentencepiece_32k)
    assert own.size == 32000
    assert [own.printed(i) for i in range(0, 32000, 97)] == [
        other.printed(i) for i in range(0, 32000, 97)
    ]
    assert own.find(" I") == 315
    assert own.find("\n") == 13
    assert own.find("no such token") is None


def test_byte_level_forms_and_added_tokens() -> None:
    tokenizer = gpt2_like()
    vocabulary = Vocabulary.of(tokenizer)
    ascii_and_latin = sorted(pre_tokenizers.ByteLevel.alphabet())
    first_added = 256 + 5
    assert vocabulary.size == first_added + 3
    assert vocabulary.eos_token_ids == (first_added,)
    assert vocabulary.find(" I") == 256
    assert vocabulary.find("\n\n") == 257
    assert vocabulary.find("<|endoftext|>") == first_added
    # Added tokens are literal text, even where it looks like byte-level spelling.
    assert vocabulary.find("<\uff5ctool▁call\uff5c>") == first_added + 1
    assert vocabulary.printed(first_added + 2) == "ĠWe we".encode()
    assert vocabulary.find(" We we") is None
    assert vocabulary.text(ascii_and_latin.index("Ã")) == "<0xC3>"


@pytest.mark.parametrize("part", ["decoder", "pre_tokenizer", None])
def test_the_alphabet_is_found_from_any_part_or_by_probing(part: str | None) -> None:
    backend = bytes_bpe([("Ġ", "I")])
    if part == "decoder":
        backend.decoder = decoders.Sequence([decoders.ByteLevel()])
    elif part == "pre_tokenizer":
        backend.pre_tokenizer = pre_tokenizers.ByteLevel()
    assert Vocabulary.of(fast(backend)).find(" I") == 256


def test_a_metaspace_vocabulary_with_another_stand_in_for_the_space() -> None:
    backend = Tokenizer(models.BPE({"_I": 0, "I": 1, "_": 2}, []))
    backend.decoder = decoders.Metaspace(replacement="_")
    vocabulary = Vocabulary.of(fast(backend))
    assert [vocabulary.find(form) for form in (" I", "I", " ", "_I")] == [0, 1, 2, None]


def test_word_level_pieces_are_plain_text() -> None:
    vocabulary = Vocabulary.of(word_level(eos_token="</s>"))
    assert vocabulary.find("We") == 3
    assert vocabulary.find("absent") is None
    assert vocabulary.find(" We") is None


def test_without_a_decoder_the_spelling_of_the_pieces_decides() -> None:
    assert Vocabulary.of(word_level(["<0x0A>"])).find("\n") == 6


def test_a_tokenizer_without_eos_has_none() -> None:
    assert Vocabulary.of(word_level()).eos_token_ids == ()


def test_several_eos_ids_are_all_named() -> None:
    class TwoEnds(PreTrainedTokenizerFast):
        eos_token_id = (1, 2)

    backend = word_level().backend_tokenizer
    two_ends = TwoEnds(tokenizer_object=backend)  # type: ignore[no-untyped-call]
    assert Vocabulary.of(two_ends).eos_token_ids == (1, 2)


def test_ids_without_a_token_print_nothing() -> None:
    vocabulary = Vocabulary.of(word_level())
    assert [vocabulary.printed(token_id) for token_id in (-1, 8, 10_000)] == [b"", b"", b""]
    assert vocabulary.text(8) == ""


def test_ids_resolve_up_to_the_size_of_the_model() -> None:
    vocabulary = Vocabulary.of(word_level())
    # A padded embedding has more rows than the tokenizer has tokens.
    assert vocabulary.size == 8
    assert vocabulary.resolve(63, vocab_size=64) == 63
    for token_id in (64, -1):
        with pytest.raises(ValueError, match=f"token id {token_id} is outside .* 0 to 63"):
            vocabulary.resolve(token_id, vocab_size=64)


def test_a_string_beyond_the_model_is_an_error() -> None:
    vocabulary = Vocabulary.of(word_level())
    assert vocabulary.resolve("!", vocab_size=6) == 5
    with pytest.raises(ValueError, match="'!' is token 5 of the tokenizer"):
        vocabulary.resolve("!", vocab_size=5)


def test_a_string_of_several_tokens_is_an_error_that_names_the_nearest(
    llama2_tokenizer: PreTrainedTokenizerBase,
) -> None:
    vocabulary = Vocabulary.of(llama2_tokenizer)
    with pytest.raises(ValueError) as caught:
        vocabulary.resolve(" Wee", vocab_size=32000)
    message = str(caught.value)
    assert message.startswith(
        "no single token prints ' Wee' (the tokenizer cuts it into ' We', 'e'"
    )
    assert "nearest: ' We' (1334)" in message
    assert message.endswith("give an id or one of these")


@pytest.mark.parametrize(
    ("written", "nearest"),
    [
        ("Hello world", "nearest: 'Hello' (10994), ' world' (3186); give"),
        # The ids of the ordinary pieces, not of the byte pieces that print the same.
        (",!", "nearest: ',' (29892), '!' (29991); give"),
    ],
)
def test_a_string_of_several_words_is_led_to_its_pieces(
    written: str, nearest: str, llama2_tokenizer: PreTrainedTokenizerBase
) -> None:
    with pytest.raises(ValueError) as caught:
        Vocabulary.of(llama2_tokenizer).resolve(written, vocab_size=32000)
    assert nearest in str(caught.value)


@pytest.mark.parametrize(
    ("written", "suggested"),
    [("▁I", "' I' (306)"), ("ĠI", "' I' (306)"), ("<0x0A>", r"'\\n' (13)"), ("</S>", "'</s>' (2)")],
)
def test_piece_names_and_other_cases_lead_to_the_surface_form(
    written: str, suggested: str, llama2_tokenizer: PreTrainedTokenizerBase
) -> None:
    suggested = suggested.replace("\\\\", "\\")
    with pytest.raises(ValueError) as caught:
        Vocabulary.of(llama2_tokenizer).resolve(written, vocab_size=32000)
    assert f"nearest: {suggested}" in str(caught.value)


def test_the_sibling_with_or_without_a_space_comes_first() -> None:
    with pytest.raises(ValueError, match=r"nearest: 'We' \(3\)"):
        Vocabulary.of(word_level()).resolve(" We", vocab_size=8)


def test_a_string_like_no_token_is_still_one_sentence() -> None:
    with pytest.raises(ValueError, match="no single token prints 'Ω'; give the id of a token"):
        Vocabulary.of(word_level()).resolve("Ω", vocab_size=8)


TAG = "<|user|>\n"


@pytest.mark.parametrize(
    "name", ["llama2_tokenizer", "sentencepiece_32k", "tekken_131k", "tiny_bpe"]
)
def test_used_tokens_start_after_the_last_tag(name: str, request: pytest.FixtureRequest) -> None:
    tokenizer = request.getfixturevalue(name)
    vocabulary = Vocabulary.of(tokenizer)
    prompt = f"{TAG}What is {TAG}the sea?\n<|assistant|>\n"
    ids = tokenizer.encode(prompt)
    start = vocabulary.used_from(ids, TAG)
    rest = b"".join(vocabulary.printed(token_id) for token_id in ids[start:])
    # SentencePiece puts the space before a word into the word's token, and so after the tag.
    assert rest.lstrip() == b"the sea?\n<|assistant|>\n"


def test_a_token_that_reaches_beyond_the_tag_is_not_counted() -> None:
    tokenizer = gpt2_like()
    ids = tokenizer.encode("|\n\n\nWe")
    texts = [Vocabulary.of(tokenizer).text(token_id) for token_id in ids]
    assert texts == ["|", "\n\n", "\n", "We"]
    assert Vocabulary.of(tokenizer).used_from(ids, "|\n") == 2
    assert Vocabulary.of(tokenizer).used_from(ids, "|") == 1


def test_a_tag_at_the_end_leaves_no_prompt_token() -> None:
    tokenizer = gpt2_like()
    ids = tokenizer.encode("We\n>")
    assert Vocabulary.of(tokenizer).used_from(ids, ">") == len(ids)


def test_padding_and_special_tokens_do_not_disturb_the_tag() -> None:
    tokenizer = gpt2_like()
    ids = [261, 261, *tokenizer.encode("<a>We"), -100, 9999]
    assert Vocabulary.of(tokenizer).used_from(ids, "<a>") == 5


def test_a_prompt_without_the_tag_is_an_error() -> None:
    tokenizer = gpt2_like()
    with pytest.raises(ValueError, match=r"does not contain '<b>'.*used_from="):
        Vocabulary.of(tokenizer).used_from(tokenizer.encode("<a>We"), "<b>")
    with pytest.raises(ValueError, match="does not contain"):
        Vocabulary.of(tokenizer).used_from([], "<b>")


def test_a_vocabulary_is_its_own_vocabulary() -> None:
    vocabulary = Vocabulary.of(word_level())
    assert Vocabulary.of(vocabulary) is vocabulary


@pytest.mark.parametrize("wrong", ["meta-llama/Llama-2-7b-hf", None, 3, AutoTokenizer])
def test_what_is_no_tokenizer_is_a_type_error(wrong: object) -> None:
    with pytest.raises(TypeError, match="expected a transformers tokenizer"):
        Vocabulary.of(wrong)  # type: ignore[arg-type]
