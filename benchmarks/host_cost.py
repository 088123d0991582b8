"""What a public op call costs beside its kernel."""

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks import cases
from benchmarks.cases import Case
from benchmarks.inputs import Sequences, make_logits
from benchmarks.workloads import Call, Peer, Workload
from rnr_kernels import apply_rules_, rule_log_softmax, sample_, token_stats
from rnr_kernels.sampling import GREEDY


def build(case: Case) -> Workload:
    """One row: the public call beside the C++ op with the arguments that the call hands it.

    With a vocabulary of `cases.NOTHING_TO_DO` the public call alone says what the host costs.
    """
    op = case.op.removeprefix("host cost of ")
    run, reset = _public_call(op, case.rows, case.vocab_size)
    reset()
    return Workload(run, {cases.KERNEL: innermost_op(run)}, reset)


def _public_call(op: str, num_rows: int, vocab_size: int) -> tuple[Call, Call]:
    """A call, and what undoes it."""
    logits = make_logits("random", num_rows, vocab_size)
    rows = Sequences.start(logits, GREEDY)
    mine, out = logits.clone(), torch.empty_like(logits)
    targets = logits.argmax(-1)

    def restore() -> None:
        mine.copy_(logits)

    calls: dict[str, tuple[Call, Call]] = {
        "apply_rules_": (lambda: apply_rules_(mine, rows.program, rows.state), restore),
        "rule_log_softmax": (
            lambda: rule_log_softmax(logits, rows.program, rows.state, out=out),
            restore,
        ),
        "sample_ greedy": (lambda: sample_(logits, rows.program, rows.state), rows.rewind),
        "token_stats": (lambda: token_stats(logits, targets), restore),
    }
    return calls[op]


class _OpRecorder(TorchDispatchMode):
    """Notes this project's ops as the dispatcher meets them."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.met: list[tuple[Any, tuple[Any, ...], dict[str, Any]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace.startswith("rnr"):
            self.met.append((func, args, kwargs or {}))
        return func(*args, **(kwargs or {}))


def innermost_op(run: Call) -> Peer:
    """The last of this project's ops that a call reaches, as a call of its own with its arguments.

    Without a native library that is nothing but the reference, which the call then repeats.
    """
    recorder = _OpRecorder()
    with recorder:
        run()
    if not recorder.met:
        return Peer(run, lambda: None)
    op, args, kwargs = recorder.met[-1]

    def alone() -> Any:
        return op(*args, **kwargs)

    def gate() -> None:
        again = _OpRecorder()
        with again:
            run()
        assert again.met[-1][0] is op, f"the call reached {again.met[-1][0]}, not {op}"

    return Peer(alone, gate)
