"""Response tokens under the base model, kept small: what rules on some tokens can change of them.

Rules that name only C candidate tokens, and perhaps what was used, move Z by the base probabilities
of those tokens alone. With them kept for every step, likelihood and gradient are exact without
another look at the vocabulary.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from rnr_kernels.forward import logits_width
from rnr_kernels.rules.kinds import RuleSet
from rnr_kernels.teacher_forcing import Forced, response_logits
from rnr_kernels.tuning.features import FAMILIES, Scope
from rnr_kernels.tuning.likelihood import adjusted

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

CHUNK = 2**22
"""Probabilities in float64 at a time: 32 MB."""


@dataclass(frozen=True)
class ResponseSteps:
    """N response tokens, their EOS included, in the order of the texts; all on the CPU."""

    token_ids: tuple[int, ...]
    """The C candidates."""
    position: Tensor
    """int64 [N]: t, response tokens before it."""
    response: Tensor
    """int64 [N], the text it belongs to."""
    target: Tensor
    """int64 [N], the chosen token's column; C for one that is no candidate."""
    target_used: Tensor
    """bool [N], whether the chosen token was used before."""
    target_logprob: Tensor
    """float64 [N], under the base model."""
    mass: Tensor
    """float32 [N, C], base probabilities of the candidates."""
    used: Tensor
    """bool [N, C], which of them were used before."""
    rest_used: Tensor
    """float64 [N], base probability of all other tokens that were used before."""
    rest_free: Tensor
    """float64 [N], base probability of all other tokens that were not."""

    @property
    def num_tokens(self) -> int:
        return len(self.position)

    def rows(self, rows: slice) -> "ResponseSteps":
        """Some of the response tokens."""
        tensors = {
            field.name: getattr(self, field.name)[rows]
            for field in fields(self)
            if field.name != "token_ids"
        }
        return replace(self, **tensors)

    def restricted(self, token_ids: Sequence[int]) -> "ResponseSteps":
        """The same with fewer candidates: the mass of the others moves to the rest."""
        columns = [self.token_ids.index(token) for token in token_ids]
        others = [c for c in range(len(self.token_ids)) if c not in set(columns)]
        used, free = self.rest_used.clone(), self.rest_free.clone()
        size = max(1, CHUNK // max(1, len(others)))
        for first in range(0, self.num_tokens, size):
            rows = slice(first, first + size)
            mass, bits = self.mass[rows, others].double(), self.used[rows, others]
            used[rows] += (mass * bits).sum(1)
            free[rows] += (mass * ~bits).sum(1)
        place = torch.full((len(self.token_ids) + 1,), len(columns))
        place[columns] = torch.arange(len(columns))
        return ResponseSteps(
            tuple(token_ids), self.position, self.response, place[self.target], self.target_used,
            self.target_logprob, self.mass[:, columns], self.used[:, columns], used, free,
        )  # fmt: skip


def observe(
    model: "PreTrainedModel", texts: Sequence[Forced], token_ids: Sequence[int], *, scope: Scope
) -> ResponseSteps:
    """One pass over the texts with these candidates. ValueError for logits that are NaN, and for a
    response token that the base model never chooses: no finite weight makes it likely."""
    starts = [0]
    for text in texts:
        starts.append(starts[-1] + len(text.response_token_ids))
    count, width = starts[-1], len(token_ids)
    steps = ResponseSteps(
        token_ids=tuple(token_ids),
        position=torch.zeros(count, dtype=torch.long),
        response=torch.zeros(count, dtype=torch.long),
        target=torch.zeros(count, dtype=torch.long),
        target_used=torch.zeros(count, dtype=torch.bool),
        target_logprob=torch.zeros(count, dtype=torch.float64),
        mass=torch.zeros(count, width),
        used=torch.zeros(count, width, dtype=torch.bool),
        rest_used=torch.zeros(count, dtype=torch.float64),
        rest_free=torch.zeros(count, dtype=torch.float64),
    )
    columns = {token: column for column, token in enumerate(token_ids)}
    for batch in response_logits(model, texts):
        for index, logits in zip(batch.indices, batch.logits.split(batch.lengths), strict=True):
            prompt = texts[index].prompt_token_ids if scope == "prompt+response" else ()
            rows = slice(starts[index], starts[index + 1])
            steps.response[rows] = index
            _observe_one(steps, rows, logits, prompt, texts[index].response_token_ids, columns)
    return steps


def _observe_one(
    steps: ResponseSteps,
    rows: slice,
    logits: Tensor,
    prompt: Sequence[int],
    response: Sequence[int],
    columns: dict[int, int],
) -> None:
    """Fills the rows of one response."""
    device, length, none = logits.device, len(response), len(columns)
    first_use = {token: step + 1 for step, token in reversed(list(enumerate(response)))}
    first_use |= dict.fromkeys(prompt, 0)
    position = torch.arange(length)
    steps.position[rows] = position
    steps.target[rows] = torch.tensor([columns.get(token, none) for token in response])
    since = torch.tensor([first_use[token] for token in response])
    steps.target_used[rows] = since <= position
    of_columns = torch.tensor([first_use.get(token, length) for token in columns])
    steps.used[rows] = of_columns <= position[:, None]

    others = [token for token in first_use if token not in columns]
    bits = torch.tensor([first_use[token] for token in others]) <= position[:, None]
    kept = torch.tensor(list(columns), dtype=torch.long, device=device)
    targets = torch.tensor(response, device=device)
    logprobs = logits.float().log_softmax(1)
    chosen = logprobs.gather(1, targets[:, None])[:, 0].double().cpu()
    _check(chosen, int(steps.response[rows.start]))
    mass = logprobs.exp_()
    steps.target_logprob[rows] = chosen
    steps.mass[rows] = mass[:, kept].cpu()
    mass[:, kept] = 0.0
    used = (mass[:, others].double().cpu() * bits).sum(1)
    steps.rest_used[rows] = used
    steps.rest_free[rows] = (mass.sum(1, dtype=torch.float64).cpu() - used).clamp(min=0.0)


def _check(chosen: Tensor, response: int) -> None:
    bad = (~chosen.isfinite()).nonzero()
    if len(bad):
        step = int(bad[0])
        what = (
            "the model gives its next token the probability 0, which no weight can raise"
            if chosen[step] == -torch.inf
            else "the logits are NaN, +inf, or all -inf; check the model, or try another dtype"
        )
        raise ValueError(f"response {response + 1}, after {step} tokens: {what}")


def shifted_tokens(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    rules: RuleSet,
    texts: Sequence[Forced],
    *,
    families: Collection[str] = FAMILIES,
) -> Tensor:
    """float64 [V]: how much more likely the responses become, in nats, if one token gets a weight.

    With O times seen and E expected under the model times `rules`, the weight log(O / E) gains
    O log(O / E) - O + E where E is spread thin (a Poisson likelihood ratio); the larger of the
    gains at every step and at the first.
    """
    width = logits_width(model)
    chosen = [which for which, name in enumerate(("token", "opener")) if name in families]
    if not chosen:
        return torch.zeros(width, dtype=torch.float64)
    expected = torch.zeros(2, width, dtype=torch.float64)
    seen = torch.zeros_like(expected)
    for batch in adjusted(model, tokenizer, [rules], texts):
        (logprobs,) = batch.logprobs
        opening = torch.tensor([0, *batch.lengths[:-1]]).cumsum(0).to(logprobs.device)
        for which, (values, token_ids) in enumerate(
            ((logprobs, batch.token_ids), (logprobs[opening], batch.token_ids[opening]))
        ):
            expected[which] += values.exp().sum(0, dtype=torch.float64).cpu()
            seen[which] += token_ids.bincount(minlength=width).cpu()
    ratio = seen / expected.clamp(min=torch.finfo(torch.float64).tiny)
    gain = torch.xlogy(seen, ratio) - seen + expected
    return gain[chosen].max(0).values
