"""Which backend serves where several could: by figures of the same device, else by the table."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import selection
from rnr_kernels import backends, reference
from rnr_kernels.backends import NATIVE, REFERENCE, TRITON, Backend, figures, gpus, native

CUDA = torch.device("cuda", 0)
TABLE = (NATIVE, TRITON, REFERENCE)

MEASURED = {
    "NVIDIA H200": {
        "sample_": {"bfloat16": {"32000": {"native": 2e-6, "triton": 1e-6}}},
        "rule_log_softmax": {
            "float32": {
                "32000": {"native": 2e-6, "triton": 3e-6},
                "128256": {"native": 5e-6, "triton": 4e-6},
            }
        },
    }
}


@pytest.fixture(autouse=True)
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine with an H200, and what was measured on it."""
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H200")
    monkeypatch.setattr(figures, "_read", lambda: MEASURED)
    backends._serving.cache_clear()
    yield
    backends._serving.cache_clear()


def first(op: str, dtype: torch.dtype, vocab_size: int, device: torch.device = CUDA) -> str:
    return backends.in_order(TABLE, op, device, dtype, vocab_size)[0].name


def test_the_fastest_serves() -> None:
    assert first("sample_", torch.bfloat16, 32_000) == "triton"
    assert first("rule_log_softmax", torch.float32, 32_000) == "native"
    assert first("rule_log_softmax_out", torch.float32, 128_256) == "triton"


def test_the_nearest_vocabulary_size_by_ratio_decides() -> None:
    # 64,062 is the geometric mean of the two.
    assert first("rule_log_softmax", torch.float32, 64_000) == "native"
    assert first("rule_log_softmax", torch.float32, 64_100) == "triton"


def test_the_table_decides_where_nothing_was_measured() -> None:
    assert first("sample_", torch.float16, 32_000) == "native"
    assert first("token_stats", torch.bfloat16, 32_000) == "native"
    assert first("sample_", torch.bfloat16, 32_000, torch.device("meta")) == "native"


def test_one_that_refuses_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    busy = Backend("triton", TRITON.functions, lambda *call: "it is busy")
    monkeypatch.setattr(backends, "BACKENDS", (busy, REFERENCE))
    found = backends.find("sample_", CUDA, torch.bfloat16, 32_000)
    assert found is REFERENCE.functions["sample_"]


def test_every_measured_backend_and_op_exists() -> None:
    table = json.loads(figures.PATH.read_text())
    assert table["seconds"].keys() == table["measured"].keys()
    for ops in table["seconds"].values():
        for op, by_dtype in ops.items():
            assert op in reference.__all__
            for by_size in by_dtype.values():
                for times in by_size.values():
                    assert times.keys() <= {"native", "triton"}
                    assert all(seconds > 0 for seconds in times.values())


def test_the_cpus_figures_put_compiled_kernels_first(monkeypatch: pytest.MonkeyPatch) -> None:
    table = json.loads(figures.PATH.read_text())["seconds"]
    monkeypatch.setattr(figures, "_read", lambda: table)
    for op in ("sample_", "apply_rules_", "rule_log_softmax", "token_stats", "linear_shift_stats"):
        assert first(op, torch.float32, 50_000, torch.device("cpu")) == "native"


def test_figures_of_another_run_replace_a_devices(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    path.write_text('{"measured": {}, "seconds": {"cpu": {}}}')
    found: Any = {"sample_": {"float32": {"8": {"native": 1e-6}}}}
    selection.merge("NVIDIA H100", found, {"commit": "1"}, path)
    assert json.loads(path.read_text()) == {
        "measured": {"NVIDIA H100": {"commit": "1"}},
        "seconds": {"NVIDIA H100": found, "cpu": {}},
    }


# What the native backend says of GPUs


def refusal(op: str = "sample_", vocab_size: int = 32_000) -> str | None:
    return backends.refusal(NATIVE, op, CUDA, torch.float32, vocab_size)


@pytest.fixture
def with_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """A library with kernels for GPUs, and an H200."""
    monkeypatch.setattr(native, "unavailable", lambda: None)
    monkeypatch.setattr(native, "gpu_targets", lambda: ["sm_80", "sm_90a", "compute_90"])
    monkeypatch.setattr(gpus, "refusal", lambda index: None)
    monkeypatch.setattr(native, "gpu_problem", lambda index: None)


@pytest.mark.usefixtures("with_cuda")
def test_native_serves_gpus_what_it_has_kernels_for() -> None:
    assert refusal() is None
    assert refusal("linear_token_stats") == "it has linear_token_stats for CPUs alone"
    reason = "on a GPU it serves vocabularies up to 1,048,576 tokens"
    assert refusal(vocab_size=2**20) is None
    assert refusal(vocab_size=2**20 + 1) == reason


@pytest.mark.usefixtures("with_cuda")
def test_a_driver_that_is_too_old_leaves_gpus_to_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    reason = "its kernels were built with CUDA 13, and the driver serves up to CUDA 12"
    monkeypatch.setattr(native, "gpu_problem", lambda index: reason)
    assert refusal() == reason


@pytest.mark.usefixtures("with_cuda")
def test_native_says_how_to_get_kernels_for_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "gpu_targets", lambda: [])
    reason = refusal()
    assert reason is not None
    assert reason.startswith("its library was built without CUDA; with nvcc installed, RNR_CUDA=1 ")
