"""`rnr-kernels roles evaluate`: what it prints and writes, and one sentence for every mistake."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_endpoint import CUT, Failure, Reply, fake_endpoint
from real_inputs import real_input
from role_evaluations import JUDGE, PLAIN, rows, write, write_responses
from role_examples import CLERK, NO_COMMA, THREE, example

from rnr_kernels import __version__
from rnr_kernels import endpoint as endpoint_module
from rnr_kernels.cli import roles_evaluate

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    return write(tmp_path / "plain.jsonl", PLAIN)


@pytest.fixture
def judged(tmp_path: Path) -> Path:
    return write(tmp_path / "judged.jsonl", THREE)


def test_the_examples_own_responses_count(evaluate: Run, plain: Path, tmp_path: Path) -> None:
    out, chart = tmp_path / "out.json", tmp_path / "chart.svg"
    code, printed, err = evaluate(plain, "--out", out, "--chart", chart)
    assert code == 0 and err == ""
    assert rows(printed) == {
        "all requirements followed": ["3", "33.3", "66.7"],
        "requirements followed": ["3", "33.3", "66.7"],
        "1": ["3", "33.3", "66.7"],
        "no comma": ["3", "33.3", "66.7"],
    }
    assert f"verdicts of 3 examples in {out}" in printed and f"chart in {chart}" in printed
    record = json.loads(out.read_text())
    assert record["settings"]["examples"] == str(plain) and record["settings"]["judge"] is None
    assert record["versions"]["rnr_kernels"] == __version__
    assert set(record["versions"]) == {"rnr_kernels", "py3langid", "regex", "sentencex"}
    assert record["settings"]["systems"] == {"plain": str(plain)}
    (system,) = record["systems"]
    assert system["name"] == "plain" and system["rates"]["all_followed"]["loose"]["followed"] == 2
    reasons = [each["requirements"][0]["reason"] for each in system["examples"]]
    assert reasons == ["", "1 comma", "1 comma"] and record["comparison"] is None
    drawn = chart.read_text()
    assert "plain, strict" in drawn and "no comma" in drawn and "all requirements" in drawn


def test_two_systems_are_compared(evaluate: Run, plain: Path, tmp_path: Path) -> None:
    a = write_responses(tmp_path / "a.jsonl", ["x", "x", "x"])
    b = write_responses(tmp_path / "b.jsonl", ["x", "y, y", "y, y"])
    out, chart = tmp_path / "out.json", tmp_path / "chart.png"
    code, printed, _ = evaluate(
        plain, "--responses", a, "--responses", b, "--out", out, "--chart", chart
    )
    assert code == 0
    assert re.search(r"95 % intervals +n +a +b *\n", printed)
    assert rows(printed)["all requirements followed"] == ["3", "100.0", "33.3"]
    assert "a less b, strict" in printed and "McNemar's exact test: p = 0.5" in printed
    assert "all followed by both 1, only a 2, only b 0, neither 0" in printed
    record = json.loads(out.read_text())
    assert record["comparison"]["strict"]["p_value"] == 0.5
    assert record["settings"]["systems"] == {"a": str(a), "b": str(b)}
    assert chart.read_bytes().startswith(b"\x89PNG")


def test_two_files_of_one_name_are_told_apart_by_their_paths(
    evaluate: Run, plain: Path, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    a = write_responses(tmp_path / "a.jsonl", ["x", "x", "x"])
    b = write_responses(tmp_path / "other" / "a.jsonl", ["x", "x", "x"])
    out = tmp_path / "out.json"
    assert evaluate(plain, "--responses", a, "--responses", b, "--out", out)[0] == 0
    assert [each["name"] for each in json.loads(out.read_text())["systems"]] == [str(a), str(b)]


def test_a_model_answers_here(evaluate: Run, plain: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    code, printed, _ = evaluate(
        plain, "--model", "embedded", "--max-new-tokens", 4, "--limit", 2, "--out", out
    )
    assert code == 0
    kept = tmp_path / "out.responses.jsonl"
    assert f"responses of rnr-base in {kept}" in printed
    record = json.loads(out.read_text())
    (system,) = record["systems"]
    assert [each["id"] for each in system["examples"]] == ["1", "2"]
    assert record["settings"]["answering"]["max_new_tokens"] == 4
    texts = [each["response"] for each in system["examples"]]
    assert texts[0] != PLAIN[0].response
    assert [json.loads(line) for line in kept.read_text().splitlines()] == [
        {"id": "1", "response": texts[0]},
        {"id": "2", "response": texts[1]},
    ]
    again = tmp_path / "again.json"
    assert evaluate(plain, "--responses", kept, "--limit", 2, "--out", again)[0] == 0
    assert json.loads(again.read_text())["systems"][0]["rates"] == system["rates"]


def test_a_models_responses_are_kept_when_the_judge_fails(
    evaluate: Run, judged: Path, tmp_path: Path
) -> None:
    code, _, err = evaluate(
        judged, "--model", "embedded", "--max-new-tokens", 2, *JUDGE, "--out", tmp_path / "o.json"
    )
    assert code == 2 and "cannot connect" in err
    assert len((tmp_path / "o.responses.jsonl").read_text().splitlines()) == 3
    code, _, err = evaluate(judged, "--model", "embedded", "--out", tmp_path / "o.json")
    assert code == 2 and "o.responses.jsonl exists; pass --force" in err


def test_the_limit_also_cuts_the_responses(evaluate: Run, plain: Path, tmp_path: Path) -> None:
    a = write_responses(tmp_path / "a.jsonl", ["x", "x, y", "x"])
    code, printed, _ = evaluate(plain, "--responses", a, "--limit", 2)
    assert code == 0 and rows(printed)["all requirements followed"] == ["2", "50.0", "50.0"]


def aye(prompt: str, before: int) -> str:
    response = re.findall(r"<response-\w+>\n(.*?)\n</response-", prompt, re.DOTALL)[0]
    return json.dumps({"reason": "looked", "followed": "aye" in response})


def test_a_model_judges_and_its_troubles_are_shown(
    evaluate: Run, judged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint_module, "FIRST_WAIT", 0.0)
    troubles: list[Reply] = [CUT, Failure(500), "Hm.", '{"followed":']

    def behaviour(prompt: str, before: int) -> Reply:
        if "No, no." in prompt:
            return "never"
        return troubles[before] if before < len(troubles) else aye(prompt, before)

    out = tmp_path / "out.json"
    with fake_endpoint(behaviour) as server:
        code, printed, err = evaluate(
            judged, "--judge-model", "j", "--base-url", server.url, "--max-tries", 5,
            "--requests-in-flight", 2, "--out", out,
        )  # fmt: skip
    assert code == 0 and err == ""
    assert rows(printed)["all requirements followed"] == ["3", "33.3", "66.7"]
    assert rows(printed)["tone"] == ["2", "50.0", "50.0"]
    assert "judge j: 1 verdicts not reached, counted as not followed; 2 failed" in printed
    assert "7 replies without verdict" in printed
    record = json.loads(out.read_text())
    assert record["settings"]["judge"] == {"model": "j", "endpoint": server.url}
    tones = [each["requirements"][-1] for each in record["systems"][0]["examples"]]
    assert tones[0]["reason"] == "looked" and tones[2]["undecided"]
    assert "no reply could be read" in tones[2]["reason"]


def test_role_following_stands_apart(evaluate: Run, tmp_path: Path) -> None:
    examples = [
        example("1", NO_COMMA, role=CLERK, response="aye"),
        example("2", NO_COMMA, role=CLERK, response="no", in_scope=False),
    ]
    with fake_endpoint(aye) as server:
        code, printed, _ = evaluate(
            write(tmp_path / "roles.jsonl", examples), "--judge-model", "j", "--base-url",
            server.url,
        )  # fmt: skip
    assert code == 0
    found = rows(printed)
    assert found["role kept, in scope"] == ["1", "100.0", "100.0"]
    assert found["declined, out of scope"] == ["1", "0.0", "0.0"]
    assert found["questions out of scope"] == ["1", "100.0", "100.0"]


def test_what_is_judged_is_left_out_on_demand(evaluate: Run, judged: Path) -> None:
    code, printed, _ = evaluate(judged, "--skip-judged")
    assert code == 0 and "left out without a judge: 2 requirements" in printed
    assert rows(printed)["requirements followed"] == ["3", "33.3", "66.7"]


def test_finished_examples_are_kept_when_the_endpoint_ends_the_run(
    evaluate: Run, judged: Path, tmp_path: Path
) -> None:
    def behaviour(prompt: str, before: int) -> Reply:
        return Failure(429, "insufficient_quota") if "No, no." in prompt else aye(prompt, before)

    out = tmp_path / "out.json"
    with fake_endpoint(behaviour) as server:
        code, printed, err = evaluate(
            judged, "--judge-model", "j", "--base-url", server.url, "--requests-in-flight", 1,
            "--out", out,
        )  # fmt: skip
    kept = tmp_path / "out.partial.json"
    assert code == 2 and printed == "" and not out.exists()
    assert f"finished examples kept in {kept}: 2" in err and "has no quota left" in err
    (system,) = json.loads(kept.read_text())["systems"]
    assert [each["id"] for each in system["examples"]] == ["1", "2"]


def test_a_part_of_the_table_without_rows_has_no_title(evaluate: Run, tmp_path: Path) -> None:
    examples = [example("1", role=CLERK, role_checks=(NO_COMMA,), response="x")]
    code, out, _ = evaluate(write(tmp_path / "roles.jsonl", examples))
    assert code == 0 and rows(out) == {"role kept, in scope": ["1", "100.0", "100.0"]}
    assert "by number" not in out and "by kind" not in out


def test_brackets_in_names_are_shown_as_they_are(
    evaluate: Run, plain: Path, tmp_path: Path
) -> None:
    a = write_responses(tmp_path / "[red]a.jsonl", ["x", "x", "x"])
    b = write_responses(tmp_path / "[b]b.jsonl", ["x", "x", "x"])
    out = tmp_path / "[blue]out.json"
    code, printed, err = evaluate(plain, "--responses", a, "--responses", b, "--out", out)
    assert (code, err) == (0, "")
    assert re.search(r"n +\[red\]a +\[b\]b *\n", printed)
    assert f"examples in {out}\n" in printed


def test_finished_examples_are_kept_after_ctrl_c(
    evaluate: Run, plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = roles_evaluate.pass_rate

    def one_then_ctrl_c(*arguments: Any, on_findings: Callable[[Any], None], **names: Any) -> Any:
        def stop(findings: Any) -> None:
            on_findings(findings)
            raise KeyboardInterrupt

        return real(*arguments, on_findings=stop, **names)

    monkeypatch.setattr(roles_evaluate, "pass_rate", one_then_ctrl_c)
    out = tmp_path / "out.json"
    code, _, err = evaluate(plain, "--out", out)
    assert code == 130 and "finished examples kept in" in err and not out.exists()
    (system,) = json.loads((tmp_path / "out.partial.json").read_text())["systems"]
    assert len(system["examples"]) == 1


@pytest.fixture
def ifeval() -> Path:
    return real_input("ifeval_prompts.jsonl")


def test_ifevals_own_file_is_evaluated_as_it_is(
    evaluate: Run, ifeval: Path, tmp_path: Path
) -> None:
    asked = [json.loads(line) for line in ifeval.read_text().splitlines()]
    records = [{"prompt": each["prompt"], "response": each["prompt"]} for each in asked]
    responses, out = tmp_path / "echo.jsonl", tmp_path / "out.json"
    responses.write_text("\n".join(map(json.dumps, records)))
    code, printed, err = evaluate(ifeval, "--responses", responses, "--out", out)
    assert code == 0 and err == ""
    found = rows(printed)
    assert found["all requirements followed"][0] == "541"
    assert found["requirements followed"][0] == "834"
    assert [found[count][0] for count in ("1", "2", "3")] == ["305", "179", "57"]
    (system,) = json.loads(out.read_text())["systems"]
    assert len(system["rates"]["by_kind"]) == 25 and system["undecided"] == 0
    without = [each for each in asked if NO_COMMA.kind in each["instruction_id_list"]]
    share = system["rates"]["by_kind"][NO_COMMA.kind]["strict"]
    assert share["total"] == len(without) == 66
    assert share["followed"] == sum("," not in each["prompt"] for each in without)
