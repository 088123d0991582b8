"""Token-shift runs over the workers of a Ray cluster: the bits of one process, whoever dies."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from shift_runs import contents, save_models, settings_of, write_records
from tiny_llama import save_llama
from transformers import PreTrainedTokenizerBase

from rnr_kernels.analysis.ray_engine import RayEngine
from rnr_kernels.analysis.run import ShiftProgress, run_token_shift
from rnr_kernels.analysis.settings import ShiftSettings

ROOT = Path(__file__).parent.parent
KILLED = "SHIFT_WORKER_KILLED"
"""The file that says in a worker's environment that one was killed."""


def kill_once() -> None:
    """Runs first in every worker: the first one to finish a batch of rows dies before it does."""
    replace, killed = os.replace, Path(os.environ[KILLED])

    def replace_or_die(source: Path, target: Path) -> None:
        if target.parts[-3] == "tokens" and not killed.exists():
            killed.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        replace(source, target)

    os.replace = replace_or_die  # type: ignore[assignment]


@pytest.fixture
def killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cluster of two workers, and the file that is there when one was killed."""
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")  # else Ray writes a token to the home folder
    ray: Any = pytest.importorskip("ray", reason="needs Ray: pip install 'rnr_kernels[ray]'")
    flag = tmp_path / "killed"
    environment = {"PYTHONPATH": f"{ROOT}:{Path(__file__).parent}", KILLED: str(flag)}
    hook = "test_shift_ray.kill_once"
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        runtime_env={"env_vars": environment, "worker_process_setup_hook": hook},
    )
    yield flag
    ray.shutdown()


@pytest.fixture
def settings(tiny_bpe: PreTrainedTokenizerBase, tmp_path: Path) -> ShiftSettings:
    models = save_models(tmp_path, tiny_bpe)
    return settings_of(models, write_records(tmp_path / "p.jsonl"))


def test_a_worker_that_dies_changes_nothing(
    killed: Path, settings: ShiftSettings, tiny_bpe: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    whole = run_token_shift(settings, tmp_path / "whole")
    seen: list[ShiftProgress] = []
    run = run_token_shift(settings, tmp_path / "out", engine=RayEngine(4), report=seen.append)
    assert killed.exists()
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert run.num_tokens == whole.num_tokens and run.missing == ()
    assert seen[-1] == ShiftProgress(3, 3, run.num_tokens)

    torch_threads = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with pytest.raises(ValueError, match="needs 3 CPUs, the Ray cluster has 2 on a"):
            run_token_shift(settings, tmp_path / "threads", engine=RayEngine())
    finally:
        torch.set_num_threads(torch_threads)

    # A worker's error comes through as it is.
    bad = save_llama(tmp_path / "bad", tiny_bpe)
    tensors = load_file(bad / "model.safetensors")
    tensors["model.norm.weight"][0] = float("nan")
    save_file(tensors, bad / "model.safetensors", metadata={"format": "pt"})
    message = r"^the model's logits for prompt 3 are NaN, .inf, or all -inf after 0 tokens"
    with pytest.raises(ValueError, match=message):
        run_token_shift(
            settings_of((str(bad), settings.bases[0]), tmp_path / "p.jsonl", batch_tokens=11),
            tmp_path / "nan", shard=(4, 8), engine=RayEngine(1),
        )  # fmt: skip
