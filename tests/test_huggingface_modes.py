"""RuleLogitsProcessor in every mode of `generate`, against an oracle of one row at a time."""

import random
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from tiny_llama import (
    BATCH,
    BOS,
    EOS,
    PROMPTS,
    RULES,
    SHORT,
    VOCAB_SIZE,
    WIDTH,
    adjusted_row,
    greedy_response,
    left_padded,
    make_llama,
    responses,
)
from torch import Tensor
from transformers import LogitsProcessor

from rnr_kernels import BanTokens, OnlyTokens, RuleSet, TokenBias, UsedTokenPenalty
from rnr_kernels.integrations.huggingface import RuleLogitsProcessor


@pytest.fixture(scope="module")
def model() -> Any:
    return make_llama()


class Watched(LogitsProcessor):
    """Runs a processor, holds each call against the oracle, and notes what came."""

    def __init__(
        self,
        processor: RuleLogitsProcessor,
        rules: Sequence[RuleSet | None],
        prompts: Sequence[Sequence[int]],
        prompt_length: int,
    ) -> None:
        self.processor = processor
        self.rules = rules
        self.prompts = prompts
        self.prompt_length = prompt_length
        self.calls: list[tuple[Tensor, Tensor, Tensor]] = []
        self.strides: list[int] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        self.strides.append(scores.stride(0))
        ids, before = input_ids.clone(), scores.clone()
        adjusted = self.processor(input_ids, scores)
        assert torch.equal(input_ids, ids)
        assert torch.equal(scores, before), "scores were changed in place"
        rows = len(ids) // len(self.prompts)
        for row, tokens in enumerate(ids.tolist()):
            prompt = row // rows
            expected = adjusted_row(
                self.rules[prompt % len(self.rules)],
                before[row],
                self.prompts[prompt],
                tokens[self.prompt_length :],
            )
            assert torch.equal(adjusted[row], expected), f"row {row} after {tokens}"
        self.calls.append((ids, before, adjusted.clone()))
        return adjusted

    @property
    def lengths(self) -> list[int]:
        return [ids.shape[1] for ids, _, _ in self.calls]


def watched(
    rules: RuleSet | list[RuleSet | None] = RULES,
    prompts: Sequence[Sequence[int]] = PROMPTS,
    prompt_length: int = WIDTH,
    **options: Any,
) -> Watched:
    processor = RuleLogitsProcessor(rules, None, prompt_length, eos_token_ids=[EOS], **options)
    listed = rules if isinstance(rules, list) else [rules]
    return Watched(processor, listed, prompts, prompt_length)


# ---- modes of generate ---------------------------------------------------------------------------


def test_greedy_batch_with_left_padding_equals_a_loop_over_bare_prompts(
    model: Any,
) -> None:
    watch = watched()

    sequences = model.generate(
        **BATCH, max_new_tokens=14, do_sample=False, logits_processor=[watch]
    )

    expected = [greedy_response(model, RULES, prompt, 14) for prompt in PROMPTS]
    assert responses(sequences, WIDTH) == expected
    assert expected != [greedy_response(model, None, prompt, 14) for prompt in PROMPTS]


def test_padding_after_a_finished_row_changes_nothing(model: Any) -> None:
    rules: list[RuleSet | None] = [RULES, SHORT]
    # Padding is EOS, as where a tokenizer has no pad token.
    batch = left_padded(PROMPTS, pad=EOS)
    watch = watched(rules)

    sequences = model.generate(
        **batch, max_new_tokens=14, do_sample=False, pad_token_id=EOS, logits_processor=[watch]
    )

    first, second = responses(sequences, WIDTH)
    assert len(second) + 1 < len(first)
    assert first == greedy_response(model, RULES, PROMPTS[0], 14)
    assert second == greedy_response(model, SHORT, PROMPTS[1], 14)


def test_several_sequences_a_prompt_keep_their_prompts_rules(model: Any) -> None:
    watch = watched([RULES, None])
    torch.manual_seed(3)

    sequences = model.generate(
        **BATCH,
        max_new_tokens=10,
        do_sample=True,
        num_return_sequences=3,
        logits_processor=[watch],
    )

    assert sequences.shape[0] == 6
    assert len({tuple(row) for row in sequences.tolist()}) > 2
    _, before, after = watch.calls[2]
    assert torch.equal(after[3:], before[3:])
    assert not torch.equal(after[:3], before[:3])


def test_beams_are_right_although_rows_are_permuted(model: Any) -> None:
    watch = watched([RULES, SHORT])

    sequences = model.generate(
        **BATCH, max_new_tokens=12, num_beams=3, do_sample=False, logits_processor=[watch]
    )

    moved = [
        not torch.equal(later[:, : earlier.shape[1]], earlier)
        for (earlier, _, _), (later, _, _) in zip(watch.calls, watch.calls[1:], strict=False)
    ]
    assert any(moved), "no beam moved, so this run shows nothing"
    assert len(sequences) == 2
    assert torch.allclose(watch.calls[1][1].logsumexp(1), torch.zeros(6), atol=1e-4)


