"""Where a run lives: beside its output until it is finished, then at its output at once.

While `OUT` is being made, everything is in `OUT.running`: the run's description, its checkpoints.
The finished model is renamed to `OUT`, so that a folder of that name is a whole model, or none.
"""

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rnr_kernels.durable import locked, sync
from rnr_kernels.identity import differences

SUFFIX = ".running"
_DESCRIPTION = "run.json"
_WHOLE = "whole"
"""Stands in a checkpoint that was written to its end."""


@dataclass(frozen=True)
class RunFolder:
    """The folders of one run."""

    out: Path

    @property
    def running(self) -> Path:
        """Where it is until it is finished."""
        return self.out.with_name(self.out.name + SUFFIX)

    @property
    def checkpoints(self) -> Path:
        """The trainer's own folder."""
        return self.running / "checkpoints"

    @property
    def model(self) -> Path:
        """What becomes `out`."""
        return self.running / "model"

    def check(self) -> None:
        """ValueError if `out` is taken, or its parent is missing."""
        if self.out.exists() and not (self.out.is_dir() and not any(self.out.iterdir())):
            raise ValueError(f"{self.out} exists: remove it, or name another folder")
        if not self.out.absolute().parent.is_dir():
            raise ValueError(
                f"the folder {self.out.absolute().parent} of {self.out} does not exist; "
                "make it first"
            )

    def begin(self, description: Mapping[str, Any]) -> None:
        """Makes the folder of a run, or finds its own; ValueError if what is there is another."""
        if self.running.exists():
            self._check_same(description)
            return
        making = self.running.with_name(self.running.name + ".new")
        shutil.rmtree(making, ignore_errors=True)
        making.mkdir()
        text = json.dumps(description, indent=1) + "\n"
        (making / _DESCRIPTION).write_text(text, encoding="utf-8")
        making.rename(self.running)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keeps other processes from the run that has begun; ValueError if one works on it."""
        refusal = f"{self.running} is a run in progress: wait for it, or name another folder"
        with locked(self.running / _DESCRIPTION, refusal):
            yield

    def _check_same(self, description: Mapping[str, Any]) -> None:
        try:
            found = json.loads((self.running / _DESCRIPTION).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            found = None
        if not isinstance(found, dict):
            raise ValueError(
                f"{self.running} is no unfinished run: remove it, or name another folder"
            )
        if different := differences(found, dict(description)):
            raise ValueError(
                f"{self.running} holds an unfinished run that differs: {different}; go on with "
                "its settings, remove it, or name another folder"
            )

    def mark_whole(self, step: int) -> None:
        """Says that the checkpoint of a step was written to its end."""
        folder = self.checkpoints / f"checkpoint-{step}"
        for path in folder.rglob("*"):
            if path.is_file():
                sync(path)
        (folder / _WHOLE).touch()
        sync(folder)

    def last_checkpoint(self) -> Path | None:
        """The newest checkpoint that is whole; others, which a kill cut short, are removed."""
        whole: dict[int, Path] = {}
        for folder in self.checkpoints.glob("checkpoint-*"):
            if (folder / _WHOLE).exists():
                whole[int(folder.name.rpartition("-")[2])] = folder
            else:
                shutil.rmtree(folder)
        return whole[max(whole)] if whole else None

    def finish(self) -> None:
        """Moves the finished model to `out` and removes the rest."""
        for path in self.model.rglob("*"):
            if path.is_file():
                sync(path)
        if self.out.is_dir():
            self.out.rmdir()  # an empty one, says `check`
        self.model.rename(self.out)
        self.abandon()

    def abandon(self) -> None:
        """Removes what an unfinished run has written."""
        # First what makes it a run: a kill between two files must not leave one to go on from.
        (self.running / _DESCRIPTION).unlink(missing_ok=True)
        shutil.rmtree(self.running, ignore_errors=True)
