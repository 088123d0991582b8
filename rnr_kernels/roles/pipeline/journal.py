"""What a build has been told so far, one line each: replies, verdicts, outcomes.

An example is a function of its source, the settings and the replies it got. A build that goes on
gives each example the replies that are in the journal, and asks for what is not.

A line stands when `add_` returns, which a kill of the process does not undo; a thread sees to it
that a second later it is on the disk.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from threading import Event, Thread
from types import TracebackType
from typing import Any, Self

from rnr_kernels.roles.pipeline.asks import STEPS, Reply
from rnr_kernels.roles.pipeline.outcome import Outcome
from rnr_kernels.roles.pipeline.typed import made
from rnr_kernels.roles.verdict import Verdict

SYNC_EVERY = 1.0
"""Seconds."""

Heard = Reply | Verdict

_DEFAULTS = {each.name: each.default for each in fields(Reply)}


@dataclass
class Usage:
    """What a build has cost, with all that it went on from."""

    replies: int = 0
    """Those without words, of requests that failed at all tries, among them."""
    lost: int = 0
    """Those alone."""
    num_read: int = 0
    """Tokens, of generators that count them."""
    num_written: int = 0
    failures: int = 0
    """Requests that failed before the one that was answered."""
    verdicts: int = 0
    """Of a judge that is no generator."""

    def count(self, heard: Heard) -> None:
        """One more."""
        if isinstance(heard, Verdict):
            self.verdicts += 1
            return
        self.replies += 1
        self.lost += bool(heard.problem)
        self.num_read += heard.num_read
        self.num_written += heard.num_written
        self.failures += heard.failures


class Journal:
    """The journal at `path`, made where there is none.

    What a kill has cut off at its end is removed. ValueError for a line before that which is none
    of a journal's.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.usage = Usage()
        self._heard: dict[int, list[tuple[str, Heard]]] = {}
        self._places: dict[int, tuple[int, int]] = {}
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        self._size = self._read()
        self._is_dirty = Event()
        self._is_closed = Event()
        self._syncing = Thread(target=self._sync, name="journal", daemon=True)
        self._syncing.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._is_closed.set()
        self._syncing.join()
        os.fsync(self._file)
        os.close(self._file)

    @property
    def finished(self) -> list[int]:
        """The examples whose outcome is known, in ascending order."""
        return sorted(self._places)

    def heard(self, index: int) -> list[tuple[str, Heard]]:
        """What an unfinished example has been told, with the step, in its order."""
        return self._heard.get(index, [])

    def add_heard(self, index: int, step: str, heard: Heard) -> None:
        """One more thing that an example is told."""
        self._add({"example": index, "step": step, **_heard_record(heard)})
        self.usage.count(heard)

    def add_outcome(self, outcome: Outcome) -> None:
        """The end of an example."""
        start = self._size
        self._add({"example": outcome.index, "outcome": outcome.as_record()})
        self._places[outcome.index] = start, self._size - start
        self._heard.pop(outcome.index, None)

    def forget(self, index: int) -> None:
        """Takes back what an example has been told, and its outcome, so that it asks anew."""
        self._add({"example": index, "forgotten": True})
        self._drop(index)

    def outcome(self, index: int) -> Outcome:
        """Of an example that is finished."""
        start, size = self._places[index]
        return Outcome.from_record(json.loads(os.pread(self._file, size, start))["outcome"])

    def _add(self, record: Mapping[str, Any]) -> None:
        text = json.dumps(record, ensure_ascii=False, separators=(",", ":"))
        line = text.encode(errors="replace") + b"\n"  # a judge of one's own may say anything
        rest = memoryview(line)
        while rest:
            try:
                rest = rest[os.write(self._file, rest) :]
            except OSError as error:
                os.ftruncate(self._file, self._size)  # or what comes next would end this line
                raise OSError(
                    f"cannot write {self._path}: {error.strerror}; make room or see to the disk, "
                    "then give the same command again: what is finished is kept"
                ) from error
        self._size += len(line)
        self._is_dirty.set()

    def _read(self) -> int:
        """Reads all lines; bytes of those that are whole."""
        start = 0
        with self._path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.endswith(b"\n"):
                    break
                try:
                    self._take(json.loads(line), start, len(line))
                except (ValueError, LookupError, TypeError, AttributeError):
                    raise ValueError(
                        f"{self._path}, line {number}: not of a journal of this version; name "
                        "another folder, or remove the line and all after it"
                    ) from None
                start += len(line)
        os.ftruncate(self._file, start)
        return start

    def _take(self, record: Mapping[str, Any], start: int, size: int) -> None:
        index = record["example"]
        if type(index) is not int or index < 0:
            raise TypeError("examples are numbered from 0")
        if "outcome" in record:
            if Outcome.from_record(record["outcome"]).index != index:
                raise ValueError("the outcome is of another example")
            self._places[index] = start, size
            self._heard.pop(index, None)
            return
        if "forgotten" in record:
            self._drop(index)
            return
        heard: Heard
        if "verdict" in record:
            heard = made(Verdict, record["verdict"])
        else:
            heard = made(Reply, record["reply"])
        if record["step"] not in STEPS:
            raise ValueError("an example has no such step")
        self.usage.count(heard)
        self._heard.setdefault(index, []).append((record["step"], heard))

    def _drop(self, index: int) -> None:
        self._heard.pop(index, None)
        self._places.pop(index, None)

    def _sync(self) -> None:
        while not self._is_closed.wait(SYNC_EVERY):
            if self._is_dirty.is_set():
                self._is_dirty.clear()
                os.fsync(self._file)


def _heard_record(heard: Heard) -> dict[str, Any]:
    if isinstance(heard, Verdict):
        return {"verdict": asdict(heard)}
    values = {name: getattr(heard, name) for name in _DEFAULTS}
    return {"reply": {n: v for n, v in values.items() if n == "text" or v != _DEFAULTS[n]}}
