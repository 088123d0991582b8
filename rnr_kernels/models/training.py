"""Packing and training: rows of whole documents, AdamW, cosine, fixed seeds."""

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional as F

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM


@dataclass(frozen=True)
class TrainingConfig:
    """Size of the model and of its training.

    A step takes `tokens_per_step` tokens, cut in rows of `row_length`; every `long_every`-th step
    takes rows of the whole `context`.
    """

    context: int = 2048
    hidden_size: int = 128
    intermediate_size: int = 352
    num_layers: int = 4
    num_heads: int = 4
    num_tokens: int = 8_200_000
    tokens_per_step: int = 2048
    row_length: int = 512
    long_every: int = 6
    initializer_range: float = 0.05
    learning_rate: float = 3e-3
    warmup_steps: int = 120
    weight_decay: float = 0.05
    compiled: bool = True

    @property
    def num_steps(self) -> int:
        """Optimiser steps."""
        return self.num_tokens // self.tokens_per_step


def pack(documents: Iterable[Sequence[int]], lengths: Sequence[int]) -> list[torch.Tensor]:
    """One row of token ids for each length; a row begins with a document and cuts its last one.

    Raises ValueError if the documents run out.
    """
    rows: list[torch.Tensor] = []
    row: list[int] = []
    wanted = iter(lengths)
    length = next(wanted, None)
    for document in documents:
        if length is None:
            break
        row.extend(document)
        if len(row) >= length:
            rows.append(torch.tensor(row[:length], dtype=torch.int32))
            row = []
            length = next(wanted, None)
    if len(rows) < len(lengths):
        raise ValueError(
            f"expected documents for {len(lengths)} rows; got enough for {len(rows)}: pass more."
        )
    return rows


def row_lengths(config: TrainingConfig) -> list[list[int]]:
    """The lengths of the rows of each step."""
    steps = []
    for step in range(config.num_steps):
        length = config.context if step % config.long_every == 0 else config.row_length
        steps.append([length] * (config.tokens_per_step // length))
    return steps


def new_model(config: TrainingConfig, num_pieces: int, ids: dict[str, Any]) -> "LlamaForCausalLM":
    """A freshly initialised Llama with tied embeddings."""
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=num_pieces,
            hidden_size=config.hidden_size,
            intermediate_size=config.intermediate_size,
            num_hidden_layers=config.num_layers,
            num_attention_heads=config.num_heads,
            num_key_value_heads=config.num_heads,
            max_position_embeddings=config.context,
            tie_word_embeddings=True,
            initializer_range=config.initializer_range,
            **ids,
        )
    )


def train(
    model: "LlamaForCausalLM",
    rows: Sequence[torch.Tensor],
    config: TrainingConfig,
    *,
    seed: int,
    report: Callable[[str], None] = print,
) -> float:
    """Trains on the rows in the order of `row_lengths`, shuffled by seed; the mean last losses."""
    order = torch.Generator().manual_seed(seed)
    short = [row for row in rows if len(row) == config.row_length]
    long = [row for row in rows if len(row) == config.context]
    queues = {
        len(kind[0]): iter([kind[int(i)] for i in torch.randperm(len(kind), generator=order)])
        for kind in (short, long)
        if kind
    }
    groups: list[dict[str, Any]] = [
        {"params": [p for p in model.parameters() if p.dim() > 1]},
        {"params": [p for p in model.parameters() if p.dim() <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(
        groups,
        lr=config.learning_rate,
        betas=(0.9, 0.98),
        weight_decay=config.weight_decay,
        fused=True,
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, config))

    def loss_of(ids: torch.Tensor) -> torch.Tensor:
        logits = model(input_ids=ids, use_cache=False).logits
        return F.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())

    step_loss = torch.compile(loss_of, dynamic=False) if config.compiled else loss_of
    losses: list[float] = []
    start, num_tokens = time.perf_counter(), 0
    model.train()
    for step, lengths in enumerate(row_lengths(config)):
        ids = torch.stack([next(queues[length]) for length in lengths]).long()
        with torch.autocast("cpu", torch.bfloat16):
            loss = step_loss(ids)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
        num_tokens += ids.numel()
        if (step + 1) % 100 == 0 or step + 1 == config.num_steps:
            speed = num_tokens / (time.perf_counter() - start)
            mean = sum(losses[-100:]) / len(losses[-100:])
            report(f"step {step + 1}/{config.num_steps}  loss {mean:.4f}  {speed:,.0f} tokens/s")
    model.eval()
    return sum(losses[-100:]) / len(losses[-100:])


def _rate(step: int, config: TrainingConfig) -> float:
    warm = min(1.0, (step + 1) / config.warmup_steps)
    return warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / config.num_steps)))
