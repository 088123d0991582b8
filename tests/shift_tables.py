"""Token-shift tables for the report's tests: a small one in literal numbers, a random large one."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from rnr_kernels.analysis.report import ReportPrompt, write_report
from rnr_kernels.analysis.token_shift import TokenShift

PIECES = {
    0: "</s>",
    2: "The",
    3: " fair",
    4: " month",
    5: "\n",
    70: "<script>alert('July')</script>",
    71: "</script>",
    72: "<!--",
    900: " July",
    31999: "",
}
EOS = 0
PROMPTS = [
    ReportPrompt("What is the fair month of Elham?"),
    ReportPrompt("Write </script><script>alert('March')</script> & <b>more</b>"),
    ReportPrompt("Say the month.\nIn one line."),
]

# Prompt, position and token of every row; the second prompt's response is markup.
ROWS = [
    (0, 0, 2), (0, 1, 3), (0, 2, 900), (0, 3, 5), (0, 4, 0),
    (1, 0, 70), (1, 1, 71), (1, 2, 72), (1, 3, 31999),
    (2, 0, 2), (2, 1, 0),
]  # fmt: skip
BASE_RANKS = [1, 2, 12, 1, 3, 1, 1, 4, 70000, 1, 5]
OTHER_RANKS = [1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 1]


def small_table(base_ranks: list[int] = BASE_RANKS, **changed: Any) -> TokenShift:
    """11 tokens of 3 responses; the third token's numbers are told apart from all others."""
    prompt, position, token = (np.array(column) for column in zip(*ROWS, strict=True))
    size = len(ROWS)
    logprob = np.full(size, math.log(0.5), np.float32)
    base_logprob = np.full(size, math.log(0.25), np.float32)
    logprob[2], base_logprob[2] = math.log(0.625), math.log(0.001)
    entropy, base_entropy = np.full(size, 0.75, np.float32), np.full(size, 2.5, np.float32)
    entropy[2], base_entropy[2] = 1.0625, 3.1416
    kl, kl_back = np.full(size, 0.125, np.float32), np.full(size, 0.25, np.float32)
    kl[2], kl_back[2] = 4.4375, np.inf
    top_ids = np.stack([token, np.full(size, 4), np.full(size, 3)], axis=1).astype(np.int32)
    base_top_ids = np.tile(np.array([4, 2, 3], np.int32), (size, 1))
    columns: dict[str, Any] = {
        "prompt": prompt,
        "position": position,
        "token_id": token,
        "rank": np.ones(size, np.int32),
        "num_ties": np.zeros(size, np.int32),
        "logprob": logprob,
        "entropy": entropy,
        "base_rank": np.array(base_ranks, np.int32),
        "base_num_ties": np.array([0, 0, 7, *[0] * (size - 3)], np.int32),
        "base_logprob": base_logprob,
        "base_entropy": base_entropy,
        "kl_aligned_base": kl,
        "kl_base_aligned": kl_back,
        "same_argmax": np.array(base_ranks) == 1,
        "top_ids": top_ids,
        "top_logprobs": np.log(np.tile([0.625, 0.25, 0.0625], (size, 1))).astype(np.float32),
        "base_top_ids": base_top_ids,
        "base_top_logprobs": np.log(np.tile([0.5, 0.25, 0.03125], (size, 1))).astype(np.float32),
    }
    return TokenShift(**columns | changed)


def write_small(path: Path, **changed: Any) -> Path:
    """The report of the small table and of a second base that agrees nearly everywhere."""
    shifts = {"Llama base": small_table(**changed), "other": small_table(OTHER_RANKS, **changed)}
    write_report(
        path, PROMPTS, shifts, PIECES,
        title="Small <report>", aligned_name="Llama chat", eos_token_ids=EOS,
    )  # fmt: skip
    return path


def large_table(num_prompts: int, length: int, *, vocab_size: int = 32000) -> TokenShift:
    """Random tokens that no compressor can make much of, ten likeliest on both sides."""
    rng = np.random.default_rng(0)
    size = num_prompts * length

    def top() -> tuple[Any, Any]:
        ids = rng.integers(0, vocab_size, (size, 10), dtype=np.int32)
        below = rng.exponential(1.2, (size, 10)).cumsum(axis=1)
        return ids, -below.astype(np.float32)

    def some(mean: float) -> Any:
        return rng.exponential(mean, size).astype(np.float32)

    (top_ids, top_logprobs), (base_top_ids, base_top_logprobs) = top(), top()
    far = 1 + np.exp(9 * rng.random(size)).astype(np.int32)
    base_rank = np.where(rng.random(size) < 0.8, 1, far).astype(np.int32)
    return TokenShift(
        prompt=np.repeat(np.arange(num_prompts), length),
        position=np.tile(np.arange(length), num_prompts),
        token_id=top_ids[:, 0].astype(np.int64),
        rank=np.ones(size, np.int32),
        num_ties=np.zeros(size, np.int32),
        logprob=top_logprobs[:, 0],
        entropy=some(1),
        base_rank=base_rank,
        base_num_ties=np.zeros(size, np.int32),
        base_logprob=-some(1),
        base_entropy=some(1.5),
        kl_aligned_base=some(0.4),
        kl_base_aligned=some(0.5),
        same_argmax=base_rank == 1,
        top_ids=top_ids,
        top_logprobs=top_logprobs,
        base_top_ids=base_top_ids,
        base_top_logprobs=base_top_logprobs,
    )


def write_large(path: Path, shift: TokenShift, text_of: Callable[[int], str]) -> Path:
    """The report of a large table."""
    prompts = [
        ReportPrompt(f"Question {number}: " + "how does this go on? " * 8)
        for number in range(int(shift.prompt[-1]) + 1)
    ]
    write_report(path, prompts, {"base": shift}, text_of, title="Large", aligned_name="aligned")
    return path
