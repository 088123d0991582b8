"""The ops with rules on many inputs of a case, and their peers on the same ones."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks import cases, peers
from benchmarks.gpu import cases as gpu
from benchmarks.gpu.cases import Case
from benchmarks.gpu.inputs import (
    logits_bytes,
    make_pool,
    num_slots,
    sequences,
    slots_of,
)
from benchmarks.gpu.peers import (
    FlashInfer,
    Peer,
    Workload,
    assert_draws_fit,
    assert_near,
    bitmask_log_softmax_to_compile,
    chain,
    draw,
    draw_to_compile,
    xgrammar_bitmask,
)
from benchmarks.inputs import FILTERED, Scores, Sequences
from benchmarks.workloads import TOLERANCE
from rnr_kernels import (
    Sampling,
    apply_rules_,
    rule_log_softmax,
    sample_,
)
from rnr_kernels.layout import num_words
from rnr_kernels.reference.bitmask import pack_bits
from rnr_kernels.sampling import GREEDY

SAMPLING = {
    gpu.GREEDY: GREEDY,
    gpu.TEMPERATURE: Sampling(),
    gpu.LOGPROB: Sampling(),
    gpu.FILTERED: FILTERED,
}
"""Temperature 1 without filters: the same work as any other, and peers need no division."""

COMPILED_ROWS = (64, 512)
"""For which the sampling chain is compiled: each takes seconds."""


@dataclass(frozen=True, eq=False)
class _Rows:
    """A case's logits and sequences, by input."""

    logits: tuple[Tensor, ...]
    slots: tuple[Tensor, ...]
    sequences: Sequences
    sequences_of: Callable[[bool], Sequences]
    """With or without rules."""

    @classmethod
    def of(cls, case: Case, device: torch.device, sampling: Sampling) -> "_Rows":
        def start(has_rules: bool) -> Sequences:
            slots = num_slots(case, device)
            found = sequences(case.vocab_size, slots, sampling, has_rules, device)
            found.rewind()  # other cases share them
            return found

        pool = make_pool(case, device)
        return cls(pool.split(case.rows), slots_of(case, device), start(True), start)

    def scores(self, index: int) -> tuple[Scores, Scores]:
        """What the rules add to the rows of an input."""
        slots = self.slots[index].long()
        (named, weights), (used, penalties) = self.sequences.scores
        return (named[slots], weights[slots]), (used[slots], penalties[slots])

    def logprobs(self, *, has_rules: bool) -> Tensor:
        """Of the first input, by our op."""
        rows = self.sequences_of(has_rules)
        return rule_log_softmax(
            self.logits[0], rows.program, rows.state, state_indices=self.slots[0]
        )  # type: ignore[return-value]


