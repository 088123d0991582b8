"""Token shift beside three peers: python -m benchmarks.analyses

The embedded model and its instruction-tuned twin, teacher forced over 200 responses of the base
times rules. Loading and generating are not timed. Peers have to find our ranks and divergences
before anything is timed. On a busy machine OMP_WAIT_POLICY=PASSIVE keeps threads from spinning
while they wait.
"""

import argparse
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.timing import no_collection
from rnr_kernels.analysis.rule_adapter import RuleAdapter
from rnr_kernels.analysis.token_shift import token_shift
from rnr_kernels.generation import generate
from rnr_kernels.loading import EMBEDDED, EMBEDDED_PROMPTS, load_model, load_tokenizer
from rnr_kernels.records import read_instructions
from rnr_kernels.rules.presets import hewitt2024
from rnr_kernels.teacher_forcing import Forced, length_buckets

TWIN = "embedded:instruction"
NUM_PROMPTS = 200
MAX_NEW_TOKENS = 300
GENERATE_BATCH = 50
SAMPLE_EVERY = 20
"""The published method runs over every 20th response; it is given as tokens a second."""

LEAST_TIMES = {"published": 50.0, "published, one thread": 50.0, "transformers": 2.0}
"""How many times as many tokens a second ours are required to be. Of passes over one text more
threads may make less."""
LEAST_BARE_SHARE = 0.80
"""Of our time that the bare forward passes are required to take."""

MOST_DIFFERENT_RANKS = 1e-3
MOST_DIFFERENT_NATS = 1e-3
"""Gate: float32 sums in another order swap equals, and differ in the last digits."""

Found = tuple[Tensor, Tensor, Tensor]
"""Ranks under the base, and KL both ways, of each response token."""


@dataclass(frozen=True)
class Batch:
    """[B, T] each, padded on the right; `wanted` are the positions before response tokens."""

    input_ids: Tensor
    attention_mask: Tensor
    wanted: Tensor
    token_ids: Tensor


def batches_of(texts: Sequence[Forced]) -> tuple[list[Batch], list[list[int]]]:
    """The batches that ours are run in, and the texts of each."""
    buckets = length_buckets([len(text) for text in texts])
    found = []
    for bucket in buckets:
        rows = [texts[index] for index in bucket]
        ids = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
        mask, wanted = torch.zeros_like(ids), torch.zeros_like(ids, dtype=torch.bool)
        for row, text in enumerate(rows):
            ids[row, : len(text)] = torch.tensor(text.prompt_token_ids + text.response_token_ids)
            mask[row, : len(text)] = 1
            wanted[row, len(text.prompt_token_ids) - 1 : len(text) - 1] = True
        token_ids = torch.tensor([token for text in rows for token in text.response_token_ids])
        found.append(Batch(ids, mask, wanted, token_ids))
    return found, buckets


@torch.inference_mode()
def published(aligned: Any, base: Any, texts: Sequence[Forced]) -> Found:
    """One pass over the whole prefix for every token and model, one text at a time, no cache."""
    rows = []
    for text in texts:
        whole = torch.tensor([text.prompt_token_ids + text.response_token_ids])
        for end in range(len(text.prompt_token_ids), len(text)):
            ids = whole[:, :end]
            logits, base_logits = (
                model(input_ids=ids, use_cache=False, logits_to_keep=1).logits[0]
                for model in (aligned, base)
            )
            rows.append(compared(logits, base_logits, whole[0, end : end + 1]))
    return joined(rows)


@torch.inference_mode()
def batched(aligned: Any, base: Any, batches: Sequence[Batch]) -> Found:
    """Our batches, then log_softmax and argsort of the responses' logits."""
    rows = []
    for batch in batches:
        logits, base_logits = (
            model(
                input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False
            ).logits[batch.wanted]
            for model in (aligned, base)
        )
        rows.append(compared(logits, base_logits, batch.token_ids))
    return joined(rows)


@torch.inference_mode()
def bare(aligned: Any, base: Any, batches: Sequence[Batch]) -> None:
    """Our batches alone, the head on the rows before response tokens."""
    for batch in batches:
        for model in (aligned, base):
            hidden = model.model(
                input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False
            ).last_hidden_state
            model.lm_head(hidden[batch.wanted])


def compared(logits: Tensor, base_logits: Tensor, token_ids: Tensor) -> Found:
    """Ranks and divergences as one writes them, from [N, V] each."""
    order = base_logits.argsort(dim=-1, descending=True)
    ranks = (order == token_ids[:, None]).nonzero()[:, 1] + 1
    p, q = logits.log_softmax(-1), base_logits.log_softmax(-1)
    return ranks, (p.exp() * (p - q)).sum(-1), (q.exp() * (q - p)).sum(-1)


def joined(rows: Sequence[Found]) -> Found:
    """One after the other."""
    ranks, kl, base_kl = (torch.cat(column) for column in zip(*rows, strict=True))
    return ranks, kl, base_kl


