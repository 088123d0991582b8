"""What kernels are launched with: tables and rows as named tuples of tensors and sizes."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from rnr_kernels.layout import TILE, ProgramTensors, StateTensors

Tables = Any
"""A ProgramTensors or StateTensors, or the list of tensors that came through torch.ops.rnr."""

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
        t = ProgramTensors(*tables)
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
    """layout.StateTensors, with the sizes that kernels index by."""

    slot_params: Tensor
    used_bitmask: Tensor
    bias_token_ids: Tensor
    bias_values: Tensor
    sampling: Tensor
    rng: Tensor
    num_slots: int
    used_stride: int
    max_bias: int
    max_bias_bits: int
    """How many halvings find one of `max_bias` biases."""

    @classmethod
    def of(cls, tables: Tables) -> "State":
        t = StateTensors(*tables)
        max_bias = t.bias_token_ids.shape[1]
        return cls(
            *t,
            num_slots=t.slot_params.shape[0],
            used_stride=t.used_bitmask.shape[1],
            max_bias=max_bias,
            max_bias_bits=max_bias.bit_length(),
        )


class Rows(NamedTuple):
    """Rows of logits and what stands beside each; None where a call has none."""

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

    @classmethod
    def of(
        cls,
        logits: Tensor,
        state_indices: Tensor | None = None,
        allowed_bitmask: Tensor | None = None,
        row_offsets: Tensor | None = None,
        draft_token_ids: Tensor | None = None,
    ) -> "Rows":
        return cls(
            logits, logits.stride(0),
            state_indices, _stride(state_indices),
            row_offsets, _stride(row_offsets),
            draft_token_ids, _stride(draft_token_ids),
            allowed_bitmask, _stride(allowed_bitmask),
        )  # fmt: skip


def _stride(column: Tensor | None) -> int:
    return 0 if column is None else column.stride(0)


def num_tiles(columns: int) -> int:
    return -(-columns // TILE)


def next_power_of_2(size: int) -> int:
    return 1 << (size - 1).bit_length()


def floats(like: Tensor, *shape: int) -> Tensor:
    return torch.empty(shape, dtype=torch.float32, device=like.device)
