"""Token-shift runs that were killed end with the same bits, and go on with nothing else."""

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from shift_runs import RECORDS, contents, save_models, settings_of, write_records
from transformers import PreTrainedTokenizerBase

from rnr_kernels import durable
from rnr_kernels.analysis import batches as batches_module
from rnr_kernels.analysis.folder import ShiftFolder
from rnr_kernels.analysis.manifest import Manifest
from rnr_kernels.analysis.results import (
    load_manifest,
    load_prompts,
    load_token_shift,
)
from rnr_kernels.analysis.run import ShiftProgress, run_token_shift
from rnr_kernels.analysis.settings import ShiftSettings

ROOT = Path(__file__).parent.parent
TESTS = Path(__file__).parent

FILES = [
    "inputs.parquet", "manifest.json", "prompts.parquet", "responses/000001.parquet",
    "skipped.jsonl", "tokens/0/000000.parquet", "tokens/0/000001.parquet",
    "tokens/0/000002.parquet",
]  # fmt: skip

KILLED = """
import os, signal, sys
from pathlib import Path
import pyarrow.parquet
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM
from shift_runs import settings_of
from rnr_kernels.analysis.run import run_token_shift

aligned, base, prompts, folder, *points = sys.argv[1:]
replace, seen = os.replace, 0

def run_until(point):
    def counted(source, target):
        global seen
        if seen == point:
            os.kill(os.getpid(), signal.SIGKILL)
        seen += 1
        replace(source, target)
        if seen == point + 0.5:
            os.kill(os.getpid(), signal.SIGKILL)

    os.replace = counted
    run_token_shift(settings_of((aligned, base), Path(prompts)), f"{folder}/{point}")

for point in map(float, points):
    # Torch has run nothing in this process, so that its children are as good as new ones.
    child = os.fork()
    if not child:
        run_until(point)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.fixture(scope="module")
def models(
    tiny_bpe: PreTrainedTokenizerBase, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, str]:
    return save_models(tmp_path_factory.mktemp("models"), tiny_bpe)


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_records(tmp_path_factory.mktemp("prompts") / "p.jsonl")


@pytest.fixture(scope="module")
def settings(models: tuple[str, str], prompts: Path) -> ShiftSettings:
    return settings_of(models, prompts)


@pytest.fixture(scope="module")
def whole(settings: ShiftSettings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a run that nobody interrupts writes."""
    out = tmp_path_factory.mktemp("whole") / "out"
    run = run_token_shift(settings, out)
    assert run.missing == () and run.num_tokens == len(load_token_shift(out))
    return out


def test_runs_that_are_killed_anywhere_end_with_the_same_bits(
    settings: ShiftSettings, models: tuple[str, str], prompts: Path, whole: Path, tmp_path: Path
) -> None:
    """Before each of the files gets its name, and right after some of them."""
    points = [*map(float, range(len(FILES))), 2.5, 4.5, len(FILES) - 0.5]
    arguments = [*models, str(prompts), str(tmp_path), *map(str, points)]
    script = subprocess.run(
        [sys.executable, "-c", KILLED, *arguments],
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{TESTS}"},
        capture_output=True,
        text=True,
    )
    assert script.stdout.split() == ["-9"] * len(points), script.stderr
    expected = contents(whole)
    for point in points:
        out = tmp_path / str(point)
        before = contents(out)
        run = run_token_shift(settings, out)
        assert contents(out) == expected
        stored = sum(name.startswith("tokens") and not name.endswith("tmp") for name in before)
        assert (run.num_tokens > 0) == (stored < 3)


def test_a_finished_run_loads_no_model(
    settings: ShiftSettings, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches_module, "load_model", None)
    before = contents(whole)
    assert run_token_shift(settings, whole).num_tokens == 0
    assert contents(whole) == before


def test_a_full_disk_loses_no_batch(
    settings: ShiftSettings, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace, seen = os.replace, []

    def until_full(source: Path, target: Path) -> None:
        seen.append(target)
        if len(seen) == 6:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(source, target)

    out = tmp_path / "out"
    with monkeypatch.context() as patched:
        patched.setattr(durable.os, "replace", until_full)
        with pytest.raises(OSError, match=r"cannot write .*1.parquet: No space left on device; ma"):
            run_token_shift(settings, out)
    assert list(contents(out)) == [
        "inputs.parquet", "manifest.json", "responses/000001.parquet", "skipped.jsonl",
        "tokens/0/000000.parquet",
    ]  # fmt: skip
    run_token_shift(settings, out)
    assert contents(out) == contents(whole)


@pytest.mark.parametrize(
    ("name", "spoil", "message"),
    [
        ("tokens/0/000001.parquet", lambda data: data[:-9], "000001.parquet is broken: it cannot"),
        ("responses/000001.parquet", lambda data: b"", "000001.parquet is broken: it cannot be re"),
        ("inputs.parquet", lambda data: data[:99], "inputs.parquet is broken: it cannot be read"),
        ("prompts.parquet", lambda data: data[:99], "prompts.parquet is broken: it cannot be read"),
        ("manifest.json", lambda data: data[:99], "manifest.json is no manifest"),
    ],
)  # fmt: skip
def test_a_broken_file_is_named_and_made_again(
    settings: ShiftSettings,
    whole: Path,
    tmp_path: Path,
    name: str,
    spoil: Callable[[bytes], bytes],
    message: str,
) -> None:
    out = tmp_path / "out"
    run_token_shift(settings, out)
    (out / name).write_bytes(spoil((out / name).read_bytes()))
    with pytest.raises(ValueError, match=message):
        run_token_shift(settings, out)
    (out / name).unlink()
    if name == "manifest.json":
        with pytest.raises(ValueError, match=r"holds prompts.parquet and no run of token-shift"):
            run_token_shift(settings, out)
    else:
        run_token_shift(settings, out)
        assert contents(out) == contents(whole)


def test_rows_that_are_missing_are_found(
    settings: ShiftSettings, whole: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    run_token_shift(settings, out)
    (out / "tokens/0/000001.parquet").write_bytes((out / "tokens/0/000002.parquet").read_bytes())
    with pytest.raises(ValueError, match=r"000001.parquet is broken: expected 11 rows, it has 19"):
        run_token_shift(settings, out)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"top_k": 3}, "top_k is 2 there and 3 here; go on with its settings, or name another"),
        ({"limit": 2}, "prompts.limit is None there and 2 here"),
        ({"template": "tags"}, "template.name is 'plain' there and 'tags' here"),
        ({"base_template": "tags"}, "base_template.name is None there and 'tags' here"),
        ({"max_new_tokens": 8}, "max_new_tokens is 9 there and 8 here"),
        ({"batch_tokens": 29}, "batch_tokens is 28 there and 29 here"),
        ({"dtype": "bfloat16"}, "dtype is 'float32' there and 'bfloat16' here"),
    ],
)
def test_other_settings_are_another_run(
    models: tuple[str, str], prompts: Path, whole: Path, changed: dict[str, Any], message: str
) -> None:
    before = contents(whole)
    with pytest.raises(ValueError, match=f"holds another run: .*{message}"):
        run_token_shift(settings_of(models, prompts, **changed), whole)
    assert contents(whole) == before


