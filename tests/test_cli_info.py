"""`rnr-kernels info`: versions, who serves what, and why."""

from collections.abc import Callable

import pytest
import torch

import rnr_kernels
from rnr_kernels import backends, cli
from rnr_kernels.backends import NATIVE, REFERENCE, Backend, gpus, native

Info = Callable[[], str]


@pytest.fixture
def info(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Info:
    """What the command prints on a machine without CUDA, line by line without trailing blanks."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(backends, "default_name", lambda: None)

    def call() -> str:
        monkeypatch.setenv("COLUMNS", "200")
        monkeypatch.setattr("sys.argv", ["rnr-kernels", "info"])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        assert not stopped.value.code
        return "\n".join(line.rstrip() for line in capsys.readouterr().out.splitlines())

    return call


def calls_itself(name: str, ops: list[str], reason: str | None) -> Backend:
    functions = {op: REFERENCE.functions[op] for op in ops}
    return Backend(name, functions, lambda op, device, dtype, vocab_size: reason)


def test_versions_threads_and_backends_are_shown(info: Info) -> None:
    printed = info()
    for name, value in (
        ("rnr_kernels", rnr_kernels.__version__),
        ("torch", torch.__version__),
        ("threads", str(torch.get_num_threads())),
        ("backends", "native, triton, reference"),
    ):
        assert any(line.split(None, 1) == [name, value] for line in printed.splitlines()), name


def test_the_instruction_set_is_shown(info: Info, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "instruction_sets", lambda: ["avx2", "portable"])
    assert "kernels for avx2 (also compiled: portable)" in info()
    monkeypatch.setattr(native, "instruction_sets", lambda: [])
    assert "no compiled kernels" in info()


def test_each_op_stands_beside_who_serves_it_and_why(
    info: Info, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = calls_itself("first", ["sample_"], None)
    second = calls_itself("second", ["sample_", "token_stats"], "not today")
    monkeypatch.setattr(backends, "BACKENDS", (first, second, REFERENCE))
    rows = [line.split(maxsplit=2) for line in info().split("\n\n")[1].splitlines()]
    assert ["sample_", "first", "it is the first that can"] in rows
    assert [
        "token_stats",
        "reference",
        "first does not: it has no token_stats; second does not: not today",
    ] in rows
    # The ops that are served alike share a row.
    assert ["linear_shift_stats"] not in rows and ["shift_stats"] not in rows


def test_missing_kernels_say_what_to_do(info: Info, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "unavailable", lambda: "the kernels are missing; build them")
    printed = " ".join(info().split())
    assert "apply_rules_ reference native does not: the kernels are missing; build them" in printed


def test_the_choice_of_the_environment_is_shown(
    info: Info, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backends, "default_name", lambda: "reference")
    printed = " ".join(info().split())
    assert "RNR_BACKEND reference: it alone serves" in printed
    assert "apply_rules_ reference RNR_BACKEND chooses it" in printed
    monkeypatch.setattr(backends, "BACKENDS", (NATIVE, REFERENCE))
    monkeypatch.setattr(backends, "default_name", lambda: "native")
    monkeypatch.setattr(native, "unavailable", lambda: "they are missing")
    assert "apply_rules_ none native does not: they are missing" in " ".join(info().split())


def test_a_gpu_has_a_table_of_its_own(info: Info, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    monkeypatch.setattr(native, "unavailable", lambda: "they are missing")
    gpus.refusal.cache_clear()
    printed = " ".join(info().split())
    gpus.refusal.cache_clear()
    assert "on cuda served by because" in printed
    assert (
        "apply_rules_ reference native does not: they are missing; triton does not: it serves GPUs "
        "of compute capability 8.0 or newer, not 7.5"
    ) in printed
