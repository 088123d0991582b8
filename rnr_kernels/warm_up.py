"""`warm_up`: calls as a server will make them, so that none of its own waits for a compiler."""

from collections.abc import Collection, Sequence
from itertools import product
from typing import Any

import torch
from torch import Tensor

from rnr_kernels import ops
from rnr_kernels.checks import LOGITS_DTYPES, check_program
from rnr_kernels.layout import num_words
from rnr_kernels.rules.kinds import as_int
from rnr_kernels.rules.program import RuleProgram
from rnr_kernels.state import DecodeState

WITH_RULES = ("apply_rules_", "rule_log_softmax", "sample_")
STATISTICS = ("token_stats", "shift_stats", "linear_token_stats", "linear_shift_stats")
OPS = (*WITH_RULES, "update_state_", *STATISTICS)
"""Flags that name what is called."""

OPTIONS: dict[str, tuple[str, ...]] = {
    "state_indices": (*WITH_RULES, "update_state_"),
    "allowed_bitmask": WITH_RULES,
    "drafts": WITH_RULES,
    "counts": ("update_state_",),
    "int32_indices": OPS,
    "log_z": ("rule_log_softmax",),
    "logprob": ("sample_",),
    "adjusted_logprob": ("sample_",),
    "rank": ("sample_",),
    "top_k": STATISTICS,
}
"""Flags that say how, and the ops that heed each."""

MULTIPLE = 16
"""Columns to which rows are rounded up that may be loaded in vectors, whatever the dtype."""


def warm_up(
    program: RuleProgram,
    dtypes: Sequence[torch.dtype] = (torch.float32,),
    vocab_size: int | None = None,
    flags: Collection[str] = (),
) -> None:
    """Compiles and loads what calls on `program` need, by making them on small tensors of its own.

    No later call of the same form compiles anything, whatever its rows, strides, storage offsets,
    slots, biases, seeds and sampling parameters. `dtypes` are those of logits and hidden states.
    `flags` give the form: the names of ops (`sample_` if none is named), and what all of them are
    called with: "state_indices", "allowed_bitmask", "drafts" (row_offsets and draft_token_ids),
    "counts", "int32_indices" (ids, slots and counts are int32, not int64), "log_z", "logprob",
    "adjusted_logprob", "rank" (what is returned), "top_k" (above 0). A server with several forms
    calls this once for each. `vocab_size` is that of the statistics (default: the program's).

    Program, states and torch's generators stay as they are. Do not call it while a CUDA graph is
    captured. ValueError for an unknown flag, or one that no named op heeds.
    """
    check_program(program)
    size = program.vocab_size if vocab_size is None else as_int(vocab_size, "vocab_size")
    if size < 1:
        raise ValueError(f"vocab_size must be at least 1, got {size}")
    names = _checked_flags(flags)
    _Calls(program, _checked_dtypes(dtypes), size, names).make()


def _checked_dtypes(dtypes: Sequence[torch.dtype]) -> Sequence[torch.dtype]:
    wanted = "dtypes must be a sequence of torch.float32, torch.bfloat16 or torch.float16"
    if isinstance(dtypes, torch.dtype):
        raise TypeError(f"{wanted}, got {dtypes}; pass ({dtypes},)")
    for dtype in dtypes:
        if dtype not in LOGITS_DTYPES:
            raise ValueError(f"{wanted}, got {dtype}")
    return dtypes


def _checked_flags(flags: Collection[str]) -> frozenset[str]:
    """With the op that is called by default."""
    if isinstance(flags, str):
        raise TypeError(f"flags must be a collection of names, got {flags!r}; pass ({flags!r},)")
    names = frozenset(flags)
    for name in sorted(names - {*OPS, *OPTIONS}):
        raise ValueError(f"flags must be among {', '.join((*OPS, *OPTIONS))}, got {name!r}")
    if names.isdisjoint(OPS):
        names |= {"sample_"}
    for name in sorted(names - {*OPS}):
        if names.isdisjoint(OPTIONS[name]):
            heeding = " or ".join(OPTIONS[name])
            raise ValueError(f"flag {name!r} needs {heeding} among the flags, which alone heeds it")
    return names


