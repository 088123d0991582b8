"""`rnr-kernels rank-responses`: the formats it reads, what it prints, writes and leaves out."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from bigram import log_probability
from tiny_llama import save_llama
from transformers import PreTrainedTokenizerBase

from rnr_kernels.loading import load_model
from rnr_kernels.templates import TEMPLATES

Run = Callable[..., tuple[int, str, str]]

WINDOW = 96
"""Of the model that `save_llama` makes."""

PUBLISHED = {
    "Llama-2-7B base": ["mean", "80.4 %", "-", "-", "-"],
    "Llama-2-7B tuned": ["mean", "77.4 %", "-", "-", "-"],
    "OLMo-7B base": ["mean", "74.5 %", "-", "-", "-"],
    "OLMo-7B tuned": ["mean", "74.3 %", "-", "-", "-"],
}


@pytest.fixture
def run(run: Run) -> Run:
    return partial(run, "rank-responses")


@pytest.fixture
def model(tmp_path: Path, tiny_bpe: PreTrainedTokenizerBase) -> Path:
    return save_llama(tmp_path / "tiny", tiny_bpe)


def write(path: Path, *records: object) -> Path:
    path.write_text("\n".join(map(json.dumps, records)))
    return path


RECORDS = [
    {"instruction": "Why?", "response": "We see."},
    {"instruction": "Go", "input": "now", "output": "I"},
    {"question": "Who", "answer": "We"},
    {"instruction": "What", "output": "the sea", "generator": "a", "token_ids": [1]},
    {"prompt": "Is it?", "response": "I should"},
]
ASKED = ["Why?", "Go\n\nnow", "Who", "What", "Is it?"]
ANSWERED = ["We see.", "I", "We", "the sea", "I should"]


def rows(out: str) -> dict[str, list[str]]:
    """The printed table by model, and by model and scoring where it has several."""
    cells = [[c.strip() for c in line.split("│")[1:-1]] for line in out.splitlines() if "│" in line]
    names = [row[0] for row in cells]
    return {row[0] if names.count(row[0]) == 1 else f"{row[0]} {row[1]}": row[1:] for row in cells}


def test_without_data_the_embedded_model_is_tried_on_its_world(run: Run) -> None:
    code, out, err = run("--limit", 12, "--draws", 2)
    assert code == 0 and err.count("skipped") == 0
    found = rows(out)
    assert found["rnr-base"] == ["mean", "100.0 %", "100.0 to 100.0", "0", "24"]
    assert {name: found[name] for name in PUBLISHED} == PUBLISHED
    assert "12 instructions, up to 2 random responses each, seed 0, template tags." in out
    assert "give OLMo the tokenizer of Llama" in out


@pytest.mark.parametrize("as_array", [False, True])
def test_scores_of_every_format_are_those_of_each_text_alone(
    run: Run, tmp_path: Path, model: Path, tiny_bpe: PreTrainedTokenizerBase, as_array: bool
) -> None:
    data, out = write(tmp_path / "data.jsonl", *RECORDS), tmp_path / "out.json"
    if as_array:
        data.write_text(json.dumps(RECORDS))
    scorings = ("sum", "pmi", "mean")
    options = [word for scoring in scorings for word in ("--scoring", scoring)]
    code, printed, _ = run(
        "--data", data, "--model", model, *options, "--draws", 2, "--seed", 3, "--out", out
    )
    assert code == 0 and f"10 comparisons in {out}" in printed
    record = json.loads(out.read_text())
    assert record["pair"] == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert (record["draws"], record["seed"], record["match_length"]) == (2, 3, False)
    where = "record" if as_array else "line"
    assert record["records"] == [f"{data}, {where} {n}" for n in range(1, 6)]
    assert record["skipped"] == []
    assert [each["scoring"] for each in record["results"]] == list(scorings)

    loaded: Any = load_model(str(model), device="cpu")

    def score(i: int, j: int, scoring: str) -> float:
        response = [*tiny_bpe.encode(ANSWERED[j], add_special_tokens=False), 1]
        prompts = [TEMPLATES["tags"].encode(tiny_bpe, text) for text in (ASKED[i], "")]
        value = log_probability(loaded, prompts[0], response)
        if scoring == "pmi":
            return value - log_probability(loaded, prompts[1], response)
        return value / len(response) if scoring == "mean" else value

    for each in record["results"]:
        wins = 0
        for n, (i, j) in enumerate(zip(record["pair"], record["drawn"], strict=True)):
            real, drawn = score(i, i, each["scoring"]), score(i, j, each["scoring"])
            assert each["score"][n] == pytest.approx(real, abs=1e-4)
            assert each["drawn_score"][n] == pytest.approx(drawn, abs=1e-4)
            wins += real > drawn
        assert each["accuracy"] == pytest.approx(wins / 10)
        assert rows(printed)[f"tiny {each['scoring']}"][1] == f"{10 * wins:.1f} %"
    assert record["published"]["percent"]["Llama-2-7B"] == {"base": 80.4, "instruction": 77.4}


def test_several_models_get_the_same_comparisons(
    run: Run, tmp_path: Path, model: Path, tiny_bpe: PreTrainedTokenizerBase
) -> None:
    (tmp_path / "other").mkdir()
    namesake = save_llama(tmp_path / "other" / "tiny", tiny_bpe)
    data, out = write(tmp_path / "data.jsonl", *RECORDS), tmp_path / "out.json"
    code, printed, _ = run(
        "--data", data, "--model", model, "--model", namesake, "--model", "embedded",
        "--draws", 3, "--match-length", "--out", out,
    )  # fmt: skip
    assert code == 0
    results = json.loads(out.read_text())["results"]
    # Namesakes go by their folders.
    assert [each["model"] for each in results] == [str(model), str(namesake), "rnr-base"]
    assert results[0]["score"] == results[1]["score"] != results[2]["score"]
    assert [each["comparisons"] for each in results] == [15, 15, 15]
    assert "matched in length" in printed.replace("\n", " ")


def test_what_cannot_be_ranked_is_listed_with_the_reason(
    run: Run, tmp_path: Path, model: Path
) -> None:
    long = "x" * WINDOW
    data = write(
        tmp_path / "data.jsonl",
        *RECORDS,
        {"instruction": "Say", "response": " \n"},
        {"instruction": "", "response": "I"},
        {"instruction": "a", "response": long},
        # Its own response fits, and no other.
        {"instruction": "x" * 68, "response": "I"},
    )
    out = tmp_path / "out.json"
    code, printed, err = run("--data", data, "--model", model, "--out", out)
    assert code == 0
    assert rows(printed)["tiny"][4] == "20"
    lines = err.splitlines()
    assert lines[0] == "skipped 4 of 9 records:"
    assert lines[1:4] == [
        f"  {data}, line 6: the response is empty",
        f"  {data}, line 7: the instruction is empty",
        f"  {data}, line 8: 122 tokens with its prompt, the window of tiny is 96",
    ]
    assert lines[4] == f"  {data}, line 9: no other response can be drawn that fits after it"
    assert [one["record"] for one in json.loads(out.read_text())["skipped"]] == [
        f"{data}, line {n}" for n in (6, 7, 8, 9)
    ]


def test_responses_that_do_not_fit_after_an_instruction_are_not_drawn(
    run: Run, tmp_path: Path, model: Path
) -> None:
    data = write(
        tmp_path / "data.jsonl",
        {"instruction": "x" * 30, "response": "I"},
        {"instruction": "a", "response": "y" * 40},
        {"instruction": "b", "response": "zz"},
    )
    out = tmp_path / "out.json"
    code, _, err = run("--data", data, "--model", model, "--out", out)
    assert code == 0
    record = json.loads(out.read_text())
    assert sorted(zip(record["pair"], record["drawn"], strict=True)) == [
        (0, 2), (1, 0), (1, 2), (2, 0), (2, 1),
    ]  # fmt: skip
    assert record["limited_by_window"] == 1
    assert "after 1 instructions some responses do not fit into the window" in err


def test_a_long_list_of_skips_is_cut_and_counted(run: Run, tmp_path: Path, model: Path) -> None:
    empty = [{"instruction": "a", "response": ""}] * 14
    data = write(tmp_path / "data.jsonl", *RECORDS, *empty)
    code, _, err = run("--data", data, "--model", model)
    assert code == 0
    assert err.count("the response is empty") == 10
    assert "  and 4 more; --out lists them" in err


@pytest.mark.parametrize(
    ("records", "options", "message"),
    [
        (RECORDS, ["--scoring", "max"], "scoring must be mean, sum, pmi, got 'max'"),
        ([{"text": "a"}], [], "line 1: its fields are 'text'; expected one JSON object a line"),
        ([{"instruction": 3, "output": "a"}], [], "'instruction' must be a str, got int"),
        (["a"], [], "line 1: expected a JSON object, got str"),
        ([{"instruction": "a", "output": ""}], [], "none of 1 records can be ranked; the first, "),
        ([{"instruction": "a", "output": "b"}] * 3, [], "no other response can be drawn"),
        (RECORDS, ["--template", "nowhere"], "template must be tags, chat, plain or a text file"),
        (RECORDS, ["--model", "./nowhere"], "'./nowhere' is no folder here"),
    ],
)  # fmt: skip
def test_mistakes_end_with_a_sentence(
    run: Run, tmp_path: Path, records: list[object], options: list[str], message: str
) -> None:
    data = write(tmp_path / "data.jsonl", *records)
    code, out, err = run("--data", data, *options)
    assert (code, out) == (2, "")
    assert message in " ".join(err.split())
    assert len(err.splitlines()) == 1


def test_a_foreign_model_needs_data(run: Run, model: Path) -> None:
    code, _, err = run("--model", model)
    assert code == 2 and err.startswith("rnr-kernels: give --data FILE: without it,")


def test_a_file_is_not_replaced_unasked(run: Run, tmp_path: Path, model: Path) -> None:
    data, out = write(tmp_path / "data.jsonl", *RECORDS), write(tmp_path / "out.json", {})
    code, _, err = run("--data", data, "--model", model, "--out", out)
    assert code == 2 and "exists; pass --force to replace it" in err
    assert run("--data", data, "--model", model, "--out", out, "--force")[0] == 0
    assert "results" in json.loads(out.read_text())
