"""Token shift: every column against one text at a time, summaries in literal numbers, bad input."""

import math
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
import torch
from bigram import bigram, logits_alone
from tiny_llama import BOS, EOS, RULES, WHOLE, adjusted_row, make_llama
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from rnr_kernels import BanTokens, RuleSet, TokenBias, hewitt2024
from rnr_kernels.analysis.rule_adapter import RuleAdapter
from rnr_kernels.analysis.token_shift import (
    ClassShares,
    Share,
    ShiftedToken,
    TokenShift,
    class_shares,
    shift_batches,
    token_shift,
)
from rnr_kernels.generation import generate
from rnr_kernels.loading import EMBEDDED, load_model, load_tokenizer
from rnr_kernels.models.evaluate import load_prompts
from rnr_kernels.teacher_forcing import Forced

TEXTS = [
    Forced((BOS, 40, 41, 42), (50, 51, 50, 60, EOS)),
    Forced((BOS,), (7, 300, 9)),
    Forced((BOS, 90, 91, 92, 93, 94, 95), (100, EOS)),
    Forced((BOS, 12), (5, 70, 280, 11, 5, 5, 70, EOS)),
]
# Of lengths such that each model by itself would be given the texts in another order.
BASE_TEXTS = [
    Forced((BOS, *range(20, 20 + more)), text.response_token_ids)
    for text, more in zip(TEXTS, (20, 14, 7, 0), strict=True)
]

COLUMNS = [field.name for field in fields(TokenShift) if "top" not in field.name]


def brute_force(logits: Tensor, base_logits: Tensor, token: int) -> dict[str, float | bool]:
    """A row's numbers by their definitions, from float64 logits [V]."""
    p, q = logits.log_softmax(-1), base_logits.log_softmax(-1)
    return {
        "rank": 1 + sum(value > logits[token] for value in logits).item(),
        "base_rank": 1 + sum(value > base_logits[token] for value in base_logits).item(),
        "logprob": float(p[token]),
        "base_logprob": float(q[token]),
        "entropy": -float((p.exp() * p).nansum()),
        "base_entropy": -float((q.exp() * q).sum()),
        "kl_aligned_base": float((p.exp() * (p - q)).nansum()),
        "kl_base_aligned": float((q.exp() * (q - p)).sum()),
        "same_argmax": bool(p.argmax() == q.argmax()),
    }


def assert_as_alone(
    shift: TokenShift, texts: Sequence[Forced], rows: Sequence[tuple[Tensor, Tensor]]
) -> None:
    """`rows`: of each text, both sides' logits [response, V]."""
    assert shift.prompt.tolist() == [n for n, t in enumerate(texts) for _ in t.response_token_ids]
    n = 0
    for text, (logits, base_logits) in zip(texts, rows, strict=True):
        for position, token in enumerate(text.response_token_ids):
            assert (shift.position[n], shift.token_id[n]) == (position, token)
            for name, value in brute_force(logits[position], base_logits[position], token).items():
                found = getattr(shift, name)[n]
                if isinstance(value, float):
                    assert found == pytest.approx(value, rel=1e-4, abs=1e-4), name
                else:
                    assert found == value, name
            n += 1
    assert n == len(shift)


def alone(model: Any, texts: Sequence[Forced]) -> list[Tensor]:
    return [logits_alone(model, text.prompt_token_ids, text.response_token_ids) for text in texts]


@pytest.mark.parametrize("batch_tokens", [1, 24, 8192])
@pytest.mark.parametrize("base_texts", [None, BASE_TEXTS], ids=["same", "other"])
def test_columns_are_those_of_each_text_alone(
    batch_tokens: int, base_texts: list[Forced] | None
) -> None:
    aligned, base = make_llama(0), make_llama(1)
    shift = token_shift(aligned, base, TEXTS, base_texts=base_texts, batch_tokens=batch_tokens)
    rows = zip(alone(aligned, TEXTS), alone(base, base_texts or TEXTS), strict=True)
    assert_as_alone(shift, TEXTS, list(rows))


