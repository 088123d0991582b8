"""Sampling of the native kernels: against a float64 distribution, by counting, and where filters
must search; and that a row's bits depend on nothing but the row."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import pytest
import torch
from native_batches import DTYPES, KERNELS, UNAVAILABLE, Functions, Recipe, run
from torch import Tensor

from rnr_kernels import Sampling
from rnr_kernels.backends import REFERENCE
from rnr_kernels.layout import StateTensors
from rnr_kernels.reference.sampling import uniform_bits
from rnr_kernels.rules.kinds import LogitRule, TokenBias, UsedTokenPenalty
from rnr_kernels.testing import admitted, assert_close, assert_same_bits

pytestmark = pytest.mark.skipif(not KERNELS, reason=UNAVAILABLE)

BEST: Functions = next(iter(KERNELS.values()), {})

LEAST, MOST = 18_211_429, 7_113_731
"""Positions at which the uniform of seed 0 is 3.7e-8, and 3.0e-8 below 1."""


def uniforms(positions: Tensor) -> Tensor:
    """float64 [R], of seed 0."""
    return uniform_bits(torch.zeros_like(positions), positions) * 2.0**-53


def draws(
    functions: Functions,
    row: Tensor,
    sampling: Sampling,
    positions: Tensor,
    rules: Sequence[LogitRule] = (),
) -> tuple[Tensor, Tensor]:
    """Tokens and log-probabilities of one row [V] at these positions of seed 0, in one batch."""
    seeded = replace(sampling, seed=0)
    program, state = admitted(rules, len(row), sampling=seeded, output_token_ids=[1, 3])
    rows = len(positions)
    tables = [table.expand(rows, -1).contiguous() for table in state.tensors]
    slots = StateTensors(*tables)
    slots.rng[:, 1] = positions
    found = functions["sample_"](
        row.expand(rows, -1), len(row), program.tensors, slots, state.error, return_logprob=True
    )
    return found[0], found[1]


def kept_tokens(row: Tensor, sampling: Sampling) -> Tensor:
    """bool [V]: what the filters keep, in float64."""
    x = row.double()
    kept = x > -math.inf
    if 0 < sampling.top_k < len(x):
        kept &= x >= x.topk(sampling.top_k).values[-1]
    if sampling.top_p < 1:
        p = torch.where(kept, x / sampling.temperature, -math.inf).softmax(0)
        levels, level_of = x.unique(return_inverse=True)
        mass = torch.zeros_like(levels).scatter_add_(0, level_of, p)
        kept &= ((1 - mass.cumsum(0)) < sampling.top_p)[level_of]
    if sampling.min_p > 0:
        kept &= x - x.max() >= sampling.temperature * math.log(sampling.min_p)
    return kept


def distribution(row: Tensor, sampling: Sampling) -> Tensor:
    """float64 [V]."""
    tempered = row.double() / sampling.temperature
    return torch.where(kept_tokens(row, sampling), tempered, -math.inf).softmax(0)


SAMPLINGS = [
    Sampling(),
    Sampling(temperature=0.3),
    Sampling(temperature=4.0),
    Sampling(top_k=50),
    Sampling(top_p=0.9),
    Sampling(min_p=0.02),
    Sampling(temperature=0.8, top_k=40, top_p=0.95, min_p=0.01),
    Sampling(temperature=2.5, top_k=3000, top_p=0.7),
]


def normal(size: int, seed: int = 0) -> Tensor:
    return 2.5 * torch.randn(size, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("vocab_size", [50, 1000, 32_000, 128_256])
@pytest.mark.parametrize("sampling", SAMPLINGS, ids=str)
def test_the_token_is_where_the_uniform_falls(sampling: Sampling, vocab_size: int) -> None:
    row = normal(vocab_size, seed=vocab_size)
    positions = torch.tensor([LEAST, MOST, *range(22)])
    u = uniforms(positions)
    p = distribution(row, sampling)
    after = p.cumsum(0)
    for functions in KERNELS.values():
        tokens, logprob = draws(functions, row, sampling, positions)
        assert bool((p[tokens] > 0).all())
        assert bool((u <= after[tokens] + 2.0**-20).all())
        assert bool((u >= (after - p)[tokens] - 2.0**-20).all())
        assert_close(logprob, p[tokens].log().float())


@pytest.mark.parametrize("sampling", SAMPLINGS, ids=str)
def test_counts_of_many_draws_follow_the_distribution(sampling: Sampling) -> None:
    rules: list[LogitRule] = [TokenBias({0: 1.0, 7: -math.inf, 20: -2.0}), UsedTokenPenalty(1.5)]
    row = normal(60)
    adjusted = row.clone()
    adjusted[[0, 20, 1, 3]] += torch.tensor([1.0, -2.0, -1.5, -1.5])
    adjusted[7] = -math.inf
    total = 20_000
    expected = total * distribution(adjusted, sampling)
    tokens, _ = draws(BEST, row, sampling, torch.arange(total), rules)
    counts = tokens.bincount(minlength=60).double()
    # Tokens that are expected less than ten times count as one.
    rare = expected < 10
    expected = torch.cat([expected[~rare], expected[rare].sum()[None]])
    counts = torch.cat([counts[~rare], counts[rare].sum()[None]])
    assert bool((counts[expected == 0] == 0).all())
    counts, expected = counts[expected > 0], expected[expected > 0]
    statistic = ((counts - expected) ** 2 / expected).sum()
    freedom = torch.tensor(len(counts) - 1, dtype=torch.float64)
    assert torch.special.gammaincc(freedom / 2, statistic / 2).item() > 1e-4


def plateaus(size: int) -> Tensor:
    """Two levels, the lower one 14 of 20 tokens."""
    return (torch.arange(size) >= size * 14 // 20).float()


FLAT: list[tuple[str, Callable[[int], Tensor], Sampling]] = [
    ("equal", torch.zeros, Sampling(top_k=5)),
    ("equal", torch.zeros, Sampling(top_p=0.5)),
    ("zeros", lambda size: torch.tensor([-0.0, 0.0]).repeat(size // 2), Sampling(top_k=9)),
    ("normal", normal, Sampling(temperature=5.0, top_p=0.99)),
    ("normal", normal, Sampling(temperature=5.0, top_p=2.0**-20)),
    ("normal", normal, Sampling(top_k=6000)),
    ("normal", normal, Sampling(top_k=19_999, top_p=1 - 2.0**-24)),
    ("normal", normal, Sampling(temperature=5.0, top_k=6000, top_p=0.8, min_p=0.3)),
    ("normal", normal, Sampling(temperature=9.0, min_p=0.1)),
    ("plateaus", plateaus, Sampling(top_k=5)),
    ("plateaus", plateaus, Sampling(top_k=6000)),
    ("plateaus", plateaus, Sampling(top_k=6001)),
    ("plateaus", plateaus, Sampling(top_p=0.5)),
    ("plateaus", plateaus, Sampling(top_p=0.6)),
    ("huge", lambda size: 1e38 * normal(size).clamp(-3, 3), Sampling(temperature=1e30, top_k=7000)),
    ("tiny", lambda size: 1e-40 * normal(size), Sampling(temperature=1e-4, top_k=7000)),
]


@pytest.mark.parametrize(
    ("make", "sampling"), [flat[1:] for flat in FLAT], ids=[f"{f[0]}-{f[2]}" for f in FLAT]
)
def test_flat_distributions_keep_exactly_the_references_tokens(
    make: Callable[[int], Tensor], sampling: Sampling
) -> None:
    row = make(20_000)
    positions = torch.tensor([LEAST, MOST, *range(8)])
    # Sorted, the smallest uniform draws the last token that is kept: one more or less would show.
    for values in (row.sort().values, row, row.sort(descending=True).values.bfloat16()):
        tokens, logprob = draws(REFERENCE.functions, values, sampling, positions)
        for functions in KERNELS.values():
            found, found_logprob = draws(functions, values, sampling, positions)
            assert_same_bits(found, tokens)
            assert_close(found_logprob, logprob)


def test_the_smallest_uniform_finds_the_last_token_kept() -> None:
    # What the test above relies on, in literal numbers.
    row = torch.linspace(0, 1, 20_000)
    for sampling, first in [(Sampling(top_k=6000), 14_000), (Sampling(top_p=0.5), 12_402)]:
        assert int(kept_tokens(row, sampling).nonzero()[0]) == first
        for functions in (REFERENCE.functions, *KERNELS.values()):
            tokens, _ = draws(functions, row, sampling, torch.tensor([LEAST, MOST]))
            assert tokens.tolist() == [first, 19_999]


# Invariance


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_row_has_the_same_bits_alone_as_among_64(dtype: torch.dtype) -> None:
    batch = Recipe(5, 4500, 64, dtype, mask="random").build()
    for functions in KERNELS.values():
        together = run(functions, batch, 3)
        for row in range(0, 64, 3):
            alone = run(functions, batch.take([row]), 3)
            for name, value in together.items():
                if name.startswith(("state.", "error.")):
                    continue
                rows = value.view(64, -1)[row] if name == "apply_rules_" else value[row]
                assert_same_bits(alone[name].view_as(rows), rows, f"{name} of row {row}")


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("drafts", [False, True])
def test_results_do_not_depend_on_threads(drafts: bool, two_threads: None) -> None:
    # In every op both threads have work: even apply_rules_ cuts 140 rows of this width.
    batch = Recipe(2, 33_001, 20, torch.float16, mask="random", drafts=drafts).build()
    batch = batch.take([*range(20)] * 7)
    parallel = run(BEST, batch, 2)
    torch.set_num_threads(1)
    for name, value in run(BEST, batch, 2).items():
        assert_same_bits(parallel[name], value, name)
