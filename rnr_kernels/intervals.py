"""Intervals, most by bootstrap: how far a mean over prompts and training seeds may be trusted."""

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

NUM_DRAWS = 2000
NUM_BAND_DRAWS = 500
COVERAGE = 0.95
ROUNDING = 1e-9
"""Of a count that is a whole number but for the last bits."""


def bootstrap_interval(
    values: ArrayLike, *, num_draws: int = NUM_DRAWS, seed: int = 0
) -> tuple[float, float]:
    """95 % percentile interval of the mean of `values` [prompts] or [seeds, prompts].

    Prompts are drawn with replacement, and seeds too, with the same prompts for every seed of a
    draw. Raises ValueError for no values, or for one that is not finite.
    """
    table = _table("values", values)
    return _ends([drawn.mean(axis=1) for (drawn,) in _draws((table,), num_draws, seed)])


def ratio_interval(
    numerators: ArrayLike,
    denominators: ArrayLike,
    *,
    num_draws: int = NUM_DRAWS,
    seed: int = 0,
) -> tuple[float, float]:
    """95 % interval of sum(numerators) / sum(denominators), [prompts] or [seeds, prompts] both.

    A prompt is drawn with its two values together, such as its shifted tokens and all its tokens.
    Raises ValueError where they are not equally many, for one that is not finite, and for a
    denominator that is not positive.
    """
    above = _table("numerators", numerators)
    below = _table("denominators", denominators)
    if above.shape != below.shape:
        raise ValueError(
            f"numerators and denominators must be equally many, got {above.shape} and {below.shape}"
        )
    if not (below > 0).all():
        raise ValueError("denominators must be positive: leave out prompts that have none")
    results = [
        one.sum(axis=1) / other.sum(axis=1)
        for one, other in _draws((above, below), num_draws, seed)
    ]
    return _ends(results)


def exact_interval(count: float, total: int) -> tuple[float, float]:
    """95 % interval of a share, `count` of `total` trials (Clopper and Pearson 1934).

    A count between two whole numbers gets the lower end of the one below and the upper end of the
    one above. Raises ValueError for no trials, and for a count that is not from 0 to `total`.
    """
    if total < 1 or not 0 <= count <= total:
        raise ValueError(f"count must be from 0 to total, at least 1, got {count} of {total}")
    below, above = math.floor(count + ROUNDING), math.ceil(count - ROUNDING)
    # The upper end for so many successes is 1 less the lower end for as many failures.
    return _lower_end(below, total), 1 - _lower_end(total - above, total)


def _lower_end(count: int, total: int) -> float:
    """The share at which `count` successes or more have the probability of one tail."""
    if count == 0:
        return 0.0
    tail = (1 - COVERAGE) / 2
    if count == total:
        return float(tail ** (1 / total))
    counts = range(count, total + 1)
    whole = math.lgamma(total + 1)
    ways = np.array([whole - math.lgamma(k + 1) - math.lgamma(total - k + 1) for k in counts])
    found = np.arange(count, total + 1)
    low, high = 0.0, count / total
    while low < (middle := (low + high) / 2) < high:
        logs = ways + found * math.log(middle) + (total - found) * math.log1p(-middle)
        if np.exp(logs).sum() < tail:
            low = middle
        else:
            high = middle
    return low


def mean_bands(
    values: ArrayLike, *, num_draws: int = NUM_BAND_DRAWS, seed: int = 0
) -> tuple[Array, Array]:
    """95 % intervals [positions] of the means over prompts of `values` [prompts, positions].

    NaN stands where a prompt has no value. Prompts are drawn with replacement, the same at every
    position; a draw counts where one of its prompts has a value. NaN where no draw counts. Raises
    ValueError for no values, or for infinite ones.
    """
    table = np.asarray(values, dtype=np.float64)
    if table.ndim != 2 or table.size == 0:
        raise ValueError(
            f"values must be [prompts, positions] with at least one of each, got {table.shape}"
        )
    if np.isinf(table).any():
        raise ValueError("values must be finite, or NaN where a prompt has none")
    there = ~np.isnan(table)
    num_prompts = len(table)
    rng = np.random.default_rng(seed)
    times = rng.multinomial(num_prompts, np.full(num_prompts, 1 / num_prompts), size=num_draws)
    weights = times.astype(np.float64)
    counts = weights @ there.astype(np.float64)
    sums = weights @ np.where(there, table, 0)
    means = np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)
    tail = (1 - COVERAGE) / 2
    return _quantile(means, tail), _quantile(means, 1 - tail)


def _quantile(means: Array, quantile: float) -> Array:
    """Of each column's values, those that are not NaN; between two of them linearly."""
    ordered = np.sort(means, axis=0)  # NaN comes last
    last = (~np.isnan(means)).sum(axis=0) - 1
    place = np.maximum(last, 0) * quantile
    below = np.floor(place).astype(int)
    above = np.minimum(below + 1, np.maximum(last, 0))
    columns = np.arange(means.shape[1])
    low, high = ordered[below, columns], ordered[above, columns]
    return np.asarray(low + (high - low) * (place - below))


def _table(name: str, values: ArrayLike) -> Array:
    table = np.atleast_2d(np.asarray(values, dtype=np.float64))
    if table.ndim != 2 or table.size == 0:
        raise ValueError(
            f"{name} must be [prompts] or [seeds, prompts] with at least one, got {table.shape}"
        )
    if not np.isfinite(table).all():
        raise ValueError(f"{name} must be finite: leave out what has none")
    return table


def _draws(tables: tuple[Array, ...], num_draws: int, seed: int) -> Iterator[tuple[Array, ...]]:
    """Some draws at a time, [draws, prompts] of each table: means over the drawn seeds."""
    num_seeds, num_prompts = tables[0].shape
    rng = np.random.default_rng(seed)
    drawn = rng.integers(num_seeds, size=(num_draws, num_seeds))
    shares = np.stack([(drawn == each).mean(axis=1) for each in range(num_seeds)], axis=1)
    step = max(1, 2**22 // num_prompts)  # 32 MB of draws
    for first in range(0, num_draws, step):
        some = shares[first : first + step]
        prompts = rng.integers(num_prompts, size=(len(some), num_prompts))
        yield tuple(
            sum((some[:, s, None] * row[prompts] for s, row in enumerate(table)), np.zeros(()))
            for table in tables
        )


def _ends(results: list[Array]) -> tuple[float, float]:
    tail = 100 * (1 - COVERAGE) / 2
    low, high = np.percentile(np.concatenate(results), [tail, 100 - tail])
    return float(low), float(high)
