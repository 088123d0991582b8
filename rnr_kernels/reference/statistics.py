"""Token statistics: ranks, log-probabilities, entropies, divergences."""

import math

import torch
from torch import Tensor

from rnr_kernels.reference.reductions import NEG_INF, log_softmax, rows_are_valid, sum_in_tiles

LINEAR_TILE = 8192
LINEAR_CHUNK_ELEMENTS = 2**23


def token_stats(
    logits: Tensor, token_ids: Tensor, vocab_size: int, top_k: int = 0
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Rank and ties (int32), log-probability, entropy in nats (float32), all [R], and the `top_k`
    largest tokens' ids (int64) and log-probabilities (float32), [R, top_k], lowest id first on
    ties.

    rank = 1 + #{v : logit(v) > logit(target)} (Lin et al. 2023, section 2.1, counts from 1).
    """
    values = logits[:, :vocab_size].float()
    valid = rows_are_valid(values)
    values = torch.where(valid[:, None], values, 0.0)
    logprobs = log_softmax(values, valid)
    probabilities = logprobs.exp()
    surprise = torch.where(probabilities > 0, probabilities * logprobs, 0.0)
    entropy = torch.where(valid, -sum_in_tiles(surprise), math.nan)

    inside = (token_ids >= 0) & (token_ids < vocab_size)
    column = torch.where(inside, token_ids, 0).long()[:, None]
    target = values.gather(1, column)
    known = valid & inside
    rank = torch.where(known, 1 + (values > target).sum(1), 0)
    num_ties = torch.where(known, (values == target).sum(1) - 1, 0)
    logprob = torch.where(known, logprobs.gather(1, column).squeeze(1), math.nan)

    top_ids = values.argsort(dim=1, descending=True, stable=True)[:, :top_k]
    top_logprobs = logprobs.gather(1, top_ids).float()
    top_ids = torch.where(valid[:, None], top_ids, -1)
    return (
        rank.to(torch.int32), num_ties.to(torch.int32), logprob.float(), entropy.float(),
        top_ids, top_logprobs,
    )  # fmt: skip


def shift_stats(
    logits: Tensor, base_logits: Tensor, token_ids: Tensor, vocab_size: int, top_k: int = 0
) -> tuple[
    Tensor, Tensor, Tensor, Tensor, Tensor, Tensor,
    Tensor, Tensor, Tensor, Tensor, Tensor, Tensor,
    Tensor, Tensor, Tensor,
]:  # fmt: skip
    """`token_stats` of both sides, then KL(p || base), KL(base || p) in nats over the whole
    vocabulary (float32 [R]), and whether the argmaxes agree (bool [R])."""
    values, base = logits[:, :vocab_size].float(), base_logits[:, :vocab_size].float()
    valid = rows_are_valid(values) & rows_are_valid(base)
    p = log_softmax(values, valid)
    q = log_softmax(base, valid)
    same = valid & (values.argmax(1) == base.argmax(1))
    return (
        *token_stats(logits, token_ids, vocab_size, top_k),
        *token_stats(base_logits, token_ids, vocab_size, top_k),
        relative_entropy(p, q, valid),
        relative_entropy(q, p, valid),
        same,
    )


def relative_entropy(p: Tensor, q: Tensor, valid: Tensor) -> Tensor:
    """sum exp(p) (p - q): terms with p = 0 are 0, p > 0 and q = 0 give +inf. float32 [R]."""
    terms = torch.where(q > NEG_INF, p.exp() * (p - q), math.inf)
    terms = torch.where(p > NEG_INF, terms, 0.0)
    return torch.where(valid, sum_in_tiles(terms).clamp(min=0.0), math.nan).float()


def head_logits(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    logit_scale: float,
    softcap: float,
) -> Tensor:
    """float32 [n, V]: softcap * tanh((hidden @ weight.T + bias) * logit_scale / softcap)."""
    rows = hidden.float()
    with torch.autocast(hidden.device.type, enabled=False):
        logits = torch.cat([rows @ part.float().T for part in weight.split(LINEAR_TILE)], dim=1)
    if bias is not None:
        logits = logits + bias.float()
    logits = logits * logit_scale
    return torch.tanh(logits / softcap) * softcap if softcap > 0 else logits


def linear_token_stats(
    hidden: Tensor,
    weight: Tensor,
    token_ids: Tensor,
    bias: Tensor | None = None,
    logit_scale: float = 1.0,
    softcap: float = 0.0,
    top_k: int = 0,
    invariant: bool = False,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """`token_stats` of the LM head's float32 logits, a few rows at a time.

    `hidden` [N, D], `weight` [V, D], `bias` [V]; softcap 0 is off. `invariant` takes one row a
    product, so that a row's bits do not depend on its neighbours.
    """
    rows = 1 if invariant else max(1, LINEAR_CHUNK_ELEMENTS // len(weight))
    chunks = [
        token_stats(head_logits(h, weight, bias, logit_scale, softcap), t, len(weight), top_k)
        for h, t in zip(hidden.split(rows), token_ids.split(rows), strict=True)
    ]
    return tuple(torch.cat(parts) for parts in zip(*chunks, strict=True))  # type: ignore[return-value]


def linear_shift_stats(
    hidden: Tensor,
    weight: Tensor,
    base_hidden: Tensor,
    base_weight: Tensor,
    token_ids: Tensor,
    bias: Tensor | None = None,
    base_bias: Tensor | None = None,
    logit_scale: float = 1.0,
    base_logit_scale: float = 1.0,
    softcap: float = 0.0,
    base_softcap: float = 0.0,
    top_k: int = 0,
    invariant: bool = False,
) -> tuple[
    Tensor, Tensor, Tensor, Tensor, Tensor, Tensor,
    Tensor, Tensor, Tensor, Tensor, Tensor, Tensor,
    Tensor, Tensor, Tensor,
]:  # fmt: skip
    """`shift_stats` of two LM heads' float32 logits, a few rows at a time."""
    rows = 1 if invariant else max(1, LINEAR_CHUNK_ELEMENTS // len(weight))
    chunks = [
        shift_stats(
            head_logits(h, weight, bias, logit_scale, softcap),
            head_logits(b, base_weight, base_bias, base_logit_scale, base_softcap),
            t, len(weight), top_k,
        )
        for h, b, t in zip(
            hidden.split(rows), base_hidden.split(rows), token_ids.split(rows), strict=True
        )
    ]  # fmt: skip
    return tuple(torch.cat(parts) for parts in zip(*chunks, strict=True))  # type: ignore[return-value]
