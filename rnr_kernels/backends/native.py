"""The `native` backend: kernels in C++ for CPUs and in CUDA C++ for GPUs (csrc), in a library
loaded on first use."""

from collections.abc import Callable, Sequence
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rnr_kernels.backends import gpus, native_linear
from rnr_kernels.layout import SHARED_CONSTANTS, ProgramTensors, StateTensors

BEST = 0
"""The first of `instruction_sets`."""

DTYPES = (torch.float32, torch.bfloat16, torch.float16)

_PIP = "pip install --no-build-isolation --force-reinstall --no-deps --no-cache-dir"

REBUILD = f"install rnr_kernels anew with {_PIP}"

ON_GPUS = frozenset(
    (
        "apply_rules_",
        "rule_log_softmax",
        "rule_log_softmax_out",
        "sample_",
        "update_state_",
        "token_stats",
        "shift_stats",
    )
)
"""The ops that have CUDA kernels."""

MAX_GPU_VOCAB_SIZE = 2**20
"""csrc/cuda/kernels.h's kMaxVocabSize."""

Tables = Sequence[Tensor]


class Library:
    """A library's ops by name."""

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace

    def __getattr__(self, op: str) -> Callable[..., Any]:
        """On the first use of an op, after which it is an attribute."""
        overload = getattr(getattr(torch.ops, self._namespace), op).default
        # What the overload calls, past a Python frame.
        function: Callable[..., Any] = getattr(overload, "_op", overload)
        setattr(self, op, function)
        return function


LIBRARY = Library("rnr_C")


@cache
def unavailable() -> str | None:
    """Loads the library; the reason where that is not possible, and what to do about it."""
    # Beside this package and nowhere else: import hooks may know another copy of it.
    folder = Path(__file__).parent.parent
    found = [path for suffix in EXTENSION_SUFFIXES if (path := folder / f"_C{suffix}").is_file()]
    if not found:
        return f"the compiled kernels are missing; with g++ and ninja installed, {REBUILD}"
    try:
        torch.ops.load_library(found[0])
    except OSError as error:
        return f"the compiled kernels do not load: {error.__cause__ or error}; {REBUILD}"
    if tuple(torch.ops.rnr_C.constants()) != SHARED_CONSTANTS:
        return f"the compiled kernels are of another version than the package; {REBUILD}"
    return None


def refuses(op: str, device: torch.device, dtype: torch.dtype, vocab_size: int) -> str | None:
    """The reason why it does not serve, or None (see Backend)."""
    if device.type not in ("cpu", "cuda"):
        return f"it serves CPUs and NVIDIA GPUs, not {device.type}"
    if op != "update_state_" and dtype not in DTYPES:
        return f"it serves float32, bfloat16 and float16, not {str(dtype).removeprefix('torch.')}"
    reason = unavailable()
    if reason is None and device.type == "cuda":
        reason = _refuses_on_gpu(op, device, vocab_size)
    return reason


def _refuses_on_gpu(op: str, device: torch.device, vocab_size: int) -> str | None:
    if op not in ON_GPUS:
        return f"it has {op} for CPUs alone"
    if not gpu_targets():
        again = f"RNR_CUDA=1 {_PIP} rnr_kernels"
        return f"its library was built without CUDA; with nvcc installed, {again}"
    if vocab_size > MAX_GPU_VOCAB_SIZE:
        return f"on a GPU it serves vocabularies up to {MAX_GPU_VOCAB_SIZE:,} tokens"
    return gpus.refusal(device.index) or gpu_problem(device.index)


def instruction_sets() -> list[str]:
    """Those that this processor runs and the library holds, best first."""
    if unavailable() is not None:
        return []
    names: str = torch.ops.rnr_C.instruction_sets()
    return names.split(",")


def gpu_targets() -> list[str]:
    """Those that the library holds kernels for."""
    if unavailable() is not None:
        return []
    names: str = torch.ops.rnr_C.gpu_targets()
    return names.split(",") if names else []


def gpu_problem(index: int | None) -> str | None:
    """Why the library's kernels cannot run on a GPU (the driver is too old, say), or None."""
    found: str = torch.ops.rnr_C.gpu_problem(
        torch.cuda.current_device() if index is None else index
    )
    return found or None


