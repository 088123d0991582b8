"""What a public op call costs beside its kernel."""

from contextlib import ExitStack
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


def kernel_alone(run: Call) -> Peer:
    """The C++ op that a call reaches, with the same arguments and nothing of Python before it.

    Without the native library that is nothing but the reference, which the call then repeats.
    """
    calls: list[tuple[Any, tuple[Any, ...]]] = []

    def noted(op: Any) -> Any:
        def call(*args: Any) -> Any:
            calls.append((op, args))
            return op(*args)

        return call

    with ExitStack() as stack:
        for name in native.ON_GPUS if native.unavailable() is None else ():
            op = getattr(native.LIBRARY, name)
            stack.enter_context(mock.patch.object(native.LIBRARY, name, noted(op)))
        run()
    if not calls:
        return Peer(run, lambda: None)
    op, args = calls[-1]
    return Peer(lambda: op(*args), lambda: None)
