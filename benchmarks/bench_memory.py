"""What the ops take beside their inputs."""

import pytest

from benchmarks import cases, memory
from benchmarks.cases import Case
from benchmarks.results import Record


@pytest.mark.parametrize("case", cases.MEMORY_CASES, ids=str)
def test_memory(case: Case, records: dict[str, Record]) -> None:
    records[str(case)] = memory.measure(case)
