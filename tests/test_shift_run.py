"""Token-shift runs: what they store of models, rules, bases and templates, and what they refuse."""

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from shift_runs import RECORDS, contents, save_models, settings_of, write_records
from tiny_llama import EOS, save_llama
from transformers import PreTrainedTokenizerBase

from rnr_kernels.analysis.results import (
    load_manifest,
    load_prompts,
    load_token_shift,
    stored_shares,
)
from rnr_kernels.analysis.run import ShiftProgress, run_token_shift
from rnr_kernels.analysis.settings import ShiftSettings
from rnr_kernels.analysis.token_shift import TokenShift, token_shift
from rnr_kernels.loading import load_model
from rnr_kernels.teacher_forcing import Forced

ROOT = Path(__file__).parent.parent
TESTS = Path(__file__).parent

FILES = [
    "inputs.parquet", "manifest.json", "prompts.parquet", "responses/000001.parquet",
    "skipped.jsonl", "tokens/0/000000.parquet", "tokens/0/000001.parquet",
    "tokens/0/000002.parquet",
]  # fmt: skip


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


def test_what_is_stored(whole: Path) -> None:
    assert list(contents(whole)) == FILES
    manifest = load_manifest(whole)
    assert manifest.batches == ((0, 1), (2, 6), (4, 7))
    assert (manifest.num_prompts, manifest.num_skipped) == (6, 3)
    assert (manifest.aligned, manifest.bases) == ("aligned", ("base",))
    assert manifest.eos_token_ids == (EOS,) and manifest.threads == torch.get_num_threads()
    skipped = [json.loads(line) for line in (whole / "skipped.jsonl").read_text().splitlines()]
    assert skipped == [
        {"line": 4, "index": 3, "reason": "the prompt is empty"},
        {"line": 6, "index": 5, "reason": "prompt and response have 97 tokens, the window is 96"},
        {"line": 9, "index": 8, "reason": "the response is empty"},
    ]


def test_prompts_and_responses(whole: Path) -> None:
    prompts = load_prompts(whole)
    assert [prompt.index for prompt in prompts] == [0, 1, 2, 4, 6, 7]
    assert [prompt.finish_reason for prompt in prompts if prompt.index not in (2, 6)] == [
        "given"
    ] * 4
    for prompt in prompts:
        record = RECORDS[prompt.index]
        assert prompt.instruction == record["instruction"]
        assert prompt.base_prompt_token_ids == prompt.prompt_token_ids
        if "output" in record:
            assert prompt.response == record["output"]
    assert prompts[0].response_token_ids == (273, 271, 283, 282, 16, EOS)  # We see the sea.


def test_rows_are_those_of_token_shift(whole: Path, models: tuple[str, str]) -> None:
    aligned, base = (load_model(name, device="cpu") for name in models)
    prompts = load_prompts(whole)
    texts = [Forced(p.prompt_token_ids, p.response_token_ids or ()) for p in prompts]
    expected = token_shift(aligned, base, texts, top_k=2)
    found = load_token_shift(whole)
    indices = np.array([prompt.index for prompt in prompts])
    assert (found.prompt == indices[expected.prompt]).all()
    for field in fields(TokenShift)[1:]:
        one, other = getattr(found, field.name), getattr(expected, field.name)
        assert one.dtype == other.dtype
        assert one == pytest.approx(other, rel=1e-4, abs=1e-5), field.name
    # A decoded response is greedy.
    assert (found.rank[np.isin(found.prompt, (2, 6))] == 1).all()
    assert (found.base_rank > 1).any()


def test_shares_batch_by_batch_are_those_of_all_rows(whole: Path) -> None:
    shift = load_token_shift(whole)
    assert stored_shares(whole) == shift.shares()
    without = stored_shares(whole, with_eos=False)
    assert without == shift.shares(with_eos=False, eos_token_ids=EOS)
    assert without.num_tokens < len(shift)


