"""What the ops refuse: a ValueError or TypeError that says why, and no tensor has changed."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from rnr_kernels import (
    apply_rules_,
    linear_shift_stats,
    linear_token_stats,
    rule_log_softmax,
    sample_,
    shift_stats,
    token_stats,
    update_state_,
)
from rnr_kernels.rules.kinds import LogitRule, TokenBias, UsedTokenPenalty
from rnr_kernels.rules.program import RuleProgram
from rnr_kernels.state import DecodeState
from rnr_kernels.testing import admitted, assert_same_bits

VOCAB = 40
META = torch.device("meta")
NOT_A_TENSOR: Any = [1]
NOT_AN_INT: Any = 3.0


def request(slots: int = 3) -> tuple[RuleProgram, DecodeState]:
    rules: list[LogitRule] = [TokenBias({3: 2.0}), UsedTokenPenalty(1.0)]
    return admitted(rules, VOCAB, slots=slots, output_token_ids=[7])


def zeros(*shape: int, dtype: torch.dtype = torch.float32, device: str = "cpu") -> Tensor:
    return torch.zeros(shape, dtype=dtype, device=device)


def ids(*values: int, dtype: torch.dtype = torch.int64) -> Tensor:
    return torch.tensor(values, dtype=dtype)


BAD_LOGITS: list[tuple[Any, type[Exception], str]] = [
    ([[0.0] * VOCAB], TypeError, "logits must be a tensor, got list"),
    (zeros(VOCAB), ValueError, r"logits must be \[num_rows, row_width\]"),
    (zeros(VOCAB), ValueError, r"got \(40,\) float32 on cpu; add a row dimension first"),
    (zeros(1, 3, VOCAB), ValueError, "float32 on cpu; flatten leading dimensions first"),
    (zeros(3, VOCAB, dtype=torch.float64), ValueError, r"float16, got \(3, 40\) float64 on cpu; "),
    (zeros(3, VOCAB, dtype=torch.float64), ValueError, r"; convert them with \.float\(\) first"),
    (zeros(3, 0), ValueError, r">= 40\], got \(3, 0\)"),
    (zeros(3, VOCAB, dtype=torch.int32), ValueError, "float32, bfloat16 or float16, got"),
    (zeros(3, VOCAB - 1), ValueError, r"logits must be \[num_rows, >= 40\], got \(3, 39\)"),
    (zeros(VOCAB, 3).T, ValueError, "stride 1 within a row"),
    (zeros(1, 2 * VOCAB)[:, ::2], ValueError, "stride 1 within a row"),
    (zeros(3, VOCAB, device="meta"), ValueError, "must be on"),
]

BAD_ROWS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"state_indices": [0, 1, 2]}, TypeError, "state_indices must be a tensor, got list"),
    ({"state_indices": ids(0, 1)}, ValueError, r"state_indices must be int32 or int64 \[3\]"),
    ({"state_indices": ids(0, 1, 2)[None]}, ValueError, "state_indices must be"),
    ({"state_indices": zeros(3)}, ValueError, "state_indices must be int32 or int64"),
    ({"state_indices": zeros(3, dtype=torch.int64, device="meta")}, ValueError, "must be on cpu"),
    ({"row_offsets": ids(0)}, ValueError, "row_offsets must be"),
    ({"row_offsets": zeros(3)}, ValueError, "row_offsets must be"),
    ({"draft_token_ids": ids(0)}, ValueError, "draft_token_ids must be"),
    ({"draft_token_ids": zeros(3).bool()}, ValueError, "draft_token_ids must be"),
    ({"allowed_bitmask": [[1]]}, TypeError, "allowed_bitmask must be a tensor"),
    ({"allowed_bitmask": zeros(3, 1).int()}, ValueError, r"int32 \[3, >= 2\], got \(3, 1\)"),
    ({"allowed_bitmask": zeros(2, 2).int()}, ValueError, r"int32 \[3, >= 2\], got \(2, 2\)"),
    ({"allowed_bitmask": zeros(3, 2).long()}, ValueError, r"int32 \[3, >= 2\]"),
    ({"allowed_bitmask": zeros(2, 3).int().T}, ValueError, "stride 1 within a row"),
    ({"allowed_bitmask": zeros(3, 2, dtype=torch.int32, device="meta")}, ValueError, "on cpu"),
]

OVER_RULES = [apply_rules_, rule_log_softmax, sample_]


def refused(
    call: Callable[[], Any],
    error: type[Exception],
    message: str,
    program: RuleProgram,
    state: DecodeState,
    *others: Any,
) -> None:
    """The call raises, and program, state and `others` keep their bits."""
    watched = [*program.tensors, *state.tensors, state.error]
    watched += [t for t in others if isinstance(t, Tensor) and t.device != META]
    before = [tensor.clone() for tensor in watched]
    with pytest.raises(error, match=message):
        call()
    for tensor, old in zip(watched, before, strict=True):
        assert_same_bits(tensor, old)


@pytest.mark.parametrize("op", OVER_RULES)
@pytest.mark.parametrize(("logits", "error", "message"), BAD_LOGITS)
def test_logits_that_do_not_fit(
    op: Callable[..., Any], logits: Any, error: type[Exception], message: str
) -> None:
    program, state = request()
    refused(lambda: op(logits, program, state), error, message, program, state, logits)


@pytest.mark.parametrize("op", OVER_RULES)
@pytest.mark.parametrize(("options", "error", "message"), BAD_ROWS)
def test_row_arguments_that_do_not_fit(
    op: Callable[..., Any], options: dict[str, Any], error: type[Exception], message: str
) -> None:
    program, state = request()
    logits = zeros(3, VOCAB)
    refused(lambda: op(logits, program, state, **options), error, message, program, state, logits)


@pytest.mark.parametrize("op", OVER_RULES)
def test_more_rows_than_slots_need_state_indices(op: Callable[..., Any]) -> None:
    program, state = request(slots=2)
    logits = zeros(3, VOCAB)
    message = "at most 2 rows, got 3"
    refused(lambda: op(logits, program, state), ValueError, message, program, state, logits)


@pytest.mark.parametrize("op", OVER_RULES)
def test_a_state_of_another_vocabulary(op: Callable[..., Any]) -> None:
    program, _ = request()
    _, state = admitted([], VOCAB - 1, slots=3)
    logits = zeros(3, VOCAB)
    message = "allocated for vocab_size=39, the program has 40"
    refused(lambda: op(logits, program, state), ValueError, message, program, state, logits)


@pytest.mark.parametrize("op", OVER_RULES)
def test_what_is_no_program_or_no_state_is_a_type_error(op: Callable[..., Any]) -> None:
    program, state = request()
    logits = zeros(3, VOCAB)
    no_program: Any
    for no_program in (None, state, logits):
        message = f"program must be a RuleProgram, got {type(no_program).__name__}; compile_rules"
        with pytest.raises(TypeError, match=message):
            op(logits, no_program, state)
    no_state: Any
    for no_state in (None, program):
        message = f"state must be a DecodeState, got {type(no_state).__name__}; DecodeState.alloc"
        with pytest.raises(TypeError, match=message):
            op(logits, program, no_state)


def test_an_update_of_what_is_no_state_is_a_type_error() -> None:
    program: Any = request()[0]
    with pytest.raises(TypeError, match="state must be a DecodeState, got RuleProgram"):
        update_state_(program, ids(1))


def test_a_slot_twice() -> None:
    program, state = request()
    logits, index = zeros(3, VOCAB), ids(2, 1, 2)

    def sample() -> object:
        return sample_(logits, program, state, state_indices=index)

    refused(sample, ValueError, "got slot 2 more than once", program, state, logits)

    def update() -> None:
        update_state_(state, index, state_indices=index)

    refused(update, ValueError, "got slot 2 more than once", program, state)
    # Padding may repeat, and so may slots in calls that only read.
    sample_(logits, program, state, state_indices=ids(-1, -1, 2))
    sample_(logits, program, state, state_indices=index, row_offsets=ids(0, 0, 1))
    apply_rules_(logits, program, state, state_indices=index)


def test_rows_that_overlap_are_not_written() -> None:
    program, state = request()
    shared = zeros(1, VOCAB).expand(3, -1)

    def apply() -> object:
        return apply_rules_(shared, program, state)

    refused(apply, ValueError, "rows must not overlap", program, state, shared)
    assert sample_(shared, program, state).token_ids.tolist() == [3, 3, 3]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"out": zeros(3, VOCAB).tolist()}, TypeError, "out must be a tensor"),
        ({"out": zeros(3, VOCAB - 1)}, ValueError, r"out must be float32 \(3, 40\)"),
        ({"out": zeros(2, VOCAB)}, ValueError, r"out must be float32 \(3, 40\)"),
        ({"out": zeros(3, VOCAB).half()}, ValueError, "out must be float32"),
        ({"out": zeros(3, VOCAB, device="meta")}, ValueError, "out must be on cpu"),
        ({"out": zeros(VOCAB, 3).T}, ValueError, "out must have stride 1"),
        ({"out": zeros(1, VOCAB).expand(3, -1)}, ValueError, "out is written to"),
        ({"log_z_out": zeros(3)}, ValueError, "log_z_out needs out="),
        ({"out": zeros(3, VOCAB), "log_z_out": zeros(2)}, ValueError, "log_z_out must be float32"),
        ({"out": zeros(3, VOCAB), "log_z_out": zeros(3).half()}, ValueError, "log_z_out must be"),
    ],
)
def test_results_that_cannot_be_written(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    program, state = request()
    logits = zeros(3, VOCAB)
    refused(
        lambda: rule_log_softmax(logits, program, state, **options),
        error, message, program, state, logits, *options.values(),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        (([1],), {}, TypeError, "token_ids must be a tensor"),
        ((zeros(3),), {}, ValueError, "token_ids must be int32 or int64"),
        ((zeros(1, 1, 1).long(),), {}, ValueError, "token_ids must be int32 or int64"),
        ((zeros(3, dtype=torch.int64, device="meta"),), {}, ValueError, "token_ids must be on cpu"),
        ((ids(1, 2, 3, 4),), {}, ValueError, "at most 3 rows, got 4"),
        ((ids(1, 2), ids(1)), {}, ValueError, r"counts must be int32 or int64 \[2\]"),
        ((ids(1, 2), zeros(2)), {}, ValueError, "counts must be"),
        ((ids(1, 2),), {"state_indices": ids(1)}, ValueError, "state_indices must be"),
    ],
)
def test_updates_that_do_not_fit(
    arguments: tuple[Any, ...], options: dict[str, Any], error: type[Exception], message: str
) -> None:
    program, state = request()
    refused(lambda: update_state_(state, *arguments, **options), error, message, program, state)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: token_stats(NOT_A_TENSOR, ids(1)), TypeError, "logits must be a tensor"),
        (lambda: token_stats(zeros(3), ids(1)), ValueError, "logits must be"),
        (
            lambda: token_stats(zeros(1, 4), NOT_A_TENSOR),
            TypeError,
            "token_ids must be a",
        ),
        (lambda: token_stats(zeros(1, 4), ids(1, 2)), ValueError, r"token_ids must be .* \[1\]"),
        (lambda: token_stats(zeros(1, 4), zeros(1)), ValueError, "token_ids must be int32 or"),
        (lambda: token_stats(zeros(1, 4), ids(1), vocab_size=5), ValueError, ">= 5"),
        (
            lambda: token_stats(zeros(1, 4), ids(1), vocab_size=0),
            ValueError,
            "vocab_size must be at ",
        ),
        (
            lambda: token_stats(zeros(1, 4), ids(1), vocab_size=NOT_AN_INT),
            TypeError,
            "vocab_size must be an int, got float 3.0",
        ),
        (
            lambda: token_stats(zeros(1, 4), ids(1), top_k=NOT_AN_INT),
            TypeError,
            "top_k must be an int, got float 3.0",
        ),
        (
            lambda: token_stats(zeros(2, 0), ids(1, 2)),
            ValueError,
            r"logits must have a column for each token, got \(2, 0\) float32 on cpu",
        ),
        (
            lambda: token_stats(zeros(2, 4).double(), ids(1, 2)),
            ValueError,
            r"float64 on cpu; convert them with \.float\(\) first",
        ),
        (lambda: token_stats(zeros(1, 4), ids(1), top_k=5), ValueError, "0 to 4, got 5"),
        (lambda: token_stats(zeros(1, 99), ids(1), top_k=65), ValueError, "0 to 64, got 65"),
        (lambda: token_stats(zeros(1, 4), ids(1), top_k=-1), ValueError, "got -1"),
        (
            lambda: shift_stats(zeros(1, 4), zeros(1, 5), ids(1)),
            ValueError,
            "do both models have the same vocabulary",
        ),
        (
            lambda: shift_stats(zeros(1, 4), NOT_A_TENSOR, ids(1)),
            TypeError,
            "base_logits must",
        ),
        (lambda: shift_stats(zeros(1, 4), zeros(1, 4).double(), ids(1)), ValueError, "float32"),
        (lambda: shift_stats(zeros(1, 4), zeros(1, 4), ids(1), top_k=9), ValueError, "0 to 4"),
        (
            lambda: linear_token_stats(NOT_A_TENSOR, zeros(4, 2), ids(1)),
            TypeError,
            "hidden must",
        ),
        (
            lambda: linear_token_stats(zeros(1, 2), NOT_A_TENSOR, ids(1)),
            TypeError,
            "weight must",
        ),
        (lambda: linear_token_stats(zeros(2), zeros(4, 2), ids(1)), ValueError, "hidden must be"),
        (
            lambda: linear_token_stats(zeros(2, 0), zeros(4, 0), ids(1, 1)),
            ValueError,
            "at least one column",
        ),
        (
            lambda: linear_token_stats(zeros(1, 3), zeros(0, 3), ids(1)),
            ValueError,
            "the vocabulary one token",
        ),
        (
            lambda: linear_token_stats(zeros(1, 2).double(), zeros(4, 2), ids(1)),
            ValueError,
            "hidden must be",
        ),
        (
            lambda: linear_token_stats(zeros(1, 2), zeros(4, 3), ids(1)),
            ValueError,
            r"weight must be \[vocab_size, 2\]",
        ),
        (
            lambda: linear_token_stats(zeros(1, 2), zeros(4, 2), ids(1), bias=zeros(3)),
            ValueError,
            r"bias must be .* \[4\]",
        ),
        (
            lambda: linear_token_stats(zeros(1, 2), zeros(4, 2), ids(1, 2)),
            ValueError,
            "token_ids must be",
        ),
        (
            lambda: linear_token_stats(zeros(1, 2), zeros(4, 2), ids(1), top_k=5),
            ValueError,
            "0 to 4, got 5",
        ),
        (
            lambda: linear_shift_stats(zeros(1, 2), zeros(4, 2), zeros(1, 3), zeros(5, 3), ids(1)),
            ValueError,
            "same rows and vocabulary, got 1 x 4 and 1 x 5",
        ),
        (
            lambda: linear_shift_stats(zeros(1, 2), zeros(4, 2), zeros(2, 3), zeros(4, 3), ids(1)),
            ValueError,
            "same rows and vocabulary",
        ),
        (
            lambda: linear_token_stats(zeros(1, 2), zeros(4, 2), ids(1), logit_scale=float("nan")),
            ValueError,
            "logit_scale must be finite",
        ),
        (
            lambda: linear_token_stats(zeros(1, 2), zeros(4, 2), ids(1), softcap=-1.0),
            ValueError,
            "softcap must be",
        ),
    ],
)
def test_statistics_of_arguments_that_do_not_fit(
    call: Callable[[], Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        call()
