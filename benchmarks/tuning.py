"""Tuning beside a bare transformers.Trainer on one thread: python -m benchmarks.tuning

Both train the embedded model with the same arguments on the same examples in the same order, in
turn. Loading, encoding and writing the result are not timed; checkpoints are.
"""

import argparse
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from benchmarks import results
from rnr_kernels.loading import EMBEDDED, load_model, load_tokenizer
from rnr_kernels.models.instructions import write_all
from rnr_kernels.tuning.conversations import Conversation, read_conversations
from rnr_kernels.tuning.datasets import encode_all
from rnr_kernels.tuning.order import ShuffledSteps
from rnr_kernels.tuning.run_folder import RunFolder
from rnr_kernels.tuning.settings import Settings
from rnr_kernels.tuning.train import training_arguments, tune

MODE = "instruction"
SETTINGS = Settings(epochs=2, learning_rate=3e-4, batch_size=8, device_batch_size=8)
NUM_RECORDS = 800
"""200 steps of whole batches."""
SHARE = 0.95
"""Of the bare trainer's speed, at least."""


@dataclass(frozen=True)
class Run:
    """One run: when each step ended, and its loss."""

    ends: list[float]
    losses: list[float]

    @property
    def speed(self) -> float:
        """Examples a second from the first step's end to the last one's."""
        return SETTINGS.batch_size * (len(self.ends) - 1) / (self.ends[-1] - self.ends[0])


def ours(conversations: Sequence[Conversation], folder: Path) -> Run:
    """The package's own."""
    ends: list[float] = []
    tuned = tune(
        EMBEDDED,
        conversations,
        folder / "out",
        mode=MODE,
        settings=SETTINGS,
        device="cpu",
        on_step=lambda step, num_steps: ends.append(perf_counter()),
    )
    return Run(ends, [step.loss for step in tuned.steps])


def bare(conversations: Sequence[Conversation], folder: Path) -> Run:
    """A trainer with transformers' own collator."""
    from transformers import DataCollatorForSeq2Seq, PrinterCallback, Trainer, TrainerCallback

    tokenizer = load_tokenizer(EMBEDDED)
    examples, _ = encode_all(conversations, tokenizer, mode=MODE, max_length=SETTINGS.max_length)
    records = [{"input_ids": list(e.token_ids), "labels": e.labels()} for e in examples]
    lengths = [len(example.token_ids) for example in examples]
    ends: list[float] = []
    losses: list[float] = []

    class Clock(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if "loss" in kwargs["logs"]:
                ends.append(perf_counter())
                losses.append(kwargs["logs"]["loss"])

    class SameOrder(Trainer):
        def _get_train_sampler(self, train_dataset: Any = None) -> ShuffledSteps:
            return ShuffledSteps(lengths, SETTINGS.batch_size, SETTINGS.seed)

    trainer = SameOrder(
        model=load_model(EMBEDDED, device="cpu", dtype="float32"),
        args=training_arguments(RunFolder(folder / "out"), SETTINGS, None, "cpu"),
        train_dataset=records,
        data_collator=DataCollatorForSeq2Seq(tokenizer),
        callbacks=[Clock()],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return Run(ends, losses)


def main() -> None:
    """Prints medians over alternating runs; fails where the two do not train alike, or as fast."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    contenders = {"tune": ours, "bare Trainer": bare}
    about = results.header()
    print(f"{results.machine(about)}, 1 thread, float32, {SETTINGS.batch_size} examples a step")
    runs: dict[str, list[Run]] = {name: [] for name in contenders}
    with tempfile.TemporaryDirectory() as temporary:
        files = write_all(Path(temporary) / "data")
        conversations = read_conversations(files["instructions"])[:NUM_RECORDS]
        for run in range(arguments.runs):
            names = list(contenders) if run % 2 == 0 else list(contenders)[::-1]
            for name in names:
                folder = Path(temporary) / f"{run}-{name}"
                folder.mkdir()
                runs[name].append(contenders[name](conversations, folder))
    for mine, theirs in zip(*runs.values(), strict=True):
        # Padding on the other side adds in another order, and steps carry that on.
        torch.testing.assert_close(mine.losses, theirs.losses, rtol=2e-3, atol=1e-4)
    speeds = {name: [run.speed for run in found] for name, found in runs.items()}
    for name, found in speeds.items():
        each = ", ".join(f"{speed:.1f}" for speed in found)
        print(f"{name:12} {statistics.median(found):7.1f} examples/s ({each})")
    ratio = statistics.median(a / b for a, b in zip(*speeds.values(), strict=True))
    print(f"tune / bare Trainer, median by round: {ratio:.3f}, at least {SHARE} required")
    if ratio < SHARE:
        sys.exit(1)


if __name__ == "__main__":
    main()
