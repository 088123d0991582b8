"""`rnr-kernels roles evaluate`: one sentence for every mistake, and nothing is lost."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_endpoint import Body, Failure, Reply, fake_endpoint
from role_evaluations import JUDGE, PLAIN, write, write_responses
from role_examples import CLERK, NO_COMMA, THREE, example, says

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    return write(tmp_path / "plain.jsonl", PLAIN)


@pytest.fixture
def judged(tmp_path: Path) -> Path:
    return write(tmp_path / "judged.jsonl", THREE)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["JUDGED"], "2 of 3 examples, the first of them '1', have requirements in free words"),
        (["JUDGED"], "name one (--judge-model), or leave such requirements out (--skip-judged)"),
        (["JUDGED", *JUDGE], "cannot connect to http://127.0.0.1:1/v1"),
        (["JUDGED", *JUDGE, "--skip-judged"], "give one of them"),
        (["JUDGED", *JUDGE[:2], "--base-url", "h:8000"], "must start with http://"),
        (["JUDGED", *JUDGE, "--judge-prompt", "PLAIN"], "lacks {requirement}, {response}"),
        (["PLAIN", "--base-url", "http://h"], "--base-url belongs to --judge-model"),
        (["PLAIN", "--judge-prompt", "PLAIN"], "--judge-prompt belongs to --judge-model"),
        (["PLAIN", "--max-tries", "5"], "--max-tries belongs to --judge-model; add that, or"),
        (["PLAIN", "--requests-in-flight", "8"], "--requests-in-flight belongs to --judge-model"),
        (["PLAIN", "--temperature", "0"], "--temperature belongs to --model; add that, or leave"),
        (["PLAIN", "--template", "tags"], "--template belongs to --model"),
        (["PLAIN", "--responses", "SHORT", "--device", "cpu"], "--device belongs to --model"),
        (["ABSENT"], "the examples file", ),
        (["PLAIN", "--responses", "ABSENT"], "the responses file"),
        (["PLAIN", "--responses", "SHORT"], "2 of 3 examples have no response"),
        (["PLAIN", "--responses", "SHORT", "--responses", "SHORT"], "is given twice"),
        (["PLAIN", *["--responses", "SHORT"] * 2, "--model", "m"], "at most 2 systems are comp"),
        (["UNANSWERED"], "example '1' has no response; give the responses"),
        (["PLAIN", "--out", "FOLDER"], "is a folder; name a file in it"),
        (["PLAIN", "--out", "JUDGED"], "exists; pass --force"),
        (["PLAIN", "--chart", "NEW"], "the chart's file must end in .png, .svg, .pdf"),
        (["UNKNOWN"], "line 1, requirement 1: unknown kind of requirement 'length:long'"),
        (["RANGE"], "line 1, requirement 1: length_constraints:number_words: num_words must be"),
        (["PLAIN", "--model", "embedded", "--template", "none"], "template must be tags, chat"),
        (["PLAIN", "--model", "no/such/model"], "no/such/model"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_a_mistake_is_one_sentence_and_nothing_is_written(
    evaluate: Run, plain: Path, judged: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    record = PLAIN[0].as_record()
    unknown, out_of_range = tmp_path / "unknown.jsonl", tmp_path / "range.jsonl"
    unknown.write_text(json.dumps(record | {"requirements": [{"kind": "length:long"}]}))
    words = {"relation": "at least", "num_words": -3}
    too_few = {"kind": "length_constraints:number_words", "parameters": words}
    out_of_range.write_text(json.dumps(record | {"requirements": [too_few]}))
    places = {
        "PLAIN": plain, "JUDGED": judged, "FOLDER": tmp_path, "NEW": tmp_path / "new.jpg",
        "ABSENT": tmp_path / "absent.jsonl", "UNKNOWN": unknown, "RANGE": out_of_range,
        "SHORT": write_responses(tmp_path / "short.jsonl", ["x"]),
        "UNANSWERED": write(tmp_path / "unanswered.jsonl", [example("1", NO_COMMA)]),
    }  # fmt: skip
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    code, out, err = evaluate(*[places.get(argument, argument) for argument in arguments])
    assert code == 2 and out == ""
    assert message in err and err.count("\n") == 1 and "Traceback" not in err
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_wrong_key_is_named_without_being_shown(evaluate: Run, judged: Path) -> None:
    with fake_endpoint(lambda prompt, before: Failure(401)) as server:
        code, _, err = evaluate(judged, "--judge-model", "j", "--base-url", server.url)
    assert code == 2 and "refuses the key (HTTP 401); set OPENAI_API_KEY" in err
    assert "aye" not in err


def test_nothing_to_evaluate_is_a_mistake(evaluate: Run, tmp_path: Path) -> None:
    for examples, arguments in (
        ([example("1", response="x")], []),
        ([example("1", says("aye"), response="x")], ["--skip-judged"]),
        ([example("1", role=CLERK, response="x")], []),
    ):
        code, out, err = evaluate(write(tmp_path / "few.jsonl", examples), *arguments)
        assert code == 2 and out == "" and "no example has a requirement that counts" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["PLAIN", "--out", "PLAIN"], "is both the file of examples and --out"),
        (["PLAIN", "--chart", "LINK"], "is both the file of examples and --chart"),
        (["PLAIN", "--responses", "A", "--out", "A"], " and --out; name another"),
        (["PLAIN", "--out", "X", "--chart", "X"], "is both --out and --chart"),
        (["KEPT", "--out", "X", "--model", "embedded"], "and the responses of rnr-base"),
        (["PARTIAL", "--out", "X"], "and what is kept of a run that stops"),
        (["PLAIN", "--judge-model", "j", "--judge-prompt", "P", "--out", "P"], "--judge-prompt"),
    ],
    ids=str,
)
def test_no_file_is_written_over_one_that_is_read_or_written(
    evaluate: Run, plain: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    link = tmp_path / "link.svg"
    link.symlink_to(plain)
    (tmp_path / "p.txt").write_text("{requirement} {response}")
    places = {
        "PLAIN": plain, "LINK": link, "X": tmp_path / "x.svg", "P": tmp_path / "p.txt",
        "A": write_responses(tmp_path / "a.jsonl", ["x", "x", "x"]),
        "KEPT": write(tmp_path / "x.responses.jsonl", PLAIN),
        "PARTIAL": write(tmp_path / "x.partial.svg", PLAIN),
    }  # fmt: skip
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    given = [places.get(argument, argument) for argument in arguments]
    code, out, err = evaluate(*given, "--force")
    assert code == 2 and out == "" and message in err
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_judge_without_sense_is_found_out_early(evaluate: Run, tmp_path: Path) -> None:
    many = [example(str(n), says("aye"), response="x") for n in range(200)]
    with fake_endpoint(lambda prompt, before: "Hm.") as server:
        code, _, err = evaluate(
            write(tmp_path / "many.jsonl", many), "--judge-model", "j", "--base-url", server.url,
            "--max-tries", 1, "--requests-in-flight", 2,
        )  # fmt: skip
    assert code == 2 and "the judge came to none of 32 verdicts" in err
    assert 32 <= len(server.requests) < 100


def test_what_is_kept_of_a_run_that_stopped_is_not_replaced_unasked(
    evaluate: Run, plain: Path, tmp_path: Path
) -> None:
    kept = tmp_path / "out.partial.json"
    kept.write_text("verdicts that cost money")
    code, _, err = evaluate(plain, "--out", tmp_path / "out.json")
    assert code == 2 and f"{kept} exists; pass --force" in err
    assert evaluate(plain, "--out", tmp_path / "out.json", "--force")[0] == 0


NULL = Body('{"choices": [{"message": {"role": "assistant", "content": null}}]}')


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (Body("<html>Welcome</html>"), "answers, but not as a chat model; check the base URL"),
        (Body('{"error": {"message": "bad key"}}'), "answers, but not as a chat model"),
        (NULL, "the judge came to none of 2 verdicts; of the last one: the judge came to no "
         "verdict: no reply could be read; check"),
        ("I think it is fine.", "the judge came to none of 2 verdicts"),
        (Failure(400, "unsupported_value"), "HTTP 400, unsupported_value; check the judge's name"),
        (Failure(405), "the judge came to no verdict: HTTP 405"),
    ],
    ids=str,
)  # fmt: skip
def test_a_judge_that_answers_something_else_is_no_rate_of_nothing(
    evaluate: Run, judged: Path, tmp_path: Path, reply: Reply, words: str
) -> None:
    with fake_endpoint(lambda prompt, before: reply) as server:
        code, printed, err = evaluate(
            judged, "--judge-model", "j", "--base-url", server.url, "--max-tries", 2,
            "--out", tmp_path / "out.json",
        )  # fmt: skip
    assert code == 2 and printed == "" and words in err
    assert not (tmp_path / "out.json").exists()
    assert (tmp_path / "out.partial.json").exists() == ("none of 2" in err)
