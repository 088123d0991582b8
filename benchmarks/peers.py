"""What the ops are measured against: the strongest forms we know, in plain PyTorch and others.

Results go to buffers that the caller keeps, where the API takes any. Inputs are float32 [R, V].
"""

from collections.abc import Callable
from types import FunctionType
from typing import Any

import torch
from torch import Tensor

COMPILE_MODES = {"torch.compile": None, "torch.compile max-autotune": "max-autotune-no-cudagraphs"}
"""What a compiled peer is called, and torch's name of the mode."""


def compiled(function: Callable[..., Any]) -> dict[str, Callable[..., Any]]:
    """The function compiled for fixed shapes in each mode; the first call compiles."""
    return {
        name: torch.compile(_copy(function), dynamic=False, fullgraph=True, mode=mode)
        for name, mode in COMPILE_MODES.items()
    }


def _copy(function: Any) -> Callable[..., Any]:
    """With code of its own: graphs hang on the code, and a call would search those of all modes."""
    return FunctionType(function.__code__.replace(), function.__globals__)


def log_softmax(logits: Tensor, out: Tensor) -> Tensor:
    """No rules at all."""
    return torch.log_softmax(logits, -1, out=out)


def scatter_log_softmax(
    logits: Tensor, out: Tensor, *ids_and_values: tuple[Tensor, Tensor]
) -> Tensor:
    """Sparse additions to a copy, then log_softmax in place."""
    out.copy_(logits)
    for ids, values in ids_and_values:
        out.scatter_add_(1, ids, values)
    return torch.log_softmax(out, -1, out=out)


def dense_log_softmax(logits: Tensor, mask: Tensor, out: Tensor) -> Tensor:
    """One mask that holds all of a row's scores, made beforehand."""
    torch.add(logits, mask, out=out)
    return torch.log_softmax(out, -1, out=out)


def dense_log_softmax_to_compile(logits: Tensor, mask: Tensor) -> Tensor:
    """Returns a new tensor, which is faster in Inductor's code than a copy to a given one."""
    return torch.log_softmax(logits + mask, -1)


def dense_add_(logits: Tensor, *masks: Tensor) -> Tensor:
    """Masks made beforehand: one with all of a row's scores, or the shared one and the used one."""
    for mask in masks:
        logits.add_(mask)
    return logits


def scatter_add_(logits: Tensor, ids: Tensor, values: Tensor) -> Tensor:
    """Only the tokens with a score."""
    return logits.scatter_add_(1, ids, values)


def masked_fill_(logits: Tensor, is_banned: Tensor) -> Tensor:
    """From bools that were unpacked beforehand."""
    return logits.masked_fill_(is_banned, -torch.inf)


def xgrammar_bitmask_(logits: Tensor, bitmask: Tensor) -> Tensor:
    """xgrammar's kernel for CPUs."""
    import xgrammar

    xgrammar.apply_token_bitmask_inplace(logits, bitmask, backend="cpu")
    return logits


def argmax(logits: Tensor, out: Tensor) -> Tensor:
    """No rules at all."""
    return torch.argmax(logits, -1, out=out)


def argmax_by_amax(logits: Tensor, columns: Tensor, is_largest: Tensor, out: Tensor) -> Tensor:
    """amax is 15 times faster than argmax, so compare with it and sum the column numbers.

    Right where the maximum stands once; `columns` float32 [V] and `is_largest` float32 [R, V].
    """
    torch.eq(logits, logits.amax(-1, keepdim=True), out=is_largest)
    return torch.mv(is_largest, columns, out=out)


def dense_argmax(logits: Tensor, mask: Tensor, scratch: Tensor, out: Tensor) -> Tensor:
    """With the rules."""
    torch.add(logits, mask, out=scratch)
    return torch.argmax(scratch, -1, out=out)


def make_warpers(temperature: float, top_k: int, top_p: float) -> list[Any]:
    """What Hugging Face's `generate` puts together for these options, in its order."""
    from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    return [TemperatureLogitsWarper(temperature), TopKLogitsWarper(top_k), TopPLogitsWarper(top_p)]


def warped_probabilities(logits: Tensor, warpers: list[Any]) -> Tensor:
    """Temperature and filters, then softmax; no rules."""
    for warper in warpers:
        logits = warper(None, logits)
    return torch.softmax(logits, -1)


def warp_and_draw(logits: Tensor, warpers: list[Any]) -> Tensor:
    """A token a row, as Hugging Face's sampling loop draws it."""
    return torch.multinomial(warped_probabilities(logits, warpers), num_samples=1)


