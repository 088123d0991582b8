"""Decode steps in CUDA graphs, on several streams, and without a synchronisation."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu import serving
from benchmarks.gpu.checks import Check, NotRun, need_cuda
from rnr_kernels import DecodeState, RuleProgram, backends, ops, sample_, testing
from rnr_kernels.backends import REFERENCE, Backend
from rnr_kernels.layout import StateTensors
from rnr_kernels.testing import Case, Inputs, assert_same_bits

STEPS = 100
SOURCES = 4
"""Logits that take turns in the static buffer."""
STREAMS = 4


def checks(device: torch.device, seed: int, quick: bool) -> Iterator[Check]:
    """Of the backends that promise it: the reference is not made for graphs."""
    kernels = [backend for backend in serving.serving(device) if backend is not REFERENCE]
    sizes = ((1, 32_000),) if quick else ((1, 50_257), (64, 128_256))
    for backend in kernels:
        for rows, vocab_size in sizes:
            case = Case(f"steps-{seed}", vocab_size, rows, 1, torch.bfloat16)
            subject = f"{backend.name}, B = {rows}, V = {vocab_size:,}"
            yield Check("graph replays", subject, partial(check_graph, backend, case, device))
        case = Case(f"streams-{seed}", 32_000, 8, 1, torch.bfloat16)
        yield Check("no sync", backend.name, partial(check_no_sync, backend, case, device))
        yield Check("streams", backend.name, partial(check_streams, backend, case, device))
        yield Check("second GPU", backend.name, partial(check_second_gpu, backend, seed, device))


def copied(state: DecodeState) -> DecodeState:
    """The same sequences on the same program."""
    tables = StateTensors(*(table.clone() for table in state.tensors))
    return replace(state, tensors=tables, error=state.error.clone())


def stepper(logits: Tensor, inputs: Inputs, state: DecodeState) -> Callable[[], Tensor]:
    """A decode step on static buffers; its tokens."""
    program: RuleProgram = inputs.program
    slots = inputs.row_options["state_indices"]
    return lambda: sample_(logits, program, state, state_indices=slots).token_ids


def sources(inputs: Inputs) -> list[Tensor]:
    return [inputs.logits.roll(97 * i, 1).nan_to_num(0.0).contiguous() for i in range(SOURCES)]


def in_steps(source: list[Tensor], static: Tensor, step: Callable[[], Tensor]) -> Tensor:
    """int64 [STEPS, R]."""
    found = []
    for i in range(STEPS):
        static.copy_(source[i % SOURCES])
        found.append(step().clone())
    return torch.stack(found)


def check_graph(backend: Backend, case: Case, device: torch.device) -> str:
    """A step captured once and replayed gives the tokens and the state of eager steps."""
    need_cuda(device)
    inputs = case.build(device)
    source = sources(inputs)
    static = source[0].clone()
    eager, replayed = copied(inputs.state), copied(inputs.state)
    with serving.preferring(backend):
        expected = in_steps(source, static, stepper(static, inputs, eager))
        step = stepper(static, inputs, replayed)
        stream = torch.cuda.Stream(device)
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(stream):
            step()  # compiled on first use
        torch.cuda.current_stream(device).wait_stream(stream)
        for table, before in zip(replayed.tensors, inputs.state.tensors, strict=True):
            table.copy_(before)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            tokens = step()

    def replay() -> Tensor:
        graph.replay()
        return tokens

    assert_same_bits(in_steps(source, static, replay), expected, "tokens of replays")
    for name, table in replayed.tensors._asdict().items():
        assert_same_bits(table, getattr(eager.tensors, name), f"state.{name} after replays")
    return f"{STEPS} steps"


def check_no_sync(backend: Backend, case: Case, device: torch.device) -> str:
    """Every op that it serves returns without waiting for the device."""
    need_cuda(device)
    found = calls(case.build(device))
    served = serving.served_ops(backend, device)
    with serving.preferring(backend):
        for op in served:
            found[op]()  # compiled on first use
            torch.cuda.synchronize(device)
            torch.cuda.set_sync_debug_mode("error")
            try:
                found[op]()
            finally:
                torch.cuda.set_sync_debug_mode("default")
    return ", ".join(served)


def calls(inputs: Inputs) -> dict[str, Callable[[], Any]]:
    """A call of every op by its name in the backends' tables."""
    logits, token_ids = inputs.logits, inputs.token_ids
    ruled: Any = partial(partial, logits=logits, program=inputs.program, state=inputs.state)
    rows = inputs.row_options
    size = inputs.program.vocab_size
    out = torch.empty(logits.shape, device=logits.device)
    pair = (inputs.hidden, inputs.weight)
    return {
        "apply_rules_": ruled(ops.apply_rules_, **rows),
        "rule_log_softmax": ruled(ops.rule_log_softmax, return_log_z=True, **rows),
        "rule_log_softmax_out": ruled(ops.rule_log_softmax, out=out, **rows),
        "sample_": ruled(ops.sample_, return_logprob=True, return_rank=True, **rows),
        "update_state_": partial(
            ops.update_state_, inputs.state, token_ids, state_indices=rows["state_indices"]
        ),
        "token_stats": partial(ops.token_stats, logits, token_ids, vocab_size=size, top_k=4),
        "shift_stats": partial(
            ops.shift_stats, logits, inputs.base_logits, token_ids, vocab_size=size
        ),
        "linear_token_stats": partial(ops.linear_token_stats, *pair, token_ids),
        "linear_shift_stats": partial(ops.linear_shift_stats, *pair, *pair, token_ids),
    }


def check_streams(backend: Backend, case: Case, device: torch.device) -> str:
    """Sequences that run at once on streams of their own have the tokens of one after the other."""
    need_cuda(device)
    inputs = case.build(device)
    source = sources(inputs)
    runs: list[Any] = []
    with serving.preferring(backend):
        static = source[0].clone()
        expected = in_steps(source, static, stepper(static, inputs, copied(inputs.state)))
        for _ in range(STREAMS):
            static, state = source[0].clone(), copied(inputs.state)
            runs.append((torch.cuda.Stream(device), static, stepper(static, inputs, state)))
        torch.cuda.synchronize(device)
        found: list[list[Tensor]] = [[] for _ in runs]
        for i in range(STEPS):
            for (stream, static, step), tokens in zip(runs, found, strict=True):
                with torch.cuda.stream(stream):
                    static.copy_(source[i % SOURCES])
                    tokens.append(step().clone())
        torch.cuda.synchronize(device)
    for tokens in found:
        assert_same_bits(torch.stack(tokens), expected, "tokens on a stream of their own")
    return f"{STREAMS} streams, {STEPS} steps"


def check_second_gpu(backend: Backend, seed: int, device: torch.device) -> str:
    """Tensors on another GPU than the current one."""
    need_cuda(device)
    if torch.cuda.device_count() < 2:
        raise NotRun("there is one GPU")
    case = Case(f"second-{seed}", 4097, 8, 1)
    with backends.use("reference"):
        expected = testing.run(case.build())
    with serving.preferring(backend):
        testing.assert_matches(testing.run(case.build("cuda:1")), expected)
    return "cuda:1"