def test_columns_in_literal_numbers() -> None:
    """After 0 the two swap tokens 1 and 2; after 1 the base is uniform; after 2 both agree."""
    aligned = bigram(4, {
        0: {0: 1 / 8, 1: 1 / 2, 2: 1 / 4, 3: 1 / 8}, 1: {2: 5 / 8}, 2: {3: 1 / 2},
    })  # fmt: skip
    base = bigram(4, {0: {0: 1 / 8, 1: 1 / 4, 2: 1 / 2, 3: 1 / 8}, 2: {3: 1 / 2}})
    shift = token_shift(aligned, base, [Forced((0,), (1, 2, 3)), Forced((2, 0), (0,))])
    assert shift.prompt.tolist() == [0, 0, 0, 1]
    assert shift.position.tolist() == [0, 1, 2, 0]
    assert shift.token_id.tolist() == [1, 2, 3, 0]
    assert shift.rank.tolist() == [1, 1, 1, 3]
    assert shift.num_ties.tolist() == [0, 0, 0, 1]
    assert shift.base_rank.tolist() == [2, 1, 1, 3]
    assert shift.base_num_ties.tolist() == [0, 3, 0, 1]
    assert np.exp(shift.logprob) == pytest.approx([1 / 2, 5 / 8, 1 / 2, 1 / 8])
    assert np.exp(shift.base_logprob) == pytest.approx([1 / 4, 1 / 4, 1 / 2, 1 / 8])
    mixed = 5 / 8 * math.log(5 / 2) - 3 / 8 * math.log(2)
    swap = math.log(2) / 4
    assert shift.kl_aligned_base == pytest.approx([swap, mixed, 0, swap], abs=1e-6)
    mixed = 3 / 4 * math.log(2) - math.log(5 / 2) / 4
    assert shift.kl_base_aligned == pytest.approx([swap, mixed, 0, swap], abs=1e-6)
    assert shift.base_entropy[:2] == pytest.approx([1.75 * math.log(2), 2 * math.log(2)])
    # Of the uniform row's equals the lowest id is the argmax.
    assert shift.same_argmax.tolist() == [False, False, True, False]
    assert shift.token_class.tolist() == [1, 0, 0, 1]


def test_the_likeliest_tokens_of_both_sides() -> None:
    """Of equals the lowest id comes first."""
    aligned = bigram(4, {0: {0: 1 / 8, 1: 1 / 2, 2: 1 / 4, 3: 1 / 8}, 1: {2: 5 / 8}})
    base = bigram(4, {0: {0: 1 / 16, 1: 1 / 16, 2: 1 / 4, 3: 5 / 8}})
    texts = [Forced((1,), (3,)), Forced((0,), (1, 2))]
    shift = token_shift(aligned, base, texts, top_k=2, batch_tokens=2)
    assert shift.top_ids is not None and shift.base_top_ids is not None
    assert shift.top_ids.tolist() == [[2, 0], [1, 2], [2, 0]]
    assert shift.base_top_ids.tolist() == [[0, 1], [3, 2], [0, 1]]
    assert shift.top_logprobs is not None and shift.base_top_logprobs is not None
    top = [[5 / 8, 1 / 8], [1 / 2, 1 / 4], [5 / 8, 1 / 8]]
    assert np.exp(shift.top_logprobs) == pytest.approx(np.array(top))
    base_top = [[1 / 4, 1 / 4], [5 / 8, 1 / 4], [1 / 4, 1 / 4]]
    assert np.exp(shift.base_top_logprobs) == pytest.approx(np.array(base_top))
    without = token_shift(aligned, base, texts)
    assert without.top_ids is None and without.base_top_logprobs is None


@pytest.mark.parametrize("rules", [RULES, WHOLE], ids=["response", "prompt"])
def test_a_rule_adapter_is_the_base_with_the_rules_of_each_step(
    tiny_bpe: PreTrainedTokenizerBase, rules: RuleSet
) -> None:
    base = make_llama()
    shift = token_shift(RuleAdapter(base, rules, tiny_bpe), base, TEXTS, batch_tokens=24)
    base_rows = alone(base, TEXTS)
    rows = []
    for text, logits in zip(TEXTS, base_rows, strict=True):
        response = text.response_token_ids
        adjusted = [
            adjusted_row(rules, logits[t], text.prompt_token_ids, response[:t])
            for t in range(len(response))
        ]
        rows.append((torch.stack(adjusted), logits))
    assert_as_alone(shift, TEXTS, rows)


def test_a_rule_adapter_may_have_another_prompt_than_the_base(
    tiny_bpe: PreTrainedTokenizerBase,
) -> None:
    base = make_llama()
    adapter = RuleAdapter(base, RuleSet([TokenBias({50: 3.0})]), tiny_bpe)
    shift = token_shift(adapter, base, TEXTS, base_texts=BASE_TEXTS)
    raised = [logits + 3.0 * (torch.arange(328) == 50) for logits in alone(base, TEXTS)]
    rows = zip(raised, alone(base, BASE_TEXTS), strict=True)
    assert_as_alone(shift, TEXTS, list(rows))


