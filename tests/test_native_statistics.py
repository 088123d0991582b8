"""Statistics of the native kernels: ends, accuracy, counts, layouts, and equal bits everywhere."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from native_batches import KERNELS, UNAVAILABLE, Functions, assert_rest_untouched, placed, whole
from native_statistics import DTYPES, assert_equal_stats, flat, grouped, shift, token
from torch import Tensor

from rnr_kernels import reference
from rnr_kernels.ops import ShiftStats
from rnr_kernels.testing import assert_same_bits

pytestmark = pytest.mark.skipif(not KERNELS, reason=UNAVAILABLE)

INF, NAN = math.inf, math.nan
UNIT = 2.0**-23
"""Relative size of float32's last place."""

SIZES = [1, 2, 31, 255, 256, 257, 4095, 4096, 4097, 32000]


@pytest.fixture(params=KERNELS)
def kernels(request: pytest.FixtureRequest) -> Functions:
    return KERNELS[request.param]


def ids(*values: int) -> Tensor:
    return torch.tensor(values)


def logs(*rows: list[float]) -> Tensor:
    return torch.tensor(rows).log()


# The ends, in literals


def test_ranks_and_ties(kernels: Functions) -> None:
    row = [2.0, 5.0, 2.0, -1.0, 2.0, 4.0]
    stats = token(kernels, torch.tensor([row] * 6), torch.arange(6))
    assert stats.rank.tolist() == [3, 1, 3, 6, 3, 2]
    assert stats.num_ties.tolist() == [2, 0, 2, 0, 2, 0]
    zeros = token(kernels, torch.tensor([[0.0, -0.0, -1.0, 1e-45]] * 3), ids(0, 1, 3))
    assert zeros.rank.tolist() == [2, 2, 1]
    assert zeros.num_ties.tolist() == [1, 1, 0]


def test_a_certain_token_has_no_entropy_and_a_uniform_row_all(kernels: Functions) -> None:
    one_hot = torch.full((1, 300), -INF)
    one_hot[0, 7] = 3.0
    stats = token(kernels, torch.cat([one_hot, torch.full((1, 300), -50.0)]), ids(7, 8))
    assert stats.entropy.tolist() == [0.0, pytest.approx(math.log(300), rel=1e-7)]
    assert stats.logprob.tolist() == [0.0, pytest.approx(-math.log(300), rel=1e-7)]
    assert stats.num_ties.tolist() == [0, 299]
    alone = token(kernels, torch.tensor([[-1e30]]), ids(0), top_k=1)
    assert [value.item() for value in alone] == [1, 0, 0.0, 0.0, 0, 0.0]


def test_targets_outside_the_vocabulary(kernels: Functions) -> None:
    stats = token(kernels, torch.ones(4, 5), ids(-100, -1, 3, 2**40), size=3)
    assert stats.rank.tolist() == stats.num_ties.tolist() == [0] * 4
    assert stats.logprob.isnan().all()
    assert stats.entropy.tolist() == pytest.approx([math.log(3)] * 4)
    assert token(kernels, torch.ones(1, 3), ids(2).int()).num_ties.item() == 2


@pytest.mark.parametrize("where", [0, 255, 300, 4099])
@pytest.mark.parametrize("value", [NAN, INF])
def test_a_row_that_is_no_distribution_gives_nothing(
    kernels: Functions, value: float, where: int
) -> None:
    logits = torch.randn(2, 4100, generator=torch.Generator().manual_seed(1))
    logits[0, where] = value
    stats = token(kernels, logits, ids(where, where), top_k=2)
    assert (stats.rank[0].item(), stats.num_ties[0].item()) == (0, 0)
    assert stats.logprob[0].isnan() and stats.entropy[0].isnan()
    assert stats.top_token_ids[0].tolist() == [-1, -1] and stats.top_logprobs[0].isnan().all()
    assert stats.rank[1] > 0 and not stats.entropy[1].isnan()


def test_a_row_of_minus_infinity_gives_nothing(kernels: Functions) -> None:
    stats = token(kernels, torch.full((1, 5000), -INF), ids(3), top_k=1)
    assert [value.item() for value in (stats.rank, stats.num_ties, stats.top_token_ids)] == [
        0, 0, -1,
    ]  # fmt: skip
    assert stats.logprob.isnan() and stats.entropy.isnan() and stats.top_logprobs.isnan()


