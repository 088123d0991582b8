"""Token statistics: what tiles hold, combined row by row in the tiles' order."""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from rnr_kernels.backends.triton.arguments import (
    OPTIONS,
    floats,
    is_aligned,
    kernel,
    next_power_of_2,
    num_tiles,
)
from rnr_kernels.backends.triton.largest import largest_kernel
from rnr_kernels.backends.triton.rows import begin_of, load_tops
from rnr_kernels.backends.triton.tile_statistics import (
    OF_TILES,
    CrossTables,
    Logits,
    LogitsRow,
    TileTables,
    Tokens,
    shift_kernel,
    target_of,
    token_kernel,
)

OF_ROWS = OPTIONS | {"num_warps": 1}
"""Of kernels that combine a few numbers a row."""


class Columns(NamedTuple):
    """One model's statistics, one value a row (see ops.TokenStats)."""

    rank: Tensor
    num_ties: Tensor
    logprob: Tensor
    entropy: Tensor
    top_token_ids: Tensor
    top_logprobs: Tensor

    @classmethod
    def empty(cls, like: Tensor, num_rows: int, top_k: int) -> "Columns":
        def ints(*shape: int, dtype: torch.dtype = torch.int32) -> Tensor:
            return torch.empty(shape, dtype=dtype, device=like.device)

        return cls(
            ints(num_rows), ints(num_rows), floats(like, num_rows), floats(like, num_rows),
            ints(num_rows, top_k, dtype=torch.int64), floats(like, num_rows, top_k),
        )  # fmt: skip


@triton.jit
def _load_sums(table, r, tiles, TILES: tl.constexpr):
    tile = tl.arange(0, TILES)
    return tl.load(table + r.to(tl.int64) * tiles + tile, mask=tile < tiles, other=0)


@kernel
def _combine_kernel(
    logits, row_stride: tl.int64, targets, token_ids, ids_stride: tl.int64,
    tables, columns, normaliser, vocab_size, tiles, TILES: tl.constexpr,
):  # fmt: skip
    r = tl.program_id(0)
    rows = LogitsRow(begin_of(logits, row_stride, r, False), targets)
    tokens = Tokens(token_ids, ids_stride)
    tops, top, factors, is_valid = load_tops(tables.tops + r.to(tl.int64) * tiles, 1, tiles, TILES)
    totals = _load_sums(tables.totals, r, tiles, TILES).to(tl.float64)
    total = tl.sum(totals * factors, 0)
    distance = tl.where(factors > 0.0, tops - top, 0.0).to(tl.float64)
    weighted = _load_sums(tables.weighted, r, tiles, TILES).to(tl.float64) + totals * distance
    mean = tl.sum(weighted * factors, 0) / total
    log_total = tl.log(tl.where(is_valid, total, 1.0))
    _, target = target_of(rows, tokens, r, 0, vocab_size)
    nan = float("nan")
    greater = tl.sum(_load_sums(tables.greater, r, tiles, TILES), 0)
    equal = tl.sum(_load_sums(tables.equal, r, tiles, TILES), 0)
    is_known = is_valid & (target == target)
    tl.store(columns.rank + r, tl.where(is_known, greater + 1, 0))
    tl.store(columns.num_ties + r, tl.where(is_known, equal, 0))
    logprob = ((target - top).to(tl.float64) - log_total).to(tl.float32)
    tl.store(columns.logprob + r, tl.where(is_known, logprob, nan))
    tl.store(columns.entropy + r, tl.where(is_valid, (log_total - mean).to(tl.float32), nan))
    tl.store(normaliser + 2 * r.to(tl.int64), tl.where(is_valid, top, nan))
    tl.store(normaliser + 2 * r.to(tl.int64) + 1, log_total.to(tl.float32))


@triton.jit
def _divergence(cross, factors, totals, gaps, total, log_gap):
    """KL of the side that the first arguments belong to, from the other; not less than 0."""
    parts = tl.where(totals > 0.0, (cross + totals * gaps) * factors, 0.0)
    num_excluded = tl.sum((cross == float("inf")).to(tl.int32), 0)
    kl = tl.maximum(tl.sum(tl.where(cross == float("inf"), 0.0, parts), 0) / total - log_gap, 0.0)
    return tl.where(num_excluded > 0, float("inf"), kl).to(tl.float32)


