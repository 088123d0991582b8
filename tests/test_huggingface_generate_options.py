"""The decode loop beside other options of `generate`: processors, criteria, streamers, caches."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tiny_llama import (
    BATCH,
    BOS,
    ENDLESS,
    EOS,
    PAD,
    PROMPTS,
    RULES,
    WIDTH,
    greedy_response,
    left_padded,
    make_llama,
    responses,
)
from torch import Tensor
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    PreTrainedTokenizerBase,
    StoppingCriteria,
    WatermarkingConfig,
)

from rnr_kernels import BanTokens, OnlyTokens, RuleSet, TokenBias, UsedTokenPenalty
from rnr_kernels.integrations import huggingface
from rnr_kernels.integrations.huggingface import RuleLogitsProcessor


@pytest.fixture(scope="module")
def model() -> Any:
    return make_llama()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_processors_of_user_and_config_come_before_the_rules(
    tiny_bpe: PreTrainedTokenizerBase, dtype: torch.dtype
) -> None:
    model = make_llama().to(dtype)

    class PlusTwo(LogitsProcessor):
        def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
            assert scores.dtype == torch.float32
            scores[:, 100] += 2.0
            return scores

    options: dict[str, Any] = {
        **BATCH,
        "max_new_tokens": 12,
        "do_sample": False,
        "repetition_penalty": 1.5,
        "min_new_tokens": 8,
        "return_dict_in_generate": True,
        "output_logits": True,
        "output_scores": True,
    }
    processor = RuleLogitsProcessor.for_generate(RULES, tiny_bpe, model, BATCH)
    expected = model.generate(**options, logits_processor=[PlusTwo(), processor])
    output = model.generate(
        **options,
        logits_processor=[PlusTwo()],
        custom_generate=huggingface.generate(RULES, tiny_bpe),
    )

    assert torch.equal(output.sequences, expected.sequences)
    assert len(output.scores) == len(expected.scores)
    # A finished row is not looked at any more, so its scores stay bare.
    for row, response in enumerate(responses(output.sequences, WIDTH)):
        for step in range(len(response)):
            assert torch.equal(output.scores[step][row], expected.scores[step][row])
    assert output.logits[0].dtype == torch.float32
    assert torch.equal(output.logits[0], expected.logits[0])


def test_outputs_are_left_out_unless_asked_for(
    model: Any, tiny_bpe: PreTrainedTokenizerBase
) -> None:
    loop = huggingface.generate(RULES, tiny_bpe)
    options: dict[str, Any] = {**BATCH, "max_new_tokens": 2, "custom_generate": loop}
    output = model.generate(**options, return_dict_in_generate=True)
    assert output.scores is None and output.logits is None
    assert torch.equal(output.sequences, model.generate(**options, output_scores=True))


@pytest.mark.parametrize("stop_strings", [["ld go"], ("ld go", "sea"), "ld go"])
def test_stop_strings_end_a_response(
    model: Any, tiny_bpe: PreTrainedTokenizerBase, stop_strings: Any
) -> None:
    [go], [should] = tiny_bpe.encode(" go"), tiny_bpe.encode(" should")
    rules = RuleSet([OnlyTokens([should], steps=(0, 3)), OnlyTokens([go], steps=(3, None))])
    loop = huggingface.generate(rules, tiny_bpe, stop_strings=stop_strings)
    sequences = model.generate(**BATCH, max_new_tokens=20, do_sample=False, custom_generate=loop)
    assert sequences[:, WIDTH:].tolist() == [[should, should, should, go]] * 2


@pytest.mark.parametrize("stop_strings", ["", ["sea", ""]])
def test_an_empty_stop_string_is_an_error(
    tiny_bpe: PreTrainedTokenizerBase, stop_strings: Any
) -> None:
    with pytest.raises(ValueError, match="a stop string must not be empty"):
        huggingface.generate(RULES, tiny_bpe, stop_strings=stop_strings)


def test_a_number_in_place_of_a_sampling_is_an_error(tiny_bpe: PreTrainedTokenizerBase) -> None:
    number: Any = 0.7
    with pytest.raises(TypeError, match="sampling must be a Sampling, got float; pass Sampling"):
        huggingface.generate(RULES, tiny_bpe, sampling=number)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))])
def test_a_processor_in_use_can_be_copied(
    model: Any, tiny_bpe: PreTrainedTokenizerBase, copied: Callable[[Any], Any]
) -> None:
    processor = RuleLogitsProcessor.for_generate(RULES, tiny_bpe, model, BATCH)
    logits = torch.zeros(2, model.config.vocab_size)
    expected = processor(BATCH["input_ids"], logits)
    assert expected.count_nonzero() > 0
    assert torch.equal(copied(processor)(BATCH["input_ids"], logits), expected)


def test_stopping_criteria_of_the_user_are_asked(
    model: Any, tiny_bpe: PreTrainedTokenizerBase
) -> None:
    class StopsSecondRow(StoppingCriteria):
        def __call__(self, input_ids: Tensor, scores: Any, **options: Any) -> Tensor:
            assert len(scores) == input_ids.shape[1] - WIDTH
            return torch.tensor([input_ids.shape[1] == WIDTH + 5, True])

    sequences = model.generate(
        **BATCH,
        max_new_tokens=9,
        do_sample=False,
        stopping_criteria=[StopsSecondRow()],
        return_dict_in_generate=True,
        output_scores=True,
        custom_generate=huggingface.generate(ENDLESS, tiny_bpe),
    ).sequences
    first, second = sequences[:, WIDTH:].tolist()
    assert first == greedy_response(model, ENDLESS, PROMPTS[0], 5)
    assert second == [*greedy_response(model, ENDLESS, PROMPTS[1], 1), PAD, PAD, PAD, PAD]


def test_a_model_without_eos_runs_to_the_length(tiny_bpe: PreTrainedTokenizerBase) -> None:
    model = make_llama()
    model.generation_config.eos_token_id = None
    rules = RuleSet([OnlyTokens([EOS])])
    sequences = model.generate(
        **BATCH,
        max_new_tokens=3,
        do_sample=False,
        custom_generate=huggingface.generate(rules, tiny_bpe),
    )
    assert sequences[:, WIDTH:].tolist() == [[EOS] * 3] * 2


class Streamed:
    """A streamer that keeps what it was given."""

    def __init__(self) -> None:
        self.pieces: list[list[Any]] = []
        self.ended = 0

    def put(self, tokens: Tensor) -> None:
        assert not self.ended
        self.pieces.append(tokens.tolist())

    def end(self) -> None:
        self.ended += 1


def test_streamer_gets_the_prompt_then_each_token_then_the_end(
    model: Any, tiny_bpe: PreTrainedTokenizerBase
) -> None:
    streamer: Any = Streamed()
    ids = torch.tensor([PROMPTS[0]])
    sequences = model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=6,
        do_sample=False,
        custom_generate=huggingface.generate(RULES, tiny_bpe, streamer=streamer),
    )
    assert streamer.pieces[0] == [PROMPTS[0]]
    assert streamer.pieces[1:] == [[token] for token in sequences[0, WIDTH:].tolist()]
    assert streamer.ended == 1


@pytest.mark.parametrize("whole_prompt", [True, False])
@pytest.mark.parametrize("padded", [True, False])
def test_a_cache_is_continued(
    model: Any,
    tiny_bpe: PreTrainedTokenizerBase,
    whole_prompt: bool,
    padded: bool,
) -> None:
    # Whether 60 and 61 count as used decides what is chosen.
    used = UsedTokenPenalty(20.0, scope="prompt+response")
    rules = ENDLESS.without("used") + RuleSet([used, TokenBias({60: 40.0, 61: 40.0, 100: 35.0})])
    loop = huggingface.generate(rules, tiny_bpe)
    prompts = PROMPTS if padded else [PROMPTS[0], [BOS, 50, 51, 52, 53, 54]]
    batch = left_padded(prompts)
    first = model.generate(
        **batch,
        max_new_tokens=3,
        do_sample=False,
        return_dict_in_generate=True,
        custom_generate=loop,
    )
    # The cache lacks the last token. New tokens alone go by a mask that covers the cache too.
    follow_up = torch.tensor([[60, 61, 62, 63]] * 2)
    whole = torch.cat([first.sequences, follow_up], dim=1)
    ids = whole if whole_prompt else whole[:, WIDTH + 2 :]
    mask = torch.cat([batch["attention_mask"], torch.ones(2, 7, dtype=torch.int64)], dim=1)

    sequences = model.generate(
        input_ids=ids,
        attention_mask=mask,
        past_key_values=first.past_key_values,
        max_new_tokens=6,
        do_sample=False,
        custom_generate=loop,
    )

    bare = [row[WIDTH - len(prompt) :] for row, prompt in zip(whole.tolist(), prompts, strict=True)]
    expected = [
        # Tokens that only the cache knows are no used tokens.
        greedy_response(model, rules, row, 6, used_from=0 if whole_prompt else len(row) - 5)
        for row in bare
    ]
    assert responses(sequences, ids.shape[1]) == expected


# ---- errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_beams": 2}, "beam search"),
        ({"num_beams": 2, "do_sample": True}, "beam sample"),
        ({"prompt_lookup_num_tokens": 3}, "assisted generation"),
        ({"penalty_alpha": 0.6, "top_k": 4}, "contrastive search"),
        ({"return_dict_in_generate": True, "output_attentions": True}, "output_attentions"),
        ({"return_dict_in_generate": True, "output_hidden_states": True}, "output_hidden_states"),
        ({"watermarking_config": WatermarkingConfig()}, "watermarking_config"),
        ({"do_sample": True, "typical_p": 0.5}, "typical_p"),
        ({"do_sample": True, "eta_cutoff": 0.1}, "eta_cutoff"),
    ],
)
def test_what_the_loop_does_not_do_is_an_error(
    tiny_bpe: PreTrainedTokenizerBase, options: dict[str, Any], message: str
) -> None:
    model = make_llama()
    model.set_attn_implementation("eager")
    with pytest.raises(ValueError, match=f"does not do .*{message}"):
        model.generate(
            **BATCH,
            max_new_tokens=2,
            custom_generate=huggingface.generate(RULES, tiny_bpe),
            **options,
        )


def test_nan_logits_are_an_error_that_names_the_row(tiny_bpe: PreTrainedTokenizerBase) -> None:
    model = make_llama()
    with torch.no_grad():
        model.get_input_embeddings().weight[91] = torch.nan
    with pytest.raises(ValueError, match="row 1 has no token to choose"):
        model.generate(
            **BATCH, max_new_tokens=2, custom_generate=huggingface.generate(RULES, tiny_bpe)
        )


def test_processors_and_rules_that_ban_everything_are_an_error(
    model: Any, tiny_bpe: PreTrainedTokenizerBase
) -> None:
    loop = huggingface.generate(RuleSet([OnlyTokens([7], steps=(1, None))]), tiny_bpe)
    with pytest.raises(ValueError, match="row 0 has no token to choose"):
        model.generate(**BATCH, max_new_tokens=4, suppress_tokens=[7], custom_generate=loop)


def test_rules_that_do_not_fit_the_batch_are_errors(
    model: Any, tiny_bpe: PreTrainedTokenizerBase
) -> None:
    def decode(*arguments: Any, **options: Any) -> None:
        loop = huggingface.generate(*arguments, **options)
        model.generate(**BATCH, max_new_tokens=2, custom_generate=loop)

    with pytest.raises(ValueError, match="multiple of 3 rows"):
        decode([RULES] * 3, tiny_bpe)
    with pytest.raises(ValueError, match="0 to 6"):
        decode(RULES, tiny_bpe, used_from=7)
    with pytest.raises(ValueError, match="no single token prints"):
        decode(RuleSet([BanTokens(["no such token"])]), tiny_bpe)


def test_a_config_as_a_whole_is_read(model: Any, tiny_bpe: PreTrainedTokenizerBase) -> None:
    config = GenerationConfig(
        max_new_tokens=7, do_sample=True, top_k=1, eos_token_id=EOS, pad_token_id=PAD
    )
    sequences = model.generate(
        **BATCH,
        generation_config=config,
        custom_generate=huggingface.generate(ENDLESS, tiny_bpe),
    )
    # The largest of one token is the greedy choice.
    expected = [greedy_response(model, ENDLESS, prompt, 7) for prompt in PROMPTS]
    assert responses(sequences, WIDTH) == expected