def _sample(case: Case, device: torch.device) -> Workload:
    sampling = SAMPLING[case.op]
    rows = _Rows.of(case, device, sampling)
    returns_logprob = case.op == gpu.LOGPROB
    program, state = rows.sequences.program, rows.sequences.state

    def ours(index: int) -> Any:
        return sample_(
            rows.logits[index],
            program,
            state,
            state_indices=rows.slots[index],
            return_logprob=returns_logprob,
        )

    def warped(scores: Tensor) -> Tensor:
        if case.op != gpu.FILTERED:
            return scores.float().log_softmax(-1)
        return peers.warped_probabilities(scores.float(), warpers).log()

    warpers = []
    if case.op == gpu.FILTERED:
        warpers = peers.make_warpers(sampling.temperature, sampling.top_k, sampling.top_p)

    def eager() -> Peer:
        scores = [rows.scores(index) for index in range(len(rows.logits))]
        choose = _argmax if sampling.is_greedy else draw

        def run(index: int) -> Tensor:
            return choose(chain(rows.logits[index], scores[index], warpers))

        def gate() -> None:
            if sampling.is_greedy:
                rows.sequences.rewind()
                same = (run(0) == ours(0).token_ids).double().mean().item()
                assert same >= 0.98, f"{100 * (1 - same):.0f} % of its tokens are others"
            else:
                adjusted = chain(rows.logits[0], scores[0], [])
                assert_draws_fit(lambda: run(0), warped(adjusted))

        return Peer(run, gate)

    def compiled() -> Peer:
        run = torch.compile(draw_to_compile, dynamic=False, fullgraph=True)
        rule_row = rows.sequences.rule_row
        used = [rows.scores(index)[1] for index in range(len(rows.logits))]

        def draw_once(index: int) -> Tensor:
            return run(rows.logits[index], rule_row, *used[index])

        return Peer(
            draw_once,
            lambda: assert_draws_fit(lambda: draw_once(0), rows.logprobs(has_rules=True)),
        )

    def flashinfer() -> Peer:
        peer = FlashInfer(device)

        def run(index: int) -> Tensor:
            return peer.sample(rows.logits[index])

        def gate() -> None:
            logprobs = rows.logprobs(has_rules=False)
            assert_draws_fit(lambda: peer.again(lambda: run(0)), logprobs)

        return Peer(run, gate)

    def flashinfer_filtered() -> Peer:
        peer = FlashInfer(device)
        divided = rows.logits[0].float() / sampling.temperature

        def gate() -> None:
            assert_draws_fit(
                lambda: peer.again(lambda: peer.filtered(divided, sampling)),
                warped(rows.logits[0]),
            )

        return Peer(lambda index: peer.filtered(rows.logits[index], sampling), gate)

    found: dict[str, Callable[[], Peer]] = {gpu.CHAIN: eager}
    if case.op in (gpu.TEMPERATURE, gpu.LOGPROB):
        found[gpu.FLASHINFER] = flashinfer
    if case.op == gpu.FILTERED:
        found[gpu.FLASHINFER_FILTERED] = flashinfer_filtered
    if case.op == gpu.TEMPERATURE and (case.rows in COMPILED_ROWS or device.type == "cpu"):
        found[gpu.COMPILED_CHAIN] = compiled
    return Workload(ours, len(rows.logits), found, rows.sequences.rewind, logits_bytes(case))


def _argmax(scores: Tensor) -> Tensor:
    return scores.argmax(-1)


def _rule_log_softmax(case: Case, device: torch.device) -> Workload:
    rows = _Rows.of(case, device, GREEDY)
    program, state = rows.sequences.program, rows.sequences.state
    out = torch.empty(case.rows, case.vocab_size, device=device)
    peer_out = torch.empty_like(out)

    def ours(index: int) -> Any:
        return rule_log_softmax(
            rows.logits[index], program, state, state_indices=rows.slots[index], out=out
        )

    def ruled(run: Callable[[int], Tensor]) -> Peer:
        return Peer(run, lambda: assert_near(run(0), rows.logprobs(has_rules=True), TOLERANCE))

    def bare() -> Peer:
        def run(index: int) -> Tensor:
            return peers.log_softmax(rows.logits[index], peer_out)

        return Peer(run, lambda: assert_near(run(0), rows.logprobs(has_rules=False), TOLERANCE))

    def scattered() -> Peer:
        scores = [rows.scores(index) for index in range(len(rows.logits))]
        return ruled(lambda i: peers.scatter_log_softmax(rows.logits[i], peer_out, *scores[i]))

    def dense() -> Peer:
        run = torch.compile(peers.dense_log_softmax_to_compile, dynamic=False, fullgraph=True)
        masks = [
            rows.sequences.used_mask[slots.long()] + rows.sequences.rule_row
            for slots in rows.slots[: len(rows.logits) if case.rows >= 64 else 1]
        ]
        return ruled(lambda i: run(rows.logits[i % len(masks)], masks[i % len(masks)]))

    def by_bits(run: Callable[..., Tensor]) -> Peer:
        columns = torch.arange(case.vocab_size, device=device)
        bits = [state.used_bitmask[slots.long()] for slots in rows.slots]
        row = rows.sequences.rule_row
        penalty = -float(rows.sequences.scores[1][1][0, 0])
        return ruled(lambda i: run(rows.logits[i], row, bits[i], columns, penalty))

    found: dict[str, Callable[[], Peer]] = {}
    if case.dtype == "float32":
        found |= {cases.LOG_SOFTMAX: bare, cases.SCATTER[0]: scattered}
    if case.rows >= 512 or device.type == "cpu":
        modes = peers.compiled(bitmask_log_softmax_to_compile)
        found |= {name: partial(by_bits, run) for name, run in modes.items()}
        found["torch.compile, dense mask"] = dense
    moved = logits_bytes(case) + out.numel() * out.element_size()
    return Workload(ours, len(rows.logits), found, bytes_a_call=moved)


