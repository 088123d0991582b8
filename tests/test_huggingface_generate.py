"""The decode loop given to `model.generate(custom_generate=...)`: which tokens it chooses."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from tiny_llama import (
    BATCH,
    ENDLESS,
    EOS,
    PAD,
    PROMPTS,
    RULES,
    SHORT,
    VOCAB_SIZE,
    WIDTH,
    greedy_response,
    left_padded,
    make_llama,
    responses,
)
from torch import Tensor
from transformers import (
    LogitsProcessorList,
    PreTrainedTokenizerBase,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
)

from rnr_kernels import (
    BanTokens,
    DecodeState,
    EosRamp,
    RuleSet,
    Sampling,
    compile_rules,
    hewitt2024,
    sample_,
)
from rnr_kernels.integrations import huggingface, huggingface_generate
from rnr_kernels.integrations.huggingface import RuleLogitsProcessor
from rnr_kernels.ops import SampleOutput


@pytest.fixture(scope="module")
def model() -> Any:
    return make_llama()


class SeenLogits:
    """What `sample_` was given at each call."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.logits: list[Tensor] = []
        monkeypatch.setattr(huggingface_generate, "sample_", self)

    def __call__(self, logits: Tensor, *arguments: Any, **options: Any) -> SampleOutput:
        self.logits.append(logits.clone())
        return sample_(logits, *arguments, **options)


@torch.no_grad()
def sampled_response(
    model: Any,
    rules: RuleSet,
    prompt: Sequence[int],
    sampling: Sampling,
    max_new_tokens: int,
) -> list[int]:
    """A response drawn from a state made anew at every step, without a cache."""
    program = compile_rules(rules, None, VOCAB_SIZE, eos_token_ids=[EOS])
    response: list[int] = []
    while len(response) < max_new_tokens and EOS not in response:
        logits = model(torch.tensor([[*prompt, *response]])).logits[:, -1]
        state = DecodeState.from_token_ids(program, [response], sampling=[sampling])
        state.rng_position.fill_(len(response))
        response.append(int(sample_(logits, program, state).token_ids))
    return response


# ---- greedy --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_greedy_gives_the_tokens_of_the_processor(
    tiny_bpe: PreTrainedTokenizerBase, dtype: torch.dtype
) -> None:
    model = make_llama().to(dtype)
    options: dict[str, Any] = {**BATCH, "max_new_tokens": 16, "do_sample": False}
    processor = RuleLogitsProcessor.for_generate(RULES, tiny_bpe, model, BATCH)

    expected = model.generate(**options, logits_processor=[processor])
    sequences = model.generate(**options, custom_generate=huggingface.generate(RULES, tiny_bpe))

    assert torch.equal(sequences, expected)
    assert sequences.shape[1] > WIDTH + 4


def test_rules_may_differ_by_prompt_and_finished_rows_are_padded(
    model: Any, tiny_bpe: PreTrainedTokenizerBase
) -> None:
    sequences = model.generate(
        **BATCH,
        max_new_tokens=14,
        do_sample=False,
        custom_generate=huggingface.generate([RULES, SHORT], tiny_bpe),
    )

    first, second = responses(sequences, WIDTH)
    assert first == greedy_response(model, RULES, PROMPTS[0], 14)
    assert second == greedy_response(model, SHORT, PROMPTS[1], 14)
    assert len(second) + 1 < len(first)
    assert set(sequences[1, WIDTH + len(second) :].tolist()) == {PAD}


def test_prompt_tokens_are_located_behind_the_padding(
    model: Any, tiny_bpe: PreTrainedTokenizerBase
) -> None:
    rules = hewitt2024("released").without("uniform")
    tags = "<|user|>\n{}\n<|assistant|>\n"
    chats = [tiny_bpe.encode(tags.format(text)) for text in ("We should go", "say")]
    batch = left_padded(chats)
    options: dict[str, Any] = {**batch, "max_new_tokens": 12, "do_sample": False}

    located = model.generate(**options, custom_generate=huggingface.generate(rules, tiny_bpe))
    given = model.generate(
        **options, custom_generate=huggingface.generate(rules, tiny_bpe, used_from=[9, 9])
    )

    expected = [greedy_response(model, rules, chat, 12, used_from=9) for chat in chats]
    assert responses(located, batch["input_ids"].shape[1]) == expected
    assert torch.equal(given, located)


