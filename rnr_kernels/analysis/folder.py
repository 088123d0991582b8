"""The folder of a token-shift run: the names in it, writing to them, and who is at work in it.

manifest.json               settings, digests, batches; written last of what is planned
skipped.jsonl               records that are left out, and why
inputs.parquet              the prompts' tokens, and responses that were given; a row group a
                            batch
responses/BATCH.parquet     responses that were decoded
tokens/BASE/BATCH.parquet   the rows of a TokenShift
prompts.parquet             all prompts with their responses, in the order of the batches; when all
                            of these are there

Beside them are hidden files that are locks.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rnr_kernels.durable import TEMPORARY, locked


@dataclass(frozen=True)
class ShiftFolder:
    """The files of one run."""

    path: Path

    @property
    def manifest(self) -> Path:
        """What the run is; see Manifest."""
        return self.path / "manifest.json"

    @property
    def skipped(self) -> Path:
        """One JSON object a record that is left out: line, index, reason."""
        return self.path / "skipped.jsonl"

    @property
    def inputs(self) -> Path:
        """The prompts as they were planned."""
        return self.path / "inputs.parquet"

    @property
    def prompts(self) -> Path:
        """The prompts with their responses."""
        return self.path / "prompts.parquet"

    def responses(self, batch: int) -> Path:
        """Of the prompts of a batch that came without one."""
        return self.path / "responses" / f"{batch:06d}.parquet"

    def tokens(self, base: int, batch: int) -> Path:
        """The rows of a batch, compared with a base."""
        return self.path / "tokens" / str(base) / f"{batch:06d}.parquet"

    def make(self) -> None:
        """Makes the folder, or finds one that is empty or a run's; ValueError for another."""
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"{self.path} is a file; name a folder")
        if not self.path.absolute().parent.is_dir():
            raise ValueError(
                f"the folder {self.path.absolute().parent} of {self.path} does not exist; make it "
                "first"
            )
        self.path.mkdir(exist_ok=True)
        if self.manifest.exists():
            return
        # What is hidden are locks, what is known a plan that was not finished.
        known = {"", "inputs", "manifest", "skipped"}
        for found in sorted(self.path.iterdir()):
            if found.name.partition(".")[0] not in known:
                raise ValueError(
                    f"{self.path} holds {found.name} and no run of token-shift; name another folder"
                )

    def remove_leftovers(self, batches: Iterable[int]) -> None:
        """Removes what a killed process has left half written of some batches."""
        own = {f"{batch:06d}" for batch in batches}
        for path in (*self.path.glob(f"*/*{TEMPORARY}"), *self.path.glob(f"tokens/*/*{TEMPORARY}")):
            if path.name.partition(".")[0] in own:
                path.unlink(missing_ok=True)

    @contextmanager
    def locked(self, name: str, *, wait: bool = False) -> Iterator[None]:
        """Keeps other processes out of what `name` stands for; a killed one leaves nothing locked.

        ValueError if another is at work and this one is not to `wait`.
        """
        refusal = (
            f"another process is at work in {self.path}; wait for it, or name another folder or "
            "--shard"
        )
        with locked(self.path / f".{name}.lock", refusal, wait=wait):
            yield