def test_assisted_decoding_gives_the_tokens_of_greedy_decoding(model: Any) -> None:
    prompt = [PROMPTS[0]]
    # A perturbed copy: it agrees with the model sometimes, so drafts are cut at different lengths.
    assistant = make_llama()
    with torch.no_grad():
        torch.manual_seed(0)
        for weight in assistant.parameters():
            weight += 0.03 * torch.randn_like(weight)
    assistant.generation_config.num_assistant_tokens = 4
    assistant.generation_config.assistant_confidence_threshold = 0.0
    rules = RULES + RuleSet([BanTokens([EOS])])
    watch = watched(rules, prompt)

    sequences = model.generate(
        **left_padded(prompt),
        max_new_tokens=24,
        do_sample=False,
        assistant_model=assistant,
        logits_processor=[watch],
    )

    assert responses(sequences, WIDTH) == [greedy_response(model, rules, PROMPTS[0], 24)]
    steps = [b - a for a, b in zip(watch.lengths, watch.lengths[1:], strict=False)]
    assert min(steps) < -1, "no draft was rejected, so this run shows nothing"
    assert max(watch.strides) > VOCAB_SIZE, "no strided scores, so this run shows nothing"


def test_prompt_lookup_gives_the_tokens_of_greedy_decoding(model: Any) -> None:
    prompt = [[BOS, *([40, 41, 42, 43] * 4)]]
    rules = RuleSet(
        [
            TokenBias({40: 25.0, 41: 26.0, 42: 24.0, 43: 25.0}),
            BanTokens([42], steps=(3, 5)),
            UsedTokenPenalty(8.0),
        ]
    )
    watch = watched(rules, prompt, 17)

    sequences = model.generate(
        **left_padded(prompt),
        max_new_tokens=16,
        do_sample=False,
        prompt_lookup_num_tokens=4,
        logits_processor=[watch],
    )

    assert responses(sequences, 17) == [greedy_response(model, rules, prompt[0], 16)]
    steps = [b - a for a, b in zip(watch.lengths, watch.lengths[1:], strict=False)]
    assert min(steps) < 0, "nothing was rolled back, so this run shows nothing"


def test_static_cache_changes_nothing(model: Any) -> None:
    watch = watched()

    sequences = model.generate(
        **BATCH,
        max_new_tokens=10,
        do_sample=False,
        cache_implementation="static",
        logits_processor=[watch],
    )

    expected = [greedy_response(model, RULES, prompt, 10) for prompt in PROMPTS]
    assert responses(sequences, WIDTH) == expected


def test_inputs_embeds_start_the_response_at_column_zero(model: Any) -> None:
    ids = torch.tensor([PROMPTS[0]])
    inputs = {
        "inputs_embeds": model.get_input_embeddings()(ids).detach(),
        "attention_mask": torch.ones_like(ids),
    }
    watch = watched(prompts=[[]], prompt_length=0)

    sequences = model.generate(
        **inputs, max_new_tokens=10, do_sample=False, logits_processor=[watch]
    )

    assert watch.calls[0][0].shape == (1, 0)
    assert responses(sequences, 0) == [greedy_response(model, RULES, PROMPTS[0], 10)]


def test_output_logits_are_the_models_own(model: Any) -> None:
    options: dict[str, Any] = {
        **BATCH,
        "max_new_tokens": 3,
        "do_sample": False,
        "return_dict_in_generate": True,
        "output_logits": True,
        "output_scores": True,
    }
    rules = RuleSet([TokenBias({70: 100.0})])

    bare = model.generate(**options)
    ruled = model.generate(**options, logits_processor=[RuleLogitsProcessor(rules, None, WIDTH)])
    in_place = model.generate(
        **options, logits_processor=[RuleLogitsProcessor(rules, None, WIDTH, inplace=True)]
    )

    assert torch.equal(ruled.logits[0], bare.logits[0])
    assert torch.equal(ruled.scores[0][:, 70], bare.logits[0][:, 70] + 100.0)
    assert torch.equal(in_place.scores[0], ruled.scores[0])
    assert torch.equal(in_place.logits[0], in_place.scores[0])


# ---- a pure function -----------------------------------------------------------------------------


def test_one_processor_serves_generate_calls_of_other_sizes(model: Any) -> None:
    processor = RuleLogitsProcessor(RULES, None, WIDTH, eos_token_ids=[EOS])
    prompts = [PROMPTS[0], [BOS, 50, 51, 52, 53, 54], [BOS, 60, 61, 62, 63, 64]]

    def decode(chosen: list[list[int]], **options: Any) -> list[list[int]]:
        sequences = model.generate(
            **left_padded(chosen),
            max_new_tokens=9,
            do_sample=False,
            logits_processor=[processor],
            **options,
        )
        return responses(sequences, WIDTH)

    expected = [greedy_response(model, RULES, prompt, 9) for prompt in prompts]
    assert decode(prompts) == expected
    assert decode(prompts[1:2]) == expected[1:2]
    decode(prompts[:2], num_beams=2)
    assert decode(prompts[::-1]) == expected[::-1]


def test_calls_in_any_order_give_the_same_bits(model: Any) -> None:
    watch = watched()
    other = watched(RULES, [[BOS, 50, 51, 52, 53, 54]] * 2)
    other.processor = watch.processor
    for each, batch in ((watch, BATCH), (other, left_padded(other.prompts))):
        model.generate(**batch, max_new_tokens=8, do_sample=False, logits_processor=[each])
    calls = watch.calls + other.calls
    random.Random(0).shuffle(calls)

    for ids, before, after in calls:
        assert torch.equal(watch.processor(ids, before), after)


def test_scores_of_two_widths_may_alternate() -> None:
    # An assistant of the same family may have more padded embedding rows.
    processor = RuleLogitsProcessor(RuleSet([OnlyTokens([2, 3])]), None, 0)
    ids = torch.zeros(1, 0, dtype=torch.int64)
    for width in (5, 8, 5, 8):
        finite = processor(ids, torch.zeros(1, width)).isfinite()
        assert finite.nonzero()[:, 1].tolist() == [2, 3]