def test_a_target_at_minus_infinity_has_rank_ties_and_logprob(kernels: Functions) -> None:
    logits = torch.full((1, 4100), -INF)
    logits[0, ::2] = 0.0
    stats = token(kernels, logits, ids(1), top_k=1)
    assert (stats.rank.item(), stats.num_ties.item()) == (2051, 2049)
    assert stats.logprob.item() == -INF
    assert stats.entropy.item() == pytest.approx(math.log(2050))


def test_the_largest_tokens_come_in_order_and_ties_by_id(kernels: Functions) -> None:
    logits = (torch.arange(999)[None] % 3).float()
    assert token(kernels, logits, ids(0), top_k=5).top_token_ids.tolist() == [[2, 5, 8, 11, 14]]
    few = torch.tensor([[-INF, 1.0, -INF, 2.0]])
    stats = token(kernels, few, ids(0), top_k=4)
    assert stats.top_token_ids.tolist() == [[3, 1, 0, 2]]
    assert stats.top_logprobs[0, 2:].tolist() == [-INF, -INF]


def test_divergences_both_ways(kernels: Functions) -> None:
    stats = shift(kernels, logs([0.5, 0.5]), logs([0.25, 0.75]), ids(1))
    forwards = 0.5 * math.log(2) + 0.5 * math.log(2 / 3)
    backwards = 0.25 * math.log(0.5) + 0.75 * math.log(1.5)
    assert stats.kl_aligned_base.item() == pytest.approx(forwards, rel=1e-6)
    assert stats.kl_base_aligned.item() == pytest.approx(backwards, rel=1e-6)


def test_tokens_that_one_model_excludes(kernels: Functions) -> None:
    stats = shift(kernels, logs([0.5, 0.5, 0.0]), logs([0.25, 0.25, 0.5]), ids(0))
    assert stats.kl_aligned_base.item() == pytest.approx(math.log(2))
    assert stats.kl_base_aligned.item() == INF
    both = shift(kernels, logs([1.0, 0.0]), logs([1.0, 0.0]), ids(0))
    assert (both.kl_aligned_base.item(), both.kl_base_aligned.item()) == (0.0, 0.0)
    # Too small to represent is not zero; and a part may be excluded tile by tile.
    tiny = shift(kernels, torch.tensor([[0.0, -1000.0]]), torch.tensor([[0.0, -INF]]), ids(0))
    assert (tiny.kl_aligned_base.item(), tiny.kl_base_aligned.item()) == (INF, 0.0)
    base = torch.zeros(1, 8192)
    base[:, :4096] = -INF
    tiles = shift(kernels, torch.zeros(1, 8192), base, ids(0))
    assert tiles.kl_aligned_base.item() == INF
    assert tiles.kl_base_aligned.item() == pytest.approx(math.log(2))


def test_divergences_of_huge_logits(kernels: Functions) -> None:
    # p is the first token; under q it lies 2e35 below the second.
    aligned, base = torch.tensor([[1e38, -1e38]]), torch.tensor([[-1e35, 1e35]])
    stats = shift(kernels, aligned, base, ids(0))
    assert stats.kl_aligned_base.item() == pytest.approx(2e35)
    assert stats.kl_base_aligned.item() == pytest.approx(2e38)


def test_a_broken_row_of_one_model_leaves_the_other_side(kernels: Functions) -> None:
    stats = shift(kernels, torch.tensor([[NAN, 0.0]]), torch.tensor([[0.0, 0.0]]), ids(1))
    assert stats.aligned.rank.item() == 0
    assert stats.base.rank.item() == 1
    assert stats.base.entropy.item() == pytest.approx(math.log(2))
    assert stats.kl_aligned_base.isnan() and stats.kl_base_aligned.isnan()
    assert stats.same_argmax.tolist() == [False]