def test_progress(settings: ShiftSettings, tmp_path: Path) -> None:
    seen: list[ShiftProgress] = []
    run = run_token_shift(settings, tmp_path / "out", report=seen.append)
    assert seen[0] == ShiftProgress(3, 0, 0)
    decoded = sum(
        len(prompt.response_token_ids or ())
        for prompt in load_prompts(tmp_path / "out")
        if prompt.index in (2, 6)
    )
    assert seen[-1] == ShiftProgress(3, 3, run.num_tokens + decoded)


def test_two_bases_are_two_runs_at_once(
    models: tuple[str, str], prompts: Path, whole: Path, tmp_path: Path
) -> None:
    both = settings_of(models, prompts, bases=(models[0], models[1]))
    run_token_shift(both, tmp_path / "out")
    assert (load_token_shift(tmp_path / "out", 0).kl_aligned_base == 0).all()
    one, other = load_token_shift(tmp_path / "out", 1), load_token_shift(whole)
    for field in fields(TokenShift):
        assert getattr(one, field.name).tobytes() == getattr(other, field.name).tobytes()
    with pytest.raises(ValueError, match=r"base must be one of 0 \(aligned\), 1 \(base\), got 2"):
        load_token_shift(tmp_path / "out", 2)


def test_a_template_of_the_bases_alone(
    models: tuple[str, str], prompts: Path, tmp_path: Path
) -> None:
    """The same model on both sides: what is shifted is the template's effect."""
    same = (models[1], models[1])
    run_token_shift(settings_of(same, prompts), tmp_path / "same")
    assert (load_token_shift(tmp_path / "same").base_rank[-3:] > 0).all()
    assert (load_token_shift(tmp_path / "same").kl_aligned_base == 0).all()
    run_token_shift(settings_of(same, prompts, base_template="tags"), tmp_path / "tags")
    shift, prompt = load_token_shift(tmp_path / "tags"), load_prompts(tmp_path / "tags")[0]
    assert len(prompt.prompt_token_ids) == 4 and len(prompt.base_prompt_token_ids) == 28
    assert (shift.kl_aligned_base > 0).all()


def test_a_response_ends_where_the_longer_prompt_fills_the_window(
    models: tuple[str, str], tmp_path: Path
) -> None:
    """With tags the base's prompt has 90 tokens of 96, the aligned side's has 66."""
    file = write_records(tmp_path / "p.jsonl", [{"prompt": "z" * 66}])
    run_token_shift(settings_of(models, file, base_template="tags"), tmp_path / "out")
    (prompt,) = load_prompts(tmp_path / "out")
    assert len(prompt.base_prompt_token_ids) == 90
    assert prompt.finish_reason == "length" and len(prompt.response_token_ids or ()) == 6


def test_rules_on_the_base(models: tuple[str, str], tmp_path: Path) -> None:
    rules = tmp_path / "sea.toml"
    rules.write_text(
        '[[rules]]\nkind = "only_tokens"\ntokens = ["s"]\nsteps = [0, 1]\n'
        '[[rules]]\nkind = "only_tokens"\ntokens = ["e"]\nsteps = [1, 2]\n'
        f'[[rules]]\nkind = "only_tokens"\ntokens = [{EOS}]\nsteps = [2]\n'
    )
    file = write_records(tmp_path / "p.jsonl", [{"prompt": "What?"}, {"prompt": "I"}])
    settings = settings_of(models, file, aligned=f"rules:{rules}", bases=models[::-1])
    run_token_shift(settings, tmp_path / "out")
    assert load_manifest(tmp_path / "out").aligned == "base x sea.toml"
    prompts = load_prompts(tmp_path / "out")
    assert [(prompt.response, prompt.finish_reason) for prompt in prompts] == [("se", "eos")] * 2
    shift = load_token_shift(tmp_path / "out")
    assert (shift.rank == 1).all() and (shift.logprob == 0).all()
    assert (shift.base_rank > 3).any()
    rules.write_text('[[rules]]\nkind = "only_tokens"\ntokens = ["s"]\n')
    with pytest.raises(ValueError, match=r"another run: aligned.rules is"):
        run_token_shift(replace(settings), tmp_path / "out")