def test_every_eos_of_the_generation_config_is_ramped_and_ends_a_row(
    model: Any, tiny_bpe: PreTrainedTokenizerBase
) -> None:
    rules = RuleSet([BanTokens([EOS]), EosRamp(1.0, over=1, force_at=4)])
    sequences = model.generate(
        **BATCH,
        max_new_tokens=20,
        do_sample=False,
        eos_token_id=[EOS, 77],
        custom_generate=huggingface.generate(rules, tiny_bpe),
    )
    expected = [
        greedy_response(model, rules, prompt, 20, eos_token_ids=[EOS, 77]) for prompt in PROMPTS
    ]
    assert responses(sequences, WIDTH, [EOS, 77]) == expected
    assert [response[-1] for response in expected] == [77, 77]
    assert sequences.shape[1] <= WIDTH + 5


def test_explicit_eos_ids_win_over_the_generation_config(
    model: Any, tiny_bpe: PreTrainedTokenizerBase
) -> None:
    rules = RuleSet([EosRamp(0.0, force_at=2)])
    loop = huggingface.generate(rules, tiny_bpe, eos_token_ids=[77])
    sequences = model.generate(**BATCH, max_new_tokens=4, do_sample=False, custom_generate=loop)
    assert sequences[:, WIDTH + 2 :].tolist() == [[77, 77]] * 2


@pytest.mark.parametrize(
    "options", [{"use_cache": False}, {"cache_implementation": "static"}, {"max_length": 18}]
)
def test_caches_and_lengths_change_nothing(
    model: Any, tiny_bpe: PreTrainedTokenizerBase, options: dict[str, Any]
) -> None:
    options = {"max_new_tokens": 12, **options} if "max_length" not in options else options
    sequences = model.generate(
        **BATCH, **options, do_sample=False, custom_generate=huggingface.generate(ENDLESS, tiny_bpe)
    )
    expected = [greedy_response(model, ENDLESS, prompt, 12) for prompt in PROMPTS]
    assert responses(sequences, WIDTH) == expected


def test_inputs_embeds_start_the_response_at_column_zero(
    model: Any, tiny_bpe: PreTrainedTokenizerBase
) -> None:
    embeds = model.get_input_embeddings()(BATCH["input_ids"]).detach()
    sequences = model.generate(
        inputs_embeds=embeds,
        attention_mask=BATCH["attention_mask"],
        max_new_tokens=10,
        do_sample=False,
        custom_generate=huggingface.generate(RULES, tiny_bpe),
    )
    expected = [greedy_response(model, RULES, prompt, 10) for prompt in PROMPTS]
    assert responses(sequences, 0) == expected


# ---- one op a step -------------------------------------------------------------------------------


