"""When Triton's kernels serve, and what is said when they do not; the kernels themselves are tested
by `make test-gpu-static`."""

import os
import warnings
from collections.abc import Iterator

import pytest
import torch

from rnr_kernels import backends, reference
from rnr_kernels.backends import REFERENCE, TRITON, gpus, triton

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture(autouse=True)
def asked_anew() -> Iterator[None]:
    caches = (triton.unavailable, gpus.refusal, backends._serving)
    for cached in (*caches, backends._warn_of_the_reference):
        cached.cache_clear()
    yield
    for cached in (*caches, backends._warn_of_the_reference):
        cached.cache_clear()


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with an H100."""
    monkeypatch.setattr(triton, "version", lambda name: "3.6.0")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: (9, 0))
    monkeypatch.setattr(torch.version, "hip", None)


def refusal(device: torch.device = CUDA, dtype: torch.dtype = torch.float32) -> str | None:
    return backends.refusal(TRITON, "sample_", device, dtype, 32_000)


def test_every_op_of_the_reference_is_there() -> None:
    assert set(TRITON.functions) == set(reference.__all__)


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("dtype", triton.DTYPES)
def test_it_serves_gpus_before_the_reference(dtype: torch.dtype) -> None:
    assert refusal(dtype=dtype) is None
    assert backends.find("sample_", CUDA, dtype, 32_000) is TRITON.functions["sample_"]
    assert refusal(dtype=torch.float64) == "it serves float32, bfloat16 and float16, not float64"
    assert backends.refusal(TRITON, "update_state_", CUDA, torch.int64, 32_000) is None


@pytest.mark.usefixtures("gpu")
def test_other_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: (7, 5))
    assert refusal() == "it serves GPUs of compute capability 8.0 or newer, not 7.5"
    gpus.refusal.cache_clear()
    monkeypatch.setattr(torch.version, "hip", "7.1")
    assert refusal() == "it serves NVIDIA GPUs, not AMD's"
    assert refusal(torch.device("meta")) == "it serves NVIDIA GPUs, not meta"


@pytest.mark.usefixtures("gpu")
def test_a_gpu_out_of_reach_is_one_warning_and_the_reference(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(index: int | None) -> tuple[int, int]:
        raise RuntimeError("no NVIDIA driver")

    monkeypatch.setattr(torch.cuda, "get_device_capability", fail)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for vocab_size in (8, 9):
            found = backends.find("sample_", CUDA, torch.float32, vocab_size)
            assert found is REFERENCE.functions["sample_"]
    assert [str(warning.message) for warning in caught] == [
        "rnr_kernels runs on its slow reference, because torch does not reach the GPU: "
        "no NVIDIA driver"
    ]


@pytest.mark.usefixtures("gpu")
def test_a_missing_or_old_triton_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton, "version", lambda name: "3.5.1")
    assert refusal() == "it needs Triton 3.6 or newer, not 3.5.1"
    triton.unavailable.cache_clear()

    def missing(name: str) -> str:
        raise triton.PackageNotFoundError(name)

    monkeypatch.setattr(triton, "version", missing)
    assert refusal() == "Triton is missing; pip install 'triton>=3.6'"


@pytest.mark.skipif(
    "TRITON_INTERPRET" in os.environ, reason="the interpreter is on, and serves the CPU"
)
def test_cpus_are_left_to_others() -> None:
    reason = "it serves NVIDIA GPUs, and CPUs only in Triton's interpreter (TRITON_INTERPRET=1)"
    assert refusal(CPU) == reason
    with backends.use("triton"), pytest.raises(ValueError, match="serves NVIDIA GPUs, and CPUs"):
        backends.find("sample_", CPU, torch.float32, 8)
