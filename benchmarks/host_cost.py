"""What a public op call costs beside its kernel."""

from typing import Any
from unittest import mock

import torch

from benchmarks import cases
from benchmarks.cases import Case
from benchmarks.inputs import Sequences, make_logits
from benchmarks.workloads import Call, Peer, Workload
from rnr_kernels import apply_rules_, rule_log_softmax, sample_, token_stats
from rnr_kernels.backends import native
from rnr_kernels.sampling import GREEDY


def build(case: Case) -> Workload:
    """One row: the public call beside the C++ op with the arguments that the call hands it.

    With a vocabulary of `cases.NOTHING_TO_DO` the public call alone says what the host costs.
    """
    op = case.op.removeprefix("host cost of ")
    run, reset = _public_call(op, case.rows, case.vocab_size)
    reset()
    return Workload(run, {cases.KERNEL: kernel_alone(run)}, reset)


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


class _KernelRecorder:
    """Stands in for the native backend's ops and notes the last call of one."""

    def __init__(self, ops: Any) -> None:
        self._ops = ops
        self.last: tuple[Any, tuple[Any, ...]] | None = None

    def __getattr__(self, name: str) -> Any:
        op = getattr(self._ops, name)

        def noted(*args: Any) -> Any:
            self.last = (op, args)
            return op(*args)

        return noted


def kernel_alone(run: Call) -> Peer:
    """The C++ op that a call reaches, with the same arguments and nothing of Python before it.

    Without the native library that is nothing but the reference, which the call then repeats.
    """
    recorder = _KernelRecorder(native._C)
    with mock.patch.object(native, "_C", recorder):
        run()
    if recorder.last is None:
        return Peer(run, lambda: None)
    op, args = recorder.last
    return Peer(lambda: op(*args), lambda: None)
