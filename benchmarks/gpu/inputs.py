"""Many rows of logits on a device, and what stands beside them: sequences, targets, hidden states.

Rows come from a pool that is larger than three L2 caches: calls on one slice after the other find
nothing of their input in the cache.
"""

from functools import cache

import torch
from torch import Tensor

from benchmarks.gpu.cases import APPLY, Case
from benchmarks.gpu.machine import l2_bytes
from benchmarks.inputs import NUM_RECORDED, Sequences, make_logits
from rnr_kernels import Sampling

NUM_SLOTS = 512
CACHES = 3
NOISE = 0.1
"""Standard deviation of what sets copies of a recorded row apart."""
CHUNK = 512
"""Rows that are made at a time, so that float32 copies stay small."""
SPARSE_INPUTS = 40
"""Of an op that touches a fiftieth of its rows: so many stand for `CACHES` all the same."""
LIKELY = 100
SMALL_POOL = 16
"""Rows on a CPU."""


def dtype_of(case: Case) -> torch.dtype:
    found = getattr(torch, case.dtype)
    assert isinstance(found, torch.dtype)
    return found


def logits_bytes(case: Case) -> int:
    """Of one input."""
    return case.rows * case.vocab_size * dtype_of(case).itemsize


def num_pool_rows(case: Case, device: torch.device) -> int:
    """A multiple of the case's rows."""
    if device.type != "cuda":
        return max(1, SMALL_POOL // case.rows) * case.rows
    row_bytes = case.vocab_size * dtype_of(case).itemsize
    wanted = CACHES * l2_bytes(device) // row_bytes + 1
    if case.op == APPLY:
        wanted = SPARSE_INPUTS * case.rows
    return -(-max(wanted, NUM_SLOTS) // case.rows) * case.rows


def make_pool(case: Case, device: torch.device) -> Tensor:
    """[rows, vocab_size]: "extended" repeats the recorded rows with noise, "random" is normal."""
    rows = num_pool_rows(case, device)
    random = torch.Generator(device).manual_seed(case.rows * case.vocab_size)
    pool = torch.empty(rows, case.vocab_size, dtype=dtype_of(case), device=device)
    recorded = None
    if case.logits == "extended":
        recorded = _extended(case.vocab_size).to(device)
    for start in range(0, rows, CHUNK):
        part = pool[start : start + CHUNK]
        values = torch.randn(part.shape, generator=random, device=device)
        if recorded is not None:
            index = torch.arange(start, start + len(part), device=device) % len(recorded)
            values.mul_(NOISE).add_(recorded[index])
        part.copy_(values)
    return pool


@cache
def _extended(vocab_size: int) -> Tensor:
    return make_logits("extended", NUM_RECORDED, vocab_size)


def num_slots(case: Case, device: torch.device) -> int:
    return max(case.rows, NUM_SLOTS if device.type == "cuda" else SMALL_POOL)


@cache
def sequences(
    vocab_size: int, slots: int, sampling: Sampling, has_rules: bool, device: torch.device
) -> Sequences:
    """One a slot, each with its own used tokens."""
    shape = torch.empty(slots, vocab_size, device="meta")
    return Sequences.start(shape, sampling, has_rules=has_rules, device=device)


def slots_of(case: Case, device: torch.device) -> tuple[Tensor, ...]:
    """int32 state_indices of every input, each from where the one before ends, round the table."""
    rows, slots = num_pool_rows(case, device), num_slots(case, device)
    indices = torch.arange(rows, dtype=torch.int32, device=device) % slots
    parts: tuple[Tensor, ...] = indices.split(case.rows)
    return parts


def targets(logits: Tensor) -> Tensor:
    """int64 [R]: tokens among the hundred likeliest, as tokens of a text are."""
    found = torch.empty(len(logits), dtype=torch.int64, device=logits.device)
    random = torch.Generator(logits.device).manual_seed(0)
    count = min(LIKELY, logits.shape[1])
    for start in range(0, len(logits), CHUNK):
        likely = logits[start : start + CHUNK].topk(count, -1).indices
        which = torch.randint(0, count, (len(likely), 1), generator=random, device=logits.device)
        found[start : start + CHUNK] = likely.gather(1, which)[:, 0]
    return found


def head(case: Case, hidden_size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Hidden states [rows, D] and an LM head [V, D], random, with logits of deviation 1."""
    random = torch.Generator(device).manual_seed(0)
    dtype = dtype_of(case)
    hidden = torch.randn(case.rows, hidden_size, generator=random, device=device)
    weight = torch.empty(case.vocab_size, hidden_size, dtype=dtype, device=device)
    for start in range(0, case.vocab_size, 16 * CHUNK):
        part = weight[start : start + 16 * CHUNK]
        values = torch.randn(part.shape, generator=random, device=device)
        part.copy_(values.mul_(hidden_size**-0.5))
    return hidden.to(dtype), weight
