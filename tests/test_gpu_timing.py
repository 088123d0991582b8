"""How times are taken on a GPU, with clocks and devices that only pretend."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from clock import Clock

from benchmarks.cases import OURS
from benchmarks.gpu import timing
from benchmarks.gpu.cases import COLD, EAGER, HOST, WARM
from benchmarks.gpu.timing import Contender, CudaWatch, HostWatch, NotCapturable, measure
from benchmarks.timing import Effort

CPU = torch.device("cpu")


EFFORT = Effort(min_rounds=4, max_rounds=4, block_s=3.0, case_s=1.0)


class FakeWatch(HostWatch):
    """A graph is the calls themselves."""

    def captured(self, calls: Sequence[Callable[[], Any]]) -> Callable[[], Any]:
        self.sizes = [*getattr(self, "sizes", []), len(calls)]
        return timing.in_turn(calls)


def test_contenders_take_turns_on_one_input_after_the_other() -> None:
    seen: list[str] = []

    def contender(name: str) -> Contender:
        calls = [lambda i=i: seen.append(f"{name}{i}") for i in range(6)]  # type: ignore[misc]
        return Contender(calls, lambda: seen.append(f"reset {name}"))

    watch = FakeWatch(Clock())
    found = measure({OURS: contender("a"), "peer": contender("b")}, COLD, watch, EFFORT)
    # A trial of four calls took a second, so six fill less than the three of a block.
    assert watch.sizes == [4, 6, 4, 6]
    once = [["reset a", *(f"a{i}" for i in range(6))], ["reset b", *(f"b{i}" for i in range(6))]]
    assert seen[-28:] == [*once[1], *once[0], *once[0], *once[1]]
    assert found["rounds"] == 4
    assert found["times"][OURS] == {
        "median_us": 166_666.667, "p20_us": 166_666.667, "p80_us": 166_666.667, "calls_a_round": 6
    }  # fmt: skip
    assert found["times"]["peer"]["ratio"] == 1.0


def test_a_warm_graph_has_one_input() -> None:
    seen: list[int] = []
    calls = [lambda i=i: seen.append(i) for i in range(9)]  # type: ignore[misc]
    found = measure({OURS: Contender(calls, lambda: None)}, WARM, FakeWatch(Clock()), EFFORT)
    assert set(seen) == {0}
    # A second's trial of four: twelve fill three seconds.
    assert found["times"][OURS]["calls_a_round"] == 12


def test_what_fails_is_not_measured_and_what_no_graph_holds_is_timed_without() -> None:
    def fail() -> None:
        raise RuntimeError("no such kernel\ntraceback")

    fine = Contender([lambda: None], lambda: None)
    contenders = {
        OURS: fine,
        "missing": Contender([fail], lambda: None),
        "waits": Contender([lambda: None], lambda: None, why_not_captured="it waits"),
    }
    found = measure(contenders, COLD, FakeWatch(Clock()), EFFORT)
    assert found["not_measured"] == {"missing": "no such kernel"}
    assert found["notes"] == {"waits": "eager, for a graph cannot hold it: it waits"}
    assert list(found["times"]) == [OURS, "waits"]
    found = measure({OURS: fine}, COLD, HostWatch(Clock()), EFFORT)
    assert found["notes"][OURS].endswith("no CUDA")
    assert "notes" not in measure({OURS: fine}, EAGER, HostWatch(Clock()), EFFORT)
    only_peers = measure({"peer": fine}, EAGER, HostWatch(Clock()), EFFORT)
    assert "ratio" not in only_peers["times"]["peer"]
    assert measure({"missing": contenders["missing"]}, COLD, FakeWatch(), EFFORT)["times"] == {}


def test_host_time_is_of_single_calls_within_the_backend() -> None:
    seen: list[str] = []

    @contextmanager
    def within() -> Iterator[None]:
        seen.append("in")
        yield
        seen.append("out")

    contender = Contender([lambda: seen.append("call")], lambda: None, within)
    found = measure({OURS: contender}, HOST, HostWatch(Clock()), timing.QUICK)
    assert found["rounds"] == 10
    assert seen == ["in", *["call"] * 11, "out"]
    assert found["times"][OURS]["median_us"] == 1e6


def test_events_are_read_in_milliseconds(monkeypatch: pytest.MonkeyPatch) -> None:
    event = SimpleNamespace(record=lambda: None, elapsed_time=lambda end: 2.5)
    monkeypatch.setattr(torch.cuda, "Event", lambda enable_timing: event)
    spun: list[int] = []
    monkeypatch.setattr(torch.cuda, "_sleep", spun.append)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    assert CudaWatch(CPU).time(lambda: None) == 0.0025
    assert spun == [timing.SPIN_CYCLES]
    assert CudaWatch(CPU).time(lambda: None, ahead=False) == 0.0025
    assert len(spun) == 1


def test_a_capture_that_fails_leaves_its_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    before = SimpleNamespace(wait_stream=lambda other: None)
    for name, value in {
        "Stream": lambda device: before,
        "current_stream": lambda device: before,
        "stream": lambda stream: nullcontext(),
        "synchronize": lambda device: None,
        "CUDAGraph": lambda: SimpleNamespace(replay=lambda: None),
        "graph": lambda graph: nullcontext(),
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    recovered: list[Any] = []
    monkeypatch.setattr(timing, "_recover", recovered.append)
    calls: list[int] = []

    def fail() -> None:
        calls.append(1)
        if len(calls) > 2:
            raise RuntimeError("operation not permitted when stream is capturing")

    with pytest.raises(NotCapturable, match="not permitted"):
        CudaWatch(CPU).captured([fail])
    assert recovered == [before]
    CudaWatch(CPU).captured([lambda: None])()
