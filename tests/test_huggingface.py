"""RuleLogitsProcessor as a function of its two arguments, and its options."""

import importlib
import inspect
import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_llama import BATCH, EOS, RULES, SHORT, VOCAB_SIZE, WIDTH, make_llama
from transformers import BatchEncoding, PreTrainedTokenizerBase

import rnr_kernels
from rnr_kernels import (
    BanTokens,
    EosRamp,
    OnlyTokens,
    RuleSet,
    TokenBias,
    UsedTokenPenalty,
    hewitt2024,
)
from rnr_kernels.integrations.huggingface import RuleLogitsProcessor

# ---- literal values ------------------------------------------------------------------------------


def test_adds_the_scores_of_each_row_at_its_own_step() -> None:
    rules = RuleSet(
        [
            TokenBias({2: 1.0}, steps=(0, 2)),
            BanTokens([3], steps=(1, None)),
            UsedTokenPenalty(0.5),
            EosRamp(4.0, over=2),
        ]
    )
    starts = torch.tensor([2, 1])
    processor = RuleLogitsProcessor(rules, None, starts, eos_token_ids=[1])
    ids = torch.tensor([[4, 4, 2], [4, 5, 2]])

    adjusted = processor(ids, torch.zeros(2, 6))

    minus_inf = -math.inf
    assert adjusted.tolist() == [
        [0.0, 2.0, 0.5, minus_inf, 0.0, 0.0],
        [0.0, 4.0, -0.5, minus_inf, 0.0, -0.5],
    ]


def test_first_call_has_no_response_tokens() -> None:
    processor = RuleLogitsProcessor(SHORT, None, 3, eos_token_ids=[1])

    adjusted = processor(torch.tensor([[4, 5, 1]]), torch.ones(1, 8))

    assert adjusted.tolist() == [[1.0] * 8]


def test_signature_is_the_one_that_generate_can_call() -> None:
    assert list(inspect.signature(RuleLogitsProcessor(RULES, None, 0).__call__).parameters) == [
        "input_ids",
        "scores",
    ]


def test_is_exported_by_the_package() -> None:
    assert rnr_kernels.RuleLogitsProcessor is RuleLogitsProcessor


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_keeps_the_dtype_of_the_scores_and_rounds_once(dtype: torch.dtype) -> None:
    processor = RuleLogitsProcessor(RuleSet([TokenBias({1: 0.1, 2: -0.3})]), None, 0)
    scores = torch.tensor([[1.0, 7.1, 3.3, 2.0]]).to(dtype)

    adjusted = processor(torch.zeros(1, 0, dtype=torch.int64), scores)

    expected = (scores.float() + torch.tensor([[0.0, 0.1, -0.3, 0.0]])).to(dtype)
    assert adjusted.dtype == dtype
    assert torch.equal(adjusted, expected)


def test_inplace_writes_into_strided_rows_and_nowhere_else() -> None:
    processor = RuleLogitsProcessor(RuleSet([TokenBias({1: 2.0})]), None, 0, inplace=True)
    candidates = torch.zeros(2, 3, 4)
    scores = candidates[:, 1]

    assert processor(torch.zeros(2, 0, dtype=torch.int64), scores) is scores
    assert candidates[:, 1].tolist() == [[0.0, 2.0, 0.0, 0.0]] * 2
    assert candidates[:, [0, 2]].abs().sum() == 0


def test_strided_rows_are_copied_right() -> None:
    processor = RuleLogitsProcessor(RuleSet([TokenBias({1: 2.0})]), None, 0)
    scores = torch.arange(24.0).view(2, 3, 4)[:, 1]

    adjusted = processor(torch.zeros(2, 0, dtype=torch.int64), scores)

    assert adjusted.tolist() == [[4.0, 7.0, 6.0, 7.0], [16.0, 19.0, 18.0, 19.0]]


def test_two_processors_in_one_list_add_up() -> None:
    ids = torch.zeros(1, 0, dtype=torch.int64)
    first = RuleLogitsProcessor(RuleSet([TokenBias({1: 2.0})]), None, 0)
    second = RuleLogitsProcessor(RuleSet([TokenBias({1: 2.0})]), None, 0)

    assert first != second
    assert second(ids, first(ids, torch.zeros(1, 3))).tolist() == [[0.0, 4.0, 0.0]]


# ---- vocabulary and EOS --------------------------------------------------------------------------


def test_padded_columns_are_ruled_unless_vocab_size_leaves_them_out(
    tiny_bpe: PreTrainedTokenizerBase,
) -> None:
    ids = torch.zeros(1, 0, dtype=torch.int64)
    rules = RuleSet([OnlyTokens(["!", "We"])])
    scores = torch.zeros(1, VOCAB_SIZE)

    everywhere = RuleLogitsProcessor(rules, tiny_bpe, 0)(ids, scores)
    inside = RuleLogitsProcessor(rules, tiny_bpe, 0, vocab_size=len(tiny_bpe))(ids, scores)

    allowed = [tiny_bpe.convert_tokens_to_ids(token) for token in ("!", "We")]
    assert everywhere.isfinite().nonzero()[:, 1].tolist() == allowed
    padded = list(range(len(tiny_bpe), VOCAB_SIZE))
    assert inside.isfinite().nonzero()[:, 1].tolist() == allowed + padded


def test_eos_defaults_to_the_tokenizers(tiny_bpe: PreTrainedTokenizerBase) -> None:
    processor = RuleLogitsProcessor(RuleSet([EosRamp(8.0, over=2)]), tiny_bpe, 0)
    adjusted = processor(torch.tensor([[5]]), torch.zeros(1, VOCAB_SIZE))
    assert adjusted.nonzero().tolist() == [[0, EOS]]
    assert adjusted[0, EOS] == 4.0