def retokenized(folder: Path, tokenizer: PreTrainedTokenizerBase, old: str, new: str) -> str:
    """A model whose tokenizer has another piece under one id."""
    save_llama(folder, tokenizer)
    file = folder / "tokenizer.json"
    content = json.loads(file.read_text())
    vocabulary = content["model"]["vocab"]
    vocabulary[new] = vocabulary.pop(old)
    content["model"]["merges"] = []
    file.write_text(json.dumps(content))
    return str(folder)


def test_tokenizers_that_differ_are_refused(
    models: tuple[str, str], prompts: Path, tiny_bpe: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    other = retokenized(tmp_path / "other", tiny_bpe, "ĠW", "ĠX")
    message = rf"\({len(tiny_bpe)} tokens\) and {other} \({len(tiny_bpe)}\) differ: id \d+ is 'ĠW' "
    with pytest.raises(ValueError, match=message + "there and 'ĠX' here; compare a model with"):
        run_token_shift(settings_of((models[0], other), prompts), tmp_path / "out")
    grown = tmp_path / "grown"
    save_llama(grown, tiny_bpe)
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(grown)
    tokenizer.add_tokens(["<|new|>"])
    tokenizer.save_pretrained(grown)
    size = len(tiny_bpe)
    message = rf"\({size} tokens\) and {grown} \({size + 1}\) differ: id {size} is no token there"
    with pytest.raises(ValueError, match=message + r" and '<\|new\|>' here"):
        run_token_shift(settings_of((models[0], str(grown)), prompts), tmp_path / "out")
    assert contents(tmp_path / "out") == {}


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([{"prompt": "What?", "output": "sea"}, {"prompt": "I", "output": "see"}],
         r"text \d: the logits of the base are NaN or .inf before token 1"),
        ([{"prompt": ""}, {"prompt": "We see"}], r"logits for prompt 2 are NaN.* after 0 tokens"),
    ],
)  # fmt: skip
def test_logits_that_are_no_numbers_name_the_prompt(
    records: list[dict[str, str]],
    message: str,
    models: tuple[str, str],
    tiny_bpe: PreTrainedTokenizerBase,
    tmp_path: Path,
) -> None:
    bad = save_llama(tmp_path / "bad", tiny_bpe)
    tensors = load_file(bad / "model.safetensors")
    tensors["model.norm.weight"][0] = float("nan")
    save_file(tensors, bad / "model.safetensors", metadata={"format": "pt"})
    file = write_records(tmp_path / "p.jsonl", records)
    pair = (models[0], str(bad)) if "output" in records[0] else (str(bad), models[0])
    with pytest.raises(ValueError, match=message):
        run_token_shift(settings_of(pair, file), tmp_path / "out")


def test_nothing_to_compare(models: tuple[str, str], tmp_path: Path) -> None:
    file = write_records(tmp_path / "p.jsonl", [{"prompt": ""}, {"prompt": "a", "output": ""}])
    message = r"every record of .*p.jsonl is left out; .*line 1: the prompt is empty"
    with pytest.raises(ValueError, match=message):
        run_token_shift(settings_of(models, file), tmp_path / "out")
    assert contents(tmp_path / "out") == {}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"top_k": 11}, "top_k must be 0 to 10, got 11"),
        ({"bases": ()}, "at least one base"),
        ({"limit": 0}, "limit must be at least 1, got 0"),
        ({"dtype": "int8"}, "dtype must be one of float32, bfloat16, float16, got 'int8'"),
    ],
)
def test_bad_settings(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ShiftSettings(**changed)
