"""What is measured on a GPU, on a CPU: peers do what the ops do, and none of them ends a run."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.cases import OURS
from benchmarks.gpu import cases, measuring, rule_workloads, statistics_workloads
from benchmarks.gpu.budget import Budget
from benchmarks.gpu.cases import HOST, Case
from benchmarks.gpu.measuring import MAKERS, SKIPPED, Measuring, Prepared
from benchmarks.gpu.peers import Peer, Workload, assert_draws_fit
from benchmarks.gpu.timing import QUICK, HostWatch
from rnr_kernels.backends import native

CPU = torch.device("cpu")
TINY = Case("token_stats", 2, 64)


@pytest.fixture
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda function, **options: function)


OPS = [(op, "bfloat16") for op in MAKERS] + [(op, "float32") for op in rule_workloads.MAKERS]
ELSEWHERE = {
    cases.FLASHINFER,
    cases.FLASHINFER_FILTERED,
    cases.XGRAMMAR,
    cases.LIGER,
    cases.CCE,
}
"""Peers that need a package which the tests do without."""


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize(("op", "dtype"), OPS)
def test_every_peer_computes_what_the_op_does(op: str, dtype: str) -> None:
    prepared = Prepared.of(Case(op, 4, 320, dtype=dtype, logits="random"), CPU)
    prepared.make_peers(dict.fromkeys(ELSEWHERE, "left out"))
    assert {name: why for name, why in prepared.failed.items() if name not in ELSEWHERE} == {}
    assert prepared.peers.keys() | prepared.failed.keys() == prepared.workload.peers.keys()
    for peer in prepared.peers.values():
        peer.run(prepared.workload.num_inputs - 1)


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize(
    ("op", "module", "function", "name"),
    [
        (cases.GREEDY, rule_workloads, "sample_", cases.CHAIN),
        (cases.TEMPERATURE, rule_workloads, "draw", cases.CHAIN),
        (cases.FILTERED, rule_workloads, "draw", cases.CHAIN),
        (cases.LOG_SOFTMAX, rule_workloads, "rule_log_softmax", "torch.compile"),
        (cases.STATS, statistics_workloads, "token_stats", cases.CROSS_ENTROPY),
        (cases.LINEAR, statistics_workloads, "linear_token_stats", cases.PRODUCT),
    ],
)
def test_a_result_that_is_not_ours_is_told(
    op: str, module: Any, function: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = getattr(module, function)

    def wrong(*arguments: Any, **options: Any) -> Any:
        found = right(*arguments, **options)
        if isinstance(found, Tensor):
            return found * 0 + 7 if found.dtype == torch.int64 else found * 1.5
        changed = {
            field: value + 1
            for field, value in found._asdict().items()
            if field in ("token_ids", "logprob") and value is not None
        }
        return found._replace(**changed)

    monkeypatch.setattr(module, function, wrong)
    prepared = Prepared.of(Case(op, 4, 320, logits="random"), CPU)
    prepared.make_peers({})
    assert prepared.failed[name].startswith("its result is not ours: ")


def test_draws_are_held_against_their_distribution() -> None:
    random = torch.Generator().manual_seed(0)
    logprobs = torch.randn(4, 50, generator=random).log_softmax(-1)

    def draw() -> Tensor:
        return torch.multinomial(logprobs.exp(), 1, generator=random)[:, 0]

    assert_draws_fit(draw, logprobs)
    with pytest.raises(AssertionError, match="nats from the distribution's"):
        assert_draws_fit(lambda: logprobs.argmax(-1), logprobs)
    filtered = logprobs.masked_fill(logprobs < -4, -torch.inf).log_softmax(-1)
    with pytest.raises(AssertionError, match="outside our filters"):
        assert_draws_fit(draw, filtered)


# Measuring


def measuring_of(workload: Workload, monkeypatch: pytest.MonkeyPatch, **more: Any) -> Measuring:
    monkeypatch.setattr(measuring, "MAKERS", {TINY.op: lambda case, device: workload})
    return Measuring(CPU, HostWatch(), QUICK, 1e9, **more)


def test_peers_that_are_missing_fail_or_are_wrong_end_no_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def absent() -> Peer:
        raise ImportError("No module named 'somewhere'")

    def wrong() -> None:
        raise AssertionError("ranks differ")

    found = {
        "fine": lambda: Peer(lambda index: None, lambda: None),
        "absent": absent,
        "wrong": lambda: Peer(lambda index: None, wrong),
        "fails": lambda: Peer(lambda index: 1 / 0, lambda: None),
        "known": absent,
    }
    workload = Workload(lambda index: None, 2, found, bytes_a_call=1000)
    run = measuring_of(workload, monkeypatch, missing_peers={"known": "no nvcc"})
    record = run.measured(TINY)
    reasons = record["not_measured"]
    assert reasons["absent"] == "ImportError: No module named 'somewhere'"
    assert reasons["wrong"] == "its result is not ours: ranks differ"
    assert reasons["fails"] == "division by zero"
    assert reasons["known"] == "no nvcc"
    assert {OURS, "fine"} <= record["times"].keys()
    entry = record["times"][OURS]
    # 1,000 bytes beside a copy of 1e9 a second.
    assert entry["percent_of_copy"] == pytest.approx(100 / entry["median_us"], rel=0.05, abs=0.1)
    assert run.failures == []


def test_an_op_of_ours_that_fails_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    run = measuring_of(Workload(lambda index: 1 / 0, 1), monkeypatch)
    assert run.measured(TINY)["not_measured"][OURS] == "division by zero"
    assert any("division by zero" in failure for failure in run.failures)

    def unbuilt(case: Case, device: torch.device) -> Workload:
        raise MemoryError("out of memory")

    monkeypatch.setattr(measuring, "MAKERS", {TINY.op: unbuilt})
    assert run.measured(replace(TINY, rows=3)) == {
        "not_measured": {OURS: "MemoryError: out of memory"}
    }


def test_what_time_does_not_reach_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    run = measuring_of(Workload(lambda index: None, 1), monkeypatch)
    done: list[Case] = []
    moments = iter([0.0, 0.0, 100.0])
    budget = Budget(20.0, lambda: next(moments))
    plan = (TINY, replace(TINY, rows=1))
    run.run(plan, budget, done.append)
    assert done == [TINY]
    assert run.records[str(plan[1])] == {"not_measured": {OURS: SKIPPED}}


def test_host_times_are_of_the_backend_that_the_case_names() -> None:
    if missing := native.unavailable():
        pytest.skip(missing)
    run = Measuring(CPU, HostWatch(), QUICK, 1e9)
    case = Case(cases.TEMPERATURE, 1, 320, logits="random", how=HOST)
    for name, is_there in (("native", True), ("triton", False)):
        record = run.measured(replace(case, backend=name))
        assert (OURS in record["times"]) == is_there
        assert ("not_measured" in record) != is_there
    assert run.failures == []
