"""What a running generation or training shows: a progress bar, or the text as it comes."""

import sys
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from rnr_kernels.analysis.run import ShiftProgress
from rnr_kernels.generation import Completion, response_text
from rnr_kernels.tuning.monitor import Step

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def counting_progress(what: str) -> Progress:
    """A bar on stderr over things of one kind, for a task; none where stderr is no terminal."""
    console = Console(stderr=True)
    return Progress(
        TextColumn(what),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


class _Bar:
    """Shows `_progress` while it is entered."""

    _progress: Progress

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()


class GenerationProgress(_Bar):
    """A bar over prompts with tokens per second and the time left, on stderr."""

    def __init__(self, total: int) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[speed]}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._task = self._progress.add_task("", total=total, speed="")
        self._tokens = 0

    def describe(self, text: str) -> None:
        """Names what runs now."""
        self._progress.update(self._task, description=escape(text))

    def on_step(self, batch: Sequence[Completion]) -> None:
        """Counts the tokens of one step."""
        longest = max(len(completion.token_ids) for completion in batch)
        self._tokens += sum(len(completion.token_ids) == longest for completion in batch)
        elapsed = self._progress.tasks[0].elapsed or 0.0
        speed = f"{self._tokens / elapsed:,.0f} tokens/s" if elapsed > 0 else ""
        self._progress.update(self._task, speed=speed)

    def finish_one(self) -> None:
        """One more response is done."""
        self._progress.advance(self._task)


class ShiftBar(_Bar):
    """A bar over the batches of a token-shift run, with tokens per second and the time left."""

    def __init__(self) -> None:
        console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("batches"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[speed]}"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task("", total=None, speed="", start=False)

    def show(self, progress: ShiftProgress) -> None:
        """The clock starts with the first call: the models are in memory then."""
        task = self._progress.tasks[0]
        if not task.started:
            self._progress.start_task(self._task)
        elapsed = task.elapsed or 0.0
        speed = f"{progress.num_tokens / elapsed:,.0f} tokens/s" if elapsed > 0 else ""
        self._progress.update(
            self._task, completed=progress.done_batches, total=progress.num_batches, speed=speed
        )


class TrainingProgress:
    """A bar over optimiser steps with the loss and the time left, on stderr."""

    def __init__(self) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[loss]}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._task = self._progress.add_task("tuning", total=None, loss="")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._progress.live.is_started:
            self._progress.stop()

    def on_step(self, step: Step, num_steps: int) -> None:
        """One more step is done; shows the bar from the first on, and so in one process only."""
        self._progress.start()
        self._progress.update(
            self._task, completed=step.step, total=num_steps, loss=f"loss {step.loss:.3f}"
        )


class TextStream:
    """Prints one response to stdout as its tokens come; half of a character waits for the rest,
    and so does what may become a stop string."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", stop: Sequence[str]) -> None:
        self._tokenizer = tokenizer
        self._stop = stop
        self._printed = 0

    def on_step(self, batch: Sequence[Completion]) -> None:
        """Prints what is new."""
        (completion,) = batch
        text = completion.text
        if completion.finish_reason is None:
            text = response_text(self._tokenizer, completion.token_ids).rstrip(REPLACEMENT)
            text = text[: len(text) - self._held_back(text)]
        sys.stdout.write(text[self._printed :])
        sys.stdout.flush()
        self._printed = max(self._printed, len(text))

    def _held_back(self, text: str) -> int:
        """Characters at the end of `text` with which a stop string begins."""
        lengths = [n for stop in self._stop for n in range(1, len(stop)) if text.endswith(stop[:n])]
        return max(lengths, default=0)
