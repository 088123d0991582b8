"""Times on a device: graph replays between events, eager calls, and the host's share of a call.

Contenders run in turn within a round, as on the CPU (benchmarks.timing), each for about as long.
Before every timed block its `reset` runs, so that sequences keep the length of what was recorded.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Protocol
from warnings import catch_warnings, filterwarnings

import torch

from benchmarks.gpu.cases import COLD, EAGER, HOST
from benchmarks.timing import Effort, no_collection, record
from benchmarks.workloads import Call

FULL = Effort(min_rounds=20, max_rounds=20, block_s=8e-3, case_s=0.5)
QUICK = Effort(min_rounds=3, max_rounds=3, block_s=1e-3, case_s=0.1)

WARM_CALLS = 40
"""On one input in a graph: each advances the sequences by a token."""
TRIAL_CALLS = 4
HOST_CALLS = 200
SPIN_CYCLES = 1_000_000
"""The device is busy this long (some 0.5 ms) while the host launches a graph of many nodes."""


class NotCapturable(Exception):
    """Why a call cannot stand in a graph."""


class Watch(Protocol):
    """How time is read."""

    def time(self, run: Call, *, ahead: bool = True) -> float:
        """Seconds that the device takes for what a call queues; `ahead` of it, or as it comes."""

    def host_time(self, run: Call) -> float:
        """Seconds until a call returns, on an idle device."""

    def captured(self, calls: Sequence[Call]) -> Call:
        """One call that does all of these; NotCapturable where there are no graphs."""


class HostWatch:
    """For a CPU: calls are done when they return."""

    def __init__(self, clock: Callable[[], float] = perf_counter) -> None:
        self._clock = clock

    def time(self, run: Call, *, ahead: bool = True) -> float:
        return self.host_time(run)

    def host_time(self, run: Call) -> float:
        start = self._clock()
        run()
        return self._clock() - start

    def captured(self, calls: Sequence[Call]) -> Call:
        raise NotCapturable("no CUDA")


class CudaWatch:
    """For a GPU: events on the current stream."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def time(self, run: Call, *, ahead: bool = True) -> float:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        spin = getattr(torch.cuda, "_sleep", None)
        if ahead and spin is not None:
            spin(SPIN_CYCLES)
        start.record()
        run()
        end.record()
        torch.cuda.synchronize(self._device)
        return float(start.elapsed_time(end)) / 1e3

    def host_time(self, run: Call) -> float:
        torch.cuda.synchronize(self._device)
        start = perf_counter()
        run()
        return perf_counter() - start

    def captured(self, calls: Sequence[Call]) -> Call:
        stream = torch.cuda.Stream(self._device)
        stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(stream):
            for _ in range(2):
                calls[0]()
        before = torch.cuda.current_stream(self._device)
        before.wait_stream(stream)
        torch.cuda.synchronize(self._device)
        graph = torch.cuda.CUDAGraph()
        try:
            with catch_warnings(), torch.cuda.graph(graph):
                filterwarnings("error", message="The CUDA Graph is empty")
                in_turn(calls)()
        except (RuntimeError, UserWarning) as error:
            _recover(before)
            raise NotCapturable(first_line(error)) from error
        return graph.replay


def _recover(stream: torch.cuda.Stream) -> None:
    """After a capture that failed torch is left on its stream, and its generator within it."""
    torch.cuda.set_stream(stream)
    torch.cuda.synchronize(stream.device)
    fresh = torch.Generator(stream.device).graphsafe_get_state()
    torch.cuda.default_generators[stream.device.index].graphsafe_set_state(fresh)


def watch_for(device: torch.device) -> Watch:
    return CudaWatch(device) if device.type == "cuda" else HostWatch()


@dataclass(frozen=True)
class Contender:
    """What is timed under one name."""

    calls: Sequence[Call]
    """The same on one input after the other."""
    reset: Call
    """Undoes what calls write."""
    within: Callable[[], AbstractContextManager[Any]] = nullcontext
    """Where it runs: which backend serves."""
    why_not_captured: str | None = None
    """Why a graph cannot hold it, if that is known."""


