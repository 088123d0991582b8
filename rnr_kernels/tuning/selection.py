"""Choosing features one after the other, and fitting their weights to the optimum."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from rnr_kernels.tuning.features import Family, Feature
from rnr_kernels.tuning.gains import Gain, gains
from rnr_kernels.tuning.objective import Array, Objective, penalised
from rnr_kernels.tuning.steps import ResponseSteps

GRADIENT_TOLERANCE = 1e-7
"""Nats a response token: where the last fit stops."""

_ROUGH_TOLERANCE = 1e-5
"""Between two choices, where the next ones change the weights anyway."""

_MAX_ITERATIONS = 1000
_SHARE = 8
"""A round adds one weight, and one more for every so many that are still to come."""


@dataclass(frozen=True)
class Optimum:
    """Where the penalised negative log-likelihood is least."""

    weights: Array
    gradient_norm: float
    """The largest entry of its gradient, in nats a response token; of a weight at 0 what exceeds
    l1."""
    converged: bool


@dataclass(frozen=True)
class Selection:
    """The chosen features, in the order in which they came, and their weights."""

    features: tuple[Feature, ...]
    optimum: Optimum
    least_gain: float
    """Nats that the least of them gained when it was chosen; infinite if there are none."""
    log_likelihoods: Tensor
    """float64 [N], of each response token."""

    def weighted(self) -> list[tuple[Feature, float]]:
        """Features with their weights."""
        return list(zip(self.features, self.optimum.weights.tolist(), strict=True))


def select_weights(
    steps: ResponseSteps,
    candidates: Sequence[Feature],
    num_weights: int,
    *,
    l2: float = 0.0,
    l1: float = 0.0,
    least_gain: float = 0.0,
    first: Sequence[Family] = (),
) -> Selection:
    """At most `num_weights` features, each chosen because its gain was the largest.

    None is chosen that gains `least_gain` nats or less. The families `first` come before others,
    with their best feature each. Weights that l1 brings back to 0 are left out.
    """
    features: list[Feature] = []
    weights = np.zeros(0)
    least, pending = math.inf, list(first)
    while len(features) < num_weights:
        found = gains(steps, candidates, features, weights, l2=l2, l1=l1)
        count = 1 + (num_weights - len(features) - 1) // _SHARE
        family = pending.pop(0) if pending else None
        if family is not None:
            count = 1
            found = [gain for gain in found if gain.feature.family == family]
        new = _picked(found, count, least_gain)
        if not new:
            if family is not None:
                continue
            break
        least = min(least, *(gain.nats for gain in new))
        features += [gain.feature for gain in new]
        start = np.concatenate([weights, [gain.weight for gain in new]])
        rough = fit_weights(steps, features, start, l2=l2, l1=l1, tolerance=_ROUGH_TOLERANCE)
        features, weights = _nonzero(features, rough.weights)
    optimum = fit_weights(steps, features, weights, l2=l2, l1=l1)
    features, weights = _nonzero(features, optimum.weights)
    optimum = replace(optimum, weights=weights)
    values = _objective(steps, features).log_likelihoods(weights)
    return Selection(tuple(features), optimum, least, values)


def _nonzero(features: Sequence[Feature], weights: Array) -> tuple[list[Feature], Array]:
    kept = weights != 0
    return [feature for feature, keep in zip(features, kept, strict=True) if keep], weights[kept]


def fit_weights(
    steps: ResponseSteps,
    features: Sequence[Feature],
    start: Array | None = None,
    *,
    l2: float = 0.0,
    l1: float = 0.0,
    tolerance: float = GRADIENT_TOLERANCE,
) -> Optimum:
    """The weights [K] of given features that maximise log-likelihood less l2 / 2 |w|^2 + l1 |w|_1.

    L-BFGS-B on a convex function; with l1 a weight is the difference of two that are 0 or more, so
    it may come out as 0 exactly. `start` changes how long it takes, not where it ends.
    """
    if not features:
        return Optimum(np.zeros(0), 0.0, True)
    try:
        from scipy.optimize import minimize  # type: ignore[import-untyped]
    except ImportError:
        raise ValueError("fitting rules needs scipy; pip install 'rnr_kernels[tuning]'") from None
    objective = _objective(steps, features)
    count = len(features)
    scale = 1.0 / steps.num_tokens
    start = np.zeros(count) if start is None else start

    def smooth(w: Array) -> tuple[float, Array]:
        value, gradient = penalised(objective, w, l2=l2)
        return scale * value, scale * gradient

    def split(uv: Array) -> tuple[float, Array]:
        value, gradient = smooth(uv[:count] - uv[count:])
        price = scale * l1
        return value + price * float(uv.sum()), np.concatenate([gradient, -gradient]) + price

    result = minimize(
        split if l1 else smooth,
        np.concatenate([start.clip(min=0), (-start).clip(min=0)]) if l1 else start,
        jac=True,
        method="L-BFGS-B",
        bounds=[(0, None)] * (2 * count) if l1 else None,
        options={"maxiter": _MAX_ITERATIONS, "gtol": tolerance, "ftol": 0.0, "maxcor": 20},
    )
    weights = result.x[:count] - result.x[count:] if l1 else result.x
    norm = scale * float(np.abs(penalised(objective, weights, l2=l2, l1=l1)[1]).max())
    return Optimum(weights, norm, norm <= 10 * tolerance)


def _objective(steps: ResponseSteps, features: Sequence[Feature]) -> Objective:
    """On the tokens of the features alone."""
    tokens = sorted({token for feature in features for token in feature.token_ids})
    return Objective(steps.restricted(tokens), features)


def _picked(found: Sequence[Gain], count: int, least_gain: float) -> list[Gain]:
    """The first `count` that gain enough, one of each token: a second may be worthless then."""
    picked: dict[tuple[int, ...], Gain] = {}
    for gain in found:
        if gain.nats > least_gain and len(picked) < count:
            picked.setdefault(gain.feature.token_ids, gain)
    return list(picked.values())
