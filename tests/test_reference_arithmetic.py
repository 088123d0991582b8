"""The integer and float32 arithmetic behind sampling, against exact computations."""

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rnr_kernels.layout import TILE
from rnr_kernels.reference.sampling import (
    EXP2_COEFFICIENTS,
    Weights,
    draw,
    fixed_point_exp2,
    fused_multiply_add,
    multiply_shift_53,
    philox_4x32,
    sampling_weights,
    uniform_bits,
)
from rnr_kernels.testing import assert_same_bits

many = settings(max_examples=200, deadline=None)


def word(value: int) -> Tensor:
    return torch.tensor([value])


# Random bits

KNOWN_ANSWERS = [
    # Counter, key, output: the test vectors that Random123 publishes for philox4x32, 10 rounds.
    ("00000000 00000000 00000000 00000000", "00000000 00000000",
     "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff",
     "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0",
     "d16cfe09 94fdcceb 5001e420 24126ea1"),
]  # fmt: skip


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN_ANSWERS)
def test_philox_gives_the_published_answers(counter: str, key: str, expected: str) -> None:
    c0, c1, c2, c3 = (word(int(digits, 16)) for digits in counter.split())
    k0, k1 = (word(int(digits, 16)) for digits in key.split())
    output = philox_4x32((k0, k1), (c0, c1, c2, c3))
    assert " ".join(f"{value.item():08x}" for value in output) == expected


def philox(key: tuple[int, int], counter: tuple[int, int, int, int]) -> list[int]:
    """The same generator in Python integers."""
    (k0, k1), (c0, c1, c2, c3) = key, counter
    for _ in range(10):
        high0, low0 = divmod(c0 * 0xD2511F53, 2**32)
        high1, low1 = divmod(c2 * 0xCD9E8D57, 2**32)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
    return [c0, c1, c2, c3]


def test_the_uniform_of_seed_0_and_position_0() -> None:
    expected = (0xE169C58D << 32 | 0x6627E8D5) >> 11
    assert uniform_bits(word(0), word(0)).tolist() == [expected] == [0x1C2D38B1ACC4FD]
    assert expected / 2**53 == pytest.approx(0.8805, abs=1e-4)


@many
@given(seed=st.integers(-(2**63), 2**63 - 1), position=st.integers(0, 2**63 - 1))
def test_seed_and_position_are_key_and_counter(seed: int, position: int) -> None:
    key = (seed % 2**32, seed % 2**64 >> 32)
    words = philox(key, (position % 2**32, position >> 32, 0, 0))
    expected = (words[1] << 32 | words[0]) >> 11
    assert uniform_bits(word(seed), word(position)).item() == expected < 2**53


@many
@given(bits=st.integers(0, 2**53 - 1), total=st.integers(0, 2**62 - 1))
def test_multiply_shift_is_exact(bits: int, total: int) -> None:
    assert multiply_shift_53(word(bits), word(total)).item() == bits * total >> 53


def test_multiply_shift_at_its_limits() -> None:
    bits, total = 2**53 - 1, 2**62 - 1
    assert multiply_shift_53(word(bits), word(total)).item() == bits * total >> 53 == 2**62 - 513


# Floating point


def nearest_float32(value: Fraction) -> float:
    """Rounds half to even, subnormal numbers included."""
    if value == 0:
        return 0.0
    exponent = math.floor(math.log2(abs(value)))
    while abs(value) >= Fraction(2) ** (exponent + 1):
        exponent += 1
    while abs(value) < Fraction(2) ** exponent:
        exponent -= 1
    unit = Fraction(2) ** (max(exponent, -126) - 23)
    return float(round(value / unit) * unit)


moderate = st.floats(-(2.0**30), 2.0**30, width=32, allow_nan=False)
near_one = st.floats(-2.0, 2.0, width=32, allow_nan=False)


@many
@given(a=st.one_of(moderate, near_one), b=st.one_of(moderate, near_one), c=moderate)
def test_fused_multiply_add_rounds_once(a: float, b: float, c: float) -> None:
    exact = Fraction(a) * Fraction(b) + Fraction(c)
    result = fused_multiply_add(torch.tensor([a]), torch.tensor([b]), c)
    assert result.dtype == torch.float32
    assert result.item() == nearest_float32(exact)