def test_a_batch_has_room_for_the_longer_of_both_prompts() -> None:
    base = make_llama(1)
    shapes = []
    base.register_forward_pre_hook(
        lambda module, inputs, kwargs: shapes.append(tuple(kwargs["input_ids"].shape)),
        with_kwargs=True,
    )
    token_shift(make_llama(0), base, TEXTS, base_texts=BASE_TEXTS, batch_tokens=40)
    assert shapes == [(2, 10), (1, 18), (1, 26)]


def test_a_base_that_sees_the_same_is_run_once(tiny_bpe: PreTrainedTokenizerBase) -> None:
    base = make_llama()
    calls = []
    base.register_forward_pre_hook(lambda module, inputs: calls.append(module))
    token_shift(RuleAdapter(base, RULES, tiny_bpe), base, TEXTS)
    assert len(calls) == 1


def test_a_banned_token_has_no_probability(tiny_bpe: PreTrainedTokenizerBase) -> None:
    base = make_llama()
    adapter = RuleAdapter(base, RuleSet([BanTokens([51], steps=(1, 2))]), tiny_bpe)
    shift = token_shift(adapter, base, TEXTS[:1])
    assert shift.logprob[1] == -math.inf and shift.kl_base_aligned[1] == math.inf
    assert 0 < shift.kl_aligned_base[1] < math.inf
    assert np.isfinite(np.delete(shift.logprob, 1)).all()
    assert (shift.kl_base_aligned[[0, 2, 3, 4]] == 0).all()


def test_the_embedded_models_greedy_responses_have_rank_one_under_their_own_rules() -> None:
    model, tokenizer = load_model(EMBEDDED, device="cpu"), load_tokenizer(EMBEDDED)
    questions = [prompt.instruction for prompt in load_prompts()[:6]]
    done = list(
        generate(model, tokenizer, questions, rules=hewitt2024(), max_new_tokens=60, details=True)
    )
    texts = [Forced(tuple(c.prompt_token_ids), tuple(c.token_ids)) for c in done]
    shift = token_shift(RuleAdapter(model, hewitt2024(), tokenizer), model, texts)
    assert (shift.rank == 1).all()
    generated = [value for completion in done for value in completion.logprobs]
    assert shift.logprob == pytest.approx(generated, abs=1e-4)
    base_rows = alone(model, texts)
    for n in (0, len(shift) - 1):
        logits = base_rows[shift.prompt[n]][shift.position[n]]
        higher = [value > logits[shift.token_id[n]] for value in logits]
        assert shift.base_rank[n] == 1 + sum(higher)
    shares = shift.shares()
    assert shares.num_prompts == 6 and shares.num_tokens == len(generated)
    assert 0.8 < shares.unshifted.share < 1


def test_batches_hold_the_same_rows() -> None:
    aligned, base = make_llama(0), make_llama(1)
    whole = token_shift(aligned, base, TEXTS, batch_tokens=20)
    parts = list(shift_batches(aligned, base, TEXTS, batch_tokens=20))
    assert [list(dict.fromkeys(part.prompt.tolist())) for part in parts] == [[1, 0], [2, 3]]
    for part in parts:
        rows = [(whole.prompt == n).nonzero()[0] for n in dict.fromkeys(part.prompt.tolist())]
        for name in COLUMNS:
            expected = getattr(whole, name)[np.concatenate(rows)]
            assert (getattr(part, name) == expected).all()


def columns(
    prompt: list[int], position: list[int], token_id: list[int], **named: Any
) -> TokenShift:
    """A TokenShift with the given columns, and zeros in the others."""
    given = {"prompt": prompt, "position": position, "token_id": token_id, **named}
    zeros = [0] * len(prompt)
    return TokenShift(**{name: np.array(given.get(name, zeros)) for name in COLUMNS})


SHIFT = columns(
    [0, 0, 0, 0, 1, 1, 1],
    [0, 1, 2, 3, 0, 1, 2],
    [8, 5, 6, 2, 8, 5, 2],
    base_rank=[1, 3, 4, 9, 2, 7, 1],
    kl_aligned_base=[1.0, 2.0, 3.0, 4.0, 3.0, 0.0, 0.0],
    kl_base_aligned=[0.5, 0.0, 0.0, 1.0, 1.5, 0.0, 2.0],
    base_logprob=np.log([0.5, 0.25, 0.125, 0.5, 0.25, 0.75, 0.125]),
)


def test_classes_are_by_base_rank() -> None:
    assert SHIFT.token_class.tolist() == [0, 1, 2, 2, 1, 2, 0]
    ranks = columns([0] * 5, [*range(5)], [0] * 5, base_rank=[1, 2, 3, 4, 32000])
    assert ranks.token_class.tolist() == [0, 1, 1, 2, 2]


