"""A build by templates: its figures are the truth, its files load, and its mistakes are named."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from role_builds import built_by_templates, finished, instructions, records

from rnr_kernels.durable import locked
from rnr_kernels.roles.example import read_examples
from rnr_kernels.roles.pipeline.build import build_dataset
from rnr_kernels.roles.pipeline.finish import table_schema
from rnr_kernels.roles.pipeline.prompt_texts import FIELDS, Prompts
from rnr_kernels.roles.pipeline.settings import BuildSettings
from rnr_kernels.roles.pipeline.tally import Tally
from rnr_kernels.roles.pipeline.template_generator import RIGHT, TemplateGenerator


def provenances(folder: Path) -> list[dict[str, Any]]:
    """Of all examples, accepted or not."""
    accepted = [json.loads(each["provenance"]) for each in records(folder / "train.jsonl")]
    return accepted + [each["provenance"] for each in records(folder / "rejected.jsonl")]


def test_figures_are_what_the_templates_know_to_be_true(tmp_path: Path) -> None:
    tally = built_by_templates(tmp_path, 150, plain_share=0).tally
    first, last, rounds = Counter[bool](), Counter[bool](), Counter[int]()
    for provenance in provenances(tmp_path / "out"):
        attempts = provenance["attempts"]
        for attempt in attempts:
            followed = [verdict["followed"] for verdict in attempt["verdicts"]]
            assert all(followed) == (attempt["note"] == RIGHT)
            if number := re.fullmatch(r"breaks requirement (\d+)", attempt["note"]):
                assert not followed[int(number[1]) - 1]
        if attempts:
            first[attempts[0]["note"] == RIGHT] += 1
            last[attempts[-1]["note"] == RIGHT] += 1
            if attempts[-1]["note"] == RIGHT:
                rounds[len(attempts) - 1] += 1
    assert (tally.first.passed, tally.first.total) == (first[True], first.total())
    assert (tally.last.passed, tally.last.total) == (last[True], last.total())
    assert tally.rounds == rounds and tally.num_accepted == last[True]
    assert tally.rejected["verification"] == last[False]
    assert tally.num_sources == 150 == tally.num_accepted + tally.num_rejected
    # Of 150, three standard deviations: 0.11.
    assert tally.first.rate == pytest.approx(0.7, abs=0.11)
    assert tally.last.rate == pytest.approx(1 - 0.3 * 0.5**2, abs=0.07)


@pytest.mark.parametrize(
    ("wrong", "mends", "rounds"),
    [(0.0, 0.5, {0: 24}), (1.0, 1.0, {1: 24}), (1.0, 0.0, {})],
)
def test_repair_goes_as_the_rates_say(
    tmp_path: Path, wrong: float, mends: float, rounds: dict[int, int]
) -> None:
    options: dict[str, Any] = {"written_share": 0, "kinds": ["punctuation:no_comma"]}
    built = built_by_templates(
        tmp_path, 24, plain_share=0, wrong=wrong, mends=mends, repair_rounds=2, **options
    )
    assert built.tally.rounds == rounds
    rejected = records(built.folder / "rejected.jsonl")
    assert len(rejected) == 24 - sum(rounds.values())
    for each in rejected:
        assert each["step"] == "verification" and each["reason"].startswith("punctuation:no_comma")
        assert len(each["provenance"]["attempts"]) == 3


def test_the_data_set_loads_as_it_is_and_is_the_same_in_both_files(tmp_path: Path) -> None:
    import datasets

    built = built_by_templates(tmp_path, 40, plain_share=0.3)
    folder, cache = built.folder, str(tmp_path / "cache")
    rows = records(folder / "train.jsonl")
    assert len(rows) == built.tally.num_examples
    by_file = {
        kind: datasets.load_dataset(
            kind, data_files=str(folder / name), split="train", cache_dir=cache
        )
        for kind, name in (("json", "train.jsonl"), ("parquet", "train.parquet"))
    }
    assert by_file["json"].to_list() == by_file["parquet"].to_list() == rows
    whole = datasets.load_dataset(str(folder), split="train", cache_dir=cache)
    assert whole.to_list() == rows
    examples = read_examples(folder / "train.jsonl")
    for example, row in zip(examples, rows, strict=True):
        roles = [message["role"] for message in row["messages"]]
        is_plain = json.loads(row["provenance"])["generator"] == ""
        assert roles == (["user", "assistant"] if is_plain else ["system", "user", "assistant"])
        assert example.chat() == row["messages"]
        assert all(
            each.requirement.is_judged or each.requirement.check(example.response or "")
            for each in example.requirements
        )
    assert built.tally.num_plain == sum(not each.requirements for each in examples) > 5


def test_the_number_of_requirements_and_their_mix_are_as_set(tmp_path: Path) -> None:
    built = built_by_templates(
        tmp_path, 120, num_requirements=(2, 4), written_share=0.5, plain_share=0, wrong=0
    )
    asked = [
        (len(each["requirements"]) + len(json.loads(each["provenance"])["dropped"]))
        for each in records(built.folder / "train.jsonl")
    ]
    assert set(asked) == {2, 3, 4} and all(count > 20 for count in Counter(asked).values())
    kinds = [
        q["kind"] for each in records(built.folder / "train.jsonl") for q in each["requirements"]
    ]
    written = sum(kind.startswith("free_form:") for kind in kinds)
    assert written / len(kinds) == pytest.approx(0.5, abs=0.1)


def test_a_prompt_to_repeat_is_the_instruction(tmp_path: Path) -> None:
    options: dict[str, Any] = {"kinds": ["combination:repeat_prompt"], "written_share": 0}
    built = built_by_templates(tmp_path, 8, plain_share=0, wrong=0, **options)
    rows = records(built.folder / "train.jsonl")
    assert len(rows) == 8
    for row in rows:
        asked = row["messages"][1]["content"]
        assert asked in row["messages"][0]["content"] and row["messages"][2]["content"].startswith(
            asked
        )


def test_what_is_nearly_the_same_is_left_out_with_its_reason(tmp_path: Path) -> None:
    source = instructions(tmp_path / "instructions.json", 12)
    alpaca = json.loads(source.read_text())
    source.write_text(json.dumps([*alpaca, {"instruction": alpaca[3]["instruction"].upper()}]))
    built = built_by_templates(tmp_path, plain_share=0, wrong=0)
    (rejected,) = [
        each for each in records(built.folder / "rejected.jsonl") if each["step"] == "duplicate"
    ]
    assert (rejected["source"], rejected["where"]) == (12, "record 13")
    assert rejected["reason"] == "its instruction is nearly that of record 4"


def test_a_models_requirement_is_in_few_examples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import rnr_kernels.roles.pipeline.template_generator as templates

    monkeypatch.setattr(templates, "ADJECTIVES", ("calm",))
    monkeypatch.setattr(templates, "THINGS", ("the sea",))
    monkeypatch.setattr(templates, "MANNERS", {"tone": "Sound as {} as {} on a day in May"})
    monkeypatch.setattr(templates, "SAYINGS", ("golden morning",))
    built = built_by_templates(
        tmp_path, 10, num_requirements=(1, 1), written_share=1, plain_share=0, wrong=0, most_alike=2
    )
    assert built.tally.num_accepted == 2 and built.tally.rejected == {"duplicate": 8}
    third = records(built.folder / "rejected.jsonl")[0]
    assert third["reason"] == "its requirement 1 is nearly one of record 1, record 2"


def test_finished_files_do_not_depend_on_batches_or_the_order_of_replies(tmp_path: Path) -> None:
    class Slower(TemplateGenerator):
        in_flight = 7
        batch_size = 3

    whole = finished(built_by_templates(tmp_path).folder)
    built = build_dataset(tmp_path / "instructions.json", tmp_path / "other", Slower())
    assert finished(built.folder) == whole
    assert str(tmp_path).encode() not in whole["README.md"]


def test_a_data_set_without_examples_is_two_empty_files_and_says_so(tmp_path: Path) -> None:
    import pyarrow.parquet as parquet

    built = built_by_templates(tmp_path, 5, wrong=1, mends=0, plain_share=0)
    assert built.tally.num_examples == 0
    assert (built.folder / "train.jsonl").read_bytes() == b""
    table = parquet.ParquetFile(built.folder / "train.parquet")
    assert table.num_row_groups == 0 and table.schema_arrow == table_schema()
    assert "There is no example, so that `load_dataset` finds no" in card_of(built.folder)


def test_the_types_of_plain_examples_are_those_of_all(tmp_path: Path) -> None:
    import datasets

    built = built_by_templates(tmp_path, 5, plain_share=1.0)
    whole = datasets.load_dataset(str(built.folder), split="train", cache_dir=str(tmp_path / "c"))
    text = datasets.Value("string")
    assert whole.features["requirements"] == datasets.List(
        {"kind": text, "parameters": text, "wording": text}
    )
    assert whole.to_list() == records(built.folder / "train.jsonl")
    assert "read as plain JSON, a list that is empty in all of them has no type" in card_of(
        built.folder
    )


def card_of(folder: Path) -> str:
    return (folder / "README.md").read_text()


def test_the_card_has_the_front_matter_and_the_counts(tmp_path: Path) -> None:
    yaml = pytest.importorskip("yaml", reason="needs pyyaml, which datasets brings")
    built = built_by_templates(tmp_path)
    _, front, text = built.folder.joinpath("README.md").read_text().split("---\n", 2)
    assert yaml.safe_load(front) == {
        "task_categories": ["text-generation"],
        "tags": ["rnr_kernels", "system-prompts"],
        "size_categories": ["n<1K"],
        "configs": [
            {
                "config_name": "default",
                "data_files": [{"split": "train", "path": "train.parquet"}],
            }
        ],
    }
    tally: Tally = built.tally
    assert f"{tally.num_accepted} with a role and requirements, {tally.num_plain} plain" in text
    for kind, count in tally.kept_by_kind.items():
        assert re.search(rf"\| {kind} \| \d+ \| [\d.]+ % \| {count} \|", text)
    assert "| repair rounds | accepted examples |\n|---|---|\n| 0 | " in text


def test_a_build_with_anything_else_is_refused_and_untouched(tmp_path: Path) -> None:
    whole = finished(built_by_templates(tmp_path).folder)
    for options, words in (
        ({"seed": 1}, "settings.seed is 0 there and 1 here"),
        ({"wrong": 0.5}, "generator.wrong is 0.3 there and 0.5 here"),
    ):
        with pytest.raises(ValueError, match=re.escape(words)):
            built_by_templates(tmp_path, **options)
    texts = {name: Prompts.read()[name] for name in FIELDS}
    with pytest.raises(ValueError, match="holds a build that differs: prompts is"):
        build_dataset(
            tmp_path / "instructions.json", tmp_path / "out", TemplateGenerator(),
            prompts=Prompts(texts | {"again": "No: {problem}"}),
        )  # fmt: skip
    (tmp_path / "instructions.json").write_text('["Another question entirely?"]')
    with pytest.raises(ValueError, match=r"input\.digest is"):
        built_by_templates(tmp_path)
    assert finished(tmp_path / "out") == whole


def test_a_folder_with_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"holds thesis\.txt and no build; name another folder"):
        built_by_templates(tmp_path)
    (tmp_path / "file").write_text("")
    source = tmp_path / "instructions.json"
    with pytest.raises(ValueError, match="is a file; name a folder"):
        build_dataset(source, tmp_path / "file", TemplateGenerator())
    with pytest.raises(ValueError, match="does not exist; make it first"):
        build_dataset(source, tmp_path / "a" / "b", TemplateGenerator())


def test_two_builds_are_not_made_in_one_folder_at_once(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with (
        locked(tmp_path / "out" / ".lock", "taken"),
        pytest.raises(ValueError, match="another process is at work in"),
    ):
        built_by_templates(tmp_path)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"seed": -1}, "seed must be a whole number from 0"),
        ({"num_requirements": (0, 3)}, "num_requirements must be a whole number from 1 to 20"),
        ({"num_requirements": (4, 3)}, "the least, then the most, got (4, 3)"),
        ({"num_requirements": (4,)}, "must be the least and the most, got (4,)"),
        ({"written_share": 1.5}, "written_share must be a number from 0 to 1, got 1.5"),
        ({"plain_share": True}, "plain_share must be a number from 0 to 1, got True"),
        ({"likeness": 0}, "likeness must be a number from 0.1 to 1, got 0"),
        ({"max_readings": 0}, "max_readings must be a whole number from 1"),
        ({"kinds": []}, "kinds must be a list of at least one kind"),
        ({"kinds": ["no:such"]}, "the kind 'no:such' is unknown; known: "),
        ({"kinds": ["free_form:tone"]}, "'free_form:tone' is judged by a model and not drawn"),
    ],
)
def test_a_setting_out_of_range_is_named(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError) as raised:
        BuildSettings(**options)
    assert words in str(raised.value)


def test_prompts_are_files_to_copy_and_edit(tmp_path: Path) -> None:
    paths = Prompts.read().write(tmp_path / "prompts")
    assert [path.name for path in paths] == [f"{name}.txt" for name in FIELDS]
    assert Prompts.read(tmp_path / "prompts").digest() == Prompts.read().digest()
    with pytest.raises(ValueError, match=r"role\.txt exists; name another folder"):
        Prompts.read().write(tmp_path / "prompts")
    (tmp_path / "prompts" / "role.txt").write_text("Who are you in {conversation}?")
    (tmp_path / "prompts" / "judge.txt").unlink()
    edited = Prompts.read(tmp_path / "prompts")
    assert edited.filled("role", conversation="{problem}") == "Who are you in {problem}?"
    assert edited["judge"] == Prompts.read()["judge"]
    (tmp_path / "prompts" / "role.txt").write_text("Who are you?")
    with pytest.raises(ValueError, match=r"role\.txt lacks \{conversation\}; put it in"):
        Prompts.read(tmp_path / "prompts")
    (tmp_path / "prompts" / "roles.txt").write_text("x")
    with pytest.raises(ValueError, match=r"roles\.txt is no prompt; there are role\.txt"):
        Prompts.read(tmp_path / "prompts")
    with pytest.raises(ValueError, match="does not exist"):
        Prompts.read(tmp_path / "nowhere")


def test_a_conversation_is_answered_at_its_last_turn(tmp_path: Path) -> None:
    turns = ["Who keeps the clock of Alden?", "The steward does.", "And who winds it on Sundays?"]
    roles = ("user", "assistant", "user")
    record = {"messages": [{"role": r, "content": c} for r, c in zip(roles, turns, strict=True)]}
    (tmp_path / "instructions.json").write_text(json.dumps([record]))
    built = built_by_templates(tmp_path, plain_share=0, wrong=0)
    (row,) = records(built.folder / "train.jsonl")
    assert [each["role"] for each in row["messages"]] == ["system", *roles, "assistant"]
    assert [each["content"] for each in row["messages"]][1:4] == turns


def test_a_role_declines_what_is_none_of_its_business(tmp_path: Path) -> None:
    built = built_by_templates(tmp_path, 60, plain_share=0, wrong=0, out_of_scope_share=0.3)
    rows = records(built.folder / "train.jsonl")
    declined = [row for row in rows if not row["in_scope"]]
    assert built.tally.num_declined == len(declined)
    assert len(declined) / len(rows) == pytest.approx(0.3, abs=0.15)
    for row in rows:
        kinds = [each["kind"] for each in row["role_checks"]]
        assert kinds == ([] if row["in_scope"] else ["free_form:refusal"])
        (attempt,) = json.loads(row["provenance"])["attempts"]
        assert len(attempt["verdicts"]) == len(row["requirements"]) + len(kinds)


def test_a_prompt_too_long_to_repeat_has_no_such_requirement(tmp_path: Path) -> None:
    (tmp_path / "instructions.json").write_text(json.dumps(["Why? " * 30_000]))
    options: dict[str, Any] = {"kinds": ["combination:repeat_prompt"], "written_share": 0}
    built = built_by_templates(tmp_path, plain_share=0, out_of_scope_share=0, **options)
    (rejected,) = records(built.folder / "rejected.jsonl")
    assert (rejected["step"], rejected["reason"]) == ("conflict", "no requirement is left")
