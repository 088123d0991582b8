"""Runs of token shift: long ones are stored batch by batch, and go on where they were killed."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import torch

from rnr_kernels.analysis.batches import BatchWorker
from rnr_kernels.analysis.folder import ShiftFolder
from rnr_kernels.analysis.inputs import ShiftPrompt
from rnr_kernels.analysis.manifest import Manifest
from rnr_kernels.analysis.planning import begin
from rnr_kernels.analysis.settings import ShiftSettings
from rnr_kernels.analysis.shards import check_rows, write_prompts
from rnr_kernels.analysis.store import ShiftStore


@dataclass(frozen=True)
class ShiftProgress:
    """How far a process is with what it has to do."""

    num_batches: int
    """Without those that were stored before."""
    done_batches: int
    num_tokens: int
    """Response tokens decoded and, with each base, compared."""


Report: TypeAlias = Callable[[ShiftProgress], None]


@dataclass
class Meter:
    """Counts what an engine does."""

    num_batches: int
    report: Report
    done_batches: int = 0
    num_tokens: int = 0
    stored_tokens: int = 0
    """Response tokens of the batches that are done."""
    _began: float = field(default_factory=time.monotonic)

    def start(self) -> None:
        """The models are in memory: the clock starts."""
        self._began = time.monotonic()
        self.count(0)

    def count(self, tokens: int) -> None:
        """Tokens were decoded or compared."""
        self.num_tokens += tokens
        self.report(ShiftProgress(self.num_batches, self.done_batches, self.num_tokens))

    def finish_batch(self, tokens: int) -> None:
        """A batch is stored, with so many response tokens."""
        self.done_batches += 1
        self.stored_tokens += tokens
        self.count(0)

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self._began


Engine: TypeAlias = Callable[[ShiftSettings, ShiftStore, Sequence[int], Meter], None]
"""Does batches of a run, in any order."""


@dataclass(frozen=True)
class ShiftRun:
    """What a run did."""

    out: Path
    manifest: Manifest
    num_tokens: int
    """Response tokens of the batches that this process stored."""
    seconds: float
    """It took for them, with the models in memory."""
    missing: tuple[int, ...]
    """Batches that are for other shards to do; with none the folder is whole."""


def run_token_shift(
    settings: ShiftSettings,
    out: str | Path,
    *,
    shard: tuple[int, int] = (1, 1),
    engine: Engine | None = None,
    report: Report = lambda progress: None,
) -> ShiftRun:
    """Compares an aligned side with its bases at every response token, and stores it in `out`.

    A run that was killed goes on with the same settings, and ends with the same files bit for bit.
    `shard` (i, n) does every n-th batch from the i-th on, 1 to n; shards share a folder, or have
    one each that `merge_shifts` joins. Without an `engine` the batches are done here one by one.
    ValueError before any work for settings that cannot be (see `begin`), for another run's folder
    and for broken files; later for logits that are no numbers. OSError for a full disk.
    """
    number, count = shard
    if not 1 <= number <= count:
        raise ValueError(f"a shard i/n has 1 <= i <= n, got {number}/{count}")
    folder = ShiftFolder(Path(out))
    store = begin(settings, folder)
    manifest = store.manifest
    own = range(number - 1, len(manifest.batches), count)
    with folder.locked(f"shard-{number}-of-{count}"), _threads(manifest.threads):
        folder.remove_leftovers(own)
        todo = store.unfinished(own)
        meter = Meter(len(todo), report)
        if todo:
            (engine or one_by_one)(settings, store, todo, meter)
        seconds = meter.seconds
        folder.remove_leftovers(todo)  # of workers that died meanwhile
    missing = finish(store)
    return ShiftRun(folder.path, manifest, meter.stored_tokens, seconds, missing)


def one_by_one(
    settings: ShiftSettings,
    store: ShiftStore,
    batches: Sequence[int],
    meter: Meter,
) -> None:
    """The engine of a single process."""
    worker = BatchWorker(settings, store)
    meter.start()
    for batch in batches:
        meter.finish_batch(worker.run(batch, meter.count))


def finish(store: ShiftStore) -> tuple[int, ...]:
    """The batches that are missing; writes the file of all prompts if there are none.

    ValueError for a file that is broken.
    """
    folder, missing = store.folder, tuple(store.unfinished())
    if not missing:
        with folder.locked("plan", wait=True):
            if folder.prompts.exists():
                check_rows(folder.prompts, store.manifest.num_prompts)
            else:
                write_prompts(folder.prompts, _all_prompts(store))
    return missing


def _all_prompts(store: ShiftStore) -> Iterator[list[ShiftPrompt]]:
    for batch in range(len(store.manifest.batches)):
        prompts = store.prompts(batch)
        assert prompts is not None  # none is missing
        yield prompts


@contextmanager
def _threads(number: int) -> Iterator[None]:
    """Sums depend on the number of threads, so a run keeps those that it was begun with."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