def test_shares_with_and_without_eos() -> None:
    """One prompt's 4 tokens are 1, 1 and 2 of the classes, the other's 3 are 1 each."""
    third = 1 / 3
    assert SHIFT.shares() == ClassShares(
        unshifted=Share(2 / 7, 0.25, third),
        marginal=Share(2 / 7, 0.25, third),
        shifted=Share(3 / 7, third, 0.5),
        num_tokens=7,
        num_prompts=2,
    )
    without = SHIFT.shares(with_eos=False, eos_token_ids=(2, 77))
    assert without.num_tokens == 5
    assert without.unshifted == Share(0.2, 0.0, third)
    assert without.shifted == Share(0.4, third, 0.5)
    # EOS ids alone leave nothing out.
    assert SHIFT.shares(eos_token_ids=2).num_tokens == 7


def test_a_prompt_of_eos_alone_is_left_out() -> None:
    shift = columns([0, 3, 3], [0, 0, 1], [2, 5, 2], base_rank=[9, 1, 9])
    shares = shift.shares(with_eos=False, eos_token_ids=2)
    assert (shares.num_prompts, shares.num_tokens) == (1, 1)
    assert shares.unshifted == Share(1.0, 1.0, 1.0) and shares.shifted == Share(0.0, 0.0, 0.0)
    prompts, counts = shift.class_counts(2)
    assert prompts.tolist() == [3] and counts.tolist() == [[1, 0, 0]]


def test_class_counts_by_prompt() -> None:
    prompts, counts = SHIFT.class_counts()
    assert prompts.tolist() == [0, 1] and counts.tolist() == [[1, 1, 2], [1, 1, 1]]
    assert class_shares(counts) == SHIFT.shares()


def test_curves_by_position() -> None:
    curves = SHIFT.by_position()
    assert curves.count.tolist() == [2, 2, 2, 1]
    assert curves.kl_aligned_base.tolist() == [2.0, 1.0, 1.5, 4.0]
    assert curves.kl_base_aligned.tolist() == [1.0, 0.0, 1.0, 1.0]
    assert curves.base_rank.tolist() == [1.5, 5.0, 2.5, 9.0]
    assert curves.base_probability == pytest.approx([0.375, 0.5, 0.125, 0.5])


def test_most_shifted_tokens() -> None:
    tokens = (ShiftedToken(2, 1, 2), ShiftedToken(5, 1, 2), ShiftedToken(6, 1, 1))
    assert SHIFT.most_shifted() == tokens
    assert SHIFT.most_shifted(1) == tokens[:1]
    often = columns([0] * 4, [*range(4)], [3, 9, 9, 4], base_rank=[5, 5, 6, 3])
    assert often.most_shifted() == (ShiftedToken(9, 2, 2), ShiftedToken(3, 1, 1))


@pytest.mark.parametrize(
    ("texts", "base_texts", "message"),
    [
        (TEXTS[:2], TEXTS[:1], "base_texts must be one a text, 2, got 1"),
        (TEXTS[:2], [TEXTS[0], Forced((BOS,), (7, 300, 10))], "text 2: base_texts has another"),
        ([], None, "there are no texts"),
        ([Forced((BOS,), (328,))], None, "text 1: its response has token 328"),
        (TEXTS[:1], [Forced((), TEXTS[0].response_token_ids)], "text 1: its prompt is empty"),
    ],
)  # fmt: skip
def test_bad_texts_are_named_before_anything_runs(
    texts: list[Forced], base_texts: list[Forced] | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        shift_batches(make_llama(0), make_llama(1), texts, base_texts=base_texts)


def test_models_of_different_vocabularies_are_refused() -> None:
    with pytest.raises(ValueError, match="the same vocabulary size, got 328 and, for the base, 32"):
        shift_batches(make_llama(), make_llama(vocab_size=320), TEXTS)


def test_logits_that_are_no_numbers_are_refused() -> None:
    good, bad = bigram(4, {}), bigram(4, {1: {0: math.nan}})
    texts = [Forced((0,), (2, 3)), Forced((2,), (1, 3))]
    message = "text 2: the logits of the {} are NaN or .inf before token 2"
    with pytest.raises(ValueError, match=message.format("base")):
        token_shift(good, bad, texts)
    with pytest.raises(ValueError, match=message.format("aligned model")):
        token_shift(bad, good, texts)


def test_shares_of_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="with_eos=False needs eos_token_ids"):
        SHIFT.shares(with_eos=False)
    with pytest.raises(ValueError, match="no tokens but EOS"):
        SHIFT.shares(with_eos=False, eos_token_ids=[2, 5, 6, 8])
