"""Batches of a token-shift run over the workers of a Ray cluster."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from rnr_kernels.analysis.batches import BatchWorker
from rnr_kernels.analysis.folder import ShiftFolder
from rnr_kernels.analysis.manifest import Manifest
from rnr_kernels.analysis.run import Meter
from rnr_kernels.analysis.settings import RULES_PREFIX, ShiftSettings
from rnr_kernels.analysis.store import ShiftStore

MAX_RETRIES = 3
"""Of a worker and of a batch: one that kills its worker every time is no accident."""


@dataclass(frozen=True)
class RayEngine:
    """An engine of actors that hold the models; all of them must see the run's folder.

    A worker that dies is started again, and its batch is done again. There are at most as many as
    the cluster has room for: one a GPU, or without GPUs one for as many CPUs as the run has
    threads. A cluster that is not there yet is started on this machine.
    """

    num_workers: int | None = None

    def __call__(
        self,
        settings: ShiftSettings,
        store: ShiftStore,
        batches: Sequence[int],
        meter: Meter,
    ) -> None:
        ray = _ray()
        if not ray.is_initialized():
            ray.init(log_to_driver=False, logging_level=logging.ERROR)
        manifest = store.manifest
        on_gpus = settings.device_type == "cuda"
        resources = {"num_gpus": 1} if on_gpus else {"num_cpus": manifest.threads}
        actor = ray.remote(max_restarts=MAX_RETRIES, max_task_retries=MAX_RETRIES, **resources)(
            _Worker
        )
        # A worker without room would take that of one which is to start again, and its batch waits.
        room = _room(ray, on_gpus, manifest.threads)
        number = min(self.num_workers or room, room, len(batches))
        if on_gpus:
            settings = replace(settings, device="cuda")  # a worker sees its own alone
        settings = _everywhere(settings)
        folder = ShiftFolder(store.folder.path.absolute())
        workers = [actor.remote(settings, folder, manifest) for _ in range(number)]
        try:
            _spread(ray, workers, batches, meter)
        except ray.exceptions.RayTaskError as error:
            raise error.cause from None
        except ray.exceptions.RayActorError as error:
            raise ValueError(
                f"Ray's workers died {MAX_RETRIES + 1} times; see to their memory, or try smaller "
                "--batch-tokens; what is finished is kept"
            ) from error
        finally:
            for worker in workers:
                ray.kill(worker)


def _room(ray: Any, on_gpus: bool, threads: int) -> int:
    """For how many workers the cluster has room. ValueError for none."""
    kind = "GPU" if on_gpus else "CPU"
    nodes = [int(node["Resources"].get(kind, 0)) for node in ray.nodes() if node["Alive"]]
    found = max(nodes, default=0)  # a worker is on one machine
    room = sum(nodes) if on_gpus else sum(node // threads for node in nodes)
    if room < 1:
        needed = "1 GPU" if on_gpus else f"{threads} CPUs"
        raise ValueError(
            f"a worker needs {needed}, the Ray cluster has {found} on a machine; add one, or begin "
            "another run with a smaller OMP_NUM_THREADS or another --device"
        )
    return room


def _everywhere(settings: ShiftSettings) -> ShiftSettings:
    """The same for processes that begin in another folder."""

    def absolute(name: str) -> str:
        return str(Path(name).absolute()) if Path(name).exists() else name

    aligned = settings.aligned
    if settings.rules is not None:
        aligned = RULES_PREFIX + absolute(aligned.removeprefix(RULES_PREFIX))
    else:
        aligned = absolute(aligned)
    return replace(
        settings,
        aligned=aligned,
        bases=tuple(map(absolute, settings.bases)),
        prompts=absolute(str(settings.prompts)),
        template=absolute(settings.template),
        base_template=None if settings.base_template is None else absolute(settings.base_template),
    )


def _spread(ray: Any, workers: Sequence[Any], batches: Sequence[int], meter: Meter) -> None:
    """Each worker that is ready has a batch, and the next one when that is stored."""
    waiting, left = list(reversed(batches)), len(batches)
    running = {worker.ready.remote(): worker for worker in workers}
    while left:
        (done,), _ = ray.wait(list(running), num_returns=1)
        worker, tokens = running.pop(done), ray.get(done)
        if tokens is None:  # it has its models
            if len(waiting) == len(batches):
                meter.start()
        else:
            left -= 1
            meter.count(tokens)
            meter.finish_batch(tokens)
        if waiting:
            running[worker.run.remote(waiting.pop())] = worker


class _Worker:
    """In a process of its own: Ray runs what it calls there."""

    def __init__(self, settings: ShiftSettings, folder: ShiftFolder, manifest: Manifest) -> None:
        self._settings, self._store = settings, ShiftStore(folder, manifest)

    def ready(self) -> None:
        """Returns when the models are in memory."""
        _ = self._worker

    @cached_property
    def _worker(self) -> BatchWorker:
        # Not in __init__: what a constructor raises comes to the driver as a worker that died.
        torch.set_num_threads(self._store.manifest.threads)
        return BatchWorker(self._settings, self._store)

    def run(self, batch: int) -> int:
        """Does a batch, and returns its response tokens."""
        return self._worker.run(batch)


def _ray() -> Any:
    try:
        import ray
    except ImportError:
        raise ValueError("--engine ray needs Ray; pip install 'rnr_kernels[ray]'") from None
    return ray
