"""The cases of a plan, one after the other, as long as there is time."""

import gc
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch

from benchmarks.cases import OURS
from benchmarks.gpu import rule_workloads, serving, statistics_workloads
from benchmarks.gpu.budget import Budget
from benchmarks.gpu.cases import COLD, HOST, MEMORY, Case
from benchmarks.gpu.inputs import dtype_of
from benchmarks.gpu.peers import Peer, Workload
from benchmarks.gpu.timing import Contender, Watch, first_line, measure, peak_memory
from benchmarks.results import Record
from benchmarks.timing import Effort
from benchmarks.workloads import Call
from rnr_kernels import backends

MAKERS = rule_workloads.MAKERS | statistics_workloads.MAKERS
LONGEST_CASE_S = 12.0
"""A case is begun while there is this much time: peers are compiled on the way."""
REFERENCE_ELEMENTS = 64 * 128_256
"""The reference, which is slow by design, is measured on no more logits than this."""
SKIPPED = "skipped: time"


@dataclass(eq=False)
class Prepared:
    """A workload whose peers have been made and checked, once for all ways of measuring."""

    case: Case
    workload: Workload
    peers: dict[str, Peer] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, case: Case, device: torch.device) -> "Prepared":
        torch.compiler.reset()
        return cls(case, MAKERS[case.op](case, device))

    def make_peers(self, missing: Mapping[str, str]) -> None:
        for name, make in self.workload.peers.items():
            if name in missing:
                self.failed[name] = missing[name]
            if name in self.peers or name in self.failed:
                continue
            try:
                self.workload.reset()
                peer = make()
                peer.gate()
                self.peers[name] = peer
            except AssertionError as error:
                self.failed[name] = f"its result is not ours: {first_line(error)}"
            except Exception as error:
                self.failed[name] = f"{type(error).__name__}: {first_line(error)}"


def own_name(backend: str, default: str) -> str:
    """Under which a backend of ours stands in a record: the one that serves is `OURS`."""
    return OURS if backend == default else f"{OURS} on {backend}"


def _calls(run: Callable[[int], Any], workload: Workload) -> list[Call]:
    return [partial(run, index) for index in range(workload.num_inputs)]


def _contender(workload: Workload, backend: str) -> Contender:
    within = partial(backends.use, backend)
    why_not = "it is not made for graphs" if backend == backends.REFERENCE.name else None
    return Contender(_calls(workload.ours, workload), workload.reset, within, why_not)


def _peers_contender(peer: Peer, workload: Workload) -> Contender:
    calls = _calls(peer.run, workload)
    return Contender(calls, workload.reset, why_not_captured=peer.why_not_captured)


@dataclass(eq=False)
class Measuring:
    """What a run has measured so far."""

    device: torch.device
    watch: Watch
    effort: Effort
    copy_bandwidth: float
    """Bytes a second, read and written."""
    missing_peers: Mapping[str, str] = field(default_factory=dict)
    """Peers that are known not to be there, and why."""
    records: dict[str, Record] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    """Of our own backends, on calls that they do not refuse."""
    _prepared: Prepared | None = None

    def run(
        self, plan: tuple[Case, ...], budget: Budget, after_each: Callable[[Case], None]
    ) -> None:
        """Fills `records` in the plan's order."""
        for case in plan:
            if budget.left() < LONGEST_CASE_S:
                self.records[str(case)] = {"not_measured": {OURS: SKIPPED}}
                continue
            with torch.no_grad():
                self.records[str(case)] = self.measured(case)
            after_each(case)
        self._forget()

    def measured(self, case: Case) -> Record:
        """The record of one case, whatever happens."""
        try:
            prepared = self._prepare(case)
            if case.how == MEMORY:
                return self._extra_memory(prepared)
            with self._peers_of(prepared, case) as peers:
                return self._times(case, prepared.workload, peers)
        except Exception as error:
            self.failures.append(f"{case}: {first_line(error)}")
            self._forget()
            return {"not_measured": {OURS: f"{type(error).__name__}: {first_line(error)}"}}

    def _prepare(self, case: Case) -> Prepared:
        """The workload, made anew where the case differs in more than how it is measured."""
        same = replace(case, how=COLD, backend="")
        if self._prepared is None or self._prepared.case != same:
            self._forget()
            self._prepared = Prepared.of(same, self.device)
        return self._prepared

    def _forget(self) -> None:
        """Gives the memory of the last workload back."""
        self._prepared = None
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    @contextmanager
    def _peers_of(
        self, prepared: Prepared, case: Case
    ) -> Iterator[tuple[Mapping[str, Peer], Mapping[str, str]]]:
        if case.how == HOST:
            yield {}, {}
        else:
            prepared.make_peers(self.missing_peers)
            yield prepared.peers, prepared.failed

    def _times(
        self,
        case: Case,
        workload: Workload,
        peers: tuple[Mapping[str, Peer], Mapping[str, str]],
    ) -> Record:
        made, failed = peers
        refused: dict[str, str] = {}
        contenders: dict[str, Contender] = {}
        for name, backend in self._own(case).items():
            reason = self._why_not(case, backend)
            if reason is None:
                contenders[name] = _contender(workload, backend)
            else:
                refused[name] = reason
        own = set(contenders)
        contenders |= {name: _peers_contender(peer, workload) for name, peer in made.items()}
        record = measure(contenders, case.how, self.watch, self.effort)
        problems = record.pop("not_measured", {})
        self.failures += [f"{case}, {n}: {why}" for n, why in problems.items() if n in own]
        if missing := refused | dict(failed) | problems:
            record["not_measured"] = missing
        if workload.bytes_a_call is not None:
            for entry in record["times"].values():
                rate = 1e6 * workload.bytes_a_call / max(entry["median_us"], 1e-3)
                entry["percent_of_copy"] = round(100 * rate / self.copy_bandwidth, 1)
        return record

    def _own(self, case: Case) -> dict[str, str]:
        """Backends of ours by the names they have in the record, the one that serves first."""
        if case.backend:
            return {OURS: case.backend}
        call = (case.served_op, self.device, dtype_of(case), case.vocab_size)
        default = serving.default(*call)
        names = [default, *(name for name in serving.refusals(*call) if name != default)]
        return {own_name(name, default): name for name in names}

    def _why_not(self, case: Case, backend: str) -> str | None:
        call = (case.served_op, self.device, dtype_of(case), case.vocab_size)
        is_reference = backend == backends.REFERENCE.name
        if is_reference and case.rows * case.vocab_size > REFERENCE_ELEMENTS:
            return "the reference is slow by design"
        return serving.refusals(*call)[backend]

    def _extra_memory(self, prepared: Prepared) -> Record:
        if self.device.type != "cuda":
            return {"not_measured": {OURS: "no CUDA"}}
        prepared.workload.ours(0)
        with peak_memory(self.device) as peak:
            prepared.workload.ours(0)
        return {"bytes": peak()}
