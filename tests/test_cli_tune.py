"""`rnr-kernels tune`: what it shows and writes, and one sentence for every mistake."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_llama import save_llama
from transformers import PreTrainedTokenizerBase

from rnr_kernels import cli
from rnr_kernels.rules.files import load_rules

Tune = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def base(tiny_bpe: PreTrainedTokenizerBase, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_llama(tmp_path_factory.mktemp("base") / "tiny", tiny_bpe)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    file = tmp_path / "data.jsonl"
    file.write_text(
        '{"prompt": "I?", "response": "We see"}\n{"prompt": "We", "response": "sea"}\n'
        '{"prompt": "What", "response": "I"}\n'
    )
    return file


@pytest.fixture
def tune(
    base: Path, data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Tune:
    """Runs the command on the tiny model and data unless told otherwise."""

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setenv("COLUMNS", "160")
        given = ["--device", "cpu", *map(str, arguments)]
        if "--model" not in given:
            given += ["--model", str(base)]
        if "--data" not in given:
            given += ["--data", str(data)]
        monkeypatch.setattr("sys.argv", ["rnr-kernels", "tune", *given])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        printed = capsys.readouterr()
        return int(stopped.value.code or 0), printed.out, printed.err

    return call


def test_check_shows_the_first_examples(tune: Tune, data: Path) -> None:
    code, out, err = tune("--mode", "instruction", "--check", 2)
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        f"{data}, line 1: 29 tokens, 3 of them trained on (*)",
        "       30  '<'",
        "       94  '|'",
        "       87  'u'",
        "       85  's'",
        "       71  'e'",
        "       84  'r'",
        "       94  '|'",
        "       32  '>'",
        "      201  '\\n'",
        "       43  'I'",
        "       33  '?'",
        "      201  '\\n'",
        "       30  '<'",
        "       94  '|'",
        "       67  'a'",
        "       85  's'",
        "       85  's'",
        "       75  'i'",
        "       85  's'",
        "       86  't'",
        "       67  'a'",
        "       80  'n'",
        "       86  't'",
        "       94  '|'",
        "       32  '>'",
        "      201  '\\n'",
        "*     273  'We'",
        "*     271  ' see'",
        "*       1  '</s>'",
        f"{data}, line 2: 29 tokens, 4 of them trained on (*)",
        *out.splitlines()[1:10],
        "      273  'We'",
        *out.splitlines()[12:27],
        "*      85  's'",
        "*      71  'e'",
        "*      67  'a'",
        "*       1  '</s>'",
    ]


def test_check_of_response_tuning_shows_an_empty_instruction(tune: Tune) -> None:
    _, out, _ = tune("--mode", "response", "--check", 1)
    lines = [line.split(maxsplit=1)[-1] for line in out.splitlines()[9:12]]
    assert lines == ["'\\n'", "'\\n'", "'<'"]
    assert "'I'" not in out and "' see'" in out


def test_a_run(tune: Tune, tmp_path: Path) -> None:
    out_folder = tmp_path / "tuned"
    code, out, err = tune(
        "--mode", "task", "--out", out_folder, "--recipe", "released", "--epochs", 2,
        "--learning-rate", "1e-3", "--batch-size", 2, "--device-batch-size", 2, "--limit", 2,
        "--seed", 5, "--weight-decay", 0.1,
    )  # fmt: skip
    log = json.loads((out_folder / "training.json").read_text())
    assert (code, err.strip()) == (0, "")
    assert out == (
        f"2 examples, 2 steps, last loss {log['steps'][-1]['loss']:.3f}; the model, its card and "
        f"loss.png are in {out_folder}\n"
    )
    assert (log["mode"], log["data"], log["num_examples"]) == ("task", "data.jsonl", 2)
    assert log["settings"] == {
        "epochs": 2, "learning_rate": 1e-3, "schedule": "linear", "warmup": 0.03, "batch_size": 2,
        "device_batch_size": 2, "weight_decay": 0.1, "max_length": 2048, "dtype": "bfloat16",
        "seed": 5, "lora": None,
    }  # fmt: skip


def test_long_records_are_reported(tune: Tune, tmp_path: Path) -> None:
    arguments = ("--mode", "task", "--out", tmp_path / "tuned", "--epochs", 1, "--max-length", 28)
    code, _, err = tune(*arguments)
    assert code == 2 and "line 1: 29 tokens, more than the 28 that an example may have" in err
    code, out, _ = tune(*arguments, "--skip-long")
    assert code == 0
    assert out.startswith("2 records left out: longer than an example may be\n1 examples, 1 steps")


MISTAKES = [
    (["--mode", "both"], "--mode must be one of instruction, response, task, rules, got 'both'"),
    (["--recipe", "lima"], "recipe must be paper or released, got 'lima'"),
    (["--epochs", 0], "epochs must be at least 1, got 0"),
    (["--learning-rate", 0], "learning_rate must be above 0 and finite, got 0.0"),
    (["--schedule", "flat"], "schedule must be cosine or linear, got 'flat'"),
    (["--warmup", 2], "warmup must be a share of the steps below 1, got 2.0"),
    (["--batch-size", 3, "--device-batch-size", 2], "batch_size 3 must be a multiple of"),
    (["--dtype", "int8"], "dtype must be one of float32, bfloat16, float16, got 'int8'"),
    (["--lora-rank", 4], "--lora-rank and --lora-alpha belong to --lora: add it, or leave them"),
    (["--lora", "--lora-rank", 0], "LoRA needs a rank and an alpha of at least 1"),
    (["--data", "missing.jsonl"], "the data file missing.jsonl does not exist; expected one JSON"),
    (["--data", "./missing"], "data must be a .jsonl or .json file, a folder that datasets saved"),
    (["--model", "./missing"], "model must be a folder, a Hugging Face name or 'embedded'"),
    (["--device", "meta"], "device 'meta' holds no numbers: use cpu or cuda"),
    (["--out", "no/out"], "no of no/out does not exist; make it first"),
    (["--max-length", 5], "tokens, more than the 5 that an example may have"),
    (["--max-length", 5, "--skip-long"], "all 3 records have more than 5 tokens"),
]


@pytest.mark.parametrize(("arguments", "words"), MISTAKES, ids=str)
def test_a_mistake_is_one_sentence(
    tune: Tune, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[object], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = tune("--mode", "task", "--out", "tuned", *arguments)
    assert (code, out) == (2, "")
    assert words in err
    assert err.startswith("rnr-kernels: ") and err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["data.jsonl"]


def test_without_an_output(tune: Tune) -> None:
    code, _, err = tune("--mode", "task")
    assert (code, err) == (
        2,
        "rnr-kernels: --out is missing: name what to make, or look first with --check 1\n",
    )


def test_an_output_that_is_taken(tune: Tune, tmp_path: Path) -> None:
    code, _, err = tune("--mode", "task", "--out", tmp_path)
    assert (code, err) == (
        2,
        f"rnr-kernels: {tmp_path} exists: remove it, or name another folder\n",
    )


def test_a_mode_is_asked_for(tune: Tune) -> None:
    code, _, err = tune()
    assert code == 2 and "Missing option '--mode'" in err


def test_rules_are_fitted_and_written(tune: Tune, tmp_path: Path) -> None:
    out = tmp_path / "fitted.toml"
    code, printed, _ = tune("--mode", "rules", "--out", out, "--num-weights", 2, "--l2", 0.5)
    assert code == 0 and "base x fitted rules" in printed
    rules = load_rules(out)
    assert rules.name == "fitted" and len(rules) > 0
    code, _, err = tune("--mode", "rules", "--out", out)
    assert code == 2 and "exists; pass --force to replace it" in err
    assert tune("--mode", "rules", "--out", out, "--num-weights", 1, "--force")[0] == 0


@pytest.mark.parametrize(
    ("mode", "option", "message"),
    [
        ("rules", ("--epochs", 3), "--epochs belongs to the modes that train; leave it out"),
        ("rules", ("--lora",), "--lora belongs to the modes that train"),
        ("rules", ("--skip-long",), "--skip-long belongs to the modes that train"),
        ("task", ("--num-weights", 3), "--num-weights belongs to --mode rules; leave it out"),
        ("task", ("--first", "used"), "--first belongs to --mode rules"),
        ("rules", ("--first", "usd"), "first must be some of token, opener, eos, used"),
        ("rules", ("--l1", -1), "l1 must be 0 or more"),
        ("rules", ("--scope", "prompt"), "scope must be 'response' or 'prompt+response'"),
    ],
)
def test_an_option_of_another_mode_is_refused(
    tune: Tune, tmp_path: Path, mode: str, option: tuple[object, ...], message: str
) -> None:
    out = tmp_path / "out.toml"
    code, _, err = tune("--mode", mode, "--out", out, *option)
    assert code == 2 and message in err and not out.exists()