def token_stats(
    logits: Tensor, token_ids: Tensor, above: Tensor, logprobs: Tensor, weighted: Tensor
) -> tuple[Tensor, ...]:
    """Rank, log-probability and entropy as one writes them; buffers [R, V], the first of bool."""
    target = logits.gather(1, token_ids[:, None])
    rank = torch.gt(logits, target, out=above).sum(-1).add_(1)
    torch.log_softmax(logits, -1, out=logprobs)
    torch.exp(logprobs, out=weighted).mul_(logprobs)
    return rank, logprobs.gather(1, token_ids[:, None])[:, 0], weighted.sum(-1).neg_()


def token_stats_to_compile(logits: Tensor, token_ids: Tensor) -> tuple[Tensor, ...]:
    """`token_stats` without buffers, which Inductor does not need."""
    target = logits.gather(1, token_ids[:, None])
    logprobs = logits.log_softmax(-1)
    rank = 1 + (logits > target).sum(-1)
    entropy = -(logprobs.exp() * logprobs).sum(-1)
    return rank, logprobs.gather(1, token_ids[:, None])[:, 0], entropy


def token_stats_rearranged(
    logits: Tensor, token_ids: Tensor, scratch: Tensor
) -> tuple[Tensor, ...]:
    """The same from the operations that are fast on a CPU, with one float32 buffer [R, V].

    A comparison that writes floats is vectorised and one that writes bools is not; softmax is
    faster than exp; and the maximum of softmax is 1 / sum(exp(x - max)).
    """
    target = logits.gather(1, token_ids[:, None])
    rank = torch.gt(logits, target, out=scratch).sum(-1)
    torch.softmax(logits, -1, out=scratch)
    log_total = logits.amax(-1) - scratch.amax(-1).log_()
    entropy = log_total - scratch.mul_(logits).sum(-1)
    return rank.add_(1), target[:, 0] - log_total, entropy


def token_stats_rearranged_to_compile(logits: Tensor, token_ids: Tensor) -> tuple[Tensor, ...]:
    """The same from logits less their maximum, so that Inductor takes one exp an element."""
    target = logits.gather(1, token_ids[:, None])
    rank = 1 + (logits > target).sum(-1)
    ceiling = logits.amax(-1, keepdim=True)
    shifted = logits - ceiling
    weights = shifted.exp()
    total = weights.sum(-1)
    log_total = total.log()
    logprob = (target - ceiling)[:, 0] - log_total
    return rank, logprob, log_total - (weights * shifted).sum(-1) / total


def shift_stats(
    logits: Tensor, base_logits: Tensor, token_ids: Tensor, scratch: tuple[Tensor, ...]
) -> tuple[Tensor, ...]:
    """Both sides' `token_stats_rearranged`, KL both ways, and whether the argmaxes agree.

    Two float32 buffers [R, V].
    """
    probabilities, weighted = scratch
    gap = torch.sub(logits, base_logits, out=weighted)

    def mean_gap(of: Tensor) -> Tensor:
        torch.softmax(of, -1, out=probabilities)
        return probabilities.mul_(gap).sum(-1)

    mean, base_mean = mean_gap(logits), mean_gap(base_logits)
    same = logits.argmax(-1) == base_logits.argmax(-1)
    aligned = token_stats_rearranged(logits, token_ids, probabilities)
    base = token_stats_rearranged(base_logits, token_ids, probabilities)
    # log p(target) = target - log_total, so the two log_totals differ by:
    targets = logits.gather(1, token_ids[:, None]), base_logits.gather(1, token_ids[:, None])
    target_gap = (targets[0] - targets[1])[:, 0]
    total_gap = target_gap - (aligned[1] - base[1])
    return *aligned, *base, mean - total_gap, total_gap - base_mean, same


def shift_stats_to_compile(
    logits: Tensor, base_logits: Tensor, token_ids: Tensor
) -> tuple[Tensor, ...]:
    """The same as one writes it."""
    aligned = token_stats_to_compile(logits, token_ids)
    base = token_stats_to_compile(base_logits, token_ids)
    logprobs, base_logprobs = logits.log_softmax(-1), base_logits.log_softmax(-1)
    kl = (logprobs.exp() * (logprobs - base_logprobs)).sum(-1)
    base_kl = (base_logprobs.exp() * (base_logprobs - logprobs)).sum(-1)
    same = logits.argmax(-1) == base_logits.argmax(-1)
    return *aligned, *base, kl, base_kl, same


def product(hidden: Tensor, transposed: Tensor, out: Tensor) -> Tensor:
    """The logits of an LM head, without any statistics of them."""
    return torch.mm(hidden, transposed, out=out)