@kernel
def _divergence_kernel(
    tables_p, tables_q, cross, kl, base_kl, same_argmax, tiles, TILES: tl.constexpr
):
    r = tl.program_id(0)
    first = r.to(tl.int64) * tiles
    tops_p, top_p, factors_p, is_valid_p = load_tops(tables_p.tops + first, 1, tiles, TILES)
    tops_q, top_q, factors_q, is_valid_q = load_tops(tables_q.tops + first, 1, tiles, TILES)
    is_valid = is_valid_p & is_valid_q
    totals_p = _load_sums(tables_p.totals, r, tiles, TILES).to(tl.float64)
    totals_q = _load_sums(tables_q.totals, r, tiles, TILES).to(tl.float64)
    total_p = tl.where(is_valid, tl.sum(totals_p * factors_p, 0), 1.0)
    total_q = tl.where(is_valid, tl.sum(totals_q * factors_q, 0), 1.0)
    log_gap = tl.log(total_p) - tl.log(total_q)
    # Where either side has no token, nothing finite is added.
    has_both = (tops_p > float("-inf")) & (tops_q > float("-inf"))
    distance_p = tl.where(has_both, tops_p, top_p).to(tl.float64) - top_p.to(tl.float64)
    distance_q = tl.where(has_both, tops_q, top_q).to(tl.float64) - top_q.to(tl.float64)
    gaps = distance_p - distance_q
    cross_p = _load_sums(cross.p, r, tiles, TILES)
    cross_q = _load_sums(cross.q, r, tiles, TILES)
    nan = float("nan")
    result = _divergence(cross_p, factors_p, totals_p, gaps, total_p, log_gap)
    tl.store(kl + r, tl.where(is_valid, result, nan))
    result = _divergence(cross_q, factors_q, totals_q, -gaps, total_q, -log_gap)
    tl.store(base_kl + r, tl.where(is_valid, result, nan))
    first_p = _first_of_largest(tables_p, tops_p, top_p, r, tiles, TILES)
    first_q = _first_of_largest(tables_q, tops_q, top_q, r, tiles, TILES)
    tl.store(same_argmax + r, is_valid & (first_p == first_q))


@triton.jit
def _first_of_largest(tables, tops, top, r, tiles, TILES: tl.constexpr):
    """The lowest id of the largest logit."""
    first = _load_sums(tables.largest, r, tiles, TILES)
    return tl.min(tl.where(tops == top, first, 0x7FFFFFFF), 0)


class _Side:
    """One model's tables while its columns come in."""

    def __init__(self, like: Tensor, num_rows: int, vocab_size: int, top_k: int) -> None:
        self.tiles = num_tiles(vocab_size)
        self.tables = TileTables.empty(like, num_rows, self.tiles)
        self.columns = Columns.empty(like, num_rows, top_k)
        self.values, self.ids = self.columns.top_logprobs, self.columns.top_token_ids
        self.num_rows, self.vocab_size, self.top_k = num_rows, vocab_size, top_k

    def rows(self, logits: Tensor, targets: Tensor | None) -> Logits:
        return Logits(logits, logits.stride(0), targets, is_aligned(logits))

    def num_columns(self, rows: Logits) -> int:
        """Columns of the vocabulary among these: all, or those of a part with targets apart."""
        return self.vocab_size if rows.targets is None else int(rows.logits.shape[1])

    def add_largest(self, rows: Logits, first_column: int) -> None:
        """Merges the largest of these columns with those so far, which come first on ties. The
        first columns must be `top_k` at least."""
        num_columns = self.num_columns(rows)
        count = min(self.top_k, num_columns)
        values = floats(rows.logits, self.num_rows, count)
        ids = torch.empty(self.num_rows, count, dtype=torch.int64, device=values.device)
        largest_kernel[(self.num_rows,)](
            rows.logits, rows.row_stride, rows.IS_ALIGNED, self.tables, num_columns, first_column,
            self.tiles, num_tiles(num_columns), count, values, ids, **OPTIONS,
        )  # fmt: skip
        if first_column > 0:
            values = torch.cat([self.values, values], 1)
            ids = torch.cat([self.ids, ids], 1)
            values, order = values.sort(dim=1, descending=True, stable=True)
            ids = ids.gather(1, order)
        self.values, self.ids = values[:, : self.top_k], ids[:, : self.top_k]

    def finish(self, rows: Logits, tokens: Tokens) -> tuple[Tensor, ...]:
        normaliser = floats(rows.logits, self.num_rows, 2)
        _combine_kernel[(self.num_rows,)](
            *rows[:-1], *tokens, self.tables, self.columns, normaliser, self.vocab_size,
            self.tiles, TILES=next_power_of_2(self.tiles), **OF_ROWS,
        )  # fmt: skip
        if self.top_k:
            top, log_total = normaliser[:, :1], normaliser[:, 1:]
            return self.columns._replace(
                top_token_ids=self.ids.masked_fill(top.isnan(), -1),
                top_logprobs=(self.values - top).sub_(log_total),
            )
        return self.columns


