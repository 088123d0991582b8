"""Bootstrap intervals: what they hold, and what they refuse."""

import numpy as np
import pytest

from rnr_kernels.intervals import bootstrap_interval


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


def test_a_statistic_takes_the_place_of_the_mean() -> None:
    low, high = bootstrap_interval([1.0, 2.0, 4.0], statistic=lambda drawn: drawn.max(axis=1))
    assert (low, high) == (1.0, 4.0)


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
