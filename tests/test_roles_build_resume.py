"""A killed build goes on: nothing confirmed is lost or asked again, the files are equal."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from fake_endpoint import Reply as Said
from fake_endpoint import fake_endpoint
from role_builds import FINISHED, finished, follows, instructions, records, step_of

from rnr_kernels import durable
from rnr_kernels.roles.pipeline import journal as journal_module
from rnr_kernels.roles.pipeline.asks import Ask, Reply
from rnr_kernels.roles.pipeline.build import build_dataset
from rnr_kernels.roles.pipeline.template_generator import TemplateGenerator

Key = tuple[str, int]


class Counting(TemplateGenerator):
    """Keeps what it was asked: the example, and the seed, of which each request has its own."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[Key] = []

    def replies(self, asks: list[Ask], stopped: Event) -> list[Reply]:
        self.asked += [(ask.example.id, ask.seed) for ask in asks]
        return super().replies(asks, stopped)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A build that nothing has interrupted, and its instructions."""
    folder = tmp_path_factory.mktemp("whole")
    build_dataset(
        instructions(folder / "instructions.json", 12), folder / "out", TemplateGenerator()
    )
    return folder


def resumed(whole: Path, out: Path, journal: bytes) -> Counting:
    """Goes on in `out` from what a kill has left of the journal."""
    out.mkdir(exist_ok=True)
    (out / "settings.json").write_bytes((whole / "out" / "settings.json").read_bytes())
    (out / "journal.jsonl").write_bytes(journal)
    generator = Counting()
    build_dataset(whole / "instructions.json", out, generator)
    return generator


def confirmed(journal: bytes) -> int:
    """Whole lines that hold replies."""
    return sum(b'"reply"' in line for line in journal.splitlines(True) if line.endswith(b"\n"))


@pytest.mark.parametrize("share", [0.0, 0.013, 0.21, 0.5, 0.777, 0.999, 1.0])
def test_any_beginning_of_the_journal_is_gone_on_with(
    whole: Path, tmp_path: Path, share: float
) -> None:
    journal = (whole / "out" / "journal.jsonl").read_bytes()
    kept = journal[: round(len(journal) * share)]
    generator = resumed(whole, tmp_path / "out", kept)
    assert finished(tmp_path / "out") == finished(whole / "out")
    assert len(generator.asked) == confirmed(journal) - confirmed(kept)
    assert len(set(generator.asked)) == len(generator.asked)
    lines = records(tmp_path / "out" / "journal.jsonl")
    assert len(lines) == len(journal.splitlines())
    assert sum("outcome" in line for line in lines) == 12


def test_a_finished_build_asks_nothing_more(whole: Path) -> None:
    before = finished(whole / "out")
    generator = Counting()
    built = build_dataset(whole / "instructions.json", whole / "out", generator)
    assert built.usage.replies == confirmed((whole / "out" / "journal.jsonl").read_bytes())
    assert generator.asked == [] and finished(whole / "out") == before


@pytest.mark.parametrize(
    "line",
    [
        b"nonsense", b"\0" * 50, b"5", b"[]", b'{"example": 1}',
        b'{"example": 0, "step": "x", "reply": {"words": 1}}',
        b'{"example": 0, "step": "x", "reply": {"text": "a"}}',
        b'{"example": "0", "step": "role", "reply": {"text": "a"}}',
        b'{"example": -1, "step": "role", "reply": {"text": "a"}}',
        b'{"example": true, "outcome": {}}', b'{"example": 3, "outcome": 5}',
        b'{"example": 3, "outcome": {}}', b'{"example": 3, "outcome": {"index": 3}}',
        b'{"example": 0, "step": "role", "reply": {"text": 5}}',
        b'{"example": 0, "step": "role", "reply": "a"}',
        b'{"example": 0, "step": "role", "reply": {"text": "a", "num_read": "9"}}',
        b'{"example": 0, "step": "judge", "verdict": {"followed": "no"}}',
        b'{"example": 0, "step": "judge", "verdict": {"reason": "r"}}',
    ],
)  # fmt: skip
@pytest.mark.parametrize("place", [2, -1])
def test_a_line_that_no_kill_makes_is_an_error(
    whole: Path, tmp_path: Path, line: bytes, place: int
) -> None:
    lines = (whole / "out" / "journal.jsonl").read_bytes().splitlines(True)
    with pytest.raises(ValueError, match=r"line \d+: not of a journal of this version; name"):
        resumed(whole, tmp_path / "out", b"".join([*lines[:place], line + b"\n", *lines[place:]]))


@pytest.mark.parametrize(
    ("field", "value"),
    [("index", 99), ("step", 5), ("reason", None), ("attempts", [{"response": 5, "verdicts": []}]),
     ("attempts", 7), ("dropped", [{"wording": "w"}]), ("unreadable", {"role": "2"}),
     ("unreadable", 3), ("example", "x"), ("is_plain", "no")],
)  # fmt: skip
def test_an_outcome_of_other_types_is_an_error(
    whole: Path, tmp_path: Path, field: str, value: object
) -> None:
    lines = records(whole / "out" / "journal.jsonl")
    number = next(n for n, each in enumerate(lines) if "outcome" in each)
    lines[number]["outcome"][field] = value
    journal = "".join(json.dumps(each) + "\n" for each in lines)
    with pytest.raises(ValueError, match=rf"line {number + 1}: not of a journal of this version"):
        resumed(whole, tmp_path / "out", journal.encode())


def test_a_reply_to_another_step_is_an_error(whole: Path, tmp_path: Path) -> None:
    line = {"example": 11, "step": "judge", "reply": {"text": "x"}}
    with pytest.raises(ValueError, match="a reply to judge where example 11 asks for role"):
        resumed(whole, tmp_path / "out", json.dumps(line).encode() + b"\n")


KILLED = """
import sys
from rnr_kernels.cli import main
sys.argv = ["rnr-kernels", "roles", "build", *sys.argv[1:]]
main()
"""


def killed(
    arguments: list[str], journal: Path, lines: int, environment: dict[str, str] | None = None
) -> bool:
    """Runs the command line until the journal has grown by some lines, then kills it; whether it
    was killed before it came to its end."""
    before = journal.read_bytes().count(b"\n") if journal.exists() else 0
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, *arguments],
        cwd=Path(__file__).parent.parent,
        env=os.environ | (environment or {}),
        stdout=subprocess.DEVNULL,
    )
    while process.poll() is None:
        grown = journal.read_bytes().count(b"\n") - before if journal.exists() else 0
        if grown >= lines:
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.002)
    return process.wait() == -signal.SIGKILL


def test_a_build_that_is_killed_twice_ends_as_one_that_is_not(tmp_path: Path) -> None:
    source = instructions(tmp_path / "instructions.json", 120)
    build_dataset(source, tmp_path / "whole", TemplateGenerator())
    arguments = [str(source), "--generator", "templates", "--out", str(tmp_path / "out")]
    journal = tmp_path / "out" / "journal.jsonl"
    for lines in (5, 150):
        assert killed(arguments, journal, lines)
        assert not (tmp_path / "out" / "README.md").exists()
    kept = confirmed(journal.read_bytes())
    generator = Counting()
    build_dataset(source, tmp_path / "out", generator)
    assert finished(tmp_path / "out") == finished(tmp_path / "whole")
    everything = confirmed((tmp_path / "whole" / "journal.jsonl").read_bytes())
    assert len(generator.asked) == everything - kept


def test_no_confirmed_request_is_sent_to_an_endpoint_again(tmp_path: Path) -> None:
    source = instructions(tmp_path / "instructions.json", 30)
    asked_of = [record["instruction"] for record in json.loads(source.read_text())]

    def slowly(prompt: str, before: int) -> Said:
        time.sleep(0.005)
        return follows(prompt, before)

    def requests_of(requests: list[dict[str, Any]]) -> Counter[tuple[str, int]]:
        """By step and instruction; each is asked once in a build without troubles."""
        found: Counter[tuple[str, int]] = Counter()
        for request in requests:
            contents = [message["content"] for message in request["messages"]]
            (index,) = [i for i, each in enumerate(asked_of) if each in "\n".join(contents)]
            found[step_of(contents[0]), index] += 1
        return found

    with fake_endpoint(slowly) as server:
        arguments = [
            str(source), "--out", str(tmp_path / "out"), "--generator", "endpoint", "--model", "m",
            "--base-url", server.url, "--requests-in-flight", "4", "--written-share", "0",
            "--max-requirements", "1", "--kind", "punctuation:no_comma", "--plain-share", "0",
            "--out-of-scope-share", "0",
        ]  # fmt: skip
        assert killed(arguments, tmp_path / "out" / "journal.jsonl", 40)
        kept = records_of_replies(tmp_path / "out" / "journal.jsonl")
        first = len(server.requests)
        assert not killed(arguments, tmp_path / "out" / "journal.jsonl", 10**6)
        again = requests_of(server.requests[first:])
    assert len(kept) >= 30 and not kept & set(again)
    assert set(again.values()) == {1}
    rows = records(tmp_path / "out" / "train.jsonl")
    assert [row["messages"][1]["content"] for row in rows] == asked_of
    with fake_endpoint(follows) as server:
        arguments[arguments.index("--base-url") + 1] = server.url
        arguments[2] = str(tmp_path / "whole")
        assert not killed(arguments, tmp_path / "whole" / "journal.jsonl", 10**6)
    assert finished(tmp_path / "whole") == finished(tmp_path / "out")


def records_of_replies(journal: Path) -> set[tuple[str, int]]:
    """Step and example of every reply in a journal that a kill may have cut."""
    lines = [line for line in journal.read_bytes().splitlines(True) if line.endswith(b"\n")]
    found = [json.loads(line) for line in lines]
    return {(each["step"], each["example"]) for each in found if "reply" in each}


def test_what_a_kill_leaves_of_files_that_were_being_written_is_removed(
    whole: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    names = {"train.jsonl.28886.tmp", "train.parquet.1.tmp", "settings.json.77.tmp"}
    kept = {"train.jsonl.mine.tmp", "notes.5.tmp"}
    for name in names | kept:
        (out / name).write_text("half")
    resumed(whole, out, (whole / "out" / "journal.jsonl").read_bytes())
    left = {path.name for path in out.iterdir()}
    assert left == kept | {".lock", "settings.json", "journal.jsonl", *FINISHED}


@pytest.mark.parametrize("file", FINISHED)
def test_a_kill_while_files_are_written_leaves_nothing_half_written(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    class KilledError(BaseException):
        pass

    def until_the_file(old: str, new: Path) -> None:
        if new.name == file:
            raise KilledError
        replace(old, new)

    replace = os.replace
    journal = (whole / "out" / "journal.jsonl").read_bytes()
    with monkeypatch.context() as patched, pytest.raises(KilledError):
        patched.setattr(durable.os, "replace", until_the_file)
        resumed(whole, tmp_path / "out", journal)
    assert not (tmp_path / "out" / file).exists()
    assert resumed(whole, tmp_path / "out", journal).asked == []
    assert finished(tmp_path / "out") == finished(whole / "out")


def test_a_full_disk_keeps_what_was_confirmed(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = 0

    def until_full(file: int, data: memoryview) -> int:
        nonlocal written
        written += 1
        if written == 30:
            return write(file, data[:10])
        if written > 30:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(file, data)

    write = os.write
    with monkeypatch.context() as patched, pytest.raises(OSError, match="make room") as raised:
        patched.setattr(journal_module.os, "write", until_full)
        resumed(whole, tmp_path / "out", b"")
    assert "journal.jsonl" in str(raised.value)
    kept = (tmp_path / "out" / "journal.jsonl").read_bytes()
    assert kept.count(b"\n") == 29 and kept.endswith(b"\n")
    resumed(whole, tmp_path / "out", kept)
    assert finished(tmp_path / "out") == finished(whole / "out")
