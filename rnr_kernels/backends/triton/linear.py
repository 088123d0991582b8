"""Statistics from hidden states: products of some columns at a time, each added while it is hot."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import pad

from rnr_kernels.backends.heads import Head, joined
from rnr_kernels.backends.triton.arguments import floats
from rnr_kernels.backends.triton.statistics import (
    ShiftStatistics,
    TokenStatistics,
    no_shift_stats,
    no_token_stats,
)

COLUMNS = 8192
"""Columns of a product, whole tiles: 1,024 float32 rows of them stay in an H100's L2 cache."""

ROWS = 1024
INVARIANT_ROWS = 64
"""Rows of every product where one shape is pinned."""


class _Head(Head):
    def logits(self, hidden: Tensor, start: int) -> Tensor:
        """float32 [n, up to COLUMNS]: the tokens from `start` on."""
        tokens = slice(start, start + COLUMNS)
        return self.finish(_product(hidden, self.weight[tokens]), tokens)

    def targets(self, hidden: Tensor, token_ids: Tensor) -> Tensor:
        """float32 [n], by products of INVARIANT_ROWS rows; anything where the id is none."""
        out = floats(hidden, len(hidden))
        ids = self.token_rows(token_ids)
        for at in range(0, len(hidden), INVARIANT_ROWS):
            part = slice(at, at + INVARIANT_ROWS)
            out[part] = _product(hidden[part], self.weight[ids[part]]).diagonal()
        return self.finish(out, ids)


def _product(hidden: Tensor, weight: Tensor) -> Tensor:
    """hidden @ weight.T in float32, not rounded to 16 bits (torch's settings may allow TF32)."""
    if hidden.dtype == weight.dtype != torch.float32 and hidden.is_cuda:
        return torch.mm(hidden, weight.T, out_dtype=torch.float32)
    return torch.mm(hidden.float(), weight.float().T)


def _row_chunks(num_rows: int, invariant: bool) -> Iterator[slice]:
    rows = INVARIANT_ROWS if invariant else ROWS
    for at in range(0, num_rows, rows):
        yield slice(at, at + rows)


def _prepared(hidden: Tensor, invariant: bool) -> Tensor:
    """With rows of zeros up to the pinned shape."""
    return pad(hidden, (0, 0, 0, INVARIANT_ROWS - len(hidden))) if invariant else hidden


def _for_rows(token_ids: Tensor, rows: Tensor) -> Tensor:
    """One for each row, those added included."""
    return pad(token_ids, (0, len(rows) - len(token_ids)))


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
    if not len(hidden):
        return no_token_stats(hidden, top_k)
    head, chunks = _Head(weight, bias, logit_scale, softcap), []
    with torch.autocast(hidden.device.type, enabled=False):  # logits are float32
        for part in _row_chunks(len(hidden), invariant):
            ids, rows = token_ids[part], _prepared(hidden[part], invariant)
            stats = TokenStatistics(ids, len(weight), top_k)
            targets = head.targets(rows, _for_rows(ids, rows))[: len(ids)]
            for start in range(0, len(weight), COLUMNS):
                stats.add(head.logits(rows, start), targets, start)
            chunks.append(stats.results())
    return joined(chunks)


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
    if not len(hidden):
        return no_shift_stats(hidden, top_k)
    head = _Head(weight, bias, logit_scale, softcap)
    base, chunks = _Head(base_weight, base_bias, base_logit_scale, base_softcap), []
    with torch.autocast(hidden.device.type, enabled=False):
        for part in _row_chunks(len(hidden), invariant):
            ids = token_ids[part]
            rows, base_rows = (_prepared(h[part], invariant) for h in (hidden, base_hidden))
            stats = ShiftStatistics(ids, len(weight), top_k)
            padded = _for_rows(ids, rows)
            targets = (
                head.targets(rows, padded)[: len(ids)],
                base.targets(base_rows, padded)[: len(ids)],
            )
            for start in range(0, len(weight), COLUMNS):
                logits = head.logits(rows, start), base.logits(base_rows, start)
                stats.add(*logits, *targets, start)
            chunks.append(stats.results())
    return joined(chunks)
