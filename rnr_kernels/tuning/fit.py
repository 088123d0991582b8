"""Rule adapters fitted to data: few weights, chosen and set by maximum likelihood of responses.

The rule adapter p_base(v) * exp(sum_k w_k f_k(v, t)) / Z (Hewitt et al. 2024, section 6) is an
exponential family, so minus its log-likelihood is convex in the weights. Features are added where
they gain most (Della Pietra et al. 1997, "Inducing features of random fields") and all weights are
fitted again each time.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

import torch
from torch import Tensor

from rnr_kernels.generation import end_token_ids
from rnr_kernels.layout import MAX_CLASSES
from rnr_kernels.rules.kinds import RuleSet
from rnr_kernels.rules.vocabulary import Vocabulary
from rnr_kernels.templates import TEMPLATES, PromptTemplate
from rnr_kernels.tuning.conversations import Conversation
from rnr_kernels.tuning.features import (
    FAMILIES,
    Family,
    Feature,
    Scope,
    candidate_features,
    rules_of,
)
from rnr_kernels.tuning.likelihood import LogLikelihood, response_texts, rules_log_likelihood
from rnr_kernels.tuning.selection import select_weights
from rnr_kernels.tuning.steps import observe, shifted_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

L2 = 0.1
"""Precision of the prior: weights of some 3 nats, as those that are set by hand."""

NUM_WEIGHTS = 15
"""As many tokens as are moved by hand (Hewitt et al. 2024, Table 8)."""

LEAST_GAIN = 1.0
"""Nats that a weight must gain on all responses together to be added (Akaike's price of one)."""

MAX_FITS = 3
"""After a fit the whole vocabulary is looked at under the fitted rules; if tokens that were no
candidates deserve a weight, they become candidates and all is fitted again."""


@dataclass(frozen=True)
class FittedWeight:
    """One feature and its weight in nats."""

    feature: Feature
    weight: float


@dataclass(frozen=True)
class FittedRules:
    """A fitted rule set, and what the responses are worth under it and under the base model."""

    rules: RuleSet
    weights: tuple[FittedWeight, ...]
    """In the order in which they were chosen; none is 0."""
    base: LogLikelihood
    fitted: LogLikelihood
    base_held_out: LogLikelihood | None
    fitted_held_out: LogLikelihood | None
    """None without held-out conversations."""
    gradient_norm: float
    """The largest entry of the penalised objective's gradient, in nats a response token; for a
    weight at 0 only what exceeds l1 counts."""
    converged: bool


def fit_rules(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    conversations: Sequence[Conversation],
    *,
    num_weights: int = NUM_WEIGHTS,
    l2: float = L2,
    l1: float = 0.0,
    scope: Scope = "response",
    families: Collection[Family] = FAMILIES,
    num_candidates: int = 256,
    least_gain: float = LEAST_GAIN,
    first: Sequence[Family] = (),
    template: PromptTemplate = TEMPLATES["tags"],
    held_out: Sequence[Conversation] = (),
    name: str = "fitted",
) -> FittedRules:
    """Fits at most `num_weights` weights to the responses of the conversations, EOS included.

    Maximises the log-likelihood in nats less l2 / 2 |w|^2 + l1 |w|_1: `l2` is the precision of a
    Gaussian prior on each weight; with `l1` a weight is added only where the gradient exceeds it.
    `scope` is that of the UsedTokenPenalty, `families` may leave kinds of feature out, and
    `num_candidates` is how many tokens compete: those that the responses would shift most. Fewer
    weights come out if no other gains more than `least_gain` nats.

    The families `first` have their best feature chosen before all others. Responses in the data do
    not run in circles as a model's own greedy ones do, so the likelihood calls for "used" and "eos"
    later than decoding does: with a handful of weights, put "used" first.

    Memory: about 10 bytes a response token and candidate. ValueError before any work for numbers
    out of range and as in `response_texts`, and for a model whose logits are NaN.
    """
    if not 1 <= num_weights <= MAX_CLASSES:  # each may need a schedule of its own
        raise ValueError(f"num_weights must be 1 to {MAX_CLASSES}, got {num_weights}")
    if num_candidates < 1:
        raise ValueError(f"num_candidates must be at least 1, got {num_candidates}")
    for what, value in (("l2", l2), ("l1", l1), ("least_gain", least_gain)):
        if not 0 <= value < float("inf"):
            raise ValueError(f"{what} must be 0 or more and finite, got {value}")
    _check_names(scope, families, first)
    texts = response_texts(conversations, model, tokenizer, template)
    if held_out:
        response_texts(held_out, model, tokenizer, template)
    eos = end_token_ids(model, tokenizer)
    vocabulary = Vocabulary.of(tokenizer)
    last_step = max(len(text.response_token_ids) for text in texts) - 1

    shifts = shifted_tokens(model, tokenizer, RuleSet(), texts, families=families)
    tokens = [*eos, *_most_shifted(shifts, eos, least_gain, num_candidates)]
    for number in range(1, MAX_FITS + 1):
        steps = observe(model, texts, tokens, scope=scope)
        features = candidate_features(tokens, eos, last_step, families)
        found = select_weights(
            steps, features, num_weights, l2=l2, l1=l1, least_gain=least_gain, first=first
        )
        rules = rules_of(found.weighted(), vocabulary, scope=scope, name=name)
        if number == MAX_FITS:
            break
        shifts = shifted_tokens(model, tokenizer, rules, texts, families=families)
        is_full = len(found.features) == num_weights
        least = max(LEAST_GAIN, least_gain, found.least_gain if is_full else 0.0)
        new = _most_shifted(shifts, tokens, least, num_candidates)
        if not new:
            break
        tokens += new

    unseen = None
    if held_out:
        unseen = rules_log_likelihood(
            model, tokenizer, [RuleSet(), rules], held_out, template=template
        )
    return FittedRules(
        rules=rules,
        weights=tuple(FittedWeight(feature, weight) for feature, weight in found.weighted()),
        base=_by_response(steps.target_logprob, steps.response),
        fitted=_by_response(found.log_likelihoods, steps.response),
        base_held_out=unseen[0] if unseen else None,
        fitted_held_out=unseen[1] if unseen else None,
        gradient_norm=found.optimum.gradient_norm,
        converged=found.optimum.converged,
    )


def _check_names(scope: str, families: Collection[str], first: Sequence[str]) -> None:
    if scope not in get_args(Scope):
        raise ValueError(f"scope must be {' or '.join(map(repr, get_args(Scope)))}, got {scope!r}")
    unknown = [family for family in families if family not in FAMILIES]
    if unknown or not families:
        got = repr(unknown[0]) if unknown else "none"
        raise ValueError(f"families must be some of {', '.join(FAMILIES)}, got {got}")
    outside = [family for family in first if family not in families]
    if outside:
        raise ValueError(f"first must be some of {', '.join(families)}, got {outside[0]!r}")


def _most_shifted(shifts: Tensor, known: Sequence[int], least: float, most: int) -> list[int]:
    """The tokens that promise to gain more than `least` nats, at most `most`, without the known."""
    shifts = shifts.clone()
    shifts[list(known)] = 0.0
    values, ids = shifts.topk(min(most, len(shifts)))
    return [int(token) for token in ids[values > least]]


def _by_response(values: Tensor, response: Tensor) -> LogLikelihood:
    lengths = torch.bincount(response)
    totals = torch.zeros(len(lengths), dtype=torch.float64).index_add_(0, response, values)
    return LogLikelihood(tuple(totals.tolist()), tuple(lengths.tolist()))
