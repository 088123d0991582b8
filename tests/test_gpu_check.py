"""What checks the kernels on a GPU finds planted mistakes on a CPU, and times with any clock."""

import os
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from clock import Clock
from torch import Tensor

from benchmarks.gpu import (
    __main__,
    accuracy,
    checks,
    graphs,
    invariance,
    machine,
    one_case,
    serving,
    shared_cases,
    subprocesses,
    toolkit,
)
from benchmarks.gpu.budget import Budget
from benchmarks.gpu.checks import Check, NotRun, run_all, run_one
from benchmarks.gpu.subprocesses import Finished
from rnr_kernels import token_stats
from rnr_kernels.backends import NATIVE, REFERENCE, Backend, native
from rnr_kernels.testing import CASES, Case

CPU = torch.device("cpu")
SMALL = Case("small", 33, 8, padding=5, dtype=torch.bfloat16, odd=True)
ROWS = Case("rows", 97, invariance.FEW_ROWS)


@pytest.fixture(params=[NATIVE, REFERENCE], ids=lambda backend: backend.name)
def backend(request: pytest.FixtureRequest) -> Backend:
    chosen: Backend = request.param
    if chosen is NATIVE and (missing := native.unavailable()):
        pytest.skip(missing)
    return chosen


def planted(**functions: Callable[..., Any]) -> Backend:
    """The reference with mistakes."""
    return Backend("planted", REFERENCE.functions | functions, REFERENCE.refuses)


# What is right passes


def test_a_right_backend_passes(backend: Backend) -> None:
    assert shared_cases.check_case(backend, SMALL, CPU).startswith("served 9 ops")
    assert shared_cases.check_out(backend, SMALL, CPU) == "8 rows"
    assert invariance.check(backend, ROWS, CPU) == "5 parts of 12 rows"
    found = accuracy.check(backend, CPU, 0, 300, torch.float32)
    assert found.startswith("log-softmax ") and "KL of base" in found


def test_seeds_change_inputs_and_give_them_again() -> None:
    (first,) = shared_cases.fresh((SMALL,), 1)
    (other,) = shared_cases.fresh((SMALL,), 2)
    assert first.dtype == other.dtype == SMALL.dtype
    token_ids = [case.build().hidden for case in (first, first, other)]
    assert torch.equal(token_ids[0], token_ids[1])
    assert not torch.equal(token_ids[0], token_ids[2])


@pytest.mark.parametrize("module", [shared_cases, graphs, accuracy, invariance])
def test_every_serving_backend_is_checked(module: Any) -> None:
    subjects = {check.subject.partition(",")[0] for check in module.checks(CPU, 0, True)}
    expected = {found.name for found in serving.serving(CPU)}
    assert subjects == (expected - {"reference"} if module is graphs else expected)


# What is wrong is found


def test_a_rank_that_is_off_by_one() -> None:
    def wrong(*arguments: Any) -> tuple[Tensor, ...]:
        rank, *others = REFERENCE.functions["token_stats"](*arguments)
        return rank + (rank > 2), *others

    with pytest.raises(AssertionError, match=r"token_stats\.rank differ in"):
        shared_cases.check_case(planted(token_stats=wrong), SMALL, CPU)


def test_a_value_that_is_not_written() -> None:
    def wrong(*arguments: Any) -> tuple[Tensor, ...]:
        *others, entropy, ids, logprobs = REFERENCE.functions["token_stats"](*arguments)
        found = torch.empty_like(entropy)
        found[:-1] = entropy[:-1]
        return *others, found, ids, logprobs

    with pytest.raises(AssertionError, match=r"token_stats\.entropy differ in 1 of .* nan, not"):
        shared_cases.check_case(planted(token_stats=wrong), SMALL, CPU)


def test_poison_goes_away_with_its_block() -> None:
    with checks.poisoned(CPU):
        assert torch.empty(3).isnan().all()
    assert not torch.are_deterministic_algorithms_enabled()


def test_a_log_z_that_is_not_written_to_out() -> None:
    def wrong(*arguments: Any) -> None:
        log_z = arguments[6].clone()
        REFERENCE.functions["rule_log_softmax_out"](*arguments)
        arguments[6].copy_(log_z)

    with pytest.raises(AssertionError, match="log_z_out differ"):
        shared_cases.check_out(planted(rule_log_softmax_out=wrong), SMALL, CPU)


def test_a_write_behind_out() -> None:
    def wrong(*arguments: Any) -> None:
        REFERENCE.functions["rule_log_softmax_out"](*arguments)
        out = arguments[5]
        out.as_strided((1,), (1,), out.shape[1])[0] = 0.0

    with pytest.raises(AssertionError, match="columns behind out were written"):
        shared_cases.check_out(planted(rule_log_softmax_out=wrong), SMALL, CPU)


