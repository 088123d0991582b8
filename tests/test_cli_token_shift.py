"""`rnr-kernels token-shift`: what it prints and writes, and one sentence for every mistake."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from shift_runs import contents, save_models, write_records
from transformers import PreTrainedTokenizerBase

from rnr_kernels.analysis import run as run_module
from rnr_kernels.analysis.results import load_manifest, load_prompts, load_token_shift

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def models(
    tiny_bpe: PreTrainedTokenizerBase, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, str]:
    return save_models(tmp_path_factory.mktemp("models"), tiny_bpe)


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    return write_records(tmp_path / "p.jsonl")


@pytest.fixture
def shift(run: Run, models: tuple[str, str], prompts: Path) -> Run:
    """The command on small models, in three batches."""
    return lambda *arguments: run(
        "token-shift", "--aligned", models[0], "--base", models[1], "--prompts", prompts,
        "--template", "plain", "--max-new-tokens", 9, "--batch-tokens", 28, *arguments,
    )  # fmt: skip


def rows(out: str) -> list[list[str]]:
    """The cells of the printed tables."""
    lines = [line for line in out.splitlines() if line.startswith("│")]
    return [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines]


def test_a_run_and_the_same_again(shift: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    code, printed, err = shift("--out", out)
    assert code == 0, err
    tokens = len(load_token_shift(out))
    aligned, number, skipped, speed, with_eos, without = rows(printed)
    assert aligned == ["aligned", "aligned"] and number == ["prompts", "6"]
    assert skipped == ["skipped", f"3, in {out / 'skipped.jsonl'}"]
    assert speed[1].startswith(f"{tokens} tokens, ") and speed[1].endswith(" tokens/s")
    assert with_eos[:3] == ["base", "with", str(tokens)]
    assert without[:2] == ["base", "without"] and int(without[2]) < tokens
    shares = load_token_shift(out).shares()
    low, high = shares.shifted.low, shares.shifted.high
    shown = f"{100 * shares.shifted.share:.1f} ({100 * low:.1f} to {100 * high:.1f})"
    assert with_eos[5] == shown
    assert load_manifest(out).top_k == 10

    before = contents(out)
    code, printed, _ = shift("--out", out)
    assert code == 0 and rows(printed)[3] == ["compared now", "nothing: it was finished"]
    assert rows(printed)[4:] == [with_eos, without] and contents(out) == before


def test_shards_and_their_merge(
    shift: Run, run: Run, models: tuple[str, str], tmp_path: Path
) -> None:
    shift("--out", tmp_path / "whole", "--no-report")
    for number in (1, 2):
        code, printed, _ = shift("--out", tmp_path / str(number), "--shard", f"{number}/2")
        assert code == 0 and f"{number} of 3 batches are for other shards" in printed
    out = tmp_path / "merged"
    code, printed, _ = run("token-shift-merge", tmp_path / "1", tmp_path / "2", "--out", out)
    assert code == 0 and f"6 prompts in {out}" in printed and rows(printed)[0][0] == "base"
    assert contents(out) == contents(tmp_path / "whole")
    assert run("token-shift-report", out, "--tokenizer", models[0])[0] == 0
    assert (out / "report.html").exists()


def test_responses_of_generate_are_taken_as_they_were_emitted(
    run: Run, shift: Run, models: tuple[str, str], prompts: Path, tmp_path: Path
) -> None:
    write_records(prompts, [{"prompt": "What?"}, {"prompt": "I see"}])
    responses = tmp_path / "responses.jsonl"
    code, *_ = run(
        "generate", "--model", models[0], "--rules", "none", "--prompts", prompts,
        "--template", "plain", "--max-new-tokens", 9, "--out", responses,
    )  # fmt: skip
    assert code == 0
    code, *_ = shift("--prompts", responses, "--out", tmp_path / "given")
    assert code == 0 and not (tmp_path / "given" / "responses").exists()
    emitted = [json.loads(line)["token_ids"] for line in responses.read_text().splitlines()]
    stored = [list(p.response_token_ids or ()) for p in load_prompts(tmp_path / "given")]
    assert stored == emitted
    assert (load_token_shift(tmp_path / "given").rank == 1).all()


def test_the_embedded_model_with_rules(run: Run, tmp_path: Path) -> None:
    code, printed, err = run(
        "token-shift", "--aligned", "rules:hewitt2024", "--limit", 2, "--max-new-tokens", 20,
        "--top-k", 0, "--out", tmp_path / "out",
    )  # fmt: skip
    assert code == 0, err
    assert rows(printed)[0] == ["aligned", "rnr-base x hewitt2024"]
    first = load_prompts(tmp_path / "out")[0]
    assert first.instruction == "What is the fair month of Elham?"
    shift = load_token_shift(tmp_path / "out")
    assert shift.top_ids is None and (shift.rank == 1).all()


def test_an_interrupted_run_says_what_is_kept(
    shift: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(run_module, "one_by_one", interrupt)
        code, _, err = shift("--out", tmp_path / "out")
    assert code == 130 and f"interrupted; what is finished is kept in {tmp_path / 'out'}" in err
    assert shift("--out", tmp_path / "out")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--shard", "3"], "--shard must be i/n, as in 1/4, got '3'"),
        (["--shard", "3/2"], "1 <= i <= n, got 3/2"),
        (["--engine", "spark"], "engine must be local or ray, got 'spark'"),
        (["--workers", "2"], "--workers belongs to --engine ray"),
        (["--aligned", "rules:none"], "rules must be a preset (hewitt2024"),
        (["--aligned", "./nowhere"], "model must be a folder"),
        (["--template", "none"], "template must be tags"),
        (["--prompts", "nowhere.jsonl"], "the prompts file nowhere.jsonl does not exist"),
        (["--device", "tpu:x"], "device must be cpu"),
    ],
)
def test_mistakes_are_one_sentence(
    shift: Run, tmp_path: Path, arguments: list[str], message: str
) -> None:
    code, printed, err = shift("--out", tmp_path / "out", *arguments)
    assert code == 2 and printed == "" and "Traceback" not in err
    assert message in err
    assert not (tmp_path / "out").exists() or contents(tmp_path / "out") == {}


def test_a_broken_line_is_named_before_any_work(shift: Run, prompts: Path, tmp_path: Path) -> None:
    prompts.write_bytes(prompts.read_bytes() + b'{"prompt": "\xff"}\n')
    code, _, err = shift("--out", tmp_path / "out")
    assert code == 2 and f"{prompts}, line 10: not UTF-8 text" in err
    assert contents(tmp_path / "out") == {}


def test_a_finished_run_has_a_page_and_curves(
    shift: Run, run: Run, prompts: Path, tmp_path: Path
) -> None:
    write_records(prompts, [{"prompt": "What?", "response": "We see the sea."}])
    out = tmp_path / "out"
    code, printed, _ = shift("--out", out, "--no-report")
    assert code == 0 and not (out / "report.html").exists()
    code, printed, _ = shift("--out", out)
    assert code == 0 and f"the page is {out / 'report.html'}" in printed
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "<title>Token shift" in page and (out / "curves.svg").read_text().count("<svg") == 1
    (out / "report.html").unlink()
    code, _, err = run("token-shift-report", out)
    assert code == 2 and "name that of the run's models" in err


def test_a_page_is_written_anew_with_the_runs_tokenizer(
    shift: Run, run: Run, models: tuple[str, str], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shift("--out", out)
    first = (out / "report.html").read_bytes()
    assert run("token-shift-report", out, "--tokenizer", models[0])[0] == 0
    assert (out / "report.html").read_bytes() == first
