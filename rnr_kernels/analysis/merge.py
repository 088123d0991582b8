"""Folders of a run's shards become one, as a single process would have written it."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from rnr_kernels.analysis.folder import ShiftFolder
from rnr_kernels.analysis.manifest import Manifest, differences
from rnr_kernels.analysis.run import finish
from rnr_kernels.analysis.store import ShiftStore
from rnr_kernels.durable import published


def merge_shifts(parts: Sequence[str | Path], out: str | Path) -> Manifest:
    """Copies every batch of a run from the folder that has it, into the folder `out`.

    A merge that was killed goes on. ValueError before anything is copied for folders of different
    runs, for batches that none of them has, for a broken file, and if `out` holds another run.
    """
    folders = [ShiftFolder(Path(part)) for part in parts]
    if not folders:
        raise ValueError("merging needs the folder of at least one shard")
    manifests = [Manifest.read(folder.manifest) for folder in folders]
    for folder, manifest in zip(folders[1:], manifests[1:], strict=True):
        _check_same(folders[0], manifests[0], folder, manifest)
    manifest = manifests[0]
    sources = _sources(folders, manifest)

    target = ShiftFolder(Path(out))
    target.make()
    if target.manifest.exists():
        _check_same(folders[0], manifest, target, Manifest.read(target.manifest))
    with target.locked("shard-1-of-1"):
        target.remove_leftovers(range(len(sources)))
        for path in (folders[0].skipped, folders[0].inputs, folders[0].manifest):
            _copy(path, target.path / path.name)
        for batch, source in enumerate(sources):
            if source.responses(batch).exists():
                _copy(source.responses(batch), target.responses(batch))
            for base in range(len(manifest.bases)):
                _copy(source.tokens(base, batch), target.tokens(base, batch))
    finish(ShiftStore(target, manifest))
    return manifest


def _check_same(one: ShiftFolder, first: Manifest, other: ShiftFolder, second: Manifest) -> None:
    places = f"in {one.path}", f"in {other.path}"
    if different := differences(vars(first), vars(second), places):
        raise ValueError(
            f"{one.path} and {other.path} hold different runs: {different}; run the shards with "
            "the same settings, versions and number of threads"
        )


def _sources(folders: Sequence[ShiftFolder], manifest: Manifest) -> list[ShiftFolder]:
    """A folder for each batch. ValueError that names the batches which none has."""
    found: dict[int, ShiftFolder] = {}
    for folder in folders:
        wanted = [batch for batch in range(len(manifest.batches)) if batch not in found]
        unfinished = set(ShiftStore(folder, manifest).unfinished(wanted))
        found |= {batch: folder for batch in wanted if batch not in unfinished}
    missing = [str(batch) for batch in range(len(manifest.batches)) if batch not in found]
    if missing:
        shown = ", ".join(missing[:10]) + (", ..." if len(missing) > 10 else "")
        raise ValueError(
            f"of {len(manifest.batches)} batches {len(missing)} are in none of the folders: "
            f"{shown}; name the folders of all shards, and finish those that are not"
        )
    return [found[batch] for batch in range(len(manifest.batches))]


def _copy(source: Path, target: Path) -> None:
    if target.exists():
        return
    with published(target) as temporary:
        shutil.copyfile(source, temporary)
