"""Checks and measures the kernels on a GPU: python -m benchmarks.gpu [--quick]

Builds the kernels, checks every backend, measures it beside its peers, writes one results file and
prints a table. Exit status 0 if everything is correct, also where a requirement is missed; 1 if
something is wrong; 2 if there is no GPU.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from benchmarks import results
from benchmarks.gpu import (
    accuracy,
    graphs,
    invariance,
    machine,
    shared_cases,
    subprocesses,
    summary,
    wheels,
)
from benchmarks.gpu.budget import Budget
from benchmarks.gpu.cases import Case, Selection, small
from benchmarks.gpu.checks import Check, Outcome, run_all, run_one
from benchmarks.gpu.measuring import Measuring
from benchmarks.gpu.timing import FULL, QUICK, watch_for
from benchmarks.selection import Figures
from benchmarks.selection import measure as compare_backends

BUDGET_S = 450.0
BUILD_S = 240.0
WARMING_S = 60.0
CORRECTNESS_S = 170.0
"""At the most, so that there is time to measure."""
FLASHINFER_S = 30.0
SELECTION_S = 15.0
"""What comparing the backends takes, some 300 short calls."""


@dataclass(eq=False)
class Session:
    """A run: what it found so far, and where it writes that."""

    device: torch.device
    seed: int
    is_quick: bool
    selection: Selection
    budget: Budget
    path: Path | None
    header: dict[str, Any] = field(default_factory=dict)
    outcomes: list[Outcome] = field(default_factory=list)
    measuring: Measuring | None = None
    fastest: Figures = field(default_factory=dict)

    def note(self, words: str) -> None:
        print(f"[{self.budget.spent():5.0f} s] {words}", file=sys.stderr, flush=True)

    def save(self) -> None:
        """What there is, so that a run that is stopped leaves it."""
        if self.path is not None:
            records = self.measuring.records if self.measuring else {}
            results.save(
                self.path,
                self.header,
                records,
                correctness=[asdict(outcome) for outcome in self.outcomes],
                failures=self.failures,
                selection=self.fastest,
            )

    @property
    def failures(self) -> list[str]:
        return self.measuring.failures if self.measuring else []

    @property
    def is_right(self) -> bool:
        failed = any(outcome.status == "failed" for outcome in self.outcomes)
        return not failed and not self.failures

    def build(self) -> None:
        """The compiled kernels; without them the other backends are checked all the same."""
        self.note("building the kernels")
        run = partial(subprocesses.build_kernels, BUILD_S)
        self.outcomes.append(run_one(Check("build", "native", run)))

    def look_around(self) -> None:
        """The header, with the copy's bandwidth."""
        self.header = machine.about(self.device) | {"seed": self.seed}
        self.header["copy_bandwidth"] = machine.copy_bandwidth(self.device, watch_for(self.device))
        self.save()

    def check(self) -> None:
        """Correctness; the seed makes a failure again."""
        self.note(f"checking, with --seed {self.seed}")
        in_background = subprocesses.start_sanitizers(self.device)
        outcomes = run_all(self._checks(), self.budget.part(CORRECTNESS_S))
        try:
            for outcome in chain(outcomes, map(run_one, in_background)):
                self.outcomes.append(outcome)
                if outcome.status == "failed":
                    self.note(f"FAILED {outcome.check}, {outcome.subject}: {outcome.detail}")
        except Exception as error:  # measure all the same
            self.outcomes.append(Outcome("checks", "all", "failed", f"{error!r}", 0.0))
        self.save()

    def _checks(self) -> Iterator[Check]:
        common = (self.device, self.seed, self.is_quick)
        yield from shared_cases.checks(*common)
        yield from graphs.checks(*common)
        yield from invariance.checks(*common)
        yield from accuracy.checks(*common)

    def measure(self, missing_peers: dict[str, str]) -> None:
        """The plan, as far as the time reaches."""
        self.note("measuring")
        self.measuring = Measuring(
            self.device,
            watch_for(self.device),
            QUICK if self.is_quick else FULL,
            self.header["copy_bandwidth"]["median"],
            missing_peers,
        )
        self.measuring.run(self.selection.plan, self.budget, self._after_each)
        self.save()

    def compare(self) -> None:
        """The backends with each other, for the package's table of figures."""
        if self.is_quick or self.budget.left() < SELECTION_S:
            return
        self.note("comparing the backends")
        self.fastest = compare_backends(self.device)
        self.save()

    def _after_each(self, case: Case) -> None:
        self.note(str(case))
        self.save()

    def table(self) -> str:
        records = self.measuring.records if self.measuring else {}
        return summary.text(self.header, self.outcomes, self.failures, records, self.selection)


def run(session: Session, *, builds: bool) -> int:
    """Everything, in order; the exit status."""
    with tempfile.TemporaryDirectory(prefix="gpu-peers-") as folder:
        target = Path(folder)
        reason = wheels.install(target)
        if reason is not None:
            session.note(f"peers: {reason}")
        compiling = None
        if session.device.type == "cuda" and (target / "flashinfer").is_dir():
            compiling = wheels.start_compiling(target)
        warming = subprocesses.start_warming(session.device)
        if builds:
            session.build()
        waiting = session.budget.part(WARMING_S)
        for process in warming:
            subprocesses.finish(process, waiting.left())
        session.look_around()
        session.check()
        missing = wheels.missing_peers(compiling, FLASHINFER_S)
        session.compare()
        session.measure(missing)
    print(session.table(), flush=True)
    return 0 if session.is_right else 1


def main(arguments: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda", help="cpu: a dry run on small inputs")
    parser.add_argument("--quick", action="store_true", help="few cases and rounds; writes nothing")
    parser.add_argument("--seed", type=int, help="of the checks' inputs (default: the time)")
    parser.add_argument("--budget", type=float, default=BUDGET_S, help="seconds for all of it")
    parser.add_argument("--results", type=Path, metavar="FOLDER", help="where the file goes")
    parser.add_argument("--no-build", action="store_true", help="the kernels are built already")
    given = parser.parse_args(arguments)
    device = torch.device(given.device)
    is_gpu = device.type == "cuda"
    if is_gpu and (reason := machine.missing()):
        print(f"gpu-check needs an NVIDIA GPU: {reason}", file=sys.stderr)
        return 2
    selection = Selection.quick() if given.quick else Selection.everything()
    folder = given.results
    if folder is None and is_gpu and not given.quick:
        folder = results.RESULTS
    session = Session(
        device=device,
        seed=int(time.time()) % 1_000_000 if given.seed is None else given.seed,
        is_quick=given.quick,
        selection=selection if is_gpu else selection.scaled(small),
        budget=Budget(given.budget),
        path=folder and folder / machine.file_name({"gpu": machine.device_name(device)}),
    )
    return run(session, builds=is_gpu and not given.no_build)


if __name__ == "__main__":
    sys.exit(main())