@dataclass(frozen=True)
class _Block:
    """What is timed in one go."""

    run: Call
    num_calls: int
    ahead: bool
    """Whether the host may queue it before the device begins: not where its own time counts."""
    note: str | None = None


def first_line(error: BaseException) -> str:
    """What happened, in a line of a table."""
    text = str(error).strip() or type(error).__name__
    line = text.splitlines()[0]
    return line if len(line) <= 160 else f"{line[:157]}..."


def in_turn(calls: Sequence[Call]) -> Call:
    def run() -> None:
        for call in calls:
            call()

    return run


def _block(contender: Contender, how: str, watch: Watch, effort: Effort) -> _Block:
    calls = contender.calls if how in (COLD, EAGER) else [contender.calls[0]] * WARM_CALLS
    trial = calls[:TRIAL_CALLS]
    trial[0]()  # compiles, loads
    note = contender.why_not_captured if how != EAGER else None
    run = in_turn(trial)
    if how != EAGER and note is None:
        try:
            run = watch.captured(trial)
        except NotCapturable as error:
            note = str(error)
    seconds = min(watch.time(run) for _ in range(2)) / len(trial)
    count = min(len(calls), max(1, round(effort.block_s / max(seconds, 1e-9))))
    chosen = calls[:count]
    if how == EAGER or note:
        told = note and f"eager, for a graph cannot hold it: {note}"
        return _Block(in_turn(chosen), count, False, told)
    if count == len(trial):
        return _Block(run, count, True)
    del run  # and the memory of its graph
    return _Block(watch.captured(chosen), count, True)


def measure(
    contenders: Mapping[str, Contender], how: str, watch: Watch, effort: Effort
) -> dict[str, Any]:
    """A record of a results file (see benchmarks.timing.record), with "not_measured" and "notes".

    A contender that fails is left out with its reason. Times are seconds of a call on the device,
    with `how` EAGER as the device sees them when nothing waits, with HOST those of the host.
    """
    times: dict[str, list[float]] = {}
    blocks: dict[str, _Block] = {}
    failed: dict[str, str] = {}
    for name, contender in contenders.items():
        try:
            with contender.within():
                contender.reset()
                if how == HOST:
                    times[name] = _host_times(contender, watch, effort)
                else:
                    blocks[name] = _block(contender, how, watch, effort)
        except Exception as error:
            failed[name] = first_line(error)
    if blocks:
        times = dict(_rounds(contenders, blocks, watch, effort))
    calls = {name: block.num_calls for name, block in blocks.items()}
    calls |= {name: 1 for name in times if name not in calls}
    found = record(times, calls)
    if failed:
        found["not_measured"] = failed
    if notes := {name: block.note for name, block in blocks.items() if block.note}:
        found["notes"] = notes
    return found


def _host_times(contender: Contender, watch: Watch, effort: Effort) -> list[float]:
    contender.calls[0]()
    count = HOST_CALLS if effort.min_rounds > QUICK.min_rounds else 10
    with no_collection():
        return [watch.host_time(contender.calls[0]) for _ in range(count)]


def _seconds(block: _Block, watch: Watch) -> float:
    """Of a call."""
    return watch.time(block.run, ahead=block.ahead) / block.num_calls


def _rounds(
    contenders: Mapping[str, Contender],
    blocks: Mapping[str, _Block],
    watch: Watch,
    effort: Effort,
) -> Iterator[tuple[str, list[float]]]:
    times: dict[str, list[float]] = {name: [] for name in blocks}
    order = list(blocks)
    with no_collection():
        for _ in range(effort.min_rounds + 1):
            for name in order:
                with contenders[name].within():
                    contenders[name].reset()
                    times[name].append(_seconds(blocks[name], watch))
            order = order[1:] + order[:1]
    # The first round warms up.
    yield from ((name, values[1:]) for name, values in times.items())


@contextmanager
def peak_memory(device: torch.device) -> Iterator[Callable[[], int]]:
    """What a block's tensors took at the most beside those before it, in bytes; 0 on a CPU."""
    if device.type != "cuda":
        yield lambda: 0
        return
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    yield lambda: int(torch.cuda.max_memory_allocated(device) - before)
