"""Errors against float64, beside those of PyTorch's own float32 operations."""

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from benchmarks.gpu import serving
from benchmarks.gpu.checks import Check
from benchmarks.inputs import Sequences
from rnr_kernels import apply_rules_, backends, rule_log_softmax, shift_stats, token_stats
from rnr_kernels.backends import Backend
from rnr_kernels.sampling import GREEDY
from rnr_kernels.testing import ABSOLUTE_TOLERANCE, RELATIVE_TOLERANCE

NAME = "float64"
"""Of the check."""

ROWS = 16
VOCAB_SIZES = (50_257, 128_256)
QUICK_VOCAB_SIZES = (1000,)

Results = dict[str, Tensor]


def checks(device: torch.device, seed: int, quick: bool) -> Iterator[Check]:
    for backend in serving.serving(device):
        for vocab_size in QUICK_VOCAB_SIZES if quick else VOCAB_SIZES:
            for dtype in (torch.float32, torch.bfloat16):
                run = partial(check, backend, device, seed, vocab_size, dtype)
                name = f"{backend.name}, V = {vocab_size:,}, {str(dtype).removeprefix('torch.')}"
                yield Check(NAME, name, run)


def check(
    backend: Backend, device: torch.device, seed: int, vocab_size: int, dtype: torch.dtype
) -> str:
    """The largest errors of log-softmax, log-probability, entropy and KL."""
    random = torch.Generator(device).manual_seed(seed)
    logits = 3 * torch.randn(ROWS, vocab_size, generator=random, device=device)
    logits[1::4] *= 4
    base = (logits + torch.randn(logits.shape, generator=random, device=device)).to(dtype)
    logits = logits.to(dtype)
    token_ids = logits.topk(min(50, vocab_size), -1).indices[:, -1]
    rows = Sequences.start(logits, GREEDY)
    with backends.use("reference"):
        adjusted = apply_rules_(logits.float().clone(), rows.program, rows.state)
    with serving.preferring(backend):
        shift = shift_stats(logits, base, token_ids)
        stats = token_stats(logits, token_ids)
        log_softmax = rule_log_softmax(logits, rows.program, rows.state)
    assert isinstance(log_softmax, Tensor)
    ours = {
        "log-softmax": log_softmax,
        "log-probability": stats.logprob,
        "entropy": stats.entropy,
        "KL": shift.kl_aligned_base,
        "KL of base": shift.kl_base_aligned,
    }
    truth = in_precision(torch.Tensor.double, adjusted, logits, base, token_ids)
    eager = in_precision(torch.Tensor.float, adjusted, logits, base, token_ids)
    return compared(ours, eager, truth)


def in_precision(
    to: Callable[[Tensor], Tensor],
    adjusted: Tensor,
    logits: Tensor,
    base: Tensor,
    token_ids: Tensor,
) -> Results:
    """The same from PyTorch's operations, on logits converted by `to`."""
    logprobs, base_logprobs = (to(values).log_softmax(-1) for values in (logits, base))
    p, q = logprobs.exp(), base_logprobs.exp()
    return {
        "log-softmax": to(adjusted).log_softmax(-1),
        "log-probability": logprobs.gather(1, token_ids[:, None])[:, 0],
        "entropy": -(p * logprobs).sum(-1),
        "KL": (p * (logprobs - base_logprobs)).sum(-1),
        "KL of base": (q * (base_logprobs - logprobs)).sum(-1),
    }


def compared(ours: Results, eager: Results, truth: Results) -> str:
    """The errors in words; AssertionError for one above both the tolerance and twice eager's.

    The tolerance is that of the shared cases, relative to the largest true value.
    """
    words = []
    for name, exact in truth.items():
        error, beside = (
            (found[name].double() - exact).abs().max().item() for found in (ours, eager)
        )
        allowed = ABSOLUTE_TOLERANCE + RELATIVE_TOLERANCE * exact.abs().max().item()
        text = f"{name} {error:.1e} (eager {beside:.1e})"
        assert error <= max(allowed, 2 * beside), f"the error is too large: {text}"
        words.append(text)
    return ", ".join(words)
