"""What the ops require of their arguments: shapes, dtypes, devices and host values.

Each check raises a TypeError or ValueError that says what is required and what came. None reads the
contents of a device tensor.
"""

import math

import torch
from torch import Tensor

from rnr_kernels.layout import MAX_TOP_K, num_words
from rnr_kernels.rules.kinds import as_int
from rnr_kernels.rules.program import RuleProgram
from rnr_kernels.state import DecodeState

LOGITS_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
INDEX_DTYPES = (torch.int32, torch.int64)


def _describe(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')} on {tensor.device}"


def _elsewhere(name: str, tensor: Tensor, device: torch.device) -> str:
    return f"{name} must be on {device}, got {tensor.device}; move one of them with .to()"


def _too_many_rows(num_rows: int, num_slots: int) -> str:
    return (
        f"without state_indices row r is slot r: at most {num_slots} rows, got {num_rows}; "
        "pass state_indices or allocate more slots"
    )


def check_tensor(name: str, value: object) -> None:
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a tensor, got {type(value).__name__}")


def check_program(program: object) -> None:
    if not isinstance(program, RuleProgram):
        raise TypeError(
            f"program must be a RuleProgram, got {type(program).__name__}; compile_rules makes one"
        )


def check_state(state: object) -> None:
    if not isinstance(state, DecodeState):
        raise TypeError(
            f"state must be a DecodeState, got {type(state).__name__}; "
            "DecodeState.allocate(program, num_slots) makes one"
        )


def _check_int(name: str, value: object) -> None:
    # A size is symbolic while a graph with dynamic shapes is traced.
    if not isinstance(value, torch.SymInt):
        as_int(value, name)


def check_logits(logits: Tensor, vocab_size: int | None, name: str = "logits") -> int:
    """The vocabulary size: the row width where none is given."""
    if vocab_size is not None:
        check_tensor(name, logits)
        _check_int("vocab_size", vocab_size)
        if vocab_size < 1:
            raise ValueError(f"vocab_size must be at least 1, got {vocab_size}")
    return _check_logits_rows(name, logits, vocab_size)


def _check_logits_rows(name: str, logits: Tensor, vocab_size: int | None) -> int:
    if type(logits) is not Tensor:
        check_tensor(name, logits)
    shape = logits.shape
    if len(shape) != 2 or logits.dtype not in LOGITS_DTYPES:
        _raise_no_logits(name, logits)
    width = shape[1]
    if vocab_size is None:
        if width < 1:
            raise ValueError(f"{name} must have a column for each token, got {_describe(logits)}")
        vocab_size = width
    elif vocab_size > width:
        raise ValueError(
            f"{name} must be [num_rows, >= {vocab_size}], got {_describe(logits)}; "
            "compile the rules, or call, with the vocab_size of these logits"
        )
    if not logits.is_contiguous():
        check_row_stride(name, logits)
    return vocab_size


def _raise_no_logits(name: str, logits: Tensor) -> None:
    if logits.dim() == 2:
        advice = "convert them with .float()"
    else:
        advice = "flatten leading dimensions" if logits.dim() > 2 else "add a row dimension"
    raise ValueError(
        f"{name} must be [num_rows, row_width] float32, bfloat16 or float16, got "
        f"{_describe(logits)}; {advice} first"
    )


def check_row_stride(name: str, rows: Tensor) -> None:
    strides = rows.stride()
    if strides[1] != 1 and rows.shape[1] > 1:
        raise ValueError(
            f"{name} must have stride 1 within a row, got strides {strides}; "
            "call .contiguous() first"
        )


def check_written(name: str, rows: Tensor) -> None:
    if rows.is_contiguous():
        return
    num_rows, width = rows.shape
    if num_rows > 1 and rows.stride(0) < width:
        raise ValueError(
            f"{name} is written to, so its rows must not overlap, got strides {rows.stride()}; "
            "call .contiguous() first"
        )


def check_column(name: str, column: Tensor, rows: Tensor, dtypes: tuple[torch.dtype, ...]) -> None:
    """One value a row of `rows`, on its device."""
    if type(column) is not Tensor:
        check_tensor(name, column)
    shape, num_rows = column.shape, rows.shape[0]
    if len(shape) != 1 or shape[0] != num_rows or column.dtype not in dtypes:
        names = " or ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)
        raise ValueError(f"{name} must be {names} [{num_rows}], got {_describe(column)}")
    if column.device != rows.device:
        raise ValueError(_elsewhere(name, column, rows.device))


def check_rows(
    logits: Tensor,
    program: RuleProgram,
    state: DecodeState,
    state_indices: Tensor | None,
    allowed_bitmask: Tensor | None,
    row_offsets: Tensor | None,
    draft_token_ids: Tensor | None,
) -> tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]:
    # Every frame counts: a decode step finds this code in no cache.
    if type(program) is not RuleProgram or type(state) is not DecodeState:
        check_program(program)
        check_state(state)
    vocab_size = _check_logits_rows("logits", logits, program.vocab_size)
    device = logits.device
    if program.tensors.token_class.device != device or state.error.device != device:
        name, other = ("state", state) if program.device == device else ("program", program)
        raise ValueError(
            f"the {name} must be on the logits' device, {device}, got {other.device}; "
            "compile the rules with device="
        )
    if state.program is not program and state.vocab_size != vocab_size:
        raise ValueError(
            f"the state was allocated for vocab_size={state.vocab_size}, the program has "
            f"{vocab_size}; allocate the state from this program"
        )
    if state_indices is not None:
        check_column("state_indices", state_indices, logits, INDEX_DTYPES)
    elif logits.shape[0] > state.num_slots:
        raise ValueError(_too_many_rows(logits.shape[0], state.num_slots))
    if row_offsets is not None:
        check_column("row_offsets", row_offsets, logits, INDEX_DTYPES)
    if draft_token_ids is not None:
        check_column("draft_token_ids", draft_token_ids, logits, INDEX_DTYPES)
    if allowed_bitmask is not None:
        check_tensor("allowed_bitmask", allowed_bitmask)
        num_rows, words = logits.shape[0], num_words(vocab_size)
        shape = allowed_bitmask.shape
        fits = len(shape) == 2 and shape[0] == num_rows and shape[1] >= words
        if not fits or allowed_bitmask.dtype != torch.int32:
            raise ValueError(
                f"allowed_bitmask must be int32 [{num_rows}, >= {words}], got "
                f"{_describe(allowed_bitmask)}"
            )
        if allowed_bitmask.device != device:
            raise ValueError(_elsewhere("allowed_bitmask", allowed_bitmask, device))
        check_row_stride("allowed_bitmask", allowed_bitmask)
    return state_indices, allowed_bitmask, row_offsets, draft_token_ids


