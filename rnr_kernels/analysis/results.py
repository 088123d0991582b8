"""Reading a finished token-shift run."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from rnr_kernels.analysis.folder import ShiftFolder
from rnr_kernels.analysis.inputs import ShiftPrompt
from rnr_kernels.analysis.manifest import Manifest
from rnr_kernels.analysis.shards import read_prompts, read_shift
from rnr_kernels.analysis.token_shift import (
    ClassShares,
    Ints,
    TokenShift,
    class_shares,
    join_rows,
)
from rnr_kernels.durable import AGAIN


def load_manifest(out: str | Path) -> Manifest:
    """The manifest of a run. ValueError if there is none in the folder."""
    return Manifest.read(ShiftFolder(Path(out)).manifest)


def load_prompts(out: str | Path) -> list[ShiftPrompt]:
    """The prompts of a finished run with their responses, by index."""
    return sorted(read_prompts(ShiftFolder(Path(out)).prompts), key=lambda prompt: prompt.index)


def load_token_shift(out: str | Path, base: int = 0) -> TokenShift:
    """All rows of a finished run compared with one of its bases, by prompt and position.

    ValueError for a base that it does not have, and for a run that is not finished.
    """
    return join_rows(list(iterate_token_shift(out, base)))


def iterate_token_shift(out: str | Path, base: int = 0) -> Iterator[TokenShift]:
    """The same batch by batch: one is in memory."""
    folder, manifest = ShiftFolder(Path(out)), load_manifest(out)
    if not 0 <= base < len(manifest.bases):
        names = ", ".join(f"{n} ({name})" for n, name in enumerate(manifest.bases))
        raise ValueError(f"base must be one of {names}, got {base}")
    if not folder.prompts.exists():
        raise ValueError(f"the run in {out} is not finished; {AGAIN}")
    for batch in range(len(manifest.batches)):
        yield read_shift(folder.tokens(base, batch))


def stored_shares(out: str | Path, base: int = 0, *, with_eos: bool = True) -> ClassShares:
    """`TokenShift.shares` of a finished run, with one batch in memory."""
    return class_shares(stored_counts(out, base, with_eos=with_eos))


def stored_counts(out: str | Path, base: int = 0, *, with_eos: bool = True) -> Ints:
    """Tokens of each class, int64 [P, 3], of the P prompts that have any, by index."""
    left_out = () if with_eos else load_manifest(out).eos_token_ids
    counts = [shift.class_counts(left_out) for shift in iterate_token_shift(out, base)]
    prompts, of_class = (np.concatenate(column) for column in zip(*counts, strict=True))
    return np.asarray(of_class[np.argsort(prompts)])