def test_other_prompts_or_models_are_another_run(
    models: tuple[str, str], prompts: Path, whole: Path, tmp_path: Path
) -> None:
    other = write_records(tmp_path / "p.jsonl", RECORDS[:-1])
    with pytest.raises(ValueError, match=r"another run: prompts.sha256 is '\w{44}\.\.\. there"):
        run_token_shift(settings_of(models, other), whole)
    with pytest.raises(ValueError, match=r"another run: aligned.name is 'aligned' there"):
        run_token_shift(settings_of((models[1], models[1]), prompts), whole)
    more = settings_of(models, prompts, bases=(models[1], models[0]))
    with pytest.raises(ValueError, match=r"bases.1.name is None there and 'aligned' here"):
        run_token_shift(more, whole)


def test_weights_of_the_same_shape_are_another_model(
    prompts: Path, tiny_bpe: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    models = save_models(tmp_path, tiny_bpe)
    run_token_shift(settings_of(models, prompts), tmp_path / "out")
    weights = tmp_path / "aligned" / "model.safetensors"
    tensors = load_file(weights)
    tensors["model.norm.weight"][0] += 0.125
    save_file(tensors, weights, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"another run: aligned.files.model.safetensors is '"):
        run_token_shift(settings_of(models, prompts), tmp_path / "out")


def test_folders_that_no_run_goes_to(settings: ShiftSettings, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").touch()
    with pytest.raises(ValueError, match=r"holds mine.txt and no run of token-shift; name another"):
        run_token_shift(settings, tmp_path)
    with pytest.raises(ValueError, match=r"mine.txt is a file; name a folder"):
        run_token_shift(settings, tmp_path / "mine.txt")
    with pytest.raises(ValueError, match="does not exist; make it first"):
        run_token_shift(settings, tmp_path / "none" / "out")
    (tmp_path / "out").mkdir()
    busy = pytest.raises(ValueError, match="another process is at work in")
    with ShiftFolder(tmp_path / "out").locked("shard-1-of-1"), busy:
        run_token_shift(settings, tmp_path / "out")


def test_a_run_keeps_its_threads(settings: ShiftSettings, tmp_path: Path) -> None:
    out, own = tmp_path / "out", torch.get_num_threads()
    during = []

    def report(progress: ShiftProgress) -> None:
        during.append(torch.get_num_threads())
        if progress.done_batches == 1:
            raise KeyboardInterrupt

    torch.set_num_threads(2)
    try:
        with pytest.raises(KeyboardInterrupt):
            run_token_shift(settings, out, report=report)
        torch.set_num_threads(1)
        run_token_shift(settings, out, report=lambda _: during.append(torch.get_num_threads()))
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(own)
    assert set(during) == {2} and load_manifest(out).threads == 2


def test_a_run_that_is_not_finished_is_not_read(settings: ShiftSettings, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is no manifest of a token-shift run"):
        load_token_shift(tmp_path)
    run = run_token_shift(settings, tmp_path / "out", shard=(1, 2))
    assert run.missing == (1,)
    with pytest.raises(ValueError, match="is not finished; give the same command again"):
        load_token_shift(tmp_path / "out")
    with pytest.raises(ValueError, match=r"prompts.parquet does not exist: the run is not fin"):
        load_prompts(tmp_path / "out")
    with pytest.raises(ValueError, match="1 <= i <= n, got 3/2"):
        run_token_shift(settings, tmp_path / "out", shard=(3, 2))


def test_a_manifest_of_another_format_is_refused(whole: Path, tmp_path: Path) -> None:
    content = json.loads((whole / "manifest.json").read_text())
    (tmp_path / "manifest.json").write_text(json.dumps({**content, "format": 2}))
    with pytest.raises(ValueError, match="has format 2, this version reads 1"):
        Manifest.read(tmp_path / "manifest.json")