def test_a_result_that_depends_on_the_batch() -> None:
    def wrong(logits: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
        result, log_z = REFERENCE.functions["rule_log_softmax"](logits, *arguments)
        return (result.nextafter(result + 1) if len(logits) == 3 else result), log_z

    wrong_backend = planted(rule_log_softmax=wrong)
    shared_cases.check_case(wrong_backend, SMALL, CPU)  # well within the tolerance
    with pytest.raises(AssertionError, match="rule_log_softmax of rows 5 to 7, alone and among"):
        invariance.check(wrong_backend, ROWS, CPU)


def test_a_state_that_depends_on_the_batch() -> None:
    def wrong(logits: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
        found: tuple[Tensor, ...] = REFERENCE.functions["sample_"](logits, *arguments)
        if len(logits) == 2:
            arguments[2][0][:, 1] += 1
        return found

    with pytest.raises(AssertionError, match=r"state\.slot_params of rows 4 to 5, alone"):
        invariance.check(planted(sample_=wrong), ROWS, CPU)


@pytest.mark.parametrize("factor", [1.001, torch.nan])
def test_an_error_that_is_too_large(factor: float) -> None:
    def wrong(*arguments: Any) -> tuple[Tensor, ...]:
        *others, kl, base_kl, same = REFERENCE.functions["shift_stats"](*arguments)
        return *others, kl, base_kl * factor, same

    with pytest.raises(AssertionError, match="the error is too large: KL of base"):
        accuracy.check(planted(shift_stats=wrong), CPU, 0, 300, torch.bfloat16)


# Graphs and streams, with a device that does nothing of the kind


@pytest.fixture
def pretended_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = SimpleNamespace(wait_stream=lambda other: None)
    for name, value in {
        "Stream": lambda device: stream,
        "current_stream": lambda device: stream,
        "stream": lambda stream: nullcontext(),
        "synchronize": lambda device: None,
        "set_sync_debug_mode": lambda mode: None,
        "CUDAGraph": lambda: SimpleNamespace(replay=lambda: None),
        "graph": lambda graph: nullcontext(),
        "device_count": lambda: 1,
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(graphs, "need_cuda", lambda device: None)


@pytest.mark.usefixtures("pretended_gpu")
def test_replays_that_do_nothing_are_found() -> None:
    with pytest.raises(AssertionError, match="tokens of replays differ"):
        graphs.check_graph(REFERENCE, ROWS, CPU)


@pytest.mark.usefixtures("pretended_gpu")
def test_streams_and_syncs_are_looked_at_for_every_op(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "STEPS", 8)
    assert graphs.check_streams(REFERENCE, ROWS, CPU) == "4 streams, 8 steps"
    assert graphs.check_no_sync(REFERENCE, ROWS, CPU).split(", ") == list(serving.OPS)
    with pytest.raises(NotRun, match="there is one GPU"):
        graphs.check_second_gpu(REFERENCE, 0, CPU)


def test_without_cuda_they_are_not_run() -> None:
    outcomes = [run_one(check) for check in graphs.checks(CPU, 0, True)]
    assert all((o.status, o.detail) == ("not run", "no CUDA") for o in outcomes)


# Checks and time


def test_whatever_a_check_raises_is_its_outcome() -> None:
    def fail(error: Exception) -> Callable[[], str]:
        def run() -> str:
            raise error

        return run

    found = [
        run_one(Check("a", "b", run))
        for run in (
            lambda: "seen",
            fail(AssertionError("rows\n  differ")),
            fail(ValueError("slot")),
            fail(NotRun("no tool")),
            fail(AssertionError("x" * 1000)),
        )
    ]
    assert [(o.status, o.detail[:20]) for o in found] == [
        ("ok", "seen"),
        ("failed", "rows differ"),
        ("failed", "ValueError('slot')"),
        ("not run", "no tool"),
        ("failed", "x" * 20),
    ]
    assert len(found[-1].detail) == checks.MAX_DETAIL


def test_checks_past_the_time_are_not_run() -> None:
    budget = Budget(2.5, Clock())
    found = list(run_all([Check("a", str(i), lambda: "") for i in range(4)], budget))
    assert [outcome.status for outcome in found] == ["ok", "ok", "not run", "not run"]
    assert found[-1].detail == "skipped: time"


def test_a_part_ends_with_the_whole() -> None:
    clock = Clock()
    whole = Budget(10.0, clock)
    assert whole.part(100.0).left() < 10.0
    assert whole.part(1.0).left() <= 1.0


# Other processes


@pytest.mark.parametrize(
    ("finished", "error", "words"),
    [
        (Finished(0, "ran\n========= ERROR SUMMARY: 0 errors"), None, "0 errors"),
        (Finished(86, "========= Invalid __global__ write of size 4"), AssertionError, "Invalid"),
        (Finished(255, "Device not supported"), NotRun, "exit status 255: Device not supported"),
        (Finished(None, ""), NotRun, "more than 120 s"),
    ],
)
def test_what_compute_sanitizer_says(
    finished: Finished,
    error: type[Exception] | None,
    words: str,
) -> None:
    with pytest.raises(error, match=words) if error else nullcontext():
        assert words in subprocesses.sanitizers_verdict(finished)


def test_compute_sanitizer_is_looked_for_where_there_is_a_gpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (first, *_) = subprocesses.start_sanitizers(CPU)
    with pytest.raises(NotRun, match="no CUDA"):
        first.run()
    monkeypatch.setattr(serving, "serving", lambda device: [NATIVE, REFERENCE])
    monkeypatch.setattr(toolkit, "program", lambda name: None)
    found = subprocesses.start_sanitizers(torch.device("cuda"))
    assert [check.name.split()[1] for check in found] == ["memcheck", "racecheck"]
    with pytest.raises(NotRun, match="compute-sanitizer is not installed"):
        found[0].run()
    commands: list[list[str]] = []

    def start(command: list[str], more: dict[str, str]) -> Any:
        commands.append(command)

    monkeypatch.setattr(toolkit, "program", lambda name: "sanitizer")
    monkeypatch.setattr(subprocesses, "start", start)
    monkeypatch.setattr(subprocesses, "finish", lambda process, seconds: Finished(0, "0 errors"))
    (check, _) = subprocesses.start_sanitizers(torch.device("cuda"))
    assert check.run() == "0 errors"
    assert commands[0][:3] == ["sanitizer", "--tool", "memcheck"]
    assert commands[0][-4:] == ["--case", subprocesses.SANITIZED_CASE, "--device", "cuda"]


def test_a_process_that_takes_too_long_is_stopped() -> None:
    found = subprocesses.run([sys.executable, "-c", "import time; time.sleep(60)"], 0.1)
    assert found.status is None


def test_a_failed_build_says_what_the_compiler_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocesses, "run", lambda *_: Finished(1, "a.cu(3): error: no such\n"))
    with pytest.raises(AssertionError, match=r"the build failed: a\.cu\(3\): error: no such"):
        subprocesses.build_kernels(1.0)
    monkeypatch.setattr(subprocesses, "run", lambda *_: Finished(None, ""))
    with pytest.raises(AssertionError, match="more than 1 s"):
        subprocesses.build_kernels(1.0)


def test_one_case_runs_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["one_case", "--backend", "reference", "--case", str(CASES[0]), "--device", "cpu"]
    monkeypatch.setattr(sys, "argv", words)
    one_case.main()
    assert capsys.readouterr().out == "reference ran v31\n"


def test_without_a_gpu_one_sentence_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: False)
    assert __main__.main([]) == 2
    said = capsys.readouterr().err
    assert said.startswith("gpu-check needs an NVIDIA GPU: this torch (")
    assert said.count("\n") == 1
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert (machine.missing() or "").startswith("torch finds no NVIDIA GPU")


def test_the_planted_backends_serve_what_is_looked_at() -> None:
    wrong = planted(token_stats=lambda *_: "planted")
    with serving.preferring(wrong), pytest.raises(TypeError):
        token_stats(torch.zeros(1, 4), torch.zeros(1, dtype=torch.int64))


def test_libraries_are_linked_where_torch_has_loaded_them() -> None:
    maps = (
        "7f00-7f01 r-xp 00000000 08:01 1    /usr/lib/x86_64-linux-gnu/libc.so.6\n"
        "7f02-7f03 r-xp 00000000 08:01 2    /a/nvidia/cu13/lib/libcudart.so.13\n"
        "7f04-7f05 r-xp 00000000 08:01 3    /b/libcuda.so.580.159.04\n"
    )
    assert toolkit.loaded_libraries(maps) == {
        "libcudart.so": "/a/nvidia/cu13/lib/libcudart.so.13",
        "libcuda.so": "/b/libcuda.so.580.159.04",
    }
    assert toolkit.loaded_libraries("") == {}


def test_what_a_compiler_needs_stands_behind_what_is_there(
    tmp_path: Path,
) -> None:
    names = ("PATH", "LIBRARY_PATH", "CPLUS_INCLUDE_PATH", "CUDA_HOME")
    with pytest.MonkeyPatch.context() as patch:
        for name in names:
            patch.setenv(name, "first")
        library = tmp_path / "libcuda.so.1"
        library.touch()
        patch.setattr(toolkit, "loaded_libraries", lambda maps: {"libcuda.so": str(library)})
        for _ in range(2):
            toolkit.show_compilers(tmp_path / "lib")
        assert os.environ["LIBRARY_PATH"] == f"first{os.pathsep}{tmp_path / 'lib'}"
        assert os.environ["PATH"].split(os.pathsep)[0] == "first"
        assert os.environ["CUDA_HOME"] == "first"
        assert (tmp_path / "lib" / "libcuda.so").resolve() == library
