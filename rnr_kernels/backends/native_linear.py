"""Statistics from hidden states on the `native` backend: products of a few columns at a time.

One tile of columns for a few hundred rows is computed into a buffer that stays in the cache, and
added to the rows' running statistics, which end up with the bits they have on whole rows of logits.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from rnr_kernels.backends.heads import Head, joined
from rnr_kernels.layout import TILE

ROWS = 512
"""Rows at a time at most: 8 MB of logits."""

COPIED_ELEMENTS = 2**21
"""float32 copies of hidden states and weights at most, for each model: 8 MB."""

TARGETS = 64
"""Targets' logits at a time: the diagonal of a product of their rows and weights."""

LANES = 16
"""csrc/rnr.h's kDotLanes: widths of hidden states are filled up to whole ones."""

_C = torch.ops.rnr_C


@dataclass(frozen=True)
class _Head(Head):
    invariant: bool
    instruction_set: int

    def prepare(self, hidden: Tensor) -> Tensor:
        """Hidden states as `logits` and `targets` take them."""
        rows = hidden.float()
        if not self.invariant:
            return rows
        return pad(rows, (0, -rows.shape[1] % LANES)).contiguous()

    def copies(self) -> Tensor | None:
        """A buffer for float32 copies of weights, where products need them."""
        if self.invariant or self.weight.dtype == torch.float32:
            return None
        return _floats(min(_copied(self.weight), TILE), self.weight.shape[1])

    def logits(self, hidden: Tensor, start: int, buffer: Tensor, copies: Tensor | None) -> Tensor:
        """float32 [n, up to TILE] in the buffer: the tokens from `start` on."""
        tokens = slice(start, start + TILE)
        weight = self.weight[tokens]
        rows, columns = len(hidden), len(weight)
        out = buffer[: rows * columns].view(rows, columns)
        if self.invariant:
            _C.head_logits.default(hidden, _with_rows(weight), out, self.instruction_set)
        elif copies is None:
            torch.mm(hidden, weight.T, out=out)
        else:
            for at in range(0, columns, len(copies)):
                part = weight[at : at + len(copies)]
                copy = copies[: len(part)].copy_(part)
                torch.mm(hidden, copy.T, out=out[:, at : at + len(copies)])
        return self.finish(out, tokens)

    def targets(self, hidden: Tensor, token_ids: Tensor) -> Tensor:
        """float32 [n], by the same products; anything where the id is none."""
        out = hidden.new_empty(len(hidden))
        ids = self.token_rows(token_ids)
        for at in range(0, len(hidden), TARGETS):
            rows, part = hidden[at : at + TARGETS], out[at : at + TARGETS]
            chosen = self.weight[ids[at : at + TARGETS]]
            if self.invariant:
                each = torch.arange(len(rows), device="cpu")
                weight = chosen.contiguous()
                _C.head_targets.default(rows, weight, each, part, self.instruction_set)
            else:
                part.copy_(torch.mm(rows, chosen.float().T).diagonal())
        return self.finish(out, ids)


def _floats(*shape: int) -> Tensor:
    """Whatever torch's default dtype and device are just now."""
    return torch.empty(shape, dtype=torch.float32, device="cpu")


def _with_rows(weight: Tensor) -> Tensor:
    return weight if weight.stride(1) == 1 else weight.contiguous()


def _copied(matrix: Tensor) -> int:
    """How many of its rows are copied at a time."""
    return max(1, COPIED_ELEMENTS // max(1, matrix.shape[1]))


def _in_chunks(
    op: Callable[..., tuple[Tensor, ...]],
    heads: Sequence[_Head],
    hidden: Sequence[Tensor],
    token_ids: Tensor,
    top_k: int,
) -> tuple[Tensor, ...]:
    vocab_size = len(heads[0].weight)
    rows = min(ROWS, max(1, len(token_ids)), *map(_copied, hidden))
    buffers = [_floats(rows * min(TILE, vocab_size)) for _ in heads]
    copies = [head.copies() for head in heads]
    running = torch.empty(rows, _C.running_bytes(), dtype=torch.uint8, device="cpu")
    chunks = []
    for at in range(0, max(1, len(token_ids)), rows):
        ids = token_ids[at : at + rows]
        states = [h.prepare(x[at : at + rows]) for h, x in zip(heads, hidden, strict=True)]
        targets = [h.targets(x, ids) for h, x in zip(heads, states, strict=True)]
        for start in range(0, vocab_size, TILE):
            logits = [
                head.logits(state, start, buffer, copy)
                for head, state, buffer, copy in zip(heads, states, buffers, copies, strict=True)
            ]
            result = op(
                *logits, ids, *targets, start, vocab_size, top_k, running,
                heads[0].instruction_set,
            )  # fmt: skip
        chunks.append(result)
    return joined(chunks)


def functions(instruction_set: int) -> dict[str, Callable[..., Any]]:
    """The ops by name, as `reference` declares them, on one of the instruction sets."""

    @torch.no_grad()
    def linear_token_stats(
        hidden: Tensor,
        weight: Tensor,
        token_ids: Tensor,
        bias: Tensor | None = None,
        logit_scale: float = 1.0,
        softcap: float = 0.0,
        top_k: int = 0,
        invariant: bool = False,
    ) -> tuple[Tensor, ...]:
        head = _Head(weight, bias, logit_scale, softcap, invariant, instruction_set)
        with torch.autocast("cpu", enabled=False):  # logits are float32, never rounded
            return _in_chunks(_C.token_stats_chunk.default, [head], [hidden], token_ids, top_k)

    @torch.no_grad()
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
    ) -> tuple[Tensor, ...]:
        heads = [
            _Head(weight, bias, logit_scale, softcap, invariant, instruction_set),
            _Head(
                base_weight, base_bias, base_logit_scale, base_softcap, invariant, instruction_set
            ),
        ]
        hiddens = [hidden, base_hidden]
        with torch.autocast("cpu", enabled=False):
            return _in_chunks(_C.shift_stats_chunk.default, heads, hiddens, token_ids, top_k)

    return {
        "linear_token_stats": linear_token_stats,
        "linear_shift_stats": linear_shift_stats,
    }
