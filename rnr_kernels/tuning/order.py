"""The order of examples: shuffled by seed and epoch, a step's examples sorted by length."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    Base = torch.utils.data.Sampler[int]
else:
    Base = torch.utils.data.Sampler


class ShuffledSteps(Base):
    """Optimiser steps of random examples, as in the published runs; the longest of a step first.

    A step's forward passes have examples of similar length, and so little padding, while what a
    step learns from is no selection by length. The order follows from `seed` and the epoch alone: a
    resumed run goes on as it would have gone on, and a whole step has the same examples however
    many devices share it.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self._lengths = lengths
        self._batch_size = batch_size
        self._seed = seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Before each epoch."""
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._lengths)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + self._epoch)
        shuffled = torch.randperm(len(self._lengths), generator=generator).tolist()
        for first in range(0, len(shuffled), self._batch_size):
            step = shuffled[first : first + self._batch_size]
            yield from sorted(step, key=lambda index: -self._lengths[index])
