"""Bootstrap intervals: what they hold, and what they refuse."""

from typing import Any

import numpy as np
import pytest

from rnr_kernels.intervals import bootstrap_interval, exact_interval, mean_bands, ratio_interval


def test_an_interval_holds_the_mean_and_shrinks_to_a_point_without_variation() -> None:
    assert bootstrap_interval([[1, 1, 1], [1, 1, 1]]) == (1.0, 1.0)
    low, high = bootstrap_interval([1] * 10 + [0] * 10)
    assert 0.2 < low < 0.5 < high < 0.8


def test_it_is_as_wide_as_the_normal_approximation_says() -> None:
    values = np.random.default_rng(0).normal(size=400)
    low, high = bootstrap_interval(values, num_draws=4000)
    error = values.std() / 20
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=0.1 * error)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=0.1 * error)


def test_seeds_vary_too_and_share_the_prompts_of_a_draw() -> None:
    """Two seeds that differ on every prompt: a draw takes one of them twice, or both."""
    assert bootstrap_interval([[0.0] * 50, [1.0] * 50]) == (0.0, 1.0)
    # Prompts vary alike for both seeds, so a second seed takes nothing off the width.
    row = [0.0] * 25 + [1.0] * 25
    one, both = bootstrap_interval(row), bootstrap_interval([row, row])
    assert both[1] - both[0] == pytest.approx(one[1] - one[0], abs=0.03)


def test_many_draws_in_pieces_have_the_same_coverage() -> None:
    row = [0.0, 1.0] * 3000
    low, high = bootstrap_interval(row)
    assert 0.485 < low < 0.49 and 0.51 < high < 0.515


def test_the_same_seed_gives_the_same_interval() -> None:
    row = [0.0, 1.0, 1.0, 0.0, 1.0]
    assert bootstrap_interval(row, seed=3) == bootstrap_interval(row, seed=3)


@pytest.mark.parametrize("values", [[], [[]], [[[1.0]]]])
def test_no_values_are_refused(values: object) -> None:
    with pytest.raises(ValueError, match=r"values must be \[prompts\] or \[seeds, prompts\]"):
        bootstrap_interval(values)  # type: ignore[arg-type]


def test_a_value_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="values must be finite"):
        bootstrap_interval([1.0, float("nan")])


def test_a_ratio_draws_both_sums_of_a_prompt_together() -> None:
    # Each prompt has the same share, however many tokens it has.
    assert ratio_interval([1, 2, 30], [4, 8, 120]) == (0.25, 0.25)
    # One of two prompts, both, or the other: 0/1, 3/4 and 3/3, and 9 tokens weigh more than 1.
    assert ratio_interval([0, 3], [1, 3]) == (0.0, 1.0)
    low, high = ratio_interval([0, 9] * 100, [1, 9] * 100)
    assert 0.86 < low < 0.9 < high < 0.93
    # With equal denominators it is the mean.
    row = [0.0, 1.0, 1.0, 0.0, 1.0]
    assert ratio_interval(row, [1] * 5, seed=3) == bootstrap_interval(row, seed=3)


@pytest.mark.parametrize(
    ("numerators", "denominators", "message"),
    [
        ([1, 2], [1], "must be equally many, got"),
        ([0, 1], [0, 2], "denominators must be positive"),
        ([], [], r"numerators must be \[prompts\]"),
        ([float("nan")], [1], "numerators must be finite"),
    ],
)
def test_a_ratio_without_sense_is_refused(
    numerators: list[float], denominators: list[float], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        ratio_interval(numerators, denominators)


def test_a_ratio_over_seeds_draws_them_too() -> None:
    """Two seeds that share nothing but the prompts: a draw has one of them twice, or both."""
    assert ratio_interval([[0.0] * 40, [2.0] * 40], [[2.0] * 40] * 2) == (0.0, 1.0)
    assert ratio_interval([[1.0, 2.0], [1.0, 2.0]], [[4.0, 8.0]] * 2) == (0.25, 0.25)


def test_bands_in_literal_numbers() -> None:
    """Two prompts: a draw has the first twice, the second twice, or each once."""
    low, high = mean_bands([[1.0, 5.0, np.nan], [3.0, np.nan, np.nan]])
    assert low[:2].tolist() == [1.0, 5.0] and high[:2].tolist() == [3.0, 5.0]
    assert np.isnan(low[2]) and np.isnan(high[2])


def test_bands_are_the_intervals_of_each_column() -> None:
    values = np.random.default_rng(0).normal(loc=[0, 5, 10], size=(400, 3))
    bands = np.array(mean_bands(values, num_draws=4000))
    alone = np.array([bootstrap_interval(column) for column in values.T]).T
    assert bands == pytest.approx(alone, abs=0.01)


def test_bands_leave_out_the_prompts_without_a_value() -> None:
    values = np.array([[1.0, 2.0], [2.0, np.nan], [6.0, 4.0], [7.0, np.nan]])
    low, high = mean_bands(values)
    assert 1 <= low[0] < 4 < high[0] <= 7
    assert (low[1], high[1]) == (2.0, 4.0)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1.0, 2.0], r"must be \[prompts, positions\] .* got \(2,\)"),
        (np.zeros((0, 3)), r"got \(0, 3\)"),
        ([[1.0, np.inf]], "must be finite, or NaN"),
    ],
)
def test_bands_of_other_values_are_refused(values: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mean_bands(values)


@pytest.mark.parametrize(
    ("count", "total", "ends"),
    [
        (0, 1, (0.0, 0.975)),
        (1, 1, (0.025, 1.0)),
        (0.5, 1, (0.0, 1.0)),
        (1, 10, (0.002528579, 0.445016117)),
        (9, 10, (0.554983883, 0.997471421)),
        (50, 1000, (0.037335395, 0.065390489)),
        (3.5, 10, (0.066739511, 0.737621923)),
        (0.1 * 3 * 10, 10, (0.066739511, 0.652452850)),
    ],
)
def test_an_exact_interval_is_clopper_and_pearsons(
    count: float, total: int, ends: tuple[float, float]
) -> None:
    assert exact_interval(count, total) == pytest.approx(ends, abs=1e-8)


@pytest.mark.parametrize(("count", "total"), [(0, 0), (-1, 3), (4, 3)])
def test_a_share_without_sense_is_refused(count: float, total: int) -> None:
    with pytest.raises(ValueError, match="count must be from 0 to total"):
        exact_interval(count, total)
