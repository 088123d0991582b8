"""The token statistics on many inputs of a case, and their peers on the same ones."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks import cases, peers
from benchmarks.gpu import cases as gpu
from benchmarks.gpu.cases import Case
from benchmarks.gpu.inputs import head, logits_bytes, make_pool, targets
from benchmarks.gpu.peers import (
    Peer,
    Workload,
    assert_near,
    cross_entropy,
    cut_cross_entropy,
    liger_cross_entropy,
    shift_stats_to_compile,
    token_stats_to_compile,
)
from benchmarks.workloads import TOLERANCE
from rnr_kernels import linear_token_stats, shift_stats, token_stats

SIXTEEN_BIT = 2e-2
"""Tolerance of log-probabilities that a peer computes in 16 bits or rounds to them."""
WAITS = "it waits for the device"


def _token_stats(case: Case, device: torch.device) -> Workload:
    logits = make_pool(case, device).split(case.rows)
    token_ids = [targets(batch) for batch in logits]

    def ours(index: int) -> Any:
        return token_stats(logits[index], token_ids[index])

    def whole(run: Callable[[Tensor, Tensor], tuple[Tensor, ...]]) -> Peer:
        def gate() -> None:
            rank, logprob, entropy = run(logits[0], token_ids[0])
            stats = ours(0)
            assert torch.equal(rank, stats.rank.to(rank.dtype)), "ranks differ"
            assert_near(logprob, stats.logprob, TOLERANCE)
            assert_near(entropy, stats.entropy, TOLERANCE)

        return Peer(lambda i: run(logits[i], token_ids[i]), gate)

    def loss(run: Callable[[Tensor, Tensor], Tensor], waits: str | None = None) -> Peer:
        def gate() -> None:
            assert_near(-run(logits[0], token_ids[0]), ours(0).logprob, SIXTEEN_BIT)

        return Peer(lambda i: run(logits[i], token_ids[i]), gate, waits)

    def compiled() -> Peer:
        return whole(torch.compile(token_stats_to_compile, dynamic=False, fullgraph=True))

    found: dict[str, Callable[[], Peer]] = {gpu.CROSS_ENTROPY: lambda: loss(cross_entropy)}
    if case.rows >= 16_384 or device.type == "cpu":
        found |= {
            cases.COMPILED[0]: compiled,
            gpu.LIGER: lambda: loss(liger_cross_entropy(), WAITS),
            cases.EAGER: lambda: whole(
                lambda rows, ids: peers.token_stats_to_compile(rows.float(), ids)
            ),
        }
    return Workload(ours, len(logits), found, bytes_a_call=logits_bytes(case))


def _shift_stats(case: Case, device: torch.device) -> Workload:
    logits = make_pool(case, device).split(case.rows)
    base = [(batch.roll(1, 0) + batch).mul_(0.5) for batch in logits]
    token_ids = [targets(batch) for batch in logits]

    def ours(index: int) -> Any:
        return shift_stats(logits[index], base[index], token_ids[index])

    def compiled() -> Peer:
        run = torch.compile(shift_stats_to_compile, dynamic=False, fullgraph=True)

        def gate() -> None:
            stats = ours(0)
            found = run(logits[0], base[0], token_ids[0])
            assert_near(found[1], stats.aligned.logprob, TOLERANCE)
            assert_near(found[6], stats.kl_aligned_base, TOLERANCE)
            assert_near(found[7], stats.kl_base_aligned, TOLERANCE)

        return Peer(lambda i: run(logits[i], base[i], token_ids[i]), gate)

    return Workload(
        ours,
        len(logits),
        {cases.COMPILED[0]: compiled},
        bytes_a_call=2 * logits_bytes(case),
    )


def _linear(case: Case, device: torch.device) -> Workload:
    width = gpu.HIDDEN_SIZE if device.type == "cuda" else 64
    hidden, weight = head(case, width, device)
    random = torch.Generator(device).manual_seed(1)
    token_ids = torch.randint(0, case.vocab_size, (case.rows,), generator=random, device=device)

    def ours(index: int) -> Any:
        return linear_token_stats(hidden, weight, token_ids)

    def product() -> Peer:
        out = torch.empty(case.rows, case.vocab_size, dtype=weight.dtype, device=device)

        def gate() -> None:
            logits = peers.product(hidden, weight.t(), out)
            found = -cross_entropy(logits.float(), token_ids)
            assert_near(found, ours(0).logprob, SIXTEEN_BIT)

        return Peer(lambda i: peers.product(hidden, weight.t(), out), gate)

    def cut() -> Peer:
        run = cut_cross_entropy()

        def gate() -> None:
            assert_near(-run(hidden, weight, token_ids), ours(0).logprob, SIXTEEN_BIT)

        return Peer(lambda i: run(hidden, weight, token_ids), gate, WAITS)

    moved = weight.numel() * weight.element_size() + hidden.numel() * hidden.element_size()
    return Workload(ours, 1, {gpu.PRODUCT: product, gpu.CCE: cut}, bytes_a_call=moved)


MAKERS: dict[str, Callable[[Case, torch.device], Workload]] = {
    gpu.STATS: _token_stats,
    gpu.SHIFT: _shift_stats,
    gpu.LINEAR: _linear,
}