def _program(tables: Tables) -> Tensor:
    """Tables that came through torch.ops.rnr are a list: their addresses are looked up anew."""
    return (tables if type(tables) is ProgramTensors else ProgramTensors(*tables)).addresses


def _state(tables: Tables) -> Tensor:
    return (tables if type(tables) is StateTensors else StateTensors(*tables)).addresses


def functions(variant: int = BEST, library: Library = LIBRARY) -> dict[str, Callable[..., Any]]:
    """The ops by name, as `reference` declares them.

    `variant`: one of the `instruction_sets` on the CPU, the blocks that share a row on a GPU (see
    csrc/targets.h); results are the same.
    """

    def apply_rules_(
        logits: Tensor,
        vocab_size: int,
        program: Tables,
        state: Tables,
        error: Tensor,
        state_indices: Tensor | None = None,
        allowed_bitmask: Tensor | None = None,
        row_offsets: Tensor | None = None,
        draft_token_ids: Tensor | None = None,
    ) -> None:
        library.apply_rules_(
            logits, vocab_size, _program(program), _state(state), error,
            state_indices, allowed_bitmask, row_offsets, draft_token_ids, variant,
        )  # fmt: skip

    def rule_log_softmax(
        logits: Tensor,
        vocab_size: int,
        program: Tables,
        state: Tables,
        error: Tensor,
        state_indices: Tensor | None = None,
        allowed_bitmask: Tensor | None = None,
        row_offsets: Tensor | None = None,
        draft_token_ids: Tensor | None = None,
        return_log_z: bool = False,
    ) -> tuple[Tensor, Tensor]:
        return library.rule_log_softmax(  # type: ignore[no-any-return]
            logits, vocab_size, _program(program), _state(state), error,
            state_indices, allowed_bitmask, row_offsets, draft_token_ids,
            return_log_z, variant,
        )  # fmt: skip

    def rule_log_softmax_out(
        logits: Tensor,
        vocab_size: int,
        program: Tables,
        state: Tables,
        error: Tensor,
        out: Tensor,
        log_z: Tensor | None = None,
        state_indices: Tensor | None = None,
        allowed_bitmask: Tensor | None = None,
        row_offsets: Tensor | None = None,
        draft_token_ids: Tensor | None = None,
    ) -> None:
        library.rule_log_softmax_out(
            logits, vocab_size, _program(program), _state(state), error, out, log_z,
            state_indices, allowed_bitmask, row_offsets, draft_token_ids, variant,
        )  # fmt: skip

    def sample_(
        logits: Tensor,
        vocab_size: int,
        program: Tables,
        state: Tables,
        error: Tensor,
        state_indices: Tensor | None = None,
        allowed_bitmask: Tensor | None = None,
        row_offsets: Tensor | None = None,
        draft_token_ids: Tensor | None = None,
        return_logprob: bool = False,
        return_adjusted_logprob: bool = False,
        return_rank: bool = False,
    ) -> tuple[Tensor | None, ...]:
        return library.sample_(  # type: ignore[no-any-return]
            logits, vocab_size, _program(program), _state(state), error,
            state_indices, allowed_bitmask, row_offsets, draft_token_ids,
            return_logprob, return_adjusted_logprob, return_rank, variant,
        )  # fmt: skip

    def update_state_(
        vocab_size: int,
        state: Tables,
        error: Tensor,
        token_ids: Tensor,
        counts: Tensor | None = None,
        state_indices: Tensor | None = None,
    ) -> None:
        library.update_state_(vocab_size, _state(state), error, token_ids, counts, state_indices)

    def token_stats(
        logits: Tensor, token_ids: Tensor, vocab_size: int, top_k: int = 0
    ) -> tuple[Tensor, ...]:
        return library.token_stats(  # type: ignore[no-any-return]
            logits, token_ids, vocab_size, top_k, variant
        )

    def shift_stats(
        logits: Tensor, base_logits: Tensor, token_ids: Tensor, vocab_size: int, top_k: int = 0
    ) -> tuple[Tensor, ...]:
        return library.shift_stats(  # type: ignore[no-any-return]
            logits, base_logits, token_ids, vocab_size, top_k, variant
        )

    return {
        function.__name__: function
        for function in (
            apply_rules_,
            rule_log_softmax,
            rule_log_softmax_out,
            sample_,
            update_state_,
            token_stats,
            shift_stats,
        )
    } | native_linear.functions(variant)