def test_a_step_is_one_forward_pass_and_one_sample(
    model: Any, tiny_bpe: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = SeenLogits(monkeypatch)
    widths: list[int] = []
    hook = model.model.register_forward_pre_hook(
        lambda module, arguments, options: widths.append(options["input_ids"].shape[1]),
        with_kwargs=True,
    )
    try:
        model.generate(
            **BATCH,
            max_new_tokens=5,
            do_sample=False,
            custom_generate=huggingface.generate(ENDLESS, tiny_bpe),
        )
    finally:
        hook.remove()
    assert len(seen.logits) == 5
    assert widths == [6, 1, 1, 1, 1]


# ---- sampling ------------------------------------------------------------------------------------


def test_row_r_draws_with_seed_plus_r(model: Any, tiny_bpe: PreTrainedTokenizerBase) -> None:
    sampling = Sampling(temperature=1.5, top_k=40, top_p=0.95, min_p=0.01, seed=11)
    loop = huggingface.generate([ENDLESS, RULES], tiny_bpe, sampling=sampling)
    options: dict[str, Any] = {
        **BATCH,
        "max_new_tokens": 8,
        "do_sample": True,
        "custom_generate": loop,
    }

    sequences = model.generate(**options, num_return_sequences=2)

    rules = [ENDLESS, ENDLESS, RULES, RULES]
    expected = [
        sampled_response(model, rules[row], PROMPTS[row // 2], replace(sampling, seed=11 + row), 8)
        for row in range(4)
    ]
    assert responses(sequences, WIDTH) == expected
    assert expected[0] != expected[1]
    assert torch.equal(model.generate(**options, num_return_sequences=2), sequences)


def test_without_a_seed_torchs_generator_decides(
    model: Any, tiny_bpe: PreTrainedTokenizerBase
) -> None:
    def draw(seed: int) -> list[list[int]]:
        torch.manual_seed(seed)
        loop = huggingface.generate(ENDLESS, tiny_bpe, sampling=Sampling(temperature=3.0))
        sequences: Tensor = model.generate(
            **BATCH, max_new_tokens=6, do_sample=True, num_return_sequences=2, custom_generate=loop
        )
        return sequences.tolist()

    first = draw(1)
    assert draw(1) == first
    assert draw(2) != first
    assert first[0] != first[1]


def test_sampling_of_none_follows_the_generation_config(
    model: Any, tiny_bpe: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    admitted: list[Sampling] = []
    admit = DecodeState.admit

    def noted(self: DecodeState, *arguments: Any, sampling: Sampling, **options: Any) -> None:
        admitted.append(sampling)
        admit(self, *arguments, sampling=sampling, **options)

    monkeypatch.setattr(DecodeState, "admit", noted)
    options: dict[str, Any] = {"max_new_tokens": 1, "custom_generate": None}
    options["custom_generate"] = huggingface.generate(RULES, tiny_bpe)
    ids = {"input_ids": torch.tensor([PROMPTS[0]])}
    model.generate(**ids, **options)
    model.generate(**ids, **options, do_sample=True)
    model.generate(
        **ids, **options, do_sample=True, temperature=0.7, top_k=0, top_p=0.9, min_p=0.05
    )
    assert admitted == [
        Sampling(temperature=0.0),
        Sampling(temperature=1.0, top_k=50),
        Sampling(temperature=0.7, top_k=0, top_p=0.9, min_p=0.05),
    ]


@pytest.mark.parametrize("sampling", [None, Sampling(temperature=0.5, seed=3)])
def test_warpers_of_the_generation_config_are_not_applied_twice(
    model: Any,
    tiny_bpe: PreTrainedTokenizerBase,
    monkeypatch: pytest.MonkeyPatch,
    sampling: Sampling | None,
) -> None:
    seen = SeenLogits(monkeypatch)
    output = model.generate(
        **BATCH,
        max_new_tokens=2,
        do_sample=True,
        temperature=0.5,
        top_k=5,
        top_p=0.7,
        min_p=0.1,
        return_dict_in_generate=True,
        output_logits=True,
        custom_generate=huggingface.generate(ENDLESS, tiny_bpe, sampling=sampling),
    )
    assert torch.equal(seen.logits[0], output.logits[0])
    assert torch.equal(seen.logits[1], output.logits[1])


@pytest.mark.parametrize("temperature", [None, 0.5, 1.0, 2.0])
def test_warpers_of_the_user_are_kept(
    model: Any,
    tiny_bpe: PreTrainedTokenizerBase,
    monkeypatch: pytest.MonkeyPatch,
    temperature: float | None,
) -> None:
    seen = SeenLogits(monkeypatch)
    output = model.generate(
        **BATCH,
        max_new_tokens=1,
        do_sample=temperature is not None,
        temperature=temperature,
        logits_processor=LogitsProcessorList([TemperatureLogitsWarper(2.0), TopKLogitsWarper(9)]),
        return_dict_in_generate=True,
        output_logits=True,
        custom_generate=huggingface.generate(RULES, tiny_bpe),
    )
    halved = output.logits[0] / 2
    kept = seen.logits[0].isfinite()
    assert kept.sum(1).tolist() == [9, 9]
    assert torch.equal(seen.logits[0][kept], halved[kept])
