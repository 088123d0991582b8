"""Token statistics in literal numbers: ranks, ties, log-probabilities, entropy, divergence."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from rnr_kernels import (
    linear_shift_stats,
    linear_token_stats,
    shift_stats,
    token_stats,
)
from rnr_kernels.ops import TokenStats
from rnr_kernels.testing import assert_same_bits

INF, NAN = math.inf, math.nan


pytestmark = pytest.mark.usefixtures("every_backend")


def ids(*values: int) -> Tensor:
    return torch.tensor(values)


def logs(*rows: list[float]) -> Tensor:
    return torch.tensor(rows).log()


def assert_same_stats(actual: TokenStats, expected: TokenStats) -> None:
    for name, value in expected._asdict().items():
        assert_same_bits(getattr(actual, name), value, name)


def test_rank_counts_larger_logits_and_ties_are_apart() -> None:
    row = [2.0, 5.0, 2.0, -1.0, 2.0, 4.0]
    stats = token_stats(torch.tensor([row] * 6), torch.arange(6))
    assert stats.rank.tolist() == [3, 1, 3, 6, 3, 2]
    assert stats.num_ties.tolist() == [2, 0, 2, 0, 2, 0]
    assert stats.rank.dtype == stats.num_ties.dtype == torch.int32


def test_zeros_of_both_signs_tie() -> None:
    stats = token_stats(torch.tensor([[0.0, -0.0, -1.0]] * 2), ids(0, 1))
    assert stats.rank.tolist() == [1, 1]
    assert stats.num_ties.tolist() == [1, 1]


def test_logprob_and_entropy_in_nats() -> None:
    stats = token_stats(logs([0.5, 0.25, 0.25], [1.0, 0.0, 0.0], [1.0, 1.0, 1.0]), ids(1, 0, 2))
    third = math.log(3)
    assert stats.logprob.tolist() == pytest.approx([-math.log(4), 0.0, -third], rel=1e-6)
    assert stats.entropy.tolist() == pytest.approx([1.5 * math.log(2), 0.0, third], rel=1e-6)
    assert stats.logprob.dtype == stats.entropy.dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("vocab_size", [40, 4097])
def test_statistics_agree_with_float64(dtype: torch.dtype, vocab_size: int) -> None:
    random = torch.Generator().manual_seed(vocab_size)
    logits = (4 * torch.randn(5, vocab_size, generator=random)).to(dtype)
    target = torch.randint(0, vocab_size, (5,), generator=random)
    stats = token_stats(logits, target)
    logprobs = logits.double().log_softmax(1)
    torch.testing.assert_close(stats.logprob, logprobs.gather(1, target[:, None])[:, 0].float())
    torch.testing.assert_close(stats.entropy, -(logprobs.exp() * logprobs).sum(1).float())
    larger = [(row > row[token]).sum().item() for row, token in zip(logits, target, strict=True)]
    assert stats.rank.tolist() == [1 + count for count in larger]


def test_large_logits_do_not_overflow() -> None:
    stats = token_stats(torch.tensor([[3e38, 3e38, -3e38]]), ids(0))
    assert stats.logprob.item() == pytest.approx(-math.log(2))
    assert stats.entropy.item() == pytest.approx(math.log(2))


@pytest.mark.parametrize("target", [-100, -1, 3, 5, 2**40])
def test_a_padding_label_has_no_rank_but_its_row_has_an_entropy(target: int) -> None:
    # Columns 3 to 5 lie past the vocabulary.
    logits = torch.tensor([[0.0, 0.0, 0.0, NAN, INF, 9.0]])
    stats = token_stats(logits, ids(target), vocab_size=3)
    assert (stats.rank.item(), stats.num_ties.item()) == (0, 0)
    assert stats.logprob.isnan().item()
    assert stats.entropy.item() == pytest.approx(math.log(3))


@pytest.mark.parametrize("row", [[0.0, NAN, 1.0], [0.0, INF, 1.0], [-INF, -INF, -INF]])
def test_a_row_that_is_no_distribution_gives_nothing(row: list[float]) -> None:
    stats = token_stats(torch.tensor([row]), ids(0), top_k=2)
    assert (stats.rank.item(), stats.num_ties.item()) == (0, 0)
    assert stats.logprob.isnan().item() and stats.entropy.isnan().item()
    assert stats.top_token_ids.tolist() == [[-1, -1]]
    assert stats.top_logprobs.isnan().all()


def test_a_target_at_minus_infinity_has_rank_ties_and_logprob() -> None:
    stats = token_stats(torch.tensor([[-INF, 0.0, -INF, 0.0]]), ids(2))
    assert (stats.rank.item(), stats.num_ties.item()) == (3, 1)
    assert stats.logprob.item() == -INF
    assert stats.entropy.item() == pytest.approx(math.log(2))


def test_the_largest_tokens_come_in_order_and_ties_by_id() -> None:
    logits = logs([0.1, 0.3, 0.2, 0.3, 0.1])
    stats = token_stats(logits, ids(0), top_k=4)
    assert stats.top_token_ids.tolist() == [[1, 3, 2, 0]]
    assert stats.top_logprobs.exp()[0].tolist() == pytest.approx([0.3, 0.3, 0.2, 0.1])
    assert token_stats(logits, ids(0)).top_token_ids.shape == (1, 0)
    many_ties = (torch.arange(999)[None] % 3).float()
    top = token_stats(many_ties, ids(0), top_k=5).top_token_ids
    assert top.tolist() == [[2, 5, 8, 11, 14]]


def test_rows_do_not_depend_on_their_batch() -> None:
    logits = torch.randn(7, 4100, generator=torch.Generator().manual_seed(3))
    together = token_stats(logits, torch.arange(7), top_k=3)
    for row in range(7):
        alone = token_stats(logits[row, None], ids(row), top_k=3)
        for name, value in alone._asdict().items():
            assert_same_bits(value, getattr(together, name)[row, None], name)


# Two models


def test_divergences_both_ways() -> None:
    # KL(p || q) = 1/2 log(2) + 1/2 log(2/3), KL(q || p) = 1/4 log(1/2) + 3/4 log(3/2).
    stats = shift_stats(logs([0.5, 0.5]), logs([0.25, 0.75]), ids(1))
    forwards = 0.5 * math.log(2) + 0.5 * math.log(2 / 3)
    backwards = 0.25 * math.log(0.5) + 0.75 * math.log(1.5)
    assert stats.kl_aligned_base.item() == pytest.approx(forwards, rel=1e-6)
    assert stats.kl_base_aligned.item() == pytest.approx(backwards, rel=1e-6)


def test_equal_distributions_have_no_divergence() -> None:
    logits = torch.randn(40, 5, generator=torch.Generator().manual_seed(0))
    target = torch.zeros(40, dtype=torch.int64)
    stats = shift_stats(logits, logits, target)
    assert stats.kl_aligned_base.tolist() == stats.kl_base_aligned.tolist() == [0.0] * 40
    # The same distributions but for rounding, which must not make a divergence negative.
    shifted = shift_stats(logits, logits + 0.1, target)
    for divergence in (shifted.kl_aligned_base, shifted.kl_base_aligned):
        assert divergence.max() < 2.0**-22  # logarithms of two float32 sums near 1
        assert divergence.min() >= 0.0


def test_tokens_that_one_model_excludes() -> None:
    # p = 0 adds nothing, q = 0 under a positive p is infinite.
    stats = shift_stats(logs([0.5, 0.5, 0.0]), logs([0.25, 0.25, 0.5]), ids(0))
    assert stats.kl_aligned_base.item() == pytest.approx(math.log(2))
    assert stats.kl_base_aligned.item() == INF
    both = shift_stats(logs([1.0, 0.0]), logs([1.0, 0.0]), ids(0))
    assert (both.kl_aligned_base.item(), both.kl_base_aligned.item()) == (0.0, 0.0)


def test_a_probability_too_small_to_represent_is_not_zero() -> None:
    stats = shift_stats(torch.tensor([[0.0, -1000.0]]), torch.tensor([[0.0, -INF]]), ids(0))
    assert stats.kl_aligned_base.item() == INF
    assert stats.kl_base_aligned.item() == 0.0


def test_argmaxes_agree_on_the_lowest_id_of_ties() -> None:
    aligned = torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 2.0, 0.0]])
    base = torch.tensor([[3.0, 2.0, 3.0], [0.0, 5.0, 0.0], [0.0, 0.1, 0.0]])
    stats = shift_stats(aligned, base, ids(0, 0, 0))
    assert stats.same_argmax.tolist() == [True, False, True]
    assert stats.same_argmax.dtype == torch.bool


def test_each_side_of_a_shift_is_its_token_stats() -> None:
    random = torch.Generator().manual_seed(5)
    aligned, base = torch.randn(2, 6, 37, generator=random).bfloat16().unbind()
    target = ids(3, -100, 0, 36, 5, 5)
    stats = shift_stats(aligned, base.float(), target, vocab_size=33, top_k=3)
    assert_same_stats(stats.aligned, token_stats(aligned, target, vocab_size=33, top_k=3))
    assert_same_stats(stats.base, token_stats(base, target, vocab_size=33, top_k=3))


def test_a_broken_row_of_one_model_leaves_the_other_side() -> None:
    stats = shift_stats(torch.tensor([[NAN, 0.0]]), torch.tensor([[0.0, 0.0]]), ids(1))
    assert stats.aligned.rank.item() == 0
    assert stats.base.rank.item() == 1
    assert stats.base.entropy.item() == pytest.approx(math.log(2))
    assert stats.kl_aligned_base.isnan().item() and stats.kl_base_aligned.isnan().item()
    assert stats.same_argmax.tolist() == [False]


# From hidden states


def head(vocab_size: int = 40, rows: int = 6) -> tuple[Tensor, Tensor, Tensor]:
    """Small integers: exact products in any order of summation."""
    random = torch.Generator().manual_seed(vocab_size)
    hidden = torch.randint(-3, 4, (rows, 8), generator=random).float()
    weight = torch.randint(-3, 4, (vocab_size, 8), generator=random).float()
    return hidden, weight, torch.randint(0, vocab_size, (rows,), generator=random)


HEADS: list[dict[str, Any]] = [
    {},
    {"logit_scale": 0.25},
    {"softcap": 5.0},
    {"bias": torch.arange(40.0) % 3},
    {"bias": torch.arange(40.0) % 5, "logit_scale": 0.5, "softcap": 8.0},
]


def logits_of(hidden: Tensor, weight: Tensor, options: dict[str, Any]) -> Tensor:
    logits: Tensor = hidden.float() @ weight.float().T + options.get("bias", 0)
    logits = logits * options.get("logit_scale", 1.0)
    cap: float = options.get("softcap", 0.0)
    return cap * torch.tanh(logits / cap) if cap else logits


@pytest.mark.parametrize("options", HEADS, ids=str)
@pytest.mark.parametrize("invariant", [False, True])
def test_linear_stats_are_the_stats_of_the_heads_logits(
    options: dict[str, Any], invariant: bool
) -> None:
    hidden, weight, target = head()
    stats = linear_token_stats(hidden, weight, target, top_k=3, invariant=invariant, **options)
    assert_same_stats(stats, token_stats(logits_of(hidden, weight, options), target, top_k=3))


def test_softcap_and_scale_in_literals() -> None:
    # Logits 2 and -2; scaled by 1/2: 1 and -1; capped at 1: tanh(1) and -tanh(1).
    hidden, weight = torch.tensor([[2.0]]), torch.tensor([[1.0], [-1.0]])

    def gap(**options: Any) -> float:
        stats = linear_token_stats(hidden, weight, ids(0), top_k=2, **options)
        return (stats.top_logprobs[0, 0] - stats.top_logprobs[0, 1]).item()

    assert gap() == pytest.approx(4.0)
    assert gap(logit_scale=0.5) == pytest.approx(2.0)
    assert gap(logit_scale=0.5, softcap=1.0) == pytest.approx(2 * math.tanh(1.0))


def test_linear_logits_are_not_rounded_to_sixteen_bits() -> None:
    # 1 + 2^-10 and 1 are one bfloat16, but two float32 accumulators.
    hidden = torch.tensor([[1.0, 2.0**-10]], dtype=torch.bfloat16)
    weight = torch.tensor([[1.0, 0.0], [1.0, 1.0]], dtype=torch.bfloat16)
    stats = linear_token_stats(hidden, weight, ids(0))
    assert (stats.rank.item(), stats.num_ties.item()) == (2, 0)


def test_linear_shift_stats_are_the_shift_stats_of_both_heads() -> None:
    hidden, weight, target = head()
    base_hidden, base_weight = hidden.flip(1)[:, :6], weight.roll(1, 0)[:, 2:]
    options: dict[str, Any] = {"logit_scale": 0.25, "softcap": 4.0}
    base_options: dict[str, Any] = {"bias": torch.arange(40.0) % 3, "logit_scale": 0.5}
    stats = linear_shift_stats(
        hidden, weight, base_hidden, base_weight, target, top_k=2, **options,
        base_bias=base_options["bias"], base_logit_scale=0.5,
    )  # fmt: skip
    expected = shift_stats(
        logits_of(hidden, weight, options),
        logits_of(base_hidden, base_weight, base_options),
        target,
        top_k=2,
    )
    assert_same_stats(stats.aligned, expected.aligned)
    assert_same_stats(stats.base, expected.base)
    assert_same_bits(stats.kl_aligned_base, expected.kl_aligned_base)
    assert_same_bits(stats.kl_base_aligned, expected.kl_base_aligned)
    assert_same_bits(stats.same_argmax, expected.same_argmax)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_invariant_linear_stats_do_not_depend_on_the_batch(dtype: torch.dtype) -> None:
    random = torch.Generator().manual_seed(2)
    hidden = torch.randn(9, 65, generator=random).to(dtype)
    weight = torch.randn(1001, 65, generator=random).to(dtype)
    target = torch.randint(0, 1001, (9,), generator=random)
    together = linear_token_stats(hidden, weight, target, top_k=2, invariant=True)
    for rows in (slice(0, 1), slice(3, 8), slice(8, 9)):
        some = linear_token_stats(hidden[rows], weight, target[rows], top_k=2, invariant=True)
        assert_same_stats(some, TokenStats(*(value[rows] for value in together)))
