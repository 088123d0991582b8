"""The ops on one thread, each beside its peers."""

from typing import Any

import pytest

from benchmarks import cases, host_cost, workloads
from benchmarks.cases import Case
from benchmarks.results import Record
from benchmarks.timing import Effort, measure


@pytest.mark.parametrize("case", cases.OP_CASES, ids=str)
def test_op(case: Case, benchmark: Any, effort: Effort, records: dict[str, Record]) -> None:
    records[str(case)] = measure(benchmark, workloads.build(case), effort)


@pytest.mark.parametrize("case", cases.BITMASK_CASES, ids=str)
def test_bitmask(case: Case, benchmark: Any, effort: Effort, records: dict[str, Record]) -> None:
    pytest.importorskip("xgrammar", reason="a peer to be had by pip install xgrammar")
    records[str(case)] = measure(benchmark, workloads.build_bitmask(case), effort)


@pytest.mark.parametrize("case", [cases.LINEAR_CASE], ids=str)
def test_linear(case: Case, benchmark: Any, effort: Effort, records: dict[str, Record]) -> None:
    records[str(case)] = measure(benchmark, workloads.build_linear(case), effort)


@pytest.mark.parametrize("case", cases.HOST_CASES, ids=str)
def test_host_cost(case: Case, benchmark: Any, effort: Effort, records: dict[str, Record]) -> None:
    records[str(case)] = measure(benchmark, host_cost.build(case), effort)