def test_fused_multiply_add_where_float64_alone_would_round_twice() -> None:
    # 1 + 2^-24 + 2^-60 lies above the middle of 1 and 1 + 2^-23; in float64 it is the middle.
    a = torch.tensor([2.0**-30])
    assert fused_multiply_add(a, a, 1.0 + 2.0**-24).item() == 1.0 + 2.0**-23
    assert fused_multiply_add(-a, a, 1.0 + 2.0**-24).item() == 1.0
    assert fused_multiply_add(a, a, -1.0 - 2.0**-24).item() == -1.0
    assert (a.double() * a.double() + 1.0 + 2.0**-24).float().item() == 1.0


def test_the_polynomials_coefficients_are_float32_numbers() -> None:
    for coefficient in EXP2_COEFFICIENTS:
        assert torch.tensor(coefficient).item() == coefficient


@pytest.mark.parametrize(
    ("exponent", "weight"),
    [
        (0.0, 2**40),
        (-1.0, 2**39),
        (-16.0, 2**24),
        (-40.0, 1),
        (-41.0, 0),
        (-1e9, 0),
        (-(2.0**-24), 2**40 - 2**16),  # The float32 below 1, in units of 2^-40.
    ],
)
def test_fixed_point_exp2_in_literals(exponent: float, weight: int) -> None:
    assert fixed_point_exp2(torch.tensor([exponent])).item() == weight


def test_fixed_point_exp2_is_as_accurate_as_float32() -> None:
    exponents = torch.cat([torch.linspace(-44, 0, 20011), torch.linspace(-1, 0, 20011)])
    exact = torch.exp2(exponents.double()) * 2**40
    error = (fixed_point_exp2(exponents).double() - exact).abs()
    # 24 bits of mantissa, and truncation to whole units.
    assert (error <= 2e-7 * exact + 1).all()


def test_fixed_point_exp2_does_not_depend_on_the_place_in_the_tensor() -> None:
    exponents = -30 * torch.rand(4099, generator=torch.Generator().manual_seed(0))
    together = fixed_point_exp2(exponents)
    for index in (0, 1, 17, 4095, 4098):
        alone = fixed_point_exp2(exponents[index, None])
        assert_same_bits(alone, together[index, None])


# Weights


def test_weights_are_relative_to_a_power_of_two_above_the_tiles_maximum() -> None:
    # log2 weights 3, 2, 0.5 in tile 0, -4 in tile 1: ceilings 2^3 and 2^-4.
    values = torch.full((1, TILE + 1), -torch.inf)
    values[0, :3], values[0, TILE] = torch.tensor([3.0, 2.0, 0.5]), -4.0
    weights = sampling_weights(values, torch.ones(1))
    assert weights.tile.shape == (1, 2, TILE)
    assert weights.tile[0, 0, :2].tolist() == [2**40, 2**39]
    assert weights.tile[0, 0, 2].item() / 2**40 == pytest.approx(2**-2.5, rel=2e-7)
    assert weights.tile[0, 1, 0].item() == 2**40
    assert weights.shift.tolist() == [[0, 7]]
    assert weights.tile.count_nonzero() == 4


def test_a_tile_without_allowed_tokens_weighs_nothing() -> None:
    values = torch.full((1, 2 * TILE), -torch.inf)
    values[0, TILE] = 0.0
    weights = sampling_weights(values, torch.ones(1))
    assert weights.tile[0, 0].count_nonzero() == 0
    assert weights.shift[0, 1] == 0
    assert draw(weights, word(2**53 - 1)).tolist() == draw(weights, word(0)).tolist() == [TILE]


def test_huge_logits_tie_beyond_the_clamp() -> None:
    values = torch.tensor([[3e38, 2.9e38, -3e38, 0.0]])
    assert sampling_weights(values, torch.ones(1)).tile[0, 0, :4].tolist() == [2**40, 2**40, 0, 0]
    values = torch.tensor([[2.0**31, 2.0**30, 2.0**30 - 64, -(2.0**33)]])
    assert sampling_weights(values, torch.ones(1)).tile[0, 0, :4].tolist() == [2**40, 2**40, 0, 0]