def check_slots_differ(state_indices: Tensor, state: DecodeState) -> None:
    """On the CPU, where reading is free; a device only lets a slot's first row write."""
    if state_indices.shape[0] < 2 or not state_indices.is_cpu or torch.compiler.is_compiling():
        return
    slots = state_indices.tolist()
    if len(set(slots)) == len(slots):
        return
    slots = [slot for slot in slots if 0 <= slot < state.num_slots]
    if len(set(slots)) < len(slots):
        repeated = min(slot for slot in slots if slots.count(slot) > 1)
        raise ValueError(
            f"each slot may occur once, got slot {repeated} more than once in state_indices; "
            "for draft rows pass row_offsets and draft_token_ids"
        )


def check_out(out: Tensor, logits: Tensor) -> None:
    if type(out) is not Tensor:
        check_tensor("out", out)
    if out.shape != logits.shape or out.dtype != torch.float32:
        raise ValueError(f"out must be float32 {tuple(logits.shape)}, got {_describe(out)}")
    if out.device != logits.device:
        raise ValueError(_elsewhere("out", out, logits.device))
    if not out.is_contiguous():
        check_row_stride("out", out)
        check_written("out", out)


def check_top_k(top_k: int, vocab_size: int) -> None:
    if type(top_k) is not int:
        _check_int("top_k", top_k)
    if not 0 <= top_k <= min(MAX_TOP_K, vocab_size):
        most = min(MAX_TOP_K, vocab_size)
        raise ValueError(f"top_k must be 0 to {most}, got {top_k}")