class _Calls:
    """One row, on one slot without rules: kernels are the same for all."""

    def __init__(
        self,
        program: RuleProgram,
        dtypes: Sequence[torch.dtype],
        vocab_size: int,
        flags: frozenset[str],
    ) -> None:
        # A record of its own on the same tables: a state adds itself to its program.
        self.program = RuleProgram(program.vocab_size, program.capacity, program.tensors, [])
        self.state = DecodeState.allocate(self.program, 1)
        self.dtypes, self.vocab_size, self.flags = dtypes, vocab_size, flags
        dtype = torch.int32 if "int32_indices" in flags else torch.int64
        self.index = torch.zeros(1, dtype=dtype, device=program.device)

    def make(self) -> None:
        if "update_state_" in self.flags:
            counts = self._if("counts", self.index)
            ops.update_state_(self.state, self.index, counts, state_indices=self._slots())
        for dtype in self.dtypes:
            for logits in self._rows(self.program.vocab_size, dtype):
                self._with_rules(logits)
            self._linear(dtype)
        rows = [row for dtype in self.dtypes for row in self._rows(self.vocab_size, dtype)]
        size, top_k = self.vocab_size, self._top_k()
        if "token_stats" in self.flags:
            for row in rows:
                ops.token_stats(row, self.index, vocab_size=size, top_k=top_k)
        if "shift_stats" in self.flags:
            for row, base in product(rows, repeat=2):
                ops.shift_stats(row, base, self.index, vocab_size=size, top_k=top_k)

    def _with_rules(self, logits: Tensor) -> None:
        flags, call = self.flags, (logits, self.program, self.state)
        words = num_words(self.program.vocab_size)
        drafts = self._if("drafts", self.index)
        options: dict[str, Any] = {
            "state_indices": self._slots(),
            "allowed_bitmask": self._if("allowed_bitmask", self._zeros(words, torch.int32)),
            "row_offsets": drafts,
            "draft_token_ids": drafts,
        }
        if "apply_rules_" in flags:
            ops.apply_rules_(*call, **options)
        if "rule_log_softmax" in flags:
            ops.rule_log_softmax(*call, **options, return_log_z="log_z" in flags)
        if "sample_" in flags:
            ops.sample_(
                *call,
                **options,
                return_logprob="logprob" in flags,
                return_adjusted_logprob="adjusted_logprob" in flags,
                return_rank="rank" in flags,
            )

    def _linear(self, dtype: torch.dtype) -> None:
        if self.flags.isdisjoint(("linear_token_stats", "linear_shift_stats")):
            return
        hidden = self._zeros(MULTIPLE, dtype)
        weight = hidden.new_zeros(self.vocab_size, MULTIPLE)
        if "linear_token_stats" in self.flags:
            ops.linear_token_stats(hidden, weight, self.index, top_k=self._top_k())
        if "linear_shift_stats" in self.flags:
            ops.linear_shift_stats(hidden, weight, hidden, weight, self.index, top_k=self._top_k())

    def _rows(self, vocab_size: int, dtype: torch.dtype) -> list[Tensor]:
        """One that may be loaded in vectors, one that may not."""
        width = -(-vocab_size // MULTIPLE) * MULTIPLE
        return [self._zeros(width, dtype), self._zeros(width + 1, dtype)[:, 1:]]

    def _zeros(self, width: int, dtype: torch.dtype) -> Tensor:
        return torch.zeros(1, width, dtype=dtype, device=self.index.device)

    def _if(self, flag: str, value: Tensor) -> Tensor | None:
        return value if flag in self.flags else None

    def _slots(self) -> Tensor | None:
        return self._if("state_indices", self.index)

    def _top_k(self) -> int:
        return int("top_k" in self.flags)
