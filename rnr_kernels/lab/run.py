"""The lab from end to end: train, ask, measure, write one page."""

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rnr_kernels.analysis.token_shift import TokenShift
from rnr_kernels.durable import published
from rnr_kernels.lab import measures
from rnr_kernels.lab.adapters import adapter_table
from rnr_kernels.lab.folder import begin
from rnr_kernels.lab.page import write_page
from rnr_kernels.lab.study import TWINS, Study
from rnr_kernels.lab.systems import Bench, Report
from rnr_kernels.lab.tables import Table
from rnr_kernels.loading import check_installed

PAGE = "lab.html"
RESULTS = "results.json"

SHIFTED = (*TWINS, "rules")


@dataclass(frozen=True)
class Lab:
    """What a run found."""

    folder: Path
    tables: tuple[Table, ...]
    seconds: float
    """Of this start; what an earlier one had made is not in it."""

    @property
    def page(self) -> Path:
        """The page with tables and plots."""
        return self.folder / PAGE


def run_lab(study: Study, folder: Path, *, report: Report = lambda text: None) -> Lab:
    """Trains the twins, asks all systems, and writes tables and plots to `folder`.

    What is there already is kept, so an interrupted run goes on. ValueError if the folder holds
    another study, or something else.
    """
    start = time.perf_counter()
    check_installed(("accelerate", "jinja2", "matplotlib", "scipy"), "the lab", "tuning")
    begin(study, folder)
    bench = Bench(study, folder, report)
    for seed in study.seeds:
        for twin in TWINS:
            bench.twin(twin, seed)
    shifts = {system: measures.shifts(bench, system) for system in SHIFTED}
    tables = (
        measures.win_rate_table(bench),
        measures.ablation_table(bench),
        measures.ranking_table(bench),
        measures.shift_table(bench, shifts),
        measures.outside_table(bench),
        adapter_table(bench),
    )
    seconds = time.perf_counter() - start
    results = {"study": study.as_dict(), "tables": [asdict(table) for table in tables]}
    with published(folder / RESULTS) as file:
        file.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    report("writing the page")
    write_page(bench, tables, _curves(shifts), folder / PAGE)
    return Lab(folder, tables, seconds)


def _curves(shifts: Mapping[str, list[TokenShift]]) -> dict[str, Any]:
    """Mean KL from the base by position, of the systems that are shown."""
    shown = ("instruction", "response", "sums", "rules")
    return {measures.TITLES[name]: [each.by_position() for each in shifts[name]] for name in shown}
