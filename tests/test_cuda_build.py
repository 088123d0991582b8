"""When the library gets kernels for GPUs, with a compiler for CUDA that only notes how it was
called; `make test-gpu-static` builds them in earnest."""

from pathlib import Path

import pytest
import torch
from test_native_build import COMPILER, build, calls, needs_ninja, source

__all__ = ["source"]  # a fixture

NVCC = COMPILER.replace(
    "#!/bin/sh\n",
    """#!/bin/sh
if [ "$1" = --dryrun ]; then
  echo '#$ LIBRARIES=  "-L/cuda/lib"' >&2
  exit 0
fi
""",
)


@pytest.fixture
def cuda_home(tmp_path: Path) -> Path:
    folder = tmp_path / "cuda"
    (folder / "bin").mkdir(parents=True)
    nvcc = folder / "bin" / "nvcc"
    nvcc.write_text(NVCC.replace('$(dirname "$0")/calls', f"{tmp_path}/calls"))
    nvcc.chmod(0o755)
    return folder


@needs_ninja
def test_kernels_for_gpus_are_compiled_where_they_are_asked_for(
    source: Path, cuda_home: Path
) -> None:
    built = build(source, CUDA_HOME=str(cuda_home), RNR_CUDA="1")
    assert built.returncode == 0, built.stderr
    noted = calls(source)
    cuda = [call for call in noted if "csrc/cuda/" in call and ".cu " in call]
    assert len(cuda) == len(list((source / "csrc" / "cuda").glob("*.cu")))
    for call in cuda:
        assert "--fmad=false" in call
        for target in ("sm_80", "sm_90a", "compute_90"):
            assert f"code={target}" in call
    (link,) = (call for call in noted if "-shared" in call)
    assert "-L/cuda/lib -lcudart_static -ldl -lrt -lpthread" in link
    binding = next(call for call in noted if "csrc/binding.cpp" in call)
    assert "-DRNR_CUDA -DRNR_GPU_TARGETS=sm_80,sm_90a,compute_90" in binding


@needs_ninja
def test_torch_decides_where_nothing_is_asked_for(source: Path, cuda_home: Path) -> None:
    built = build(source, CUDA_HOME=str(cuda_home))
    assert built.returncode == 0, built.stderr
    assert any(".cu " in call for call in calls(source)) is (torch.version.cuda is not None)
    left_out = build(source, CUDA_HOME=str(cuda_home), RNR_CUDA="0")
    assert left_out.returncode == 0, left_out.stderr
    assert not any(".cu " in call for call in calls(source))


def test_bad_wishes(source: Path) -> None:
    odd = build(source, RNR_CUDA="yes")
    assert odd.returncode == 1
    assert odd.stderr.strip() == ("error: RNR_CUDA must be 0 (leave out) or 1 (insist), got 'yes'")
