"""Shards of a token-shift run: together they are the run of a single process, bit for bit."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from shift_runs import contents, save_models, settings_of, write_records
from transformers import PreTrainedTokenizerBase

from rnr_kernels.analysis.merge import merge_shifts
from rnr_kernels.analysis.run import run_token_shift
from rnr_kernels.analysis.settings import ShiftSettings


@pytest.fixture(scope="module")
def settings(
    tiny_bpe: PreTrainedTokenizerBase, tmp_path_factory: pytest.TempPathFactory
) -> ShiftSettings:
    folder = tmp_path_factory.mktemp("models")
    aligned, base = save_models(folder, tiny_bpe)
    prompts = write_records(folder / "p.jsonl")
    return settings_of((aligned, base), prompts, bases=(base, aligned))


@pytest.fixture(scope="module")
def whole(settings: ShiftSettings, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("whole") / "out"
    run_token_shift(settings, out)
    return contents(out)


@pytest.fixture(scope="module")
def shards(settings: ShiftSettings, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Batches 0 and 2; batch 1."""
    folder = tmp_path_factory.mktemp("shards")
    for number, missing in ((1, (1,)), (2, (0, 2))):
        run = run_token_shift(settings, folder / str(number), shard=(number, 2))
        assert run.missing == missing
    return [folder / "1", folder / "2"]


def test_a_shard_has_its_own_batches(shards: list[Path]) -> None:
    assert [name for name in contents(shards[0]) if "/" in name] == [
        "tokens/0/000000.parquet", "tokens/0/000002.parquet",
        "tokens/1/000000.parquet", "tokens/1/000002.parquet",
    ]  # fmt: skip
    assert [name for name in contents(shards[1]) if "/" in name] == [
        "responses/000001.parquet", "tokens/0/000001.parquet", "tokens/1/000001.parquet",
    ]  # fmt: skip


@pytest.mark.parametrize("order", [(0, 1), (1, 0), (0, 0, 1)])
def test_shards_become_the_whole_run(
    shards: list[Path], whole: dict[str, bytes], tmp_path: Path, order: tuple[int, ...]
) -> None:
    merge_shifts([shards[place] for place in order], tmp_path / "out")
    assert contents(tmp_path / "out") == whole


def test_shards_of_one_folder_are_the_whole_run(
    settings: ShiftSettings, whole: dict[str, bytes], tmp_path: Path
) -> None:
    assert run_token_shift(settings, tmp_path / "out", shard=(2, 2)).missing == (0, 2)
    assert run_token_shift(settings, tmp_path / "out", shard=(1, 2)).missing == ()
    assert contents(tmp_path / "out") == whole


def test_more_shards_than_batches(
    settings: ShiftSettings, whole: dict[str, bytes], tmp_path: Path
) -> None:
    for number in range(1, 6):
        run_token_shift(settings, tmp_path / "out", shard=(number, 5))
    assert contents(tmp_path / "out") == whole


def test_a_merge_goes_on_where_it_was(
    settings: ShiftSettings, shards: list[Path], whole: dict[str, bytes], tmp_path: Path
) -> None:
    merge_shifts(shards, tmp_path / "out")
    for name in ("prompts.parquet", "responses/000001.parquet", "tokens/1/000001.parquet"):
        (tmp_path / "out" / name).unlink()
    merge_shifts(shards, tmp_path / "out")
    assert contents(tmp_path / "out") == whole
    assert run_token_shift(settings, tmp_path / "out").num_tokens == 0


def test_batches_that_are_missing_are_named(shards: list[Path], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="of 3 batches 2 are in none of the folders: 0, 2; name"):
        merge_shifts([shards[1]], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_broken_shard_is_named(shards: list[Path], tmp_path: Path) -> None:
    spoilt = tmp_path / "spoilt"
    shutil.copytree(shards[0], spoilt)
    (spoilt / "tokens/1/000002.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match=r"tokens/1/000002.parquet is broken: it cannot be read"):
        merge_shifts([shards[1], spoilt], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_shards_of_other_runs_are_refused(
    settings: ShiftSettings, shards: list[Path], tmp_path: Path
) -> None:
    run_token_shift(replace(settings, top_k=3), tmp_path / "other")
    message = rf"settings.top_k is 2 in {shards[0]} and 3 in {tmp_path / 'other'}; run the shards"
    with pytest.raises(ValueError, match=message):
        merge_shifts([shards[0], tmp_path / "other"], tmp_path / "out")
    with pytest.raises(ValueError, match=message):
        merge_shifts(shards, tmp_path / "other")
    own = torch.get_num_threads()
    torch.set_num_threads(own + 1)
    try:
        run_token_shift(settings, tmp_path / "threads", shard=(2, 2))
    finally:
        torch.set_num_threads(own)
    with pytest.raises(ValueError, match=rf"threads is {own} in .* and {own + 1} in "):
        merge_shifts([shards[0], tmp_path / "threads"], tmp_path / "out")
    with pytest.raises(ValueError, match="is no manifest of a token-shift run"):
        merge_shifts([tmp_path], tmp_path / "out")
    with pytest.raises(ValueError, match="at least one shard"):
        merge_shifts([], tmp_path / "out")
