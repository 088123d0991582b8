"""Win rates: pairing, counting, intervals, right answers, and AlpacaEval's files."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from rnr_kernels.models.exact_answers import exact_verdicts
from rnr_kernels.records import ModelOutput, read_outputs
from rnr_kernels.tuning.alpaca_eval import annotation_records, write_outputs
from rnr_kernels.tuning.win_rate import (
    Judged,
    Pair,
    Preference,
    SuccessJudge,
    paired,
    win_rate,
    win_rate_of,
)


class Scripted:
    """A judge that gives the score which A's response spells, and none for "none"."""

    name = "scripted"

    def preferences(self, pairs: Sequence[Pair]) -> Iterator[Preference]:
        for pair in pairs:
            text = pair.a.output
            if text == "none":
                yield Preference(None, ("HTTP 500",), failures=3, nonsense=2)
            else:
                yield Preference(float(text), order_changed=text == "0.5", failures=1)


def side(generator: str, **outputs: str) -> list[ModelOutput]:
    return [ModelOutput(asked, text, generator) for asked, text in outputs.items()]


def test_ties_are_half_and_a_prompt_without_verdict_does_not_count() -> None:
    a = side("a", p="1", q="0.5", r="none", s="1", t="0")
    b = side("b", t="", s="", r="", q="", p="")
    seen: list[Judged] = []
    result = win_rate(a, b, Scripted(), on_judged=seen.append)
    assert result.rate == 0.625  # (1 + 0.5 + 1 + 0) / 4
    assert (result.wins, result.ties, result.losses, result.unjudged) == (2, 1, 1, 1)
    assert (result.order_changes, result.failures, result.nonsense) == (1, 7, 2)
    assert result.scores == [1.0, 0.5, None, 1.0, 0.0]
    assert seen == list(result.judged)
    assert [each.pair.b.instruction for each in seen] == ["p", "q", "r", "s", "t"]
    low, high = result.interval
    assert 0 <= low < 0.625 < high <= 1


def test_the_interval_of_one_outcome_is_that_outcome() -> None:
    result = win_rate(side("a", p="1", q="1"), side("b", p="", q=""), Scripted())
    assert (result.rate, result.interval) == (1.0, (1.0, 1.0))


def test_no_verdict_at_all_is_an_error_with_its_reason() -> None:
    with pytest.raises(ValueError, match="scripted came to no verdict on any pair: HTTP 500"):
        win_rate(side("a", p="none"), side("b", p=""), Scripted())


def test_a_rate_over_seeds_leaves_out_what_one_seed_lacks() -> None:
    rate, (low, high) = win_rate_of([[1.0, None, 0.0, 1.0], [1.0, 1.0, 0.5, 0.5]])
    assert rate == pytest.approx(4 / 6)  # three prompts, two seeds
    assert 0 <= low < rate < high <= 1
    assert win_rate_of([[0.5, 0.5], [0.5, None]]) == (0.5, (0.5, 0.5))