def check_head(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, logit_scale: float, softcap: float
) -> None:
    check_tensor("hidden", hidden)
    check_tensor("weight", weight)
    if hidden.dim() != 2 or hidden.dtype not in LOGITS_DTYPES:
        raise ValueError(
            f"hidden must be [num_rows, width] float32, bfloat16 or float16, got "
            f"{_describe(hidden)}"
        )
    if 0 in (hidden.shape[1], *weight.shape):
        raise ValueError(
            "hidden and weight must have at least one column, and the vocabulary one token, got "
            f"{_describe(hidden)} and {_describe(weight)}"
        )
    if weight.dim() != 2 or weight.shape[1] != hidden.shape[1] or weight.dtype not in LOGITS_DTYPES:
        raise ValueError(
            f"weight must be [vocab_size, {hidden.shape[1]}] float32, bfloat16 or float16, got "
            f"{_describe(weight)}"
        )
    if weight.device != hidden.device:
        raise ValueError(_elsewhere("weight", weight, hidden.device))
    if bias is not None:
        check_column("bias", bias, weight, LOGITS_DTYPES)
    if not math.isfinite(logit_scale):
        raise ValueError(f"logit_scale must be finite, got {logit_scale}")
    if not (math.isfinite(softcap) and softcap >= 0):
        raise ValueError(f"softcap must be finite and 0 (off) or more, got {softcap}")


def check_same_rows(
    hidden: Tensor, weight: Tensor, base_hidden: Tensor, base_weight: Tensor
) -> None:
    if len(base_hidden) != len(hidden) or len(base_weight) != len(weight):
        raise ValueError(
            f"both models must have the same rows and vocabulary, got {len(hidden)} x "
            f"{len(weight)} and {len(base_hidden)} x {len(base_weight)}"
        )
    if base_hidden.device != hidden.device:
        raise ValueError(_elsewhere("base_hidden", base_hidden, hidden.device))


def check_base_logits(base_logits: Tensor, logits: Tensor, vocab_size: int) -> None:
    check_tensor("base_logits", base_logits)
    if base_logits.shape != logits.shape or base_logits.device != logits.device:
        raise ValueError(
            f"base_logits must have the logits' shape and device, {_describe(logits)}, got "
            f"{_describe(base_logits)}; do both models have the same vocabulary?"
        )
    check_logits(base_logits, vocab_size, "base_logits")


def check_update(
    state: DecodeState, token_ids: Tensor, counts: Tensor | None, state_indices: Tensor | None
) -> None:
    check_state(state)
    check_tensor("token_ids", token_ids)
    if token_ids.dim() not in (1, 2) or token_ids.dtype not in INDEX_DTYPES:
        raise ValueError(
            f"token_ids must be int32 or int64 [num_rows] or [num_rows, length], got "
            f"{_describe(token_ids)}"
        )
    if token_ids.device != state.device:
        raise ValueError(_elsewhere("token_ids", token_ids, state.device))
    if counts is not None:
        check_column("counts", counts, token_ids, INDEX_DTYPES)
    if state_indices is not None:
        check_column("state_indices", state_indices, token_ids, INDEX_DTYPES)
        check_slots_differ(state_indices, state)
    elif len(token_ids) > state.num_slots:
        raise ValueError(_too_many_rows(len(token_ids), state.num_slots))
