"""Conversations as training examples: tokens, the loss mask, batches."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from rnr_kernels.templates import TAGS, TEMPLATES
from rnr_kernels.tuning.conversations import Conversation, Turn
from rnr_kernels.tuning.examples import (
    Example,
    describe_example,
    encode_example,
    pad_examples,
)

ONE = Conversation((Turn("Name a river.", "The Elbe."),), "line 1")
TWO = Conversation((Turn("Name a river.", "The Elbe."), Turn("And a lake?", "Como.")), "line 2")


def parts(example: Example, tokenizer: PreTrainedTokenizerBase) -> list[tuple[bool, str]]:
    """The stretches with and without a loss, as text."""
    found: list[tuple[bool, list[int]]] = []
    for token, trained in zip(example.token_ids, example.is_trained, strict=True):
        if not found or found[-1][0] != trained:
            found.append((trained, []))
        found[-1][1].append(token)
    return [(trained, tokenizer.decode(tokens)) for trained, tokens in found]


def test_loss_falls_on_the_response_and_eos(llama2_tokenizer: PreTrainedTokenizerBase) -> None:
    example = encode_example(ONE, llama2_tokenizer)
    assert parts(example, llama2_tokenizer) == [
        (False, "<s> <|user|>\nName a river.\n<|assistant|>\n"),
        (True, "The Elbe.</s>"),
    ]
    assert example.token_ids[-1] == llama2_tokenizer.eos_token_id
    assert example.labels()[: -sum(example.is_trained)] == [-100] * example.is_trained.count(False)


def test_every_response_is_trained_on(sentencepiece_32k: PreTrainedTokenizerBase) -> None:
    example = encode_example(TWO, sentencepiece_32k)
    texts = [(trained, text.strip()) for trained, text in parts(example, sentencepiece_32k)]
    eos = sentencepiece_32k.eos_token
    assert texts == [
        (False, "<|user|>\nName a river.\n<|assistant|>"),
        (True, f"The Elbe.{eos}"),
        (False, "<|user|>\nAnd a lake?\n<|assistant|>"),
        (True, f"Como.{eos}"),
    ]


def test_response_tuning_keeps_the_tags_and_an_empty_line(
    sentencepiece_32k: PreTrainedTokenizerBase,
) -> None:
    example = encode_example(ONE, sentencepiece_32k, mode="response")
    (_, prompt), (_, response) = parts(example, sentencepiece_32k)
    assert prompt.endswith("<|user|>\n\n<|assistant|>\n")
    assert response == f"The Elbe.{sentencepiece_32k.eos_token}"


def test_a_system_message_stands_before_the_first_turn_without_a_loss(
    sentencepiece_32k: PreTrainedTokenizerBase,
) -> None:
    conversation = Conversation(TWO.turns, "line 2", system="Be brief.")
    first, *others = parts(encode_example(conversation, sentencepiece_32k), sentencepiece_32k)
    assert first[1].strip() == "<|system|>\nBe brief.\n<|user|>\nName a river.\n<|assistant|>"
    assert not first[0]
    assert others == parts(encode_example(TWO, sentencepiece_32k), sentencepiece_32k)[1:]


def test_response_tuning_leaves_the_system_message_out(
    sentencepiece_32k: PreTrainedTokenizerBase,
) -> None:
    conversation = Conversation(ONE.turns, "line 1", system="Be brief.")
    with_system = encode_example(conversation, sentencepiece_32k, mode="response")
    assert with_system == encode_example(ONE, sentencepiece_32k, mode="response")


def test_a_later_prompt_of_generation_has_the_tokens_of_training(
    sentencepiece_32k: PreTrainedTokenizerBase,
) -> None:
    chat = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Name a river."},
        {"role": "assistant", "content": "The Elbe."},
        {"role": "user", "content": "And a lake?"},
    ]
    prompt = TEMPLATES["tags"].encode(sentencepiece_32k, chat)
    example = encode_example(Conversation(TWO.turns, "", "Be brief."), sentencepiece_32k)
    assert list(example.token_ids[: len(prompt)]) == prompt


def test_a_prompt_has_the_tokens_that_generation_gives_it(
    sentencepiece_32k: PreTrainedTokenizerBase,
) -> None:
    example = encode_example(ONE, sentencepiece_32k)
    prompt = TEMPLATES["tags"].encode(sentencepiece_32k, "Name a river.")
    assert list(example.token_ids[: len(prompt)]) == prompt
    whole = sentencepiece_32k.encode(TAGS.format(instruction="Name a river.") + "The Elbe.")
    assert list(example.token_ids[:-1]) == whole


def test_an_unknown_mode(sentencepiece_32k: PreTrainedTokenizerBase) -> None:
    with pytest.raises(ValueError, match="mode must be one of instruction, response, task, got"):
        encode_example(ONE, sentencepiece_32k, mode="tasks")


def test_a_tokenizer_without_eos(sentencepiece_32k_folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(sentencepiece_32k_folder)
    tokenizer.eos_token = None
    with pytest.raises(ValueError, match="the tokenizer has no EOS token"):
        encode_example(ONE, tokenizer)


def test_a_padded_batch() -> None:
    short, long = Example((5, 6), (False, True)), Example((7, 8, 9, 2), (False, False, True, True))
    batch = pad_examples([short, long], pad_token_id=0)

    def as_lists(values: Tensor) -> list[list[int]]:
        assert values.dtype == torch.int64
        rows: list[list[int]] = values.tolist()
        return rows

    assert {name: as_lists(values) for name, values in batch.items()} == {
        "input_ids": [[5, 6, 0, 0], [7, 8, 9, 2]],
        "attention_mask": [[1, 1, 0, 0], [1, 1, 1, 1]],
        "labels": [[-100, 6, -100, -100], [-100, -100, 9, 2]],
    }


def test_an_example_token_by_token(sentencepiece_32k: PreTrainedTokenizerBase) -> None:
    example = encode_example(ONE, sentencepiece_32k)
    lines = describe_example(example, sentencepiece_32k).splitlines()
    assert len(lines) == len(example.token_ids)
    assert lines[0].split() == ["523", "'<'"]
    assert lines[-1].split() == ["*", "2", "'</s>'"]


def test_a_second_turn_has_no_bos_of_its_own(llama2_tokenizer: PreTrainedTokenizerBase) -> None:
    example = encode_example(TWO, llama2_tokenizer)
    assert example.token_ids[0] == llama2_tokenizer.bos_token_id
    assert example.token_ids.count(llama2_tokenizer.bos_token_id) == 1
    assert example.token_ids.count(llama2_tokenizer.eos_token_id) == 2
