"""Which feature deserves the next weight: the gain of each, given the weights there are."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rnr_kernels.tuning.features import ALWAYS, Feature
from rnr_kernels.tuning.objective import Array, Objective
from rnr_kernels.tuning.steps import CHUNK, ResponseSteps

SHORTLIST = 64
"""Tokens whose gain is computed; the others' gradients promise less."""

_LARGE_WEIGHT = 6.0
"""Nats: for the shortlist alone, how far a weight may go; a gain is at most gradient x weight."""

_NEWTON_STEPS = 12
_LONGEST_STEP = 2.0
"""Nats: so that exp() of a rough guess does no harm."""


@dataclass(frozen=True)
class Gain:
    """What a weight of its own for one feature adds to the penalised log-likelihood, in nats."""

    feature: Feature
    weight: float
    """The best one while all others are held."""
    nats: float


def gains(
    steps: ResponseSteps,
    candidates: Sequence[Feature],
    chosen: Sequence[Feature],
    weights: Array,
    *,
    l2: float = 0.0,
    l1: float = 0.0,
) -> list[Gain]:
    """The gains of those candidates that may matter, largest first (Della Pietra et al. 1997).

    A gain is exact for one weight added to `weights`, and so a lower bound on what a new fit of all
    of them gains.
    """
    mass, used = _adjusted(steps, chosen, weights)
    columns = {token: column for column, token in enumerate(steps.token_ids)}
    found = []
    for feature in _shortlist(steps, candidates, chosen, mass, columns, l2):
        rows = _rows(steps.position, feature)
        at = [columns[token] for token in feature.token_ids]
        if feature.family == "used":
            share, hit = used[rows], steps.target_used[rows]
        else:
            share = mass[:, at].sum(1, dtype=torch.float64)[rows]
            target = steps.target[rows]
            hit = torch.stack([target == column for column in at]).any(0)
        shape = torch.ones((), dtype=torch.float64)
        if feature.over is not None:
            shape = feature.shape(steps.position[rows])
        weight, nats = _best_weight(share, shape, float((shape * hit).sum()), l2, l1)
        found.append(Gain(feature, weight, nats))
    return sorted(found, key=lambda gain: -gain.nats)


def _adjusted(
    steps: ResponseSteps, chosen: Sequence[Feature], weights: Array
) -> tuple[Tensor, Tensor]:
    """Under base times the chosen rules: float32 [N, C] of the candidates, float64 [N] of all used
    tokens."""
    mass, used = torch.empty_like(steps.mass), torch.empty_like(steps.rest_used)
    size = max(1, CHUNK // max(1, len(steps.token_ids)))
    for first in range(0, steps.num_tokens, size):
        rows = slice(first, first + size)
        mass[rows], used[rows] = Objective(steps.rows(rows), chosen).adjusted(weights)
    return mass, used


def _shortlist(
    steps: ResponseSteps,
    candidates: Sequence[Feature],
    chosen: Collection[Feature],
    mass: Tensor,
    columns: dict[int, int],
    l2: float,
) -> list[Feature]:
    """Of what is not chosen yet: EOS, used tokens, and the tokens whose gradients promise most."""
    promise = {}
    opening = steps.position == 0
    for family, (share, target) in (
        ("token", (mass, steps.target)),
        ("opener", (mass[opening], steps.target[opening])),
    ):
        expected = share.sum(0, dtype=torch.float64)
        variance = expected - share.square().sum(0, dtype=torch.float64)
        seen = target.bincount(minlength=len(columns) + 1)[: len(columns)]
        gradient = (seen - expected).abs()
        promise[family] = torch.minimum(
            gradient.square() / (2 * (variance + l2)).clamp(min=1e-12), _LARGE_WEIGHT * gradient
        ).tolist()
    open_to = [feature for feature in candidates if feature not in set(chosen)]
    tokens = [feature for feature in open_to if feature.family in promise]
    tokens.sort(key=lambda f: -promise[f.family][columns[f.token_ids[0]]])
    return tokens[:SHORTLIST] + [f for f in open_to if f.family not in promise]


def _rows(position: Tensor, feature: Feature) -> Tensor | slice:
    """Where the feature may be other than 0."""
    start, end = feature.steps
    if feature.steps == ALWAYS:
        return slice(None)
    return position >= start if end is None else (position >= start) & (position < end)


def _best_weight(
    share: Tensor, shape: Tensor, seen: float, l2: float, l1: float
) -> tuple[float, float]:
    """The weight w at which w seen - sum log(1 + share (exp(w shape) - 1)) less the penalties is
    largest, by Newton's method from 0, and that value. share: float64 [N]; shape: [N] or []."""
    gradient = seen - float((shape * share).sum())
    if abs(gradient) <= l1:
        return 0.0, 0.0
    side = l1 if gradient > 0 else -l1
    weight = 0.0
    for _ in range(_NEWTON_STEPS):
        raised = share * (weight * shape).exp()
        tilted = raised / (1 - share + raised)
        slope = seen - float((shape * tilted).sum()) - l2 * weight - side
        curvature = float((shape.square() * tilted * (1 - tilted)).sum()) + l2
        step = slope / max(curvature, 1e-12)
        weight += min(max(step, -_LONGEST_STEP), _LONGEST_STEP)
        if abs(step) < 1e-3:
            break
    z = torch.log1p(share * torch.expm1(weight * shape)).sum()
    nats = weight * seen - float(z) - 0.5 * l2 * weight**2 - l1 * abs(weight)
    return (weight, nats) if nats > 0 else (0.0, 0.0)
