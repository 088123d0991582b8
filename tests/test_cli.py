"""The command line: what it prints and writes, and one sentence for every mistake."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

from rnr_kernels.cli import generate as generate_module

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def model_folder(
    tiny_bpe: PreTrainedTokenizerBase, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("tiny-llama")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tiny_bpe), hidden_size=32, intermediate_size=64, num_hidden_layers=1,
        num_attention_heads=2, max_position_embeddings=64, bos_token_id=0, eos_token_id=1,
        pad_token_id=2,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tiny_bpe.save_pretrained(folder)
    return folder


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    file = tmp_path / "prompts.jsonl"
    file.write_text('{"instruction": "What?"}\n{"instruction": "We see"}\n{"instruction": "I"}\n')
    return file


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    """Rules under which every response is "sea" and then ends."""
    file = tmp_path / "sea.toml"
    file.write_text(
        'name = "sea"\n'
        '[[rules]]\nkind = "only_tokens"\nlabel = "s"\ntokens = ["s"]\nsteps = [0, 1]\n'
        '[[rules]]\nkind = "only_tokens"\nlabel = "e"\ntokens = ["e"]\nsteps = [1, 2]\n'
        '[[rules]]\nkind = "only_tokens"\nlabel = "a"\ntokens = ["a"]\nsteps = [2, 3]\n'
        '[[rules]]\nkind = "eos_ramp"\nlabel = "eos"\nforce_at = 3\n'
    )
    return file


def test_one_prompt_is_streamed(run: Run, model_folder: Path, rules: Path) -> None:
    code, out, _ = run("generate", "What?", "--model", model_folder, "--rules", rules)
    assert (code, out) == (0, "sea\n")


def test_what_may_become_a_stop_string_is_not_streamed(
    run: Run, model_folder: Path, rules: Path
) -> None:
    arguments = ("generate", "What?", "--model", model_folder, "--rules", rules)
    assert run(*arguments, "--stop", "ea")[1] == "s\n"
    assert run(*arguments, "--stop", "eat")[1] == "sea\n"


def test_prompts_to_json_lines(
    run: Run, model_folder: Path, rules: Path, prompts: Path, tmp_path: Path
) -> None:
    out_file = tmp_path / "out.jsonl"
    code, out, _ = run(
        "generate", "--prompts", prompts, "--model", model_folder, "--rules", rules,
        "--batch-size", 2, "--out", out_file,
    )  # fmt: skip
    assert code == 0 and "3 records" in out
    records = [json.loads(line) for line in out_file.read_text().splitlines()]
    assert [r["instruction"] for r in records] == ["What?", "We see", "I"]
    assert [r["output"] for r in records] == ["sea"] * 3
    assert {r["generator"] for r in records} == {f"{model_folder.name} x sea"}
    assert all(r["token_ids"][-1] == 1 and r["finish_reason"] == "eos" for r in records)
    assert all(r["logprobs"] == [0.0] * 4 for r in records)
    assert all(len(r["log_z"]) == 4 and max(r["log_z"]) < 0 for r in records)


def test_compare_shows_base_beside_rules_and_limit_cuts(
    run: Run, model_folder: Path, rules: Path, prompts: Path
) -> None:
    code, out, _ = run(
        "generate", "--prompts", prompts, "--model", model_folder, "--rules", rules, "--compare",
        "--limit", 2, "--max-new-tokens", 5,
    )  # fmt: skip
    assert code == 0
    assert f"{model_folder.name} x sea" in out and "We see" in out
    assert out.count("ended by itself") >= 2 and "sea" in out


def test_without_leaves_a_rule_out_and_rules_add_up(
    run: Run, model_folder: Path, rules: Path, tmp_path: Path
) -> None:
    more = tmp_path / "more.json"
    more.write_text('{"rules": [{"kind": "only_tokens", "label": "b", "tokens": ["b"],'
                    ' "steps": [1, 2]}]}')  # fmt: skip
    code, out, _ = run(
        "generate", "What?", "--model", model_folder, "--rules", rules, "--rules", more,
        "--without", "e",
    )  # fmt: skip
    assert (code, out) == (0, "sba\n")


def test_sampling_is_repeatable_by_seed(run: Run, model_folder: Path) -> None:
    def sampled(seed: int) -> str:
        return run(
            "generate", "I", "--model", model_folder, "--rules", "none", "--temperature", 1,
            "--seed", seed, "--max-new-tokens", 8,
        )[1]  # fmt: skip

    assert sampled(1) == sampled(1) != sampled(2)


def test_interrupt_keeps_the_finished_records(
    run: Run, model_folder: Path, rules: Path, prompts: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    real = generate_module.generate

    def interrupted(*args: object, **names: object) -> object:
        completions = iter(real(*args, **names))  # type: ignore[arg-type]

        def two_then_ctrl_c() -> object:
            yield next(completions)
            yield next(completions)
            raise KeyboardInterrupt

        return two_then_ctrl_c()

    monkeypatch.setattr(generate_module, "generate", interrupted)
    out_file = tmp_path / "out.jsonl"
    code, _, err = run(
        "generate", "--prompts", prompts, "--model", model_folder, "--rules", rules,
        "--out", out_file,
    )  # fmt: skip
    assert code == 130 and "finished records kept: 2" in err
    assert len(out_file.read_text().splitlines()) == 2


def test_a_failure_of_torch_is_a_sentence(
    run: Run, model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def out_of_memory(*args: object, **names: object) -> None:
        raise RuntimeError("CUDA out of memory\nand a page of figures")

    monkeypatch.setattr(generate_module, "generate", out_of_memory)
    code, _, err = run("generate", "I", "--model", model_folder, "--rules", "none")
    assert code == 1
    assert err.count("\n") == 1 and "torch stopped: CUDA out of memory; try a smaller" in err


def test_check_shows_ids_and_how_the_tags_are_cut(run: Run, model_folder: Path) -> None:
    with pytest.warns(UserWarning, match="no single token for"):
        code, out, _ = run("rules", "check", "hewitt2024", "--tokenizer", model_folder)
    assert code == 0
    assert "'What'" in out and "+15 t / 250" in out and "</s>" in out
    assert "skipped: no single token prints this" in out
    assert "template tags: " in out
    assert "< | u s e r | > ⏎ H i ⏎ < | a s s i s t a n t | > ⏎" in out


def test_end_tokens_are_those_that_generate_uses(
    run: Run, model_folder: Path, rules: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "two-ends"
    folder.mkdir()
    for path in model_folder.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "generation_config.json").write_text('{"eos_token_id": [1, 5]}')
    _, out, _ = run("rules", "check", rules, "--tokenizer", folder)
    assert "end-of-sequence ids [1, 5]" in out
    _, out, _ = run("rules", "check", rules, "--tokenizer", folder, "--eos", 7)
    assert "end-of-sequence ids [7]" in out


def test_explain_shows_each_rules_share(run: Run, model_folder: Path, tmp_path: Path) -> None:
    rules = tmp_path / "two.toml"
    rules.write_text(
        '[[rules]]\nkind = "token_bias"\nlabel = "bias"\nweights = { "s" = 2.5 }\n'
        '[[rules]]\nkind = "used_token_penalty"\npenalty = 1.5\nlabel = "used"\n'
    )
    code, out, _ = run(
        "rules", "explain", rules, "--tokenizer", model_folder, "--prompt", "I",
        "--response", "ss",
    )  # fmt: skip
    assert code == 0
    rows = [line.replace("│", " ").split() for line in out.splitlines() if line.startswith("│")]
    assert rows[0][:5] == ["0", "s", "+2.50", "0", "+2.50"]
    assert rows[1][:5] == ["1", "s", "+2.50", "-1.50", "+1.00"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give either one instruction"),
        ([""], "the instruction is empty"),
        (["a", "--prompts", "PROMPTS"], "give either one instruction"),
        (["a", "--rules", "hewit"], r"rules must be a preset \(hewitt2024"),
        (["a", "--rules", "absent.toml"], "absent.toml"),
        (["a", "--without", "start"], "no rule is labelled 'start'"),
        (["a", "--rules", "none", "--without", "eos"], "--rules none has none"),
        (["a", "--rules", "none", "--compare"], "--compare shows base beside"),
        (["a", "--rules", "none", "--rules", "hewitt2024"], "--rules none stands alone"),
        (["a", "--template", "tag"], "template must be tags, chat, plain"),
        (["a", "--model", "./absent"], "'./absent' is no folder here"),
        (["a", "--model", "EMPTY"], "config.json is missing"),
        (["a", "--model", "NO_WEIGHTS"], "holds no weights"),
        (["a", "--model", "BROKEN_WEIGHTS"], "cannot load a causal language model"),
        (["a", "--device", "meta"], "'meta' holds no numbers"),
        (["\udcff"], "not valid Unicode"),
        (["a", "--out", "FOLDER"], "is a folder; name a file in it"),
        (["a", "--out", "nowhere/x.jsonl"], "does not exist; make it first"),
        (["a", "--device", "tpu9x"], "device must be cpu, cuda"),
        (["a", "--dtype", "int8"], "dtype must be one of float32"),
        (["a", "--temperature", "-1"], "temperature must be 0"),
        (["a", "--top-p", "0", "--temperature", "1"], "top_p must be above 0"),
        (["--prompts", "absent.jsonl"], "does not exist"),
        (["--prompts", "BROKEN"], "line 2: not JSON"),
        (["--prompts", "NOTHING"], "is empty"),
        (["a " * 80], "the model's window is 64"),
        (["a", "--out", "PROMPTS"], "exists; pass --force"),
    ],
)
def test_a_mistake_is_one_sentence_and_nothing_is_written(
    run: Run,
    model_folder: Path,
    prompts: Path,
    tmp_path: Path,
    arguments: list[str],
    message: str,
) -> None:
    import re

    (tmp_path / "empty").mkdir()
    (tmp_path / "no_weights").mkdir()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "no_weights" / name).write_bytes((model_folder / name).read_bytes())
    (tmp_path / "broken_weights").mkdir()
    for path in (tmp_path / "no_weights").iterdir():
        (tmp_path / "broken_weights" / path.name).write_bytes(path.read_bytes())
    (tmp_path / "broken_weights" / "model.safetensors").write_bytes(b"no tensors")
    (tmp_path / "empty" / "tokenizer.json").write_bytes(
        (model_folder / "tokenizer.json").read_bytes()
    )
    (tmp_path / "broken.jsonl").write_text('{"instruction": "a"}\n{"instruction": \n')
    (tmp_path / "nothing.jsonl").write_text("")
    places = {
        "PROMPTS": prompts,
        "EMPTY": tmp_path / "empty",
        "NO_WEIGHTS": tmp_path / "no_weights",
        "BROKEN": tmp_path / "broken.jsonl",
        "NOTHING": tmp_path / "nothing.jsonl",
        "BROKEN_WEIGHTS": tmp_path / "broken_weights",
        "FOLDER": tmp_path,
    }
    filled = [places.get(argument, argument) for argument in arguments]
    if "--model" not in arguments:
        filled += ["--model", model_folder]
    if "--rules" not in arguments and "--without" not in arguments:
        filled += ["--rules", "none"]
    before = prompts.read_bytes()
    out_file = tmp_path / "out.jsonl"
    if "--out" not in arguments:
        filled += ["--out", out_file]
    code, out, err = run("generate", *filled)
    assert code == 2 and out == ""
    assert re.search(message, err), err
    assert "Traceback" not in err and err.count("\n") <= 3
    assert not out_file.exists() and prompts.read_bytes() == before
