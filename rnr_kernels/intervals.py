"""Bootstrap intervals: how far a mean over prompts and training seeds may be trusted."""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

NUM_DRAWS = 2000
COVERAGE = 0.95


def bootstrap_interval(
    values: ArrayLike,
    *,
    statistic: Callable[[Array], Array] | None = None,
    num_draws: int = NUM_DRAWS,
    coverage: float = COVERAGE,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile interval of the mean of `values` [prompts] or [seeds, prompts].

    Prompts are drawn with replacement, and seeds too, with the same prompts for every seed of a
    draw. `statistic` takes the place of the mean: it gets [draws, prompts], each entry a mean over
    the drawn seeds, and returns [draws]. Raises ValueError for no values, or for one that is not
    finite.
    """
    table = np.atleast_2d(np.asarray(values, dtype=np.float64))
    if table.ndim != 2 or table.size == 0:
        raise ValueError(
            f"values must be [prompts] or [seeds, prompts] with at least one, got {table.shape}"
        )
    if not np.isfinite(table).all():
        raise ValueError("values must be finite: leave out what has none")
    num_seeds, num_prompts = table.shape
    rng = np.random.default_rng(seed)
    drawn_seeds = rng.integers(num_seeds, size=(num_draws, num_seeds))
    counts = np.stack([(drawn_seeds == s).sum(1) for s in range(num_seeds)], axis=1) / num_seeds
    results = np.empty(num_draws)
    step = max(1, 2**22 // num_prompts)  # draws at a time: 32 MB
    for first in range(0, num_draws, step):
        some = slice(first, first + step)
        prompts = rng.integers(num_prompts, size=(len(counts[some]), num_prompts))
        means = np.zeros(prompts.shape)
        for row, values_of_seed in enumerate(table):
            means += counts[some, row, None] * values_of_seed[prompts]
        results[some] = means.mean(axis=1) if statistic is None else statistic(means)
    tail = 100 * (1 - coverage) / 2
    low, high = np.percentile(results, [tail, 100 - tail])
    return float(low), float(high)