def check(name: str, expected: Sequence[np.ndarray[Any, Any]], found: Found) -> None:
    """SystemExit unless a peer finds what ours did."""
    ranks, *divergences = (column.numpy() for column in found)
    share = float((ranks != expected[0]).mean())
    gap = max(float(np.abs(a - b).max()) for a, b in zip(divergences, expected[1:], strict=True))
    if share > MOST_DIFFERENT_RANKS or gap > MOST_DIFFERENT_NATS:
        raise SystemExit(
            f"{name} finds other results: {share:.2%} of ranks differ, KL by up to {gap:.1e} nats"
        )


def responses(model: Any, tokenizer: Any) -> list[Forced]:
    """What the base times rules answers, greedily."""
    done = generate(
        model,
        tokenizer,
        read_instructions(EMBEDDED_PROMPTS)[:NUM_PROMPTS],
        rules=hewitt2024(strict=True),
        max_new_tokens=MAX_NEW_TOKENS,
        batch_size=GENERATE_BATCH,
    )
    return [Forced(tuple(each.prompt_token_ids), tuple(each.token_ids)) for each in done]


def num_tokens(texts: Sequence[Forced]) -> int:
    """Response tokens."""
    return sum(len(text.response_token_ids) for text in texts)


def main() -> None:
    """Prints medians over alternating runs, and what is required."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    tokenizer = load_tokenizer(EMBEDDED)
    base, aligned = load_model(EMBEDDED, device="cpu"), load_model(TWIN, device="cpu")
    texts = responses(base, tokenizer)
    sample = texts[::SAMPLE_EVERY]
    batches, buckets = batches_of(texts)
    adapter = RuleAdapter(base, hewitt2024(strict=True), tokenizer)

    def expected(of: Sequence[int]) -> list[np.ndarray[Any, Any]]:
        rows = np.concatenate([np.flatnonzero(shift.prompt == index) for index in of])
        return [shift.base_rank[rows], shift.kl_aligned_base[rows], shift.kl_base_aligned[rows]]

    def one_thread() -> None:
        torch.set_num_threads(1)
        published(aligned, base, sample)
        torch.set_num_threads(arguments.threads)

    shift = token_shift(aligned, base, texts)
    in_order = [index for bucket in buckets for index in bucket]
    check("transformers", expected(in_order), batched(aligned, base, batches))
    check(
        "published", expected(range(0, len(texts), SAMPLE_EVERY)), published(aligned, base, sample)
    )

    contenders: dict[str, tuple[Callable[[], object], int]] = {
        "ours": (lambda: token_shift(aligned, base, texts), num_tokens(texts)),
        "bare": (lambda: bare(aligned, base, batches), num_tokens(texts)),
        "transformers": (lambda: batched(aligned, base, batches), num_tokens(texts)),
        "rules": (lambda: token_shift(adapter, base, texts), num_tokens(texts)),
        "published": (lambda: published(aligned, base, sample), num_tokens(sample)),
        "published, one thread": (one_thread, num_tokens(sample)),
    }
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    with no_collection():
        for run in range(arguments.runs):
            names = list(contenders) if run % 2 == 0 else list(contenders)[::-1]
            for name in names:
                start = perf_counter()
                contenders[name][0]()
                seconds[name].append((perf_counter() - start) / contenders[name][1])
    report({name: statistics.median(found) for name, found in seconds.items()}, arguments.threads)
    print(
        f"{len(texts)} responses, {num_tokens(texts):,} tokens, medians of {arguments.runs} runs; "
        f"the published method over {len(sample)} of them, {num_tokens(sample)} tokens"
    )


def report(seconds: dict[str, float], threads: int) -> None:
    """The table, from seconds a response token."""
    titles = {
        "ours": "token_shift",
        "bare": "the forward passes alone, head on responses",
        "transformers": "same batches, log_softmax and argsort",
        "rules": "token_shift of base x rules (one model)",
        "published": "published: a pass a token, no cache, batch 1",
        "published, one thread": "the same on one thread",
    }
    print(f"{'threads: ' + str(threads):48}{'tokens/s':>10}  {'ours is':>14}  required")
    ours = seconds["ours"]
    for name, each in seconds.items():
        ratio, required = "", ""
        if name in LEAST_TIMES:
            times = each / ours
            ratio = f"{times:.1f}x as fast"
            holds = times >= LEAST_TIMES[name]
            required = f"{LEAST_TIMES[name]:.0f}x: {'reached' if holds else 'MISSED'}"
        elif name == "bare":
            ratio = f"{100 * each / ours:.0f} % of ours"
            holds = each / ours >= LEAST_BARE_SHARE
            required = f"{100 * LEAST_BARE_SHARE:.0f} %: {'reached' if holds else 'MISSED'}"
        print(f"{titles[name]:48}{1 / each:>10,.0f}  {ratio:>14}  {required}")


if __name__ == "__main__":
    main()
