"""Token shift as files: every bit comes back, what is broken is named, a full disk is too."""

import errno
import math
import os
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rnr_kernels import durable
from rnr_kernels.analysis.folder import ShiftFolder
from rnr_kernels.analysis.inputs import ShiftPrompt
from rnr_kernels.analysis.shards import (
    PromptFile,
    check_rows,
    read_prompts,
    read_shift,
    write_prompts,
    write_shift,
)
from rnr_kernels.analysis.token_shift import TokenShift
from rnr_kernels.durable import published

INT32, FLOAT = np.int32, np.float32
SHIFT = TokenShift(
    prompt=np.array([4, 4, 9]),
    position=np.array([0, 1, 0]),
    token_id=np.array([7, 2, 131071]),
    rank=np.array([1, 1, 3], INT32),
    num_ties=np.array([0, 2, 0], INT32),
    logprob=np.array([-0.1, -math.inf, -1e-38], FLOAT),
    entropy=np.array([0.0, 1.5, 2.5], FLOAT),
    base_rank=np.array([1, 4, 2], INT32),
    base_num_ties=np.array([0, 0, 0], INT32),
    base_logprob=np.array([-0.1, -3.0, -4.0], FLOAT),
    base_entropy=np.array([0.1, 0.2, 0.3], FLOAT),
    kl_aligned_base=np.array([0.0, 1e-45, 2.0], FLOAT),
    kl_base_aligned=np.array([0.0, math.inf, 2.0], FLOAT),
    same_argmax=np.array([True, False, False]),
)
TOP = replace(
    SHIFT,
    top_ids=np.array([[7, 1], [2, 5], [3, 131071]]),
    top_logprobs=np.array([[-0.1, -3.0], [-0.5, -math.inf], [-1.0, -2.0]], FLOAT),
    base_top_ids=np.array([[7, 2], [6, 5], [3, 4]]),
    base_top_logprobs=np.array([[-0.2, -3.0], [-0.5, -4.0], [-1.0, -2.0]], FLOAT),
)
PROMPTS = [
    ShiftPrompt(4, "Say é\n", "b", "eos", (1, 5), (1, 6, 7), (7, 2)),
    ShiftPrompt(9, "c", None, None, (1,), (1,), None),
]


@pytest.mark.parametrize("shift", [SHIFT, TOP], ids=["plain", "top-k"])
def test_rows_come_back_bit_for_bit(tmp_path: Path, shift: TokenShift) -> None:
    write_shift(tmp_path / "new" / "a.parquet", shift)
    found = read_shift(tmp_path / "new" / "a.parquet")
    for field in fields(TokenShift):
        expected, got = getattr(shift, field.name), getattr(found, field.name)
        if expected is None:
            assert got is None
        else:
            assert got.dtype == expected.dtype and got.shape == expected.shape
            assert got.tobytes() == expected.tobytes(), field.name
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.parquet"]


def test_the_same_rows_are_the_same_file(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_shift(tmp_path / name, TOP)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_prompts_come_back_batch_by_batch(tmp_path: Path) -> None:
    file = tmp_path / "p.parquet"
    write_prompts(file, iter([PROMPTS[:1], PROMPTS[1:], PROMPTS]))
    batches = PromptFile(file)
    assert [batches.batch(n) for n in (2, 1, 0)] == [PROMPTS, PROMPTS[1:], PROMPTS[:1]]
    assert read_prompts(file) == PROMPTS * 2


def test_other_programs_read_the_columns(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs pyarrow")
    write_shift(tmp_path / "a.parquet", TOP)
    schema = parquet.read_schema(tmp_path / "a.parquet")
    assert schema.names == [field.name for field in fields(TokenShift)]
    assert str(schema.field("top_ids").type) == "fixed_size_list<element: int64>[2]"
    assert str(schema.field("base_rank").type) == "int32"


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def spoilt(data: bytes) -> bytes:
    """One bit of the first page's content is another."""
    place = data.index(b"\x28\xb5\x2f\xfd") + 12  # a zstd frame's head
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


@pytest.mark.parametrize("spoil", [cut, spoilt, lambda data: b""], ids=["cut", "bit", "empty"])
def test_a_broken_file_is_named(tmp_path: Path, spoil: Any) -> None:
    file = tmp_path / "000003.parquet"
    write_shift(file, SHIFT)
    file.write_bytes(spoil(file.read_bytes()))
    with pytest.raises(ValueError, match=r"000003.parquet is broken: .*remove it and give the sa"):
        read_shift(file)


def test_rows_are_counted(tmp_path: Path) -> None:
    file = tmp_path / "a.parquet"
    write_shift(file, SHIFT)
    check_rows(file, 3)
    with pytest.raises(ValueError, match=r"a.parquet is broken: expected 4 rows, it has 3; remove"):
        check_rows(file, 4)
    file.write_bytes(cut(file.read_bytes()))
    with pytest.raises(ValueError, match="is broken: it cannot be read"):
        check_rows(file, 3)


def test_columns_that_are_missing_are_found(tmp_path: Path) -> None:
    write_prompts(tmp_path / "a.parquet", iter([PROMPTS]))
    with pytest.raises(ValueError, match="columns are missing"):
        read_shift(tmp_path / "a.parquet")


def test_pyarrow_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ValueError, match=r"with pyarrow; pip install 'rnr_kernels\[analysis\]'"):
        write_shift(tmp_path / "a.parquet", SHIFT)


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_full_disk_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    file = tmp_path / "a.parquet"
    write_shift(file, SHIFT)
    before = file.read_bytes()

    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(durable.os, step, full)
    with pytest.raises(OSError, match=r"cannot write .*a.parquet: No space left on device; make"):
        write_shift(file, TOP)
    assert file.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["a.parquet"]


def test_a_file_that_is_not_written_to_its_end_has_no_name(tmp_path: Path) -> None:
    with pytest.raises(KeyError), published(tmp_path / "a") as temporary:
        temporary.write_text("half")
        raise KeyError
    assert list(tmp_path.iterdir()) == []


def test_two_processes_do_not_share_a_shard(tmp_path: Path) -> None:
    folder = ShiftFolder(tmp_path)
    with folder.locked("a"):
        with pytest.raises(ValueError, match="another process is at work in"), folder.locked("a"):
            pass
        with folder.locked("b"):
            pass
    with folder.locked("a"):
        pass


def test_leftovers_of_other_batches_stay(tmp_path: Path) -> None:
    folder = ShiftFolder(tmp_path)
    names = ["tokens/0/000001.parquet.7.tmp", "tokens/1/000002.parquet.7.tmp"]
    names += ["responses/000001.parquet.7.tmp", "tokens/0/000001.parquet"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    folder.remove_leftovers([1])
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {names[1], names[3]}
