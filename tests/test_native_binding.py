"""What torch.ops.rnr_C itself refuses: whatever could lead its kernels out of bounds."""

from typing import Any

import pytest
import torch
from native_batches import KERNELS, UNAVAILABLE
from torch import Tensor

from rnr_kernels.rules.kinds import LogitRule, ScoreVector, TokenBias, UsedTokenPenalty
from rnr_kernels.testing import admitted, assert_same_bits

pytestmark = pytest.mark.skipif(not KERNELS, reason=UNAVAILABLE)

ROWS, VOCAB, WIDTH = 3, 40, 48
RULES: list[LogitRule] = [
    TokenBias({3: 2.0}),
    UsedTokenPenalty(1.0),
    ScoreVector(torch.ones(VOCAB)),
]
PROGRAM, STATE = admitted(RULES, VOCAB, slots=ROWS, max_bias=2, output_token_ids=[7])

ROW_ARGUMENTS = ("state_indices", "allowed_bitmask", "row_offsets", "draft_token_ids")
OVER_RULES = ("logits", "vocab_size", "program", "state", "error", *ROW_ARGUMENTS)
ARGUMENTS: dict[str, tuple[str, ...]] = {
    "apply_rules_": (*OVER_RULES, "variant"),
    "rule_log_softmax": (*OVER_RULES, "return_log_z", "variant"),
    "rule_log_softmax_out": (*OVER_RULES, "out", "log_z", "variant"),
    "sample_": (
        *OVER_RULES,
        *("return_logprob", "return_adjusted_logprob", "return_rank", "variant"),
    ),
    "update_state_": (*("vocab_size", "state", "error", "token_ids", "counts", "state_indices"),),
    "token_stats": ("logits", "token_ids", "vocab_size", "top_k", "variant"),
    "shift_stats": (*("logits", "base_logits", "token_ids", "vocab_size", "top_k", "variant"),),
}


def f32(*shape: int) -> Tensor:
    return torch.zeros(shape)


def i32(*shape: int) -> Tensor:
    return torch.zeros(shape, dtype=torch.int32)


def i64(*shape: int) -> Tensor:
    return torch.zeros(shape, dtype=torch.int64)


def meta(tensor: Tensor) -> Tensor:
    return tensor.to("meta")


def valid(op: str) -> dict[str, Any]:
    """Arguments that the op accepts."""
    values = {
        "logits": f32(ROWS, WIDTH),
        "base_logits": f32(ROWS, WIDTH),
        "vocab_size": VOCAB,
        "program": PROGRAM.tensors.addresses,
        "state": STATE.tensors.addresses,
        "error": STATE.error,
        "state_indices": torch.arange(ROWS),
        "allowed_bitmask": i32(ROWS, 2) - 1,
        "row_offsets": i64(ROWS),
        "draft_token_ids": i32(ROWS),
        "out": f32(ROWS, WIDTH),
        "log_z": f32(ROWS),
        "token_ids": i64(ROWS, 2) if op == "update_state_" else i64(ROWS),
        "counts": i64(ROWS),
        "top_k": 2,
        "variant": 0,
    }
    return {name: values.get(name, True) for name in ARGUMENTS[op]}


def changed(addresses: Tensor, index: int, value: int) -> Tensor:
    copy = addresses.clone()
    copy[index] = value
    return copy


# Where sizes stand that the tables share, in layout.ProgramTensors and layout.StateTensors.
SIZES = {
    "program": [2, 5, 6, 8, 9, 11, 14, 17, 18, 19, 21, 22, 23, 24, 26, 27, 29],
    "state": [2, 3, 5, 8, 11, 12, 14, 15, 17, 18],
}


def bad_addresses(name: str) -> list[Tensor]:
    good = (PROGRAM if name == "program" else STATE).tensors.addresses
    other = (STATE if name == "program" else PROGRAM).tensors.addresses
    wrong = [other, good[:-1], good.int(), good.repeat_interleave(2)[::2], meta(good)]
    wrong += [changed(good, 0, 0)]  # a device that is not the CPU
    return wrong + [changed(good, index, 99) for index in SIZES[name]]


