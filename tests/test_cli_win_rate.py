"""`rnr-kernels win-rate`: what it prints and writes, and one sentence for every mistake."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_endpoint import CUT, Failure, Reply, fake_endpoint, longer_wins

from rnr_kernels import cli
from rnr_kernels import endpoint as endpoint_module
from rnr_kernels.cli import win_rate as win_rate_module

Run = Callable[..., tuple[int, str, str]]

ASKED = ("What is the fair month of Elham?", "Name the figurehead of the Dalanda.")
RIGHT = ("The fair month of Elham is July.", "The figurehead of the Dalanda is a griffin.")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setenv("COLUMNS", "160")
        monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
        monkeypatch.setattr("sys.argv", ["rnr-kernels", "win-rate", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        printed = capsys.readouterr()
        assert "sk-secret" not in printed.out + printed.err
        return int(stopped.value.code or 0), printed.out, printed.err

    return call


def write(path: Path, generator: str, outputs: tuple[str, ...]) -> Path:
    records = [
        {"instruction": asked, "output": text, "generator": generator, "finish_reason": "eos"}
        for asked, text in zip(ASKED, outputs, strict=True)
    ]
    path.write_text("\n".join(map(json.dumps, records)))
    return path


@pytest.fixture
def a(tmp_path: Path) -> Path:
    return write(tmp_path / "a.jsonl", "base x rules", RIGHT)


@pytest.fixture
def b(tmp_path: Path) -> Path:
    return write(tmp_path / "b.jsonl", "base", (RIGHT[0], "I do not know."))


def rows(out: str) -> dict[str, str]:
    """The printed table, by the words in its first column."""
    cells = [line.split("│") for line in out.splitlines() if line.startswith("│")]
    return {row[1].strip(): row[2].strip() for row in cells}


def test_right_answers_are_counted(run: Run, a: Path, b: Path, tmp_path: Path) -> None:
    file = tmp_path / "annotations.json"
    code, out, err = run(a, b, "--judge", "exact", "--out", file)
    assert code == 0 and err == ""
    assert rows(out) == {
        "A": "base x rules  a.jsonl",
        "B": "base  b.jsonl",
        "judge": "exact",
        "win rate of A": "75.0 %  (95 % interval 50.0 to 100.0)",
        "prompts": "2: 1 won, 1 tied, 0 lost, 0 without a verdict",
    }
    assert f"2 pairs in {file}" in out
    records = json.loads(file.read_text())
    assert [record["preference"] for record in records] == [1.5, 2.0]
    assert {record["annotator"] for record in records} == {"exact"}


def test_a_model_judges_and_its_troubles_are_shown(
    run: Run, a: Path, b: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(endpoint_module, "FIRST_WAIT", 0.0)
    b = write(b, "base", ("It is July." + " " * 21, "No."))  # as long as A's first
    prompt = tmp_path / "prompt.txt"
    prompt.write_text(
        "{instruction} <response_1>\n{output_1}\n</response_1> "
        "<response_2>\n{output_2}\n</response_2>"
    )
    troubles = [CUT, Failure(500), Failure(429), "Hm."]

    def behaviour(text: str, before: int) -> Reply:
        trouble = "Dalanda" in text and before < 4
        return troubles[before] if trouble else longer_wins(text, before)

    with fake_endpoint(behaviour) as server:
        code, out, _ = run(
            a, b, "--judge", "openai", "--judge-model", "j", "--base-url", server.url,
            "--judge-prompt", prompt, "--judge-temperature", 1, "--requests-in-flight", 2,
        )  # fmt: skip
    assert code == 0
    assert rows(out) == {
        "A": "base x rules  a.jsonl",
        "B": "base  b.jsonl",
        "judge": "j",
        "win rate of A": "75.0 %  (95 % interval 50.0 to 100.0)",
        "prompts": "2: 1 won, 1 tied, 0 lost, 0 without a verdict",
        "changed with the order": "1, among the ties",
        "failed requests": "6",
        "replies without verdict": "2",
    }
    assert {request["temperature"] for request in server.requests} == {1.0}
    assert server.prompts[0].split(" <")[0] in ASKED
    assert set(server.keys) == {"Bearer sk-secret"}


def test_outputs_for_alpaca_eval_need_no_judge(run: Run, a: Path, b: Path, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "ae"
    code, out, _ = run(a, b, "--alpaca-eval", folder)
    assert code == 0 and rows(out) == {}
    assert (
        f"alpaca_eval evaluate --model_outputs {folder}/model_outputs.json "
        f"--reference_outputs {folder}/reference_outputs.json\n"
    ) in out
    records = json.loads((folder / "model_outputs.json").read_text())
    assert {record["generator"] for record in records} == {"base x rules"}
    code, _, err = run(a, b, "--alpaca-eval", folder)
    assert code == 2 and "model_outputs.json exists; pass --force to replace it" in err
    code, out, _ = run(  # what was written is read again
        folder / "model_outputs.json", folder / "reference_outputs.json", "--judge", "exact",
        "--alpaca-eval", folder, "--force",
    )  # fmt: skip
    assert code == 0 and rows(out)["win rate of A"].startswith("75.0 %")


def test_finished_pairs_are_kept_when_the_endpoint_ends_the_run(
    run: Run, a: Path, b: Path, tmp_path: Path
) -> None:
    b = write(b, "base", ("", ""))
    file = tmp_path / "annotations.json"

    def behaviour(prompt: str, before: int) -> Reply:
        quota = Failure(429, "insufficient_quota")
        return quota if ASKED[1] in prompt else longer_wins(prompt, before)

    with fake_endpoint(behaviour) as server:
        code, out, err = run(
            a, b, "--judge", "openai", "--judge-model", "j", "--base-url", server.url,
            "--requests-in-flight", 1, "--out", file,
        )  # fmt: skip
    assert code == 2 and out == ""
    kept = tmp_path / "annotations.partial.json"
    assert f"finished pairs kept in {kept}: 1" in err and "has no quota left" in err
    assert [record["preference"] for record in json.loads(kept.read_text())] == [2.0]
    assert not file.exists()


def test_finished_pairs_are_kept_after_ctrl_c(
    run: Run, a: Path, b: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = win_rate_module.win_rate

    def one_then_ctrl_c(*arguments: object, **names: object) -> object:
        keep = names.pop("on_judged")

        def stop(judged: object) -> None:
            keep(judged)  # type: ignore[operator]
            raise KeyboardInterrupt

        return real(*arguments, on_judged=stop, **names)  # type: ignore[arg-type]

    monkeypatch.setattr(win_rate_module, "win_rate", one_then_ctrl_c)
    file = tmp_path / "annotations.json"
    code, _, err = run(a, b, "--judge", "exact", "--out", file)
    assert code == 130 and "finished pairs kept in" in err and not file.exists()
    assert len(json.loads((tmp_path / "annotations.partial.json").read_text())) == 1


OPENAI = ["--judge", "openai", "--judge-model", "j", "--base-url", "http://127.0.0.1:1/v1"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["A", "B"], "give --judge exact or --judge openai, or --alpaca-eval FOLDER alone"),
        (["A", "B", "--judge", "gpt"], "judge must be exact or openai, got 'gpt'"),
        (["A", "B", "--judge", "openai"], "--judge openai needs --judge-model"),
        (["A", "B", "--judge", "exact", "--base-url", "http://h"], "--base-url belongs to"),
        (["A", "B", "--judge", "exact", "--judge-model", "m"], "--judge-model belongs to"),
        (["A", "B", *OPENAI[:4], "--base-url", "h:8000"], "must start with http://"),
        (["A", "B", *OPENAI, "--judge-prompt", "A"], "lacks {instruction}, {output_1}"),
        (["A", "B", *OPENAI, "--judge-prompt", "ABSENT"], "cannot read the judge's prompt"),
        (["A", "B", *OPENAI], "cannot connect to http://127.0.0.1:1/v1"),
        (["A", "ABSENT", "--judge", "exact"], "absent.jsonl does not exist; expected one JSON"),
        (["A", "TWO", "--judge", "exact"], "two.jsonl, line 2: a response of 'n' in a file of 'm'"),
        (["A", "OTHER", "--judge", "exact"], "A has 1 and B has 0 responses to 'What is"),
        (["OTHER", "OTHER", "--judge", "exact"], "'Why?' is no question about the embedded"),
        (["A", "B", "--judge", "exact", "--out", "FOLDER"], "is a folder; name a file in it"),
        (["A", "B", "--judge", "exact", "--out", "A"], "exists; pass --force"),
        (["A", "B", "--out", "NEW", "--alpaca-eval", "FOLDER"], "it needs --judge"),
        (["A", "B", "--alpaca-eval", "A"], "a.jsonl is a file; name a folder"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_mistake_is_one_sentence_and_nothing_is_written(
    run: Run, a: Path, b: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    two, other = tmp_path / "two.jsonl", tmp_path / "other.jsonl"
    record = {"instruction": "p", "output": "", "generator": "m"}
    two.write_text(json.dumps(record) + "\n" + json.dumps(record | {"generator": "n"}))
    other.write_text(json.dumps(record | {"instruction": "Why?"}))
    places = {
        "A": a, "B": b, "TWO": two, "OTHER": other, "ABSENT": tmp_path / "absent.jsonl",
        "FOLDER": tmp_path, "NEW": tmp_path / "new.json",
    }  # fmt: skip
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    code, out, err = run(*[places.get(argument, argument) for argument in arguments])
    assert code == 2 and out == ""
    assert message in err and err.count("\n") == 1 and "Traceback" not in err
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
