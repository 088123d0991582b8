"""The folder of a build.

settings.json    what the build was told, and a digest of what it reads
journal.jsonl    replies, verdicts and outcomes, as they come; see journal.py
train.jsonl      the data set, and
train.parquet    the same
rejected.jsonl   every instruction that is not in it, with the step and the reason
README.md        the data set's card; written last

Beside them is a hidden file that is a lock.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rnr_kernels.durable import locked, published, remove_unpublished
from rnr_kernels.identity import differences


@dataclass(frozen=True)
class BuildFolder:
    """The files of one build."""

    path: Path

    @property
    def settings(self) -> Path:
        """See the module."""
        return self.path / "settings.json"

    @property
    def journal(self) -> Path:
        return self.path / "journal.jsonl"

    @property
    def train(self) -> Path:
        return self.path / "train.jsonl"

    @property
    def table(self) -> Path:
        return self.path / "train.parquet"

    @property
    def rejected(self) -> Path:
        return self.path / "rejected.jsonl"

    @property
    def card(self) -> Path:
        return self.path / "README.md"

    @contextmanager
    def opened(self, description: Mapping[str, Any]) -> Iterator[None]:
        """Makes the folder of a build, or goes on with the one of this description, and keeps
        other processes out. ValueError for a folder with anything else, and if one is in it."""
        self._make()
        refusal = f"another process is at work in {self.path}; wait for it, or name another folder"
        with locked(self.path / ".lock", refusal):
            for each in (self.settings, self.train, self.table, self.rejected, self.card):
                remove_unpublished(each)
            if self.settings.exists():
                self._check_same(description)
            else:
                with published(self.settings) as path:
                    path.write_text(json.dumps(description, indent=1) + "\n", encoding="utf-8")
            yield

    def _make(self) -> None:
        parent = self.path.absolute().parent
        if not parent.is_dir():
            raise ValueError(f"the folder {parent} of {self.path} does not exist; make it first")
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"{self.path} is a file; name a folder")
        self.path.mkdir(exist_ok=True)
        if self.settings.exists():
            return
        for found in sorted(self.path.iterdir()):
            # Hidden ones are the lock; a kill leaves the first file half written.
            if not found.name.startswith((".", self.settings.name)):
                raise ValueError(
                    f"{self.path} holds {found.name} and no build; name another folder"
                )

    def _check_same(self, description: Mapping[str, Any]) -> None:
        try:
            found = json.loads(self.settings.read_text(encoding="utf-8"))
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise ValueError(f"{self.settings} is no description of a build; name another folder")
        if different := differences(found, dict(description)):
            raise ValueError(
                f"{self.path} holds a build that differs: {different}; go on with its settings, "
                "or name another folder"
            )
