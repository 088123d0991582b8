"""Our op and its peers in turn, in one process, on one thread of one core."""

import ctypes
import gc
import math
import os
import statistics
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import torch

from benchmarks.cases import OURS
from benchmarks.workloads import Call, Workload

# glibc's malloc.h
M_TRIM_THRESHOLD = -1
M_MMAP_MAX = -4


@dataclass(frozen=True)
class Effort:
    """How long to measure."""

    min_rounds: int
    max_rounds: int
    block_s: float
    """A contender is called in a round as often as takes this long, at least once."""
    case_s: float
    """More rounds than `min_rounds` are run while a case takes no longer than this."""


FULL = Effort(min_rounds=30, max_rounds=100, block_s=2e-3, case_s=0.6)
QUICK = Effort(min_rounds=3, max_rounds=3, block_s=20e-6, case_s=0.1)


def settle_process() -> None:
    """One thread on one core, and a heap that gives nothing back to the system.

    A tensor that is made anew at every call would otherwise cost page faults, which are dear in
    virtual machines: no side shall have them.
    """
    torch.set_num_threads(1)
    if sys.platform == "linux":
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            mallopt(M_MMAP_MAX, 0)
            mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


@contextmanager
def no_collection() -> Iterator[None]:
    """Without Python's garbage collector."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def time_calls(run: Call, calls: int) -> float:
    """Seconds a call."""
    repeats = range(calls)
    start = perf_counter()
    for _ in repeats:
        run()
    return (perf_counter() - start) / calls


def calls_in(seconds: float, run: Call) -> int:
    """How often it may be called in this time, at least once."""
    shortest = time_calls(run, 1)
    if shortest < seconds:
        shortest = min(time_calls(run, 1) for _ in range(3))
    return max(1, math.ceil(seconds / shortest))


@torch.no_grad()
def measure(benchmark: Any, workload: Workload, effort: Effort) -> dict[str, Any]:
    """Checks the peers, then times all in turn; the record of a results file.

    pytest-benchmark (`benchmark` is its fixture) times our side; the peers run between its rounds,
    in an order that moves on by one each round. Caches are warm where a call is shorter than
    `block_s`.
    """
    workload.check()
    contenders = {OURS: workload.ours} | {name: p.run for name, p in workload.peers.items()}
    calls: dict[str, int] = {}
    for name, run in contenders.items():
        workload.reset()
        calls[name] = calls_in(effort.block_s, run)
    others = [name for name in contenders if name != OURS]
    times: dict[str, list[float]] = {name: [] for name in others}

    def warm_up(name: str) -> None:
        # A decode step finds its logits in the caches, where the model has just written them; here
        # others have filled them in between.
        workload.reset()
        if calls[name] > 1:
            contenders[name]()

    def run_others() -> None:
        for name in others:
            warm_up(name)
            times[name].append(time_calls(contenders[name], calls[name]))
        others[:] = others[1:] + others[:1]
        warm_up(OURS)

    with no_collection():
        start = perf_counter()
        run_others()
        time_calls(workload.ours, calls[OURS])
        round_s = perf_counter() - start
        workload.reset()
        rounds = min(effort.max_rounds, max(effort.min_rounds, int(effort.case_s / round_s)))
        benchmark.pedantic(
            workload.ours, rounds=rounds, iterations=calls[OURS], teardown=run_others
        )
    own = list(benchmark.stats.stats.data)
    # Ours came first in each round; the first entry of the peers is the trial above.
    paired = {OURS: own} | {name: found[1 : rounds + 1] for name, found in times.items()}
    return record(paired, calls, workload.steps)


def record(times: dict[str, list[float]], calls: dict[str, int], steps: int = 1) -> dict[str, Any]:
    """Medians and 20th and 80th percentiles in microseconds, and how many times slower peers are.

    `times` holds seconds a call, one a round; "ratio" is that of the medians, "ratio_by_round" the
    median of the ratios within each round. Where ours is missing there is no ratio.
    """
    own = times.get(OURS)
    found: dict[str, Any] = {}
    for name, values in times.items():
        low, high = spread(values)
        median = statistics.median(values)
        entry: dict[str, Any] = {
            "median_us": _microseconds(median / steps),
            "p20_us": _microseconds(low / steps),
            "p80_us": _microseconds(high / steps),
            "calls_a_round": calls[name],
        }
        if own is not None and name != OURS:
            ratios = [theirs / ours for theirs, ours in zip(values, own, strict=True)]
            entry["ratio"] = round(median / statistics.median(own), 4)
            entry["ratio_by_round"] = round(statistics.median(ratios), 4)
        found[name] = entry
    rounds = len(next(iter(times.values()), ()))
    return {"rounds": rounds, "steps_a_call": steps, "times": found}


def spread(values: Sequence[float]) -> tuple[float, float]:
    """The 20th and 80th percentile."""
    low, *_, high = statistics.quantiles(values, n=5, method="inclusive")
    return low, high


def _microseconds(seconds: float) -> float:
    return round(1e6 * seconds, 3)
