"""The tensors that pass between rules, state and kernels: their names, order, shapes and constants.

Every op takes a program and a state as two lists of tensors in the order of these tuples, so a
table is added in one place and no schema changes.
"""

from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

TILE = 4096
"""Columns of one tile: the unit in which reductions are cut, and the padding of code rows."""

FLAG_BLOCK = 128
"""Tokens behind one bit of `ProgramTensors.block_flags`."""

BITS = 32
"""Tokens in one word of a bitmask: bit `v % 32` of word `v // 32` is token v (xgrammar's order)."""

BITMASK_ALIGNMENT = 4
"""Words to which a bitmask row is rounded up: 16-byte rows."""

MAX_CLASSES = 255
"""Classes a class map can name; class 0 is the tokens that no rule names."""

NO_KNOT = 2**31 - 1
"""Start of an unused knot: later than any step."""

ERROR_SLOT = 1
ERROR_PROGRAM = 2
ERROR_TOKEN = 4

MAX_TOP_K = 64
"""Alternatives that the statistics may return for a row."""

SHARED_CONSTANTS = (
    TILE, FLAG_BLOCK, BITS, MAX_CLASSES, ERROR_SLOT, ERROR_PROGRAM, ERROR_TOKEN, MAX_TOP_K,
)  # fmt: skip
"""What csrc/rnr.h states too; `torch.ops.rnr_C.constants()` gives the library's in this order."""


def num_words(vocab_size: int) -> int:
    """Words of a bitmask over `vocab_size` tokens."""
    return -(-vocab_size // BITS)


def padded_words(vocab_size: int) -> int:
    """Words of a stored bitmask row, rounded up to 16 bytes."""
    return -(-num_words(vocab_size) // BITMASK_ALIGNMENT) * BITMASK_ALIGNMENT


class _Addressed:
    """Tables with what kernels take in their place, made once: a list of tensors costs those in C++
    microseconds a call to unpack, and those in Triton to put together with its sizes.

    The tables of a program or state are made once and stay where they are. Moving all of them to
    shared memory is noticed by the first; moving a single other one is not, and must not be done.
    """

    DTYPES: ClassVar[tuple[torch.dtype, ...]]
    """Of the tables, in order."""

    _known_addresses: Tensor
    _known_first: int | None = None

    sized: Any = None
    """The same tensors with their sizes, as the Triton backend keeps them here."""

    @property
    def addresses(self: "ProgramTensors | StateTensors") -> Tensor:  # type: ignore[misc]
        """int64, on the CPU: the device (-1 is the CPU), then each table's address and sizes.

        ValueError for a table that is not contiguous, of another dtype or on another device than
        the first.
        """
        first = self[0].data_ptr()
        if first != self._known_first:
            self._known_addresses, self._known_first = _addresses_of(self), first
        return self._known_addresses

    def __getstate__(self) -> None:
        """Nothing beside the tables: a copy, pickled or not, finds the rest anew."""


def _addresses_of(tables: "ProgramTensors | StateTensors") -> Tensor:
    device = tables[0].device
    found = [device.index if device.index is not None else -1]
    for name, table, dtype in zip(tables._fields, tables, tables.DTYPES, strict=True):
        if table.dtype != dtype or table.device != device or not table.is_contiguous():
            raise ValueError(
                f"table {name} must be contiguous {dtype} on {device}, got {table.dtype} with "
                f"strides {table.stride()} on {table.device}"
            )
        found += (table.data_ptr(), *table.shape)
    return torch.tensor(found, dtype=torch.int64, device="cpu")


class _ProgramTables(NamedTuple):
    token_class: Tensor
    """uint8 [M, V rounded up to TILE]: the class of each token; 0 in the padding."""
    class_counts: Tensor
    """int32 [M, C]: tokens in each class."""
    class_offsets: Tensor
    """int32 [M, C + 1]: where a class's tokens stand in `class_tokens`; empty for dense classes."""
    class_tokens: Tensor
    """int32 [M, L]: tokens of the sparse classes (fewer than V / 16 tokens), ascending."""
    block_flags: Tensor
    """int32 [M, words]: bit b is set if one of tokens [128 b, 128 b + 128) has a class."""
    knot_starts: Tensor
    """int32 [S, K, C]: first step of each knot, ascending, NO_KNOT where unused."""
    knot_lines: Tensor
    """float64 [S, K, C, 2]: value at the knot's start, and slope per step."""
    program_table: Tensor
    """int32 [P, 4]: class map, schedule, score vector or -1, 1 if the program exists."""
    penalties: Tensor
    """float32 [P]: subtracted from used tokens."""
    score_vectors: Tensor
    """float32 [W, V]: added to every token; finite or -inf."""


class ProgramTensors(_ProgramTables, _Addressed):
    """A RuleProgram's tables. M class maps, S schedules, P programs, W score vectors."""

    DTYPES = (
        torch.uint8, torch.int32, torch.int32, torch.int32, torch.int32,
        torch.int32, torch.float64, torch.int32, torch.float32, torch.float32,
    )  # fmt: skip


class _StateTables(NamedTuple):
    slot_params: Tensor
    """int32 [N, 4]: program (< 0: no rules), response tokens so far, top_k, number of biases."""
    used_bitmask: Tensor
    """int32 [N, padded words]: the used tokens."""
    bias_token_ids: Tensor
    """int32 [N, max_bias]: ascending, the first `number of biases` count."""
    bias_values: Tensor
    """float32 [N, max_bias]."""
    sampling: Tensor
    """float32 [N, 4]: temperature (0: greedy), log2(e) / temperature, top_p, min_p threshold."""
    rng: Tensor
    """int64 [N, 2]: seed, and position (tokens drawn so far)."""


class StateTensors(_StateTables, _Addressed):
    """A DecodeState's tables, one row a slot."""

    DTYPES = (
        torch.int32, torch.int32, torch.int32, torch.float32, torch.float32, torch.int64,
    )  # fmt: skip
