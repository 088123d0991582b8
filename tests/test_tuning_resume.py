"""Runs that were killed go on as if they had not been, in one process and in two."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tiny_llama import save_llama
from transformers import PreTrainedTokenizerBase

from rnr_kernels.tuning import train
from rnr_kernels.tuning.conversations import conversations_of, read_conversations
from rnr_kernels.tuning.monitor import Step
from rnr_kernels.tuning.settings import Lora, Settings
from rnr_kernels.tuning.train import tune

ROOT = Path(__file__).parent.parent

WORDS = ("sea", "We see", "I should go!", "What I think", "go!", "We say", "I see the sea.", "I")
RECORDS = [{"prompt": f"What {n}?", "response": word} for n, word in enumerate(WORDS)]
SETTINGS = Settings(epochs=3, learning_rate=3e-3, batch_size=2, device_batch_size=1)
"""Twelve steps, four an epoch."""

KILLED = """
import os, signal, sys
from pathlib import Path
from rnr_kernels.tuning.conversations import read_conversations
from rnr_kernels.tuning.settings import Settings
from rnr_kernels.tuning.train import tune

def kill(step, num_steps):
    if step.step == 8:
        os.kill(os.getpid(), signal.SIGKILL)

base, data, out = sys.argv[1:]
tune(
    base, read_conversations(data), Path(out), mode="instruction", device="cpu", save_every=3,
    settings=Settings(epochs=3, learning_rate=3e-3, batch_size=2, device_batch_size=1),
    on_step=kill,
)
"""


class Killed(BaseException):
    """In place of a signal, so that the test goes on."""


@pytest.fixture(scope="module")
def base(tiny_bpe: PreTrainedTokenizerBase, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_llama(tmp_path_factory.mktemp("tiny"), tiny_bpe)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("data") / "data.jsonl"
    file.write_text("".join(json.dumps(record) + "\n" for record in RECORDS))
    return file


def run(base: Path, out: Path, **names: Any) -> train.Tuned:
    return tune(
        str(base), conversations_of(RECORDS), out, mode="instruction", device="cpu", save_every=3,
        **{"settings": SETTINGS, **names},
    )  # fmt: skip


def kill_at(number: int) -> Any:
    def on_step(step: Step, num_steps: int) -> None:
        if step.step == number:
            raise Killed

    return on_step


@pytest.fixture(scope="module")
def whole(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a run that nobody interrupts writes."""
    out = tmp_path_factory.mktemp("whole") / "out"
    assert run(base, out).resumed_at == 0
    return out


def assert_same(out: Path, whole: Path) -> None:
    for name in ("model.safetensors", "training.json"):
        assert (out / name).read_bytes() == (whole / name).read_bytes(), name
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def test_a_killed_run_goes_on(base: Path, data: Path, whole: Path, tmp_path: Path) -> None:
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(base), str(data), str(tmp_path / "out")],
        cwd=ROOT, capture_output=True,
    )  # fmt: skip
    assert killed.returncode == -9, killed.stderr.decode()
    assert [path.name for path in tmp_path.iterdir()] == ["out.running"]
    assert run(base, tmp_path / "out").resumed_at == 6
    assert_same(tmp_path / "out", whole)


def test_a_run_killed_before_its_first_checkpoint(base: Path, whole: Path, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        run(base, tmp_path / "out", on_step=kill_at(2))
    assert run(base, tmp_path / "out").resumed_at == 0
    assert_same(tmp_path / "out", whole)


def test_a_run_killed_within_a_checkpoint(base: Path, whole: Path, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        run(base, tmp_path / "out", on_step=kill_at(7))
    checkpoints = tmp_path / "out.running" / "checkpoints"
    half = checkpoints / "checkpoint-9"
    half.mkdir()
    shutil.copy(checkpoints / "checkpoint-6" / "model.safetensors", half)
    (half / "trainer_state.json").write_text('{"log_')
    assert run(base, tmp_path / "out").resumed_at == 6
    assert_same(tmp_path / "out", whole)


def test_a_run_killed_before_its_model_was_written(
    base: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*args: object) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(train, "write_curve", killed)
        with pytest.raises(Killed):
            run(base, tmp_path / "out")
    assert (tmp_path / "out.running" / "model" / "model.safetensors").exists()
    assert run(base, tmp_path / "out").resumed_at == 12
    assert_same(tmp_path / "out", whole)


@pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"
)  # peft
def test_an_adapter_with_dropout_goes_on(base: Path, tmp_path: Path) -> None:
    settings = Settings(epochs=2, learning_rate=1e-2, batch_size=4, lora=Lora(rank=2, dropout=0.3))
    run(base, tmp_path / "whole", settings=settings)
    (tmp_path / "killed").mkdir()
    with pytest.raises(Killed):
        run(base, tmp_path / "killed" / "out", settings=settings, on_step=kill_at(4))
    assert run(base, tmp_path / "killed" / "out", settings=settings).resumed_at == 3
    assert_same(tmp_path / "killed" / "out", tmp_path / "whole")


def test_other_settings_do_not_go_on_with_a_run(base: Path, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        run(base, tmp_path / "out", on_step=kill_at(5))
    with pytest.raises(ValueError, match=r"settings\.epochs is 3 there and 1 here"):
        run(base, tmp_path / "out", settings=Settings(epochs=1, batch_size=2))
    with pytest.raises(ValueError, match=r"num_examples is 8 there and 7 here, digest is"):
        run_fewer = conversations_of(RECORDS[:7])
        tune(
            str(base), run_fewer, tmp_path / "out", mode="instruction", settings=SETTINGS,
            device="cpu",
        )  # fmt: skip
    assert (tmp_path / "out.running" / "checkpoints" / "checkpoint-3").is_dir()


def test_two_processes_go_on_with_a_run_of_one(
    base: Path, data: Path, whole: Path, tmp_path: Path
) -> None:
    """It stops within the second epoch: both must find that epoch's order."""
    with pytest.raises(Killed):
        tune(
            str(base), read_conversations(data), tmp_path / "out", mode="instruction",
            settings=SETTINGS, data_name=data.name, device="cpu", save_every=6,
            on_step=kill_at(7),
        )  # fmt: skip
    finished = subprocess.run(
        [
            sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
            "--no-python", sys.executable, "-c", "from rnr_kernels.cli import main; main()", "tune",
            "--model", str(base), "--mode", "instruction", "--data", str(data),
            "--out", str(tmp_path / "out"), "--epochs", "3", "--learning-rate", "3e-3",
            "--batch-size", "2", "--device-batch-size", "1", "--device", "cpu",
        ],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.startswith("went on from step 6 of an interrupted run\n8 examples, 12")
    assert finished.stdout.count("the model, its card and loss.png are in") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    logs = [json.loads((out / "training.json").read_text()) for out in (tmp_path / "out", whole)]
    found, expected = ([step["loss"] for step in log["steps"]] for log in logs)
    assert found == pytest.approx(expected, abs=1e-4)