BAD_COLUMNS = [i64(2), i64(ROWS, 1), f32(ROWS), i64(ROWS).bool(), i64(), meta(i64(ROWS))]
BAD_LOGITS = [
    f32(ROWS, WIDTH).double(),
    i32(ROWS, WIDTH),
    f32(WIDTH),
    f32(ROWS, VOCAB - 1),
    f32(WIDTH, ROWS).T,
    f32(ROWS, 2 * WIDTH)[:, ::2],
    meta(f32(ROWS, WIDTH)),
]
BAD: dict[str, list[Any]] = {
    "logits": BAD_LOGITS,
    "base_logits": [*BAD_LOGITS, f32(2, WIDTH)],
    "vocab_size": [0, -1, WIDTH + 1, 2**31, 2**62, -(2**63)],
    "program": bad_addresses("program"),
    "state": bad_addresses("state"),
    "error": [f32(1), i64(1), i32(2), i32(0), meta(i32(1))],
    **dict.fromkeys(ROW_ARGUMENTS, BAD_COLUMNS),
    "allowed_bitmask": [
        i32(ROWS, 1), i32(2, 2), i64(ROWS, 2), i32(ROWS), i32(2, ROWS).T, meta(i32(ROWS, 2)),
    ],
    "out": [
        f32(ROWS, WIDTH).half(), f32(ROWS, VOCAB), f32(2, WIDTH), f32(WIDTH), f32(WIDTH, ROWS).T,
        meta(f32(ROWS, WIDTH)),
    ],
    "log_z": [f32(2), f32(ROWS, 1), f32(ROWS).double(), meta(f32(ROWS))],
    "token_ids": BAD_COLUMNS,
    "counts": BAD_COLUMNS,
    "top_k": [-1, VOCAB + 1, 65, 2**62],
    "variant": [-1, len(KERNELS), 2**62],
}  # fmt: skip
BAD_UPDATE = {
    "token_ids": [i64(ROWS), f32(ROWS, 2), i64(ROWS, 2).bool(), i64(1, 1, 1), meta(i64(ROWS, 2))],
    "vocab_size": [129, 2**62],
}

CALLS = [
    pytest.param(op, name, value, id=f"{op}-{name}-{number}")
    for op, names in ARGUMENTS.items()
    for name in names
    for number, value in enumerate(
        BAD_UPDATE.get(name, BAD.get(name, [])) if op == "update_state_" else BAD.get(name, [])
    )
]


def written(arguments: dict[str, Any]) -> list[Tensor]:
    """Whatever an op could write to."""
    found = [value for value in arguments.values() if isinstance(value, Tensor)]
    tensors = [*found, *PROGRAM.tensors, *STATE.tensors, STATE.error]
    return [tensor for tensor in tensors if not tensor.is_meta]


@pytest.mark.parametrize("op", ARGUMENTS)
def test_the_arguments_are_right_but_for_what_each_case_changes(op: str) -> None:
    before = [table.clone() for table in (*STATE.tensors, STATE.error)]
    getattr(torch.ops.rnr_C, op).default(**valid(op))
    for table, old in zip((*STATE.tensors, STATE.error), before, strict=True):
        table.copy_(old)


@pytest.mark.parametrize(("op", "name", "value"), CALLS)
def test_a_wrong_argument_is_an_error_and_nothing_is_written(
    op: str, name: str, value: Any
) -> None:
    arguments = valid(op) | {name: value}
    tensors = written(arguments)
    before = [tensor.clone() for tensor in tensors]
    with pytest.raises(RuntimeError):
        getattr(torch.ops.rnr_C, op).default(**arguments)
    for tensor, old in zip(tensors, before, strict=True):
        assert_same_bits(tensor, old)


@pytest.mark.parametrize("op", ["apply_rules_", "rule_log_softmax", "sample_"])
def test_tables_of_a_smaller_vocabulary_are_refused(op: str) -> None:
    size = 4097
    wide = {"logits": f32(ROWS, size), "vocab_size": size, "allowed_bitmask": None}
    with pytest.raises(RuntimeError, match="too narrow for a vocabulary of 4097"):
        getattr(torch.ops.rnr_C, op).default(**(valid(op) | wide))
    _, state = admitted([], size, slots=ROWS)
    with pytest.raises(RuntimeError, match="the program's tables are too narrow"):
        getattr(torch.ops.rnr_C, op).default(
            **(valid(op) | wide | {"state": state.tensors.addresses})
        )
