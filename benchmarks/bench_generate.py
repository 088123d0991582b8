"""Whole responses of a small model."""

from typing import Any

import pytest

from benchmarks import cases, generation
from benchmarks.cases import Case
from benchmarks.results import Record
from benchmarks.timing import Effort, measure


@pytest.mark.parametrize("case", cases.GENERATE_CASES, ids=str)
def test_generate(case: Case, benchmark: Any, effort: Effort, records: dict[str, Record]) -> None:
    records[str(case)] = measure(benchmark, generation.build(case), effort)
