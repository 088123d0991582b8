"""The log-likelihood of a rule adapter's weights and its exact gradient.

With p the base model, r the rules' score and y the chosen token, the log-likelihood is the sum over
response tokens of log p(y) + r(y) - log Z, Z = sum_v p(v) exp(r(v)). It is concave in the weights,
and its gradient is how often a feature was seen less how often the adjusted model expects it
(exponential families; the rule adapter is Hewitt et al. 2024, section 6).
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rnr_kernels.tuning.features import Feature
from rnr_kernels.tuning.steps import ResponseSteps

Array = NDArray[np.float64]


class Objective:
    """The log-likelihood of `features` on response steps, in nats.

    The steps must have every token of the features among their candidates. Weights are float64 [K].
    """

    def __init__(self, steps: ResponseSteps, features: Sequence[Feature]) -> None:
        self.steps = steps
        self.features = tuple(features)
        count, width = len(self.features), len(steps.token_ids)
        columns = {token: column for column, token in enumerate(steps.token_ids)}
        self._member = torch.zeros(count, width + 1, dtype=torch.float64)
        """Whether a feature acts on a column; the last one stands for all other tokens."""
        self._is_used = torch.zeros(count, dtype=torch.float64)
        for k, feature in enumerate(self.features):
            self._is_used[k] = feature.family == "used"
            self._member[k, [columns[token] for token in feature.token_ids]] = 1.0
        shapes = [feature.shape(steps.position) for feature in self.features]
        self._shape = torch.stack([steps.rest_free.new_zeros(steps.num_tokens), *shapes], 1)[:, 1:]
        self._on_target = self._shape * self._member.T[steps.target]
        self._on_target += steps.target_used.double()[:, None] * self._is_used
        self._seen = self._on_target.sum(0)
        self._mass = steps.mass.double()
        self._used = steps.used.double()

    def log_likelihoods(self, weights: Array) -> Tensor:
        """float64 [N], of each response token."""
        _, _, log_z = self._adjusted(torch.from_numpy(weights))
        return self.steps.target_logprob + self._on_target @ torch.from_numpy(weights) - log_z

    def value_and_gradient(self, weights: Array) -> tuple[float, Array]:
        """The log-likelihood of all response tokens and its gradient [K]."""
        w = torch.from_numpy(weights)
        mass, rest_used, log_z = self._adjusted(w)
        value = self.steps.target_logprob.sum() + self._seen @ w - log_z.sum()
        expected = (self._shape * (mass @ self._member[:, :-1].T)).sum(0)
        used = (mass * self._used).sum() + rest_used.sum()
        return float(value), (self._seen - expected - used * self._is_used).numpy()

    def adjusted(self, weights: Array) -> tuple[Tensor, Tensor]:
        """Probabilities under base times rules, float64: of the candidates [N, C], and of all
        tokens that were used before [N]."""
        mass, rest_used, _ = self._adjusted(torch.from_numpy(weights))
        return mass, (mass * self._used).sum(1) + rest_used

    def _adjusted(self, w: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Adjusted probabilities: of the candidates [N, C], of all other used tokens [N]; log Z."""
        penalty = self._is_used @ w
        score = (self._shape * w) @ self._member[:, :-1] + penalty * self._used
        # Probabilities times exp(score) could overflow: the largest score is taken out of all.
        top = torch.cat([score, penalty.expand(len(score), 1), score.new_zeros(len(score), 1)], 1)
        largest = top.max(1).values
        mass = self._mass * (score - largest[:, None]).exp_()
        rest_used = self.steps.rest_used * (penalty - largest).exp()
        z = mass.sum(1) + rest_used + self.steps.rest_free * (-largest).exp()
        return mass / z[:, None], rest_used / z, z.log() + largest


def penalised(
    objective: Objective, weights: Array, *, l2: float = 0.0, l1: float = 0.0
) -> tuple[float, Array]:
    """Minus the log-likelihood plus l2 / 2 |w|^2 + l1 |w|_1, in nats, and its gradient [K].

    At a weight of 0, where the last part has none, the entry is the least that a subgradient has:
    0 if l1 holds the weight there.
    """
    value, gradient = objective.value_and_gradient(weights)
    value -= 0.5 * l2 * float(weights @ weights) + l1 * float(np.abs(weights).sum())
    gradient = l2 * weights - gradient
    held = np.sign(gradient) * np.maximum(np.abs(gradient) - l1, 0.0)
    return -value, np.where(weights == 0, held, gradient + l1 * np.sign(weights))