def test_argmaxes_agree_on_the_lowest_id_of_ties(kernels: Functions) -> None:
    aligned = torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [-0.0, 0.0, -1.0]])
    base = torch.tensor([[3.0, 2.0, 3.0], [0.0, 5.0, 0.0], [2.0, 0.1, 0.0]])
    stats = shift(kernels, aligned, base, ids(0, 0, 0))
    assert stats.same_argmax.tolist() == [True, False, True]


# Accuracy, and the same bits on every instruction set


def both_models(vocab_size: int) -> tuple[Tensor, Tensor]:
    """float32 [13, V] each: rows of many kinds, and what a second model might say."""
    random = torch.Generator().manual_seed(vocab_size)
    normal = torch.randn(13, vocab_size, generator=random)
    noise = torch.randn(13, vocab_size, generator=random)
    rows, base = 3 * normal, 3 * normal + noise
    rows[1, vocab_size // 2] += 30
    rows[2], base[2] = rows[2] + 1e4, base[2] - 1e4
    rows[3] = 1e-39 * normal[3]
    rows[4], base[4] = rows[4].round(), base[4].round()
    rows[5], base[5] = -7.25, 1e4
    rows[6, 1:] = -INF
    rows[7], base[7] = 30 * normal[7], 30 * normal[7] + noise[7]
    base[8] = rows[8] + 1e-3 * noise[8]
    base[9] = rows[9] + 0.1
    rows[10], base[10] = 300 * normal[10], 300 * noise[10]
    rows[11] = rows[11].sort().values
    rows[12, ::3], base[12, ::3] = -INF, -INF
    return rows, base


def eager(rows: Tensor, base: Tensor, target: Tensor) -> dict[str, Tensor]:
    """What torch's own functions give in the dtype of the rows."""
    p, q = torch.log_softmax(rows, 1), torch.log_softmax(base, 1)

    def divergence(p: Tensor, q: Tensor) -> Tensor:
        terms = torch.where(q > -INF, p.exp() * (p - q), INF)
        return torch.where(p > -INF, terms, 0.0).sum(1)

    return {
        "aligned.logprob": p.gather(1, target[:, None])[:, 0],
        "aligned.entropy": -torch.where(p > -INF, p.exp() * p, 0.0).sum(1),
        "base.logprob": q.gather(1, target[:, None])[:, 0],
        "base.entropy": -torch.where(q > -INF, q.exp() * q, 0.0).sum(1),
        "kl_aligned_base": divergence(p, q),
        "kl_base_aligned": divergence(q, p),
    }


def assert_accurate(stats: ShiftStats, rows: Tensor, base: Tensor, target: Tensor) -> None:
    """No worse than twice torch's float32 error, beside three last places of the result or of 1."""
    truth = eager(rows.double(), base.double(), target)
    plain = eager(rows.float(), base.float(), target)
    for name, expected in truth.items():
        actual = flat(stats)[name].double()
        infinite = expected.isinf()
        assert torch.equal(actual[infinite], expected[infinite]), name
        error, allowed = (actual - expected).abs(), (plain[name] - expected).abs()
        floor = 3 * UNIT * expected.abs().clamp(min=1.0)
        worse = (error > 2 * allowed + floor) & ~infinite
        assert not worse.any(), f"{name}: {error[worse]} instead of {allowed[worse]}"


def assert_counts_match(stats: ShiftStats, expected: ShiftStats) -> None:
    for name, value in flat(expected).items():
        if not value.is_floating_point():
            assert_same_bits(flat(stats)[name], value, name)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("vocab_size", SIZES)
def test_accuracy_counts_and_equal_bits(vocab_size: int, dtype: torch.dtype) -> None:
    rows, base = (model.to(dtype) for model in both_models(vocab_size))
    random = torch.Generator().manual_seed(0)
    target = torch.randint(0, vocab_size, (len(rows),), generator=random)
    top_k = min(5, vocab_size)
    best, *others = (shift(k, rows, base, target, top_k=top_k) for k in KERNELS.values())
    for other in others:
        assert_equal_stats(other, best)
    finite = (rows != INF).all(1) & (base != INF).all(1)
    assert_accurate(
        grouped(tuple(v[finite] for v in flat(best).values())),
        rows[finite], base[finite], target[finite],
    )  # fmt: skip
    assert_counts_match(best, grouped(reference.shift_stats(rows, base, target, vocab_size, top_k)))
    for kernels in KERNELS.values():
        assert_equal_stats(token(kernels, rows, target, top_k=top_k), best.aligned)
        assert_equal_stats(token(kernels, base, target, top_k=top_k), best.base)


def test_accuracy_of_a_large_vocabulary() -> None:
    rows, base = (model[[0, 7, 8]] for model in both_models(128256))
    target = ids(5, 128255, 64000)
    stats = shift(next(iter(KERNELS.values())), rows, base, target, top_k=64)
    assert_accurate(stats, rows, base, target)
    assert_counts_match(stats, grouped(reference.shift_stats(rows, base, target, 128256, 64)))


@pytest.mark.parametrize("descending", [False, True])
def test_sorted_rows(kernels: Functions, descending: bool) -> None:
    rows = torch.linspace(-40.0, 40.0, 5000).sort(descending=descending).values[None]
    stats = token(kernels, rows, ids(2500), top_k=3)
    logprobs = torch.log_softmax(rows.double(), 1)
    assert stats.logprob.item() == pytest.approx(logprobs[0, 2500].item(), rel=1e-7)
    assert stats.entropy.item() == pytest.approx(
        -(logprobs.exp() * logprobs).sum().item(), rel=1e-6
    )
    assert stats.rank.item() == (2501 if descending else 2500)
    assert stats.top_token_ids.tolist() == [[0, 1, 2] if descending else [4999, 4998, 4997]]


LOGITS = st.integers(-3, 3).map(float) | st.just(-INF) | st.floats(-50, 50, width=16)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_counts_and_largest_tokens_are_those_of_a_sorted_row(data: st.DataObject) -> None:
    row = data.draw(st.lists(LOGITS, min_size=1, max_size=40))
    row = [*row, 0.5, *([data.draw(LOGITS)] * data.draw(st.integers(0, 600)))]
    target = data.draw(st.integers(0, len(row) - 1))
    top_k = data.draw(st.integers(0, min(64, len(row))))
    for kernels in KERNELS.values():
        stats = token(kernels, torch.tensor([row]), ids(target), top_k=top_k)
        assert stats.rank.item() == 1 + sum(x > row[target] for x in row)
        assert stats.num_ties.item() == row.count(row[target]) - 1
        by_value = sorted(range(len(row)), key=lambda v: (-row[v], v))
        assert stats.top_token_ids[0].tolist() == by_value[:top_k]


# Layout and batch


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("before, gap", [(1, 0), (3, 5), (0, 1)])
def test_strided_and_misaligned_rows(
    kernels: Functions, dtype: torch.dtype, before: int, gap: int
) -> None:
    rows, base = (model[:4].to(dtype) for model in both_models(4111))
    target = ids(0, 4098, 7, 4097)
    moved = placed(rows, before=before, gap=gap), placed(base, before=gap, gap=before, after=2)
    stats = shift(kernels, *moved, target, size=4099, top_k=3)
    plain = [model[:, :4099].contiguous() for model in (rows, base)]
    assert_equal_stats(stats, shift(kernels, plain[0], plain[1], target, top_k=3))
    for values, view in zip((rows, base), moved, strict=True):
        assert_rest_untouched(whole(view), view, "logits")
        assert_same_bits(view, values)


def test_rows_do_not_depend_on_their_batch_nor_on_threads(kernels: Functions) -> None:
    rows, base = both_models(33000)
    target = torch.arange(len(rows))
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        together = shift(kernels, rows, base, target, top_k=2)
        torch.set_num_threads(2)
        assert_equal_stats(shift(kernels, rows, base, target, top_k=2), together)
    finally:
        torch.set_num_threads(threads)
    for r in (0, 7, 12):
        alone = shift(kernels, rows[r, None], base[r, None], target[r, None], top_k=2)
        assert_equal_stats(alone, grouped(tuple(v[r, None] for v in flat(together).values())))


def test_no_rows(kernels: Functions) -> None:
    stats = token(kernels, torch.empty(0, 40), torch.empty(0, dtype=torch.int64), top_k=2)
    assert stats.rank.shape == (0,) and stats.top_logprobs.shape == (0, 2)