# Drawing


def walk(weights: Weights, bits: int) -> int:
    """The first token whose cumulative weight exceeds the target, one token at a time."""
    tiles = weights.tile[0].tolist()
    shifts = weights.shift[0].tolist()
    masses = [sum(tile) >> shift for tile, shift in zip(tiles, shifts, strict=True)]
    target = bits * sum(masses) >> 53
    before = 0
    for number, (tile, shift) in enumerate(zip(tiles, shifts, strict=True)):
        running = 0
        for index, weight in enumerate(tile):
            running += weight
            if before + (running >> shift) > target:
                return int(number * TILE + index)
        before += masses[number]
    raise AssertionError("the target is below the total")


@pytest.mark.parametrize("vocab_size", [5, 40, TILE, TILE + 1, 3 * TILE - 7])
def test_draw_is_a_walk_over_the_cumulative_weights(vocab_size: int) -> None:
    random = torch.Generator().manual_seed(vocab_size)
    values = 4 * torch.randn(1, vocab_size, generator=random)
    values[0, ::7] = -torch.inf
    values[0, -1] += 6.0
    weights = sampling_weights(values, torch.tensor([math.log2(math.e)]))
    bits = [0, 1, 2**52, 2**53 - 1, *torch.randint(0, 2**53, (12,), generator=random).tolist()]
    one_row = [int(draw(weights, word(value)).item()) for value in bits]
    assert one_row == [walk(weights, value) for value in bits]
    assert all(values[0, token] > -torch.inf for token in one_row)


def test_draw_at_the_boundaries_of_equal_weights() -> None:
    # Four equal weights: u < 1/4 is token 1, u = 1/4 already token 3.
    values = torch.full((1, 8), -torch.inf)
    values[0, 1::2] = 0.0
    weights = sampling_weights(values, torch.ones(1))
    quarter = 2**51
    bits = [0, quarter - 1, quarter, 2 * quarter - 1, 2 * quarter, 3 * quarter, 4 * quarter - 1]
    assert [draw(weights, word(value)).item() for value in bits] == [1, 1, 3, 3, 5, 7, 7]


def test_draw_at_the_boundary_of_two_tiles() -> None:
    values = torch.full((1, 2 * TILE), -torch.inf)
    values[0, 5] = values[0, TILE + 3] = 1.0
    weights = sampling_weights(values, torch.ones(1))
    assert draw(weights, word(2**52 - 1)).tolist() == [5]
    assert draw(weights, word(2**52)).tolist() == [TILE + 3]


@pytest.mark.parametrize("vocab_size", [40, 5000])
def test_draw_inverts_the_float64_distribution(vocab_size: int) -> None:
    random = torch.Generator().manual_seed(vocab_size)
    values = 3 * torch.randn(1, vocab_size, generator=random)
    weights = sampling_weights(values, torch.tensor([math.log2(math.e) / 0.8]))
    cumulative = (values[0].double() / 0.8).softmax(0).cumsum(0)
    for u in torch.linspace(0, 1, 129, dtype=torch.float64)[:-1].tolist():
        token = int(draw(weights, word(int(u * 2**53))).item())
        low = cumulative[token - 1].item() if token else 0.0
        assert low - 1e-6 <= u < cumulative[token].item() + 1e-6


def test_draws_follow_the_distribution() -> None:
    probabilities = torch.tensor([0.02, 0.3, 0.08, 0.2, 0.25, 0.15])
    weights = sampling_weights(probabilities.log()[None], torch.tensor([math.log2(math.e)]))
    draws = 6000
    counts = torch.zeros(6, dtype=torch.float64)
    for positions in torch.arange(draws).split(500):
        rows = Weights(weights.tile.expand(500, -1, -1), weights.shift.expand(500, -1))
        tokens = draw(rows, uniform_bits(torch.full_like(positions, 2024), positions))
        counts += tokens.bincount(minlength=6)
    expected = draws * probabilities.double()
    chi_square = ((counts - expected) ** 2 / expected).sum().item()
    assert chi_square < 20.5  # The 99.9 % quantile for 5 degrees of freedom.
