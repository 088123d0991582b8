"""RuleLogitsProcessor where tokens of the prompt count as used."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from tiny_llama import (
    EOS,
    PROMPTS,
    RULES,
    VOCAB_SIZE,
    WHOLE,
    greedy_response,
    left_padded,
    make_llama,
    responses,
)
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from rnr_kernels import EosRamp, RuleSet, UsedTokenPenalty, hewitt2024
from rnr_kernels.integrations.huggingface import RuleLogitsProcessor


@pytest.fixture(scope="module")
def model() -> Any:
    return make_llama()


def used_tokens(processor: RuleLogitsProcessor, ids: Tensor) -> list[list[int]]:
    adjusted = processor(ids, torch.zeros(len(ids), VOCAB_SIZE))
    return [row.nonzero().flatten().tolist() for row in adjusted]


def test_prompt_scope_counts_prompt_tokens_but_not_padding() -> None:
    batch = left_padded([[40, 41, 42], [50]], pad=EOS)
    ids = torch.cat([batch["input_ids"], torch.tensor([[43], [51]])], dim=1)
    masked = RuleLogitsProcessor(WHOLE, None, 3, attention_mask=batch["attention_mask"])
    bare = RuleLogitsProcessor(WHOLE, None, 3)

    assert used_tokens(masked, ids) == [[40, 41, 42, 43], [50, 51]]
    assert used_tokens(bare, ids) == [[40, 41, 42, 43], [EOS, 50, 51]]


def test_used_from_is_a_position_in_each_prompt_without_padding() -> None:
    batch = left_padded([[40, 41, 42], [50, 51], [60]])
    ids = torch.cat([batch["input_ids"], torch.tensor([[43], [52], [61]])], dim=1)

    def used(used_from: int | list[int]) -> list[list[int]]:
        return used_tokens(
            RuleLogitsProcessor(
                WHOLE, None, 3, attention_mask=batch["attention_mask"], used_from=used_from
            ),
            ids,
        )

    assert used([2, 1, 0]) == [[42, 43], [51, 52], [60, 61]]
    assert used(1) == [[41, 42, 43], [51, 52], [61]]


def test_prompt_scope_and_response_scope_may_share_a_batch() -> None:
    response_only = RuleSet([UsedTokenPenalty(6.0)])
    processor = RuleLogitsProcessor([WHOLE, response_only, None], None, 2)
    ids = torch.tensor([[40, 41, 42], [50, 51, 52], [60, 61, 62]])
    assert used_tokens(processor, ids) == [[40, 41, 42], [52], []]
    assert used_tokens(processor, ids.repeat_interleave(2, 0))[2:4] == [[52], [52]]


def test_response_starts_may_differ_by_row_in_the_prompt_scope() -> None:
    rules = RuleSet([*WHOLE, EosRamp(4.0, over=1)])
    starts = torch.tensor([3, 1])
    processor = RuleLogitsProcessor(rules, None, starts, eos_token_ids=[EOS], used_from=[2, 0])
    ids = torch.tensor([[40, 41, 42, 43], [50, 51, 52, 53]])

    adjusted = processor(ids, torch.zeros(2, VOCAB_SIZE))

    assert adjusted[:, EOS].tolist() == [4.0, 12.0]
    assert used_tokens(processor, ids) == [[EOS, 42, 43], [EOS, 50, 51, 52, 53]]


TAGS = "<|user|>\n{}\n<|assistant|>\n"


@pytest.fixture
def chats(tiny_bpe: PreTrainedTokenizerBase) -> list[list[int]]:
    return [tiny_bpe.encode(TAGS.format(text)) for text in ("We should go", "say", "What?")]


def test_locator_is_found_in_each_prompt(
    tiny_bpe: PreTrainedTokenizerBase, chats: list[list[int]]
) -> None:
    batch = left_padded(chats)
    width = batch["input_ids"].shape[1]
    processor = RuleLogitsProcessor(
        RuleSet([UsedTokenPenalty(6.0, scope="prompt+response", after="<|user|>\n")]),
        tiny_bpe,
        width,
        attention_mask=batch["attention_mask"],
    )

    # "<|user|>\n" is nine one-byte tokens; the tag after it repeats eight of them.
    expected = [sorted(set(chat[9:])) for chat in chats]
    assert used_tokens(processor, batch["input_ids"]) == expected
    assert expected[1] != sorted(set(chats[1]))


def test_locator_runs_once_a_prompt_and_again_for_other_prompts(
    tiny_bpe: PreTrainedTokenizerBase, chats: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from rnr_kernels.rules.vocabulary import Vocabulary

    found: list[int] = []
    used_from = Vocabulary.used_from

    def counted(self: Vocabulary, prompt: Sequence[int], after: str) -> int:
        found.append(used_from(self, prompt, after))
        return found[-1]

    monkeypatch.setattr(Vocabulary, "used_from", counted)
    rules = RuleSet([UsedTokenPenalty(6.0, scope="prompt+response", after="\n<")])
    chat, other = chats[0], [*tiny_bpe.encode("\n<"), *chats[0][2:]]
    processor = RuleLogitsProcessor(rules, tiny_bpe, len(chat))

    first = used_tokens(processor, torch.tensor([chat]))
    assert used_tokens(processor, torch.tensor([[*chat, 5]])) == [sorted({5, *first[0]})]
    assert len(found) == 1
    longer = used_tokens(processor, torch.tensor([chat, other]))
    assert longer == [first[0], first[0]]
    assert used_tokens(processor, torch.tensor([chat])) == first
    assert len(found) == 4


def test_for_generate_reads_prompts_and_padding_from_the_inputs(
    model: Any, tiny_bpe: PreTrainedTokenizerBase, chats: list[list[int]]
) -> None:
    rules = hewitt2024("released").without("uniform")
    batch = left_padded(chats, pad=EOS)
    processor = RuleLogitsProcessor.for_generate(rules, tiny_bpe, model, batch)

    sequences = model.generate(
        **batch, max_new_tokens=12, do_sample=False, logits_processor=[processor]
    )

    expected = [greedy_response(model, rules, chat, 12, used_from=9) for chat in chats]
    assert responses(sequences, batch["input_ids"].shape[1]) == expected


def test_for_generate_with_embeddings_alone(model: Any, tiny_bpe: PreTrainedTokenizerBase) -> None:
    ids = torch.tensor([PROMPTS[0]])
    inputs = {
        "inputs_embeds": model.get_input_embeddings()(ids).detach(),
        "attention_mask": torch.ones_like(ids),
    }
    processor = RuleLogitsProcessor.for_generate(RULES, tiny_bpe, model, inputs)

    sequences = model.generate(
        **inputs, max_new_tokens=10, do_sample=False, logits_processor=[processor]
    )

    assert responses(sequences, 0) == [greedy_response(model, RULES, PROMPTS[0], 10)]


def test_beams_with_a_locator(
    model: Any, tiny_bpe: PreTrainedTokenizerBase, chats: list[list[int]]
) -> None:
    rules = RuleSet([UsedTokenPenalty(6.0, scope="prompt+response", after="<|user|>\n")])
    batch = left_padded(chats)
    width = batch["input_ids"].shape[1]
    options: dict[str, Any] = {**batch, "max_new_tokens": 6, "num_beams": 2, "do_sample": False}
    located = RuleLogitsProcessor(rules, tiny_bpe, width, attention_mask=batch["attention_mask"])
    given = RuleLogitsProcessor(
        WHOLE, tiny_bpe, width, attention_mask=batch["attention_mask"], used_from=9
    )
    from_inputs = RuleLogitsProcessor.for_generate(rules, tiny_bpe, model, batch)

    sequences = [
        model.generate(**options, logits_processor=[processor]).tolist()
        for processor in (located, given, from_inputs)
    ]

    assert sequences[0] == sequences[1] == sequences[2]