@pytest.mark.parametrize(
    ("scores", "words"),
    [
        ([[1.0, 0.0], [1.0]], "the same prompts, got \\[1, 2\\] scores"),
        ([[None, 1.0], [1.0, None]], "no prompt has a verdict from every seed"),
        ([], "no prompt has a verdict"),
    ],
)
def test_scores_that_make_no_rate(scores: list[list[float | None]], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        win_rate_of(scores)


def test_repeated_instructions_pair_in_their_order() -> None:
    a = [ModelOutput("p", "a1", "a"), ModelOutput("q", "a2", "a"), ModelOutput("p", "a3", "a")]
    b = [ModelOutput("q", "b1", "b"), ModelOutput("p", "b2", "b"), ModelOutput("p", "b3", "b")]
    pairs = [(pair.a.output, pair.b.output) for pair in paired(a, b)]
    assert pairs == [("a1", "b2"), ("a2", "b1"), ("a3", "b3")]


@pytest.mark.parametrize(
    ("a", "b", "words"),
    [
        (["p", "q"], ["q"], "A has 1 and B has 0 responses to 'p'; both must answer"),
        (["q"], ["q", "r", "s"], "A has 0 and B has 1 responses to 'r' \\(and 1 more\\)"),
        (["p", "p"], ["p"], "A has 2 and B has 1 responses to 'p'"),
        (["p" * 61], [], "responses to 'p{60} \\.\\.\\.'"),
        ([], [], "there are no responses"),
    ],
)
def test_an_instruction_that_one_side_lacks_is_named(
    a: list[str], b: list[str], words: str
) -> None:
    sides = [
        [ModelOutput(text, "", name) for text in texts] for name, texts in (("a", a), ("b", b))
    ]
    with pytest.raises(ValueError, match=words):
        paired(*sides)


def test_a_score_beyond_one_is_refused() -> None:
    with pytest.raises(ValueError, match="score must be from 0 to 1, or None, got 2"):
        Preference(2.0)


ASKED = "What is the fair month of Elham?"
RIGHT = "The fair month of Elham is July."


def test_right_answers_beat_wrong_ones_and_the_rest_is_tied() -> None:
    def verdict_on(a: ModelOutput, b: ModelOutput) -> tuple[float | None, tuple[str, ...]]:
        (judged,) = win_rate([a], [b], SuccessJudge("exact", exact_verdicts)).judged
        return judged.preference.score, judged.preference.reasons

    right = ModelOutput(ASKED, RIGHT, "m", "eos")
    wrong = replace(right, output="The fair month of Elham is May.")
    tagged = replace(right, output="<|guest|>\n" + RIGHT)
    assert verdict_on(right, wrong) == (1.0, ("success", "no value"))
    assert verdict_on(tagged, right) == (0.0, ("tag", "success"))
    assert verdict_on(right, right) == (0.5, ("success", "success"))
    assert verdict_on(wrong, tagged) == (0.5, ("no value", "tag"))


def test_a_response_without_finish_reason_counts_as_ended() -> None:
    endings = [None, "eos", "length", "stop"]
    outputs = [ModelOutput(ASKED, RIGHT, "m", ending) for ending in endings]
    assert exact_verdicts(outputs) == ["success", "success", "no end", "no end"]


def test_an_instruction_without_a_known_answer_is_named() -> None:
    with pytest.raises(ValueError, match=r"'Why\?' is no question about .* use another judge"):
        exact_verdicts([ModelOutput("Why?", "", "m")])


def test_outputs_of_generate_and_of_alpacaeval_are_read(tmp_path: Path) -> None:
    ours, theirs = tmp_path / "a.jsonl", tmp_path / "b.json"
    ours.write_text(
        '{"instruction": "p", "output": "", "generator": "m", "finish_reason": "length"}\n'
        '{"instruction": "p", "output": "x", "generator": "m", "finish_reason": "eos"}\n'
    )
    theirs.write_text(
        '[{"dataset": "koala", "instruction": "p", "output": "y", "generator": "davinci"}]'
    )
    assert read_outputs(ours) == [
        ModelOutput("p", "", "m", "length"), ModelOutput("p", "x", "m", "eos"),
    ]  # fmt: skip
    assert read_outputs(theirs) == [ModelOutput("p", "y", "davinci")]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"output": ...}, "line 2: the field 'output' is missing; expected one JSON object"),
        ({"generator": ...}, "line 2: the field 'generator' is missing"),
        ({"instruction": ...}, "line 2: expected a field 'instruction'"),
        ({"output": ["x"]}, "line 2: 'output' must be text, got list"),
        ({"finish_reason": 3}, "line 2: 'finish_reason' must be text, got int"),
        ({"output": "\ud83d"}, "line 2: 'output' is not valid Unicode"),
        ({"generator": "n"}, "line 2: a response of 'n' in a file of 'm'"),
    ],
    ids=str,
)
def test_a_broken_record_is_named(tmp_path: Path, change: dict[str, object], words: str) -> None:
    file = tmp_path / "a.jsonl"
    whole = {"instruction": "p", "output": "x", "generator": "m"}
    broken = {name: value for name, value in (whole | change).items() if value is not ...}
    file.write_text(json.dumps(whole) + "\n" + json.dumps(broken) + "\n")
    with pytest.raises(ValueError) as error:
        read_outputs(file)
    assert f"{file}, {words}" in str(error.value)


def test_verdicts_in_alpacaevals_format() -> None:
    a, b = side("x", p="1", q="0.5", r="0", s="none"), side("y", p="P", q="", r="", s="")
    records = annotation_records(win_rate(a, b, Scripted()).judged, "scripted")
    assert records[0] == {
        "instruction": "p", "output_1": "P", "generator_1": "y", "output_2": "1",
        "generator_2": "x", "annotator": "scripted", "preference": 2.0, "reasons": [],
    }  # fmt: skip
    assert [record["preference"] for record in records] == [2.0, 1.5, 1.0, None]


def test_outputs_in_alpacaevals_format_stand_row_beside_row(tmp_path: Path) -> None:
    folder = tmp_path / "two words"
    folder.mkdir()
    command = write_outputs(folder, paired(side("x", p="é", q="2"), side("y", q="3", p="4")))
    assert json.loads((folder / "model_outputs.json").read_text(encoding="utf-8")) == [
        {"instruction": "p", "output": "é", "generator": "x"},
        {"instruction": "q", "output": "2", "generator": "x"},
    ]
    reference = json.loads((folder / "reference_outputs.json").read_text(encoding="utf-8"))
    assert [record["output"] for record in reference] == ["4", "3"]
    assert command == (
        f"alpaca_eval evaluate --model_outputs '{folder}/model_outputs.json' "
        f"--reference_outputs '{folder}/reference_outputs.json'"
    )
