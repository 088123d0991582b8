"""What kernels are launched with: tables as named tuples of tensors and sizes, and rows.

Triton compiles a kernel anew for integers that are 1 or divisible by 16, or need 64 bits, and for
addresses divisible by 16. Tables and what is said of the vocabulary are the same in each call. What
is not stands as an argument of its own, never in a tuple, whose items Triton always looks at: its
name is in `VARYING` and an integer's type in the kernel's signature, so that no call is a new kind.
"""

from functools import partial
from typing import Any, NamedTuple, cast

import torch
import triton
from torch import Tensor

from rnr_kernels.layout import TILE, ProgramTensors, StateTensors

Tables = Any
"""A ProgramTensors or StateTensors, or the list of tensors that came through torch.ops.rnr."""

VARYING = (
    "logits", "row_stride", "state_indices", "indices_stride", "row_offsets", "offsets_stride",
    "draft_token_ids", "drafts_stride", "allowed_bitmask", "allowed_stride", "num_slots",
    "max_bias", "token_ids", "ids_stride", "column_stride", "num_tokens", "counts", "counts_stride",
    "targets", "base_logits", "base_stride", "base_targets", "out", "out_stride", "row_width",
    "log_z", "log_z_stride", "top_k",
)  # fmt: skip
"""Arguments of kernels that differ from call to call."""

kernel = partial(triton.jit, do_not_specialize=VARYING)
"""Decorates what is launched; what is called by kernels is inlined, and looks at nothing."""

VECTOR = 16
"""Bytes that a thread loads at a time, at most."""

OPTIONS: dict[str, Any] = {"enable_fp_fusion": False, "num_warps": 16}
"""Of kernels over rules: roundings are those of the reference, and a thread has 8 columns of a
tile, because with 16 registers spill."""


class Program(NamedTuple):
    """layout.ProgramTensors, with the sizes that kernels index by."""

    token_class: Tensor
    block_flags: Tensor
    knot_starts: Tensor
    knot_lines: Tensor
    program_table: Tensor
    penalties: Tensor
    score_vectors: Tensor
    codes_stride: int
    flags_stride: int
    vector_stride: int
    num_maps: int
    num_schedules: int
    num_knots: int
    num_classes: int
    num_programs: int
    num_vectors: int

    @classmethod
    def of(cls, tables: Tables) -> "Program":
        t = tables if isinstance(tables, ProgramTensors) else ProgramTensors(*tables)
        if t.sized is None:
            t.sized = cls._of(t)
        return cast(Program, t.sized)

    @classmethod
    def _of(cls, t: ProgramTensors) -> "Program":
        return cls(
            t.token_class, t.block_flags, t.knot_starts, t.knot_lines, t.program_table,
            t.penalties, t.score_vectors,
            codes_stride=t.token_class.shape[1],
            flags_stride=t.block_flags.shape[1],
            vector_stride=t.score_vectors.shape[1],
            num_maps=t.token_class.shape[0],
            num_schedules=t.knot_starts.shape[0],
            num_knots=t.knot_starts.shape[1],
            num_classes=t.knot_starts.shape[2],
            num_programs=t.program_table.shape[0],
            num_vectors=t.score_vectors.shape[0],
        )  # fmt: skip

    def classes(self) -> int:
        """The size of a table with an entry a class."""
        return next_power_of_2(self.num_classes)


class State(NamedTuple):
    """layout.StateTensors, with the size that the vocabulary decides."""

    slot_params: Tensor
    used_bitmask: Tensor
    bias_token_ids: Tensor
    bias_values: Tensor
    sampling: Tensor
    rng: Tensor
    used_stride: int

    @classmethod
    def of(cls, tables: Tables) -> "State":
        t = tables if isinstance(tables, StateTensors) else StateTensors(*tables)
        if t.sized is None:
            t.sized = cls(*t, used_stride=t.used_bitmask.shape[1])
        return cast(State, t.sized)


class Rows(NamedTuple):
    """Rows of logits and what stands beside each, None where a call has none; and how many slots
    and biases they may have. Kernels take the items one by one (see rows.RowTables).
    """

    logits: Tensor
    row_stride: int
    state_indices: Tensor | None
    indices_stride: int
    row_offsets: Tensor | None
    offsets_stride: int
    draft_token_ids: Tensor | None
    drafts_stride: int
    allowed_bitmask: Tensor | None
    allowed_stride: int
    num_slots: int
    max_bias: int
    IS_ALIGNED: bool
    """Whether they may be loaded VECTOR bytes at a time."""

    @classmethod
    def of(
        cls,
        logits: Tensor,
        state: State,
        state_indices: Tensor | None = None,
        allowed_bitmask: Tensor | None = None,
        row_offsets: Tensor | None = None,
        draft_token_ids: Tensor | None = None,
    ) -> "Rows":
        num_slots, max_bias = state.bias_token_ids.shape
        return cls(
            logits, logits.stride(0),
            state_indices, _stride(state_indices),
            row_offsets, _stride(row_offsets),
            draft_token_ids, _stride(draft_token_ids),
            allowed_bitmask, _stride(allowed_bitmask),
            num_slots, max_bias,
            is_aligned(logits),
        )  # fmt: skip


def is_aligned(rows: Tensor) -> bool:
    """Whether every row begins at a multiple of VECTOR bytes, by address and stride."""
    return (rows.data_ptr() | rows.stride(0) * rows.element_size()) % VECTOR == 0


def _stride(column: Tensor | None) -> int:
    return 0 if column is None else column.stride(0)


def num_tiles(columns: int) -> int:
    return -(-columns // TILE)


def next_power_of_2(size: int) -> int:
    return 1 << (size - 1).bit_length()


def floats(like: Tensor, *shape: int) -> Tensor:
    return torch.empty(shape, dtype=torch.float32, device=like.device)