@pytest.mark.parametrize("configured", [77, [EOS, 77, 78]])
def test_for_generate_takes_every_eos_of_the_generation_config(
    tiny_bpe: PreTrainedTokenizerBase, configured: int | list[int]
) -> None:
    model = make_llama()
    model.generation_config.eos_token_id = configured
    rules = RuleSet([EosRamp(8.0, over=2)])

    processor = RuleLogitsProcessor.for_generate(rules, tiny_bpe, model, BatchEncoding(BATCH))
    adjusted = processor(torch.full((2, WIDTH + 1), 5), torch.zeros(2, VOCAB_SIZE))

    expected = [configured] if isinstance(configured, int) else configured
    assert adjusted[1].nonzero().flatten().tolist() == expected


# ---- what rules may be ---------------------------------------------------------------------------


def test_rules_may_be_a_preset_or_a_file(tiny_bpe: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    path = tmp_path / "rules.toml"
    path.write_text('[[rules]]\nkind = "token_bias"\nweights = { "!" = 2.5 }\n')
    ids, scores = torch.tensor([[5]]), torch.zeros(1, VOCAB_SIZE)
    bang = tiny_bpe.convert_tokens_to_ids("!")

    from_file = RuleLogitsProcessor(path, tiny_bpe, 0)(ids, scores)
    assert from_file.nonzero().tolist() == [[0, bang]]
    assert from_file[0, bang] == 2.5

    with pytest.warns(UserWarning, match="no single token"):
        from_preset = RuleLogitsProcessor(["hewitt2024"], tiny_bpe, 0)(ids, scores)
    assert from_preset[0, bang] == 1.0
    assert from_preset[0, 5] == -1.5


# ---- errors --------------------------------------------------------------------------------------


def test_continuous_batching_is_refused() -> None:
    processor = RuleLogitsProcessor(RULES, None, 0, eos_token_ids=[EOS])
    assert processor.supports_continuous_batching is False
    with pytest.raises(ValueError, match="continuous batching"):
        processor(torch.tensor([1, 2, 3]), torch.zeros(3, VOCAB_SIZE))


@pytest.mark.parametrize(
    ("shape", "scores", "message"),
    [
        ((2, 4), (2, VOCAB_SIZE), "prompt of 6 tokens, got 4"),
        ((3, 7), (3, VOCAB_SIZE), "multiple of 2 rows"),
        ((2, 7), (4, VOCAB_SIZE), "B = 2, got"),
        ((2, 7), (2, 3), r"\[0, 3\)"),
    ],
)
def test_calls_that_do_not_fit_are_errors_and_change_nothing(
    shape: tuple[int, int], scores: tuple[int, int], message: str
) -> None:
    processor = RuleLogitsProcessor([RULES, None], None, 6, eos_token_ids=[EOS], inplace=True)
    values = torch.zeros(scores)
    with pytest.raises(ValueError, match=message):
        processor(torch.full(shape, 5), values)
    assert values.abs().sum() == 0


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"rules": 3}, TypeError, "rules must be"),
        ({"rules": []}, ValueError, "empty list"),
        ({"rules": [TokenBias({1: 1.0})]}, TypeError, "got TokenBias"),
        ({"rules": "hewitt"}, ValueError, "preset"),
        ({"prompt_length": -1}, ValueError, "0 or more"),
        ({"prompt_length": 2.0}, TypeError, "got float"),
        ({"prompt_length": torch.ones(2)}, TypeError, "float32"),
        ({"prompt_length": torch.tensor([3, 3, 3]), "rules": [RULES] * 2}, ValueError, "rules 2"),
        ({"attention_mask": torch.ones(2, 4)}, ValueError, r"\[P, 3\]"),
        ({"attention_mask": torch.ones(2, 3), "used_from": [0] * 3}, ValueError, "used_from 3"),
        ({"used_from": 4}, ValueError, "0 to 3"),
        ({"rules": "hewitt2024:released"}, ValueError, "needs a tokenizer"),
    ],
)
def test_arguments_that_do_not_fit_are_errors(
    arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    options: dict[str, Any] = {"rules": RULES, "tokenizer": None, "prompt_length": 3, **arguments}
    with pytest.raises(error, match=message):
        RuleLogitsProcessor(**options)


def test_a_prompt_without_the_locators_text_is_an_error(
    tiny_bpe: PreTrainedTokenizerBase,
) -> None:
    processor = RuleLogitsProcessor(hewitt2024("released").without("uniform"), tiny_bpe, 2)
    with pytest.raises(ValueError, match="does not contain"):
        processor(torch.tensor([[5, 6]]), torch.zeros(1, VOCAB_SIZE))


def test_for_generate_finds_mistakes_before_decoding(tiny_bpe: PreTrainedTokenizerBase) -> None:
    model = make_llama()
    with pytest.raises(ValueError, match="no single token prints"):
        RuleLogitsProcessor.for_generate(
            RuleSet([BanTokens(["no such token"])]), tiny_bpe, model, BATCH
        )
    inputs: Any = BATCH["input_ids"]
    with pytest.raises(ValueError, match="must be a mapping"):
        RuleLogitsProcessor.for_generate(RULES, tiny_bpe, model, inputs)


def test_for_generate_refuses_encoder_decoder_models(tiny_bpe: PreTrainedTokenizerBase) -> None:
    model = make_llama()
    model.config.is_encoder_decoder = True
    with pytest.raises(ValueError, match="decoder-only"):
        RuleLogitsProcessor.for_generate(RULES, tiny_bpe, model, BATCH)


def test_without_transformers_the_import_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name = "rnr_kernels.integrations.huggingface"
    monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ImportError, match=r"pip install 'rnr-kernels\[transformers\]'"):
        importlib.import_module(name)
