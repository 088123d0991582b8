"""Prompt templates: BOS exactly once, tags as published, files, errors."""

from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerBase

from rnr_kernels.templates import adds_bos, encode_response, prompt_template


def test_tags_are_the_papers(tiny_bpe: PreTrainedTokenizerBase) -> None:
    text = prompt_template("tags").text(tiny_bpe, "Hi")
    assert text == "<|user|>\nHi\n<|assistant|>\n"


def test_tags_on_llama2_have_one_bos_and_are_cut_as_in_the_paper(
    llama2_tokenizer: PreTrainedTokenizerBase,
) -> None:
    ids = prompt_template("tags").encode(llama2_tokenizer, "Hi")
    assert ids == [
        1, 529, 29989, 1792, 29989, 29958, 13, 18567, 13,
        29966, 29989, 465, 22137, 29989, 29958, 13,
    ]  # fmt: skip
    assert ids == llama2_tokenizer.encode("<|user|>\nHi\n<|assistant|>\n")


def test_a_bos_written_out_in_the_template_is_not_doubled(
    llama2_tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    file = tmp_path / "inst.txt"
    file.write_text("<s>[INST] {instruction} [/INST]")
    assert prompt_template(file).encode(llama2_tokenizer, "Hi").count(1) == 1


def test_a_tokenizer_that_adds_no_bos_gets_none(tiny_bpe: PreTrainedTokenizerBase) -> None:
    assert not adds_bos(tiny_bpe)
    ids = prompt_template("plain").encode(tiny_bpe, "sea")
    assert ids == tiny_bpe.encode("sea") and tiny_bpe.bos_token_id not in ids


def test_plain_is_the_instruction_alone(tiny_bpe: PreTrainedTokenizerBase) -> None:
    assert prompt_template("plain").text(tiny_bpe, "a {b} c") == "a {b} c"


CHAT = [
    {"role": "system", "content": "Be {instruction}."},
    {"role": "user", "content": "a"},
    {"role": "assistant", "content": "b"},
    {"role": "user", "content": "{system} c"},
]


def test_a_chat_is_written_turn_by_turn(tiny_bpe: PreTrainedTokenizerBase) -> None:
    eos = tiny_bpe.eos_token
    assert prompt_template("tags").text(tiny_bpe, CHAT) == (
        "<|system|>\nBe {instruction}.\n<|user|>\na\n<|assistant|>\n"
        f"b{eos}\n<|user|>\n{{system}} c\n<|assistant|>\n"
    )
    assert prompt_template("plain").text(tiny_bpe, [CHAT[0], CHAT[1]]) == "Be {instruction}.\n\na"


def test_a_file_says_where_the_system_message_stands(
    tiny_bpe: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    file = tmp_path / "inst.txt"
    file.write_text("[{system}] {instruction} ->")
    template = prompt_template(file)
    assert template.text(tiny_bpe, CHAT[:2]) == "[Be {instruction}.] a ->"
    assert template.text(tiny_bpe, "a") == "[] a ->"
    file.write_text("{instruction} ->")
    assert prompt_template(file).text(tiny_bpe, "{system}") == "{system} ->"
    with pytest.raises(ValueError, match="no place for a system message"):
        prompt_template(file).text(tiny_bpe, CHAT[:2])


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ([], "the last the user's, got \\[\\]"),
        (CHAT[:1], "got \\['system'\\]"),
        (CHAT[:3], "the last the user's"),
        ([{"role": "user"}], "message 1: content must be a str, got NoneType"),
        (["a"], "must be a str or a list of messages, got list"),
        (7, "must be a str or a list of messages, got int"),
    ],
)
def test_what_is_no_prompt_is_named(
    tiny_bpe: PreTrainedTokenizerBase, prompt: Any, words: str
) -> None:
    with pytest.raises((TypeError, ValueError), match=words):
        prompt_template("tags").encode(tiny_bpe, prompt)


def test_chat_uses_the_tokenizers_template_and_adds_nothing(
    llama2_tokenizer: PreTrainedTokenizerBase,
) -> None:
    llama2_tokenizer.chat_template = (
        "{{ bos_token }}{% for m in messages %}[{{ m.role }}] {{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %} [assistant]{% endif %}"
    )
    try:
        chat = prompt_template("chat")
        assert chat.text(llama2_tokenizer, "Hi") == "<s>[user] Hi [assistant]"
        assert chat.encode(llama2_tokenizer, "Hi").count(1) == 1
    finally:
        llama2_tokenizer.chat_template = None


def test_chat_without_a_template_says_what_to_use(tiny_bpe: PreTrainedTokenizerBase) -> None:
    with pytest.raises(ValueError, match="no chat template; use template 'tags' or 'plain'"):
        prompt_template("chat").encode(tiny_bpe, "Hi")


def test_a_response_is_cut_as_it_follows_the_prompt(
    llama2_tokenizer: PreTrainedTokenizerBase,
) -> None:
    tags = prompt_template("tags")
    assert encode_response(tags, llama2_tokenizer, "Hi", "What is")[0] == 5618
    assert llama2_tokenizer.encode("What is", add_special_tokens=False)[0] == 1724


def test_a_chat_template_that_refuses_is_an_error_in_words(
    llama2_tokenizer: PreTrainedTokenizerBase,
) -> None:
    llama2_tokenizer.chat_template = "{{ raise_exception('a system turn must come first') }}"
    try:
        with pytest.raises(ValueError, match="refuses a lone user message: a system turn"):
            prompt_template("chat").encode(llama2_tokenizer, "Hi")
    finally:
        llama2_tokenizer.chat_template = None


def test_an_unknown_name_lists_the_templates() -> None:
    with pytest.raises(ValueError, match=r"must be tags, chat, plain or a text file .* got 'tag'"):
        prompt_template("tag")


@pytest.mark.parametrize("text", ["no field", "{instruction} twice {instruction}"])
def test_a_file_needs_the_field_exactly_once(tmp_path: Path, text: str) -> None:
    file = tmp_path / "t.txt"
    file.write_text(text)
    with pytest.raises(ValueError, match="exactly once"):
        prompt_template(file)


def test_a_file_that_is_not_text(tmp_path: Path) -> None:
    file = tmp_path / "t.txt"
    file.write_bytes(b"\xff\xfe{instruction}")
    with pytest.raises(ValueError, match="not UTF-8"):
        prompt_template(file)