class TokenStatistics:
    """`token_stats` of rows whose columns come in several calls of `add`, whole tiles but the last.

    `targets` float32 [R] are the targets' logits where not all columns are in one call.
    """

    def __init__(self, token_ids: Tensor, vocab_size: int, top_k: int) -> None:
        self.tokens = Tokens(token_ids, token_ids.stride(0))
        self.side = _Side(token_ids, len(token_ids), vocab_size, top_k)

    def add(self, logits: Tensor, targets: Tensor | None = None, first_column: int = 0) -> None:
        side, self.last = self.side, self.side.rows(logits, targets)
        num_columns = side.num_columns(self.last)
        token_kernel[(side.num_rows, num_tiles(num_columns))](
            *self.last, *self.tokens, side.tables, num_columns, first_column, side.vocab_size,
            side.tiles, WANTS_LARGEST=False, **OF_TILES,
        )  # fmt: skip
        if side.top_k:
            side.add_largest(self.last, first_column)

    def results(self) -> tuple[Tensor, ...]:
        return self.side.finish(self.last, self.tokens)


class ShiftStatistics:
    """`shift_stats` in the same way."""

    def __init__(self, token_ids: Tensor, vocab_size: int, top_k: int) -> None:
        self.tokens = Tokens(token_ids, token_ids.stride(0))
        num_rows = len(token_ids)
        self.p, self.q = (_Side(token_ids, num_rows, vocab_size, top_k) for _ in range(2))
        shape, device = (num_rows, self.p.tiles), token_ids.device
        sums = [torch.empty(shape, dtype=torch.float64, device=device) for _ in range(2)]
        self.cross = CrossTables(*sums)

    def add(
        self,
        logits: Tensor,
        base_logits: Tensor,
        targets: Tensor | None = None,
        base_targets: Tensor | None = None,
        first_column: int = 0,
    ) -> None:
        p, q = self.p, self.q
        self.last = p.rows(logits, targets), q.rows(base_logits, base_targets)
        num_columns = p.num_columns(self.last[0])
        shift_kernel[(p.num_rows, num_tiles(num_columns))](
            *self.last[0], *self.last[1], *self.tokens, p.tables, q.tables, self.cross, num_columns,
            first_column, p.vocab_size, p.tiles, **OF_TILES | {"num_warps": 16},
        )  # fmt: skip
        if p.top_k:
            p.add_largest(self.last[0], first_column)
            q.add_largest(self.last[1], first_column)

    def results(self) -> tuple[Tensor, ...]:
        p, q = self.p, self.q
        device = self.tokens.token_ids.device
        # Each with an allocation of its own: kernels are compiled for its alignment.
        kl, base_kl = (floats(self.tokens.token_ids, p.num_rows) for _ in range(2))
        same_argmax = torch.empty(p.num_rows, dtype=torch.bool, device=device)
        _divergence_kernel[(p.num_rows,)](
            p.tables, q.tables, self.cross, kl, base_kl, same_argmax, p.tiles,
            TILES=next_power_of_2(p.tiles), **OF_ROWS,
        )  # fmt: skip
        sides = (*p.finish(self.last[0], self.tokens), *q.finish(self.last[1], self.tokens))
        return *sides, kl, base_kl, same_argmax


def token_stats(
    logits: Tensor, token_ids: Tensor, vocab_size: int, top_k: int = 0
) -> tuple[Tensor, ...]:
    if not len(token_ids):
        return no_token_stats(token_ids, top_k)
    stats = TokenStatistics(token_ids, vocab_size, top_k)
    stats.add(logits)
    return stats.results()


def shift_stats(
    logits: Tensor, base_logits: Tensor, token_ids: Tensor, vocab_size: int, top_k: int = 0
) -> tuple[Tensor, ...]:
    if not len(token_ids):
        return no_shift_stats(token_ids, top_k)
    stats = ShiftStatistics(token_ids, vocab_size, top_k)
    stats.add(logits, base_logits)
    return stats.results()


def no_token_stats(like: Tensor, top_k: int) -> tuple[Tensor, ...]:
    """Of no rows: a launch has at least one."""
    return Columns.empty(like, 0, top_k)


def no_shift_stats(like: Tensor, top_k: int) -> tuple[Tensor, ...]:
    same_argmax = torch.empty(0, dtype=torch.bool, device=like.device)
    sides = (*Columns.empty(like, 0, top_k), *Columns.empty(like, 0, top_k))
    return *sides, floats(like, 0), floats(like, 0), same_argmax
