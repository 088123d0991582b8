"""`rnr-kernels roles build`: what it prints and writes, and one sentence for every mistake."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_endpoint import Failure, Reply, fake_endpoint
from role_builds import finished, follows, instructions, records

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return instructions(tmp_path / "instructions.json", 20)


def rows(out: str) -> dict[str, str]:
    """The printed table, by the words in its first column."""
    cells = [line.split("│") for line in out.splitlines() if line.startswith("│")]
    return {row[1].strip(): row[2].strip() for row in cells}


def test_templates_build_a_data_set_and_the_same_command_finds_it(
    run: Run, source: Path, tmp_path: Path
) -> None:
    arguments = ("roles", "build", source, "--generator", "templates", "--out", tmp_path / "out")
    code, out, err = run(*arguments, "--wrong", "0.4", "--seed", "3")
    assert code == 0 and err == ""
    table = rows(out)
    kept, lost = (records(tmp_path / "out" / f"{name}.jsonl") for name in ("train", "rejected"))
    plain = sum(row["messages"][0]["role"] == "user" for row in kept)
    declined = sum(not row["in_scope"] for row in kept)
    assert table["examples"] == (
        f"{len(kept) - plain} with requirements, {declined} of which decline; {plain} plain"
    )
    assert table["yield"].endswith(f"({len(kept) - plain} of {20 - plain})")
    assert sum(int(n) for name, n in table.items() if name.startswith("rejected")) == len(lost)
    whole = finished(tmp_path / "out")
    assert run(*arguments, "--wrong", "0.4", "--seed", "3")[1] == out
    assert finished(tmp_path / "out") == whole
    code, _, err = run(*arguments, "--wrong", "0.4", "--seed", "4")
    assert code == 2 and "settings.seed is 3 there and 4 here" in err


def test_an_endpoint_builds_and_its_key_is_not_shown(
    run: Run, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    status = {"now": 401}

    def behaviour(prompt: str, before: int) -> Reply:
        return Failure(status["now"]) if status["now"] else follows(prompt, before)

    with fake_endpoint(behaviour) as server:
        arguments = (
            "roles", "build", source, "--generator", "endpoint", "--model", "m", "--base-url",
            server.url, "--out", tmp_path / "out", "--limit", "4", "--max-requirements", "1",
            "--kind", "punctuation:no_comma", "--written-share", "0", "--plain-share", "0",
            "--out-of-scope-share", "0",
        )  # fmt: skip
        code, out, err = run(*arguments)
        assert code == 2 and out == "" and "refuses the key (HTTP 401)" in err
        status["now"] = 0
        code, out, err = run(*arguments)
    assert code == 0 and rows(out)["yield"] == "100.0 % (4 of 4)"
    assert set(server.keys) == {"Bearer sk-secret"} and "sk-secret" not in out + err
    written = b"".join(path.read_bytes() for path in (tmp_path / "out").iterdir())
    assert b"sk-secret" not in written
    assert {request["temperature"] for request in server.requests} == {0.7}


def test_a_dry_run_shows_calls_tokens_and_prompts_and_writes_nothing(
    run: Run, source: Path, tmp_path: Path
) -> None:
    before = sorted(tmp_path.iterdir())
    code, out, err = run("roles", "build", source, "--dry-run", "--plain-share", "0", "--seed", "1")
    assert code == 0 and err == "" and sorted(tmp_path.iterdir()) == before
    for words in ("Think of an assistant", "more rules for the responses", "Find the rules that no",
                  "Follow every rule to the letter", "Your response breaks these rules",
                  "Judge this one requirement", "Your reply cannot be read"):  # fmt: skip
        assert words in out
    table = rows(out)
    assert table["role"] == "20" and set(table) >= {"requirements", "conflict", "response", "judge"}
    total = [int(cell.replace(",", "")) for cell in re.findall(r"│ all +│ +([\d,]+)", out)]
    parts = [int(table[step]) for step in ("role", "requirements", "conflict", "response", "judge")]
    assert total == [sum(parts)]
    assert "A token is taken as 4 characters" in " ".join(out.split())


def test_prompts_are_written_edited_and_used(run: Run, source: Path, tmp_path: Path) -> None:
    code, out, _ = run("roles", "build", "--write-prompts", tmp_path / "prompts")
    assert code == 0 and str(tmp_path / "prompts" / "role.txt") in out
    (tmp_path / "prompts" / "role.txt").write_text("Whom would they ask? {conversation}")
    code, out, _ = run("roles", "build", source, "--dry-run", "--prompts", tmp_path / "prompts")
    assert code == 0 and "Whom would they ask? user: Explain to a newcomer" in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "give the file with the instructions"),
        (["{source}"], "--out names the folder of the data set"),
        (["{source}", "--out", "{out}"],
         "--generator must be endpoint, local, templates, got None"),
        (["{source}", "--out", "{out}", "--generator", "endpoint"], "--model is missing"),
        (["{source}", "--out", "{out}", "--generator", "endpoint", "--model", "m", "--base-url",
          "h:1"], "must start with http:// or https://"),
        (["{source}", "--out", "{out}", "--generator", "templates", "--wrong", "2"],
         "wrong must be from 0 to 1, got 2.0"),
        (["{source}", "--out", "{out}", "--generator", "templates", "--kind", "x"],
         "the kind 'x' is unknown"),
        (["{source}", "--out", "{out}", "--generator", "templates", "--min-requirements", "7"],
         "num_requirements must be the least, then the most, got (7, 6)"),
        (["{source}", "--out", "{out}", "--generator", "templates", "--model", "m"],
         "--model belongs to --generator endpoint or local; add that, or leave it out"),
        (["{source}", "--out", "{out}", "--generator", "endpoint", "--model", "m", "--dtype", "x"],
         "--dtype belongs to --generator local"),
        (["{source}", "--out", "{out}", "--generator", "local", "--wrong", "0.3"],
         "--wrong belongs to --generator templates"),
        (["{source}", "--out", "{out}", "--generator", "templates", "--judge-base-url", "http://h"],
         "--judge-base-url belongs to --judge-model"),
        (["{source}", "--out", "{out}", "--generator", "templates", "--max-tries", "2"],
         "--max-tries belongs to --generator endpoint or --judge-model"),
        (["nowhere.json", "--out", "{out}", "--generator", "templates"],
         "nowhere.json does not exist"),
        (["{source}", "--prompts", "{out}", "--dry-run"], "does not exist"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_sentence(
    run: Run, source: Path, tmp_path: Path, arguments: list[str], words: str
) -> None:
    places = {"source": source, "out": tmp_path / "out"}
    code, out, err = run("roles", "build", *(each.format(**places) for each in arguments))
    assert code == 2 and out == "" and words in " ".join(err.split())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["train.jsonl", "settings.json"])
def test_the_instructions_are_never_built_over(run: Run, source: Path, name: str) -> None:
    out = source.parent / "out"
    out.mkdir()
    source.rename(out / name)
    before = (out / name).read_bytes()
    code, _, err = run("roles", "build", out / name, "--generator", "templates", "--out", out)
    assert code == 2 and "name another folder" in err and (out / name).read_bytes() == before


def test_a_wrong_record_is_named(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(json.dumps({"instruction": "Who?"}) + '\n{"instruction": ""}\n')
    code, _, err = run(
        "roles", "build", path, "--generator", "templates", "--out", tmp_path / "out"
    )
    assert code == 2 and "x.jsonl, line 2: the instruction is empty" in " ".join(err.split())
