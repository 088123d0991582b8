"""A run's folder: a whole model at its output or nothing, and an unfinished run beside it."""

from pathlib import Path
from typing import Any

import pytest

from rnr_kernels.tuning.run_folder import RunFolder

RUN = {"base": "rnr-base", "settings": {"epochs": 3, "seed": 1, "lora": None}}


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "out")


def write_model(folder: RunFolder) -> None:
    (folder.model / "adapter").mkdir(parents=True)
    (folder.model / "weights").write_text("w")
    (folder.model / "adapter" / "weights").write_text("a")


def write_checkpoint(folder: RunFolder, step: int) -> Path:
    checkpoint = folder.checkpoints / f"checkpoint-{step}"
    checkpoint.mkdir(parents=True)
    (checkpoint / "weights").write_text(str(step))
    return checkpoint


def names(path: Path) -> list[str]:
    return sorted(str(found.relative_to(path)) for found in path.rglob("*"))


def test_a_finished_model_appears_at_once_and_alone(folder: RunFolder, tmp_path: Path) -> None:
    folder.check()
    folder.begin(RUN)
    write_checkpoint(folder, 5)
    folder.mark_whole(5)
    write_model(folder)
    assert names(tmp_path)[0] == "out.running" and not folder.out.exists()
    folder.finish()
    assert names(tmp_path) == ["out", "out/adapter", "out/adapter/weights", "out/weights"]


def test_an_empty_folder_is_as_good_as_none(folder: RunFolder, tmp_path: Path) -> None:
    folder.out.mkdir()
    folder.check()
    folder.begin(RUN)
    write_model(folder)
    folder.finish()
    assert "out/weights" in names(tmp_path)


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_an_output_that_is_taken(folder: RunFolder, kind: str) -> None:
    taken = folder.out if kind == "file" else folder.out / "notes"
    taken.parent.mkdir(exist_ok=True)
    taken.write_text("mine")
    with pytest.raises(ValueError, match=r"out exists: remove it, or name another folder$"):
        folder.check()
    assert taken.read_text() == "mine"


def test_a_missing_parent(tmp_path: Path) -> None:
    with pytest.raises(ValueError) as error:
        RunFolder(tmp_path / "no" / "out").check()
    assert str(error.value) == (
        f"the folder {tmp_path}/no of {tmp_path}/no/out does not exist; make it first"
    )


def test_an_unfinished_run_is_gone_on_with(folder: RunFolder) -> None:
    folder.begin(RUN)
    write_checkpoint(folder, 5)
    folder.check()
    folder.begin({**RUN, "settings": dict(RUN["settings"])})
    assert names(folder.checkpoints) == ["checkpoint-5", "checkpoint-5/weights"]


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"settings": {"epochs": 4, "seed": 1, "lora": None}}, "settings.epochs is 3 there and 4"),
        ({"base": "tiny"}, "base is 'rnr-base' there and 'tiny' here"),
        (
            {"settings": {"epochs": 3, "seed": 2, "lora": {"rank": 8}}},
            "settings.seed is 1 there and 2 here, settings.lora is None there and {'rank': 8} here",
        ),
        ({"mode": "task"}, "mode is None there and 'task' here"),
    ],
    ids=str,
)
def test_an_unfinished_run_with_other_settings(
    folder: RunFolder, other: dict[str, Any], words: str
) -> None:
    folder.begin(RUN)
    with pytest.raises(ValueError) as error:
        folder.begin({**RUN, **other})
    assert f"{folder.running} holds an unfinished run that differs: {words}" in str(error.value)
    assert str(error.value).endswith("go on with its settings, remove it, or name another folder")


@pytest.mark.parametrize("content", [None, "{", "[]"])
def test_a_folder_that_is_no_run(folder: RunFolder, content: str | None) -> None:
    folder.running.mkdir()
    if content is not None:
        (folder.running / "run.json").write_text(content)
    with pytest.raises(ValueError) as error:
        folder.begin(RUN)
    assert str(error.value) == (
        f"{folder.running} is no unfinished run: remove it, or name another folder"
    )


def test_a_checkpoint_without_its_mark_is_removed(folder: RunFolder) -> None:
    folder.begin(RUN)
    for step in (9, 10, 11):
        write_checkpoint(folder, step)
    for step in (9, 10):
        folder.mark_whole(step)
    assert folder.last_checkpoint() == folder.checkpoints / "checkpoint-10"
    assert sorted(path.name for path in folder.checkpoints.iterdir()) == [
        "checkpoint-10",
        "checkpoint-9",
    ]


def test_a_run_without_a_whole_checkpoint_starts_anew(folder: RunFolder) -> None:
    folder.begin(RUN)
    assert folder.last_checkpoint() is None
    write_checkpoint(folder, 1)
    assert folder.last_checkpoint() is None
    assert names(folder.checkpoints) == []


def test_abandoning_leaves_nothing(folder: RunFolder, tmp_path: Path) -> None:
    folder.begin(RUN)
    write_checkpoint(folder, 1)
    folder.abandon()
    assert names(tmp_path) == []


def test_a_run_that_is_half_removed_is_no_run_any_more(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.begin(RUN)
    monkeypatch.setattr("shutil.rmtree", lambda *args, **names: None)  # as if killed before it
    folder.abandon()
    with pytest.raises(ValueError, match="is no unfinished run: remove it"):
        folder.begin(RUN)


def test_what_a_kill_left_of_beginning_is_replaced(folder: RunFolder, tmp_path: Path) -> None:
    making = tmp_path / "out.running.new"
    making.mkdir()
    (making / "half").write_text("")
    folder.begin(RUN)
    assert names(tmp_path) == ["out.running", "out.running/run.json"]


def test_a_run_in_progress_is_left_alone(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "out")
    folder.begin({"seed": 1})
    same = RunFolder(tmp_path / "out")
    with folder.held(), pytest.raises(ValueError, match="is a run in progress"), same.held():
        pass
    with folder.held():  # it was let go
        pass
