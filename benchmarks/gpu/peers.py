"""What the ops stand beside on a GPU, and how a peer's result is held against ours.

Peers of other packages are imported where they are made: one that is missing raises, and the run
says so in its place.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from benchmarks import peers
from benchmarks.inputs import Scores
from benchmarks.workloads import Call
from rnr_kernels.sampling import Sampling

DRAWS = 1024
"""Tokens drawn for a check of a distribution, or twice a batch if that is more."""
OUTSIDE = 0.02
"""Share of draws that may lie outside our filters: ties at a threshold are cut otherwise there."""
SIGMAS = 6.0
SLACK = 0.05
"""In nats, beside the standard errors."""


@dataclass(frozen=True)
class Peer:
    """Something that does our op's work on the i-th input, or at least a part of it."""

    run: Callable[[int], Any]
    gate: Call
    """Raises AssertionError if its result is not ours."""
    why_not_captured: str | None = None
    """Why a CUDA graph cannot hold it, if that is known."""


@dataclass(frozen=True)
class Workload:
    """What is timed for a case."""

    ours: Callable[[int], Any]
    num_inputs: int
    peers: dict[str, Callable[[], Peer]] = field(default_factory=dict)
    """Made when their turn comes: one that cannot be made is not measured."""
    reset: Call = lambda: None
    """Undoes what calls write; runs before every timed block."""
    bytes_a_call: int | None = None
    """The fewest that a call can move; None where it touches a part of its rows."""


# Plain PyTorch


def chain(logits: Tensor, scores: tuple[Scores, ...], warpers: list[Any]) -> Tensor:
    """float32 [R, V] scores as a list of logits processors and warpers makes them."""
    found = logits.to(torch.float32, copy=True)
    for ids, values in scores:
        found.scatter_add_(1, ids, values)
    for warper in warpers:
        found = warper(None, found)
    return found


def draw(scores: Tensor) -> Tensor:
    """int64 [R], by a race of exponentials: multinomial waits for the device and takes longer."""
    probabilities = torch.softmax(scores, -1)
    return probabilities.div_(torch.empty_like(probabilities).exponential_()).argmax(-1)


def draw_to_compile(logits: Tensor, rule_row: Tensor, used: Tensor, penalties: Tensor) -> Tensor:
    """The same with all rules, as one function."""
    scores = (logits.float() + rule_row).scatter_add(1, used, penalties)
    probabilities = torch.softmax(scores, -1)
    return (probabilities / torch.empty_like(probabilities).exponential_()).argmax(-1)


def bitmask_log_softmax_to_compile(
    logits: Tensor, rule_row: Tensor, used_bitmask: Tensor, columns: Tensor, penalty: float
) -> Tensor:
    """Used tokens from the bits of the state, which costs a 32nd of a dense mask's bytes."""
    used = (used_bitmask[:, columns // 32] >> (columns % 32)) & 1
    return torch.log_softmax(logits + rule_row - penalty * used, -1)


def token_stats_to_compile(logits: Tensor, token_ids: Tensor) -> tuple[Tensor, ...]:
    """Of 16-bit logits, in float32."""
    return peers.token_stats_rearranged_to_compile(logits.float(), token_ids)


def shift_stats_to_compile(
    logits: Tensor, base_logits: Tensor, token_ids: Tensor
) -> tuple[Tensor, ...]:
    """Of 16-bit logits, in float32."""
    return peers.shift_stats_to_compile(logits.float(), base_logits.float(), token_ids)


def cross_entropy(logits: Tensor, token_ids: Tensor) -> Tensor:
    """Minus the log-probability, in the logits' dtype."""
    return torch.nn.functional.cross_entropy(logits, token_ids, reduction="none")


# Other packages


class FlashInfer:
    """FlashInfer's samplers, with seed and offset on the device, as graphs need them."""

    def __init__(self, device: torch.device) -> None:
        import flashinfer.sampling

        self._sampling: Any = flashinfer.sampling
        self._seed = torch.zeros(1, dtype=torch.int64, device=device)
        self._offset = torch.zeros(1, dtype=torch.int64, device=device)

    def sample(self, logits: Tensor) -> Tensor:
        """From the softmax of logits."""
        found: Tensor = self._sampling.sampling_from_logits(
            logits, seed=self._seed, offset=self._offset
        )
        return found

    def filtered(self, logits: Tensor, sampling: Sampling) -> Tensor:
        """With top-k, then top-p. It takes no temperature: pass divided logits for its effect."""
        found: Tensor = self._sampling.top_k_top_p_sampling_from_logits(
            logits, sampling.top_k, sampling.top_p, seed=self._seed, offset=self._offset
        )
        return found

    def again(self, draw: Callable[[], Tensor]) -> Tensor:
        """A draw from other random numbers than the last."""
        self._seed += 1
        return draw().long()


def xgrammar_bitmask(device: torch.device) -> Callable[[Tensor, Tensor], Tensor]:
    """xgrammar's kernel for the device."""
    import xgrammar

    def run(logits: Tensor, bitmask: Tensor) -> Tensor:
        xgrammar.apply_token_bitmask_inplace(logits, bitmask)
        return logits

    return run


def liger_cross_entropy() -> Callable[[Tensor, Tensor], Tensor]:
    """Liger's kernel without gradients: minus the log-probability, in the logits' dtype."""
    from liger_kernel.ops.cross_entropy import LigerCrossEntropyFunction

    def run(logits: Tensor, token_ids: Tensor) -> Tensor:
        found: Tensor = LigerCrossEntropyFunction.apply(
            logits, token_ids, None, -100, 0.0, 0.0, "none", None, False, False, False
        )[0]
        return found

    return run


def cut_cross_entropy() -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """From hidden states and LM head: minus the log-probability."""
    from cut_cross_entropy import linear_cross_entropy

    def run(hidden: Tensor, weight: Tensor, token_ids: Tensor) -> Tensor:
        found: Tensor = linear_cross_entropy(hidden, weight, token_ids, reduction="none")
        return found

    return run


# Checks


def assert_near(actual: Tensor, expected: Tensor, tolerance: float) -> None:
    """Equal within an absolute and relative tolerance, whatever the dtypes."""
    torch.testing.assert_close(
        actual, expected, rtol=tolerance, atol=tolerance, check_dtype=False, check_layout=False
    )


def assert_draws_fit(draw: Callable[[], Tensor], logprobs: Tensor) -> None:
    """Draws int64 [R] have the mean log-probability of the distribution float [R, V]."""
    probabilities = logprobs.exp()
    surprise = torch.where(probabilities > 0, logprobs, 0.0).double()
    mean = (probabilities * surprise).sum(-1)
    variance = (probabilities * surprise.square()).sum(-1) - mean.square()
    repeats = max(2, -(-DRAWS // len(logprobs)))
    drawn = torch.stack([logprobs.gather(1, draw()[:, None])[:, 0] for _ in range(repeats)])
    inside = drawn.isfinite()
    outside = 1 - inside.double().mean().item()
    assert outside <= OUTSIDE, f"{100 * outside:.1f} % of its draws are outside our filters"
    excess = torch.where(inside, drawn.double() - mean, 0.0).sum() / inside.sum()
    error = (variance.clamp(min=0).sum() * repeats).sqrt() / inside.sum()
    assert excess.abs() <= SIGMAS * error + SLACK, (
        f"its draws' mean log-probability is {excess:.3f} nats from the distribution's, where "
        f"{error:.3f} is the standard error"
    )