def _apply_rules_(case: Case, device: torch.device) -> Workload:
    """In place on the pool: what calls add again and again is no matter of time."""
    rows = _Rows.of(case, device, GREEDY)
    program, state = rows.sequences.program, rows.sequences.state

    def ours(index: int) -> Any:
        return apply_rules_(rows.logits[index], program, state, state_indices=rows.slots[index])

    def gated(change: Callable[[Tensor, int], Tensor]) -> Peer:
        def gate() -> None:
            mine, theirs = rows.logits[0].clone(), rows.logits[0].clone()
            apply_rules_(mine, program, state, state_indices=rows.slots[0])
            assert_near(change(theirs, 0), mine, TOLERANCE)

        return Peer(lambda index: change(rows.logits[index], index), gate)

    def by_index() -> Peer:
        scores = [rows.scores(index) for index in range(len(rows.logits))]

        def change(logits: Tensor, index: int) -> Tensor:
            for ids, values in scores[index]:
                peers.scatter_add_(logits, ids, values)
            return logits

        return gated(change)

    def dense() -> Peer:
        mask = rows.sequences.used_mask[rows.slots[0].long()]
        row = rows.sequences.rule_row
        return gated(lambda logits, _: peers.dense_add_(logits, row, mask))

    found: dict[str, Callable[[], Peer]] = {}
    if case.dtype == "float32":  # 16-bit peers would round twice
        found |= {cases.BY_INDEX: by_index, cases.TWO_MASKS: dense}
    return Workload(ours, len(rows.logits), found)


def _bitmask(case: Case, device: torch.device) -> Workload:
    """A grammar's mask alone; one token in a hundred is allowed."""
    rows = _Rows.of(case, device, GREEDY)
    bare = rows.sequences_of(False)
    program, state = bare.program, bare.state
    random = torch.Generator(device).manual_seed(0)
    shape = rows.logits[0].shape
    is_allowed = torch.rand(shape, generator=random, device=device) < 0.01
    bitmask = pack_bits(is_allowed, num_words(case.vocab_size))

    def masked(logits: Tensor, index: int) -> Tensor:
        return apply_rules_(
            logits, program, state, state_indices=rows.slots[index], allowed_bitmask=bitmask
        )

    def xgrammar() -> Peer:
        run = xgrammar_bitmask(device)

        def gate() -> None:
            mine, theirs = rows.logits[-1].clone(), rows.logits[-1].clone()
            assert_near(run(theirs, bitmask), masked(mine, -1), 0.0)

        return Peer(lambda index: run(rows.logits[index], bitmask), gate)

    return Workload(
        lambda index: masked(rows.logits[index], index),
        len(rows.logits),
        {gpu.XGRAMMAR: xgrammar},
    )


MAKERS: dict[str, Callable[[Case, torch.device], Workload]] = {
    **dict.fromkeys(gpu.SAMPLE_OPS, _sample),
    gpu.LOG_SOFTMAX: _rule_log_softmax,
    gpu.APPLY: _apply_rules_,
    gpu.BITMASK: _bitmask,
}
