"""Rule files: reading, writing, and errors that name the place."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rnr_kernels.rules.files import FILE_KINDS, find_rules, load_rules, parse_rules, save_rules
from rnr_kernels.rules.kinds import (
    BanTokens,
    EosRamp,
    OnlyTokens,
    RuleSet,
    ScoreVector,
    TokenBias,
    UsedTokenPenalty,
)
from rnr_kernels.rules.presets import hewitt2024

TOML = """
name = "no commas"

[[rules]]
kind = "token_bias"
label = "uniform"
steps = [0, 20]
weights = { "<" = -4, " I" = -5.5, "\\n" = -inf }

[[rules]]
kind = "token_bias"
weights = [{ token = 529, weight = 1 }, { token = " We", weight = "-inf" }]

[[rules]]
kind = "ban_tokens"
tokens = [",", 3]
steps = [2]

[[rules]]
kind = "only_tokens"
tokens = ["Yes", "No"]
steps = [0, 1]

[[rules]]
kind = "eos_ramp"
over = 100
force_at = 200

[[rules]]
kind = "used_token_penalty"
scope = "prompt+response"
after = "<|user|>\\n"
"""
RULES = RuleSet(
    [
        TokenBias({"<": -4.0, " I": -5.5, "\n": -math.inf}, steps=(0, 20), label="uniform"),
        TokenBias({529: 1.0, " We": -math.inf}),
        BanTokens([",", 3], steps=(2, None)),
        OnlyTokens(["Yes", "No"], steps=(0, 1)),
        EosRamp(15.0, over=100, force_at=200),
        UsedTokenPenalty(1.5, scope="prompt+response", after="<|user|>\n"),
    ],
    name="no commas",
)


def test_a_toml_file_is_read_as_written(tmp_path: Path) -> None:
    path = tmp_path / "rules.toml"
    path.write_text(TOML, encoding="utf-8")
    assert load_rules(path) == RULES


@pytest.mark.parametrize("suffix", ["toml", "json"])
@pytest.mark.parametrize(
    "rules",
    [RULES, RuleSet(), hewitt2024("released"), 0 * hewitt2024(), RuleSet([EosRamp(force_at=0)])],
)
def test_saved_rules_are_read_back_equal(rules: RuleSet, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"rules.{suffix}"
    save_rules(rules, str(path))
    assert load_rules(str(path)) == rules


tokens = st.one_of(
    st.integers(0, 200_000), st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
)
weights = st.one_of(st.just(-math.inf), st.floats(allow_nan=False, allow_infinity=False))


@given(
    rules=st.builds(
        lambda bias, ban, name: RuleSet([TokenBias(bias), BanTokens(ban)], name=name),
        st.dictionaries(tokens, weights, max_size=5),
        st.lists(tokens, max_size=5),
        st.text(st.characters(exclude_categories=["Cs"])),
    )
)
@pytest.mark.parametrize("suffix", ["toml", "json"])
def test_any_token_and_weight_survives_a_file(
    rules: RuleSet, suffix: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / f"any.{suffix}"
    save_rules(rules, path)
    assert load_rules(path) == rules


def test_saved_json_is_standard(tmp_path: Path) -> None:
    save_rules(RULES, tmp_path / "rules.json")
    text = (tmp_path / "rules.json").read_text(encoding="utf-8")

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    assert json.loads(text, parse_constant=refuse)["rules"][0]["weights"]["\n"] == "-inf"


def test_numbers_are_written_at_their_default_too(tmp_path: Path) -> None:
    save_rules(RuleSet([EosRamp()]), tmp_path / "rules.json")
    rule = json.loads((tmp_path / "rules.json").read_text())["rules"][0]
    assert rule == {"kind": "eos_ramp", "weight": 15.0, "over": 250}


def test_a_preset_is_the_base_that_rules_are_added_to() -> None:
    ban = {"kind": "ban_tokens", "tokens": [","]}
    rules = parse_rules({"preset": "hewitt2024", "name": "mine", "rules": [ban]})
    assert rules.rules == (*hewitt2024().rules, BanTokens([","]))
    assert rules.name == "mine"
    assert parse_rules({"preset": "hewitt2024:released"}) == hewitt2024("released")
    assert parse_rules({"preset": "hewitt2024", "rules": [ban]}).name is None


def test_a_score_vector_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    rules = RuleSet([EosRamp(), ScoreVector(torch.zeros(3))])
    with pytest.raises(ValueError, match="rule 2 is a ScoreVector"):
        save_rules(rules, tmp_path / "rules.toml")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({}, "rule 2: kind must be one of token_bias, .*, got none"),
        ({"kind": "ban_token"}, "got 'ban_token' .did you mean 'ban_tokens'"),
        ({"kind": ["eos_ramp"]}, "kind must be one of"),
        ({"kind": "eos_ramp", "wieght": 3}, r"rule 2 \(eos_ramp\): unknown key 'wieght' .did you "),
        ({"kind": "eos_ramp", "x": 3}, "keys are kind, weight, over, until, force_at, label"),
        ({"kind": "eos_ramp", "over": 0}, r"rule 2 \(eos_ramp\): EosRamp over must be above 0"),
        ({"kind": "eos_ramp", "weight": "15"}, "EosRamp weight must be a number, got str '15'"),
        ({"kind": "eos_ramp", "weight": "-inf"}, "EosRamp weight must be a number"),
        ({"kind": "eos_ramp", "label": 3}, "a label must be a str"),
        ({"kind": "ban_tokens"}, "the key 'tokens' is missing"),
        ({"kind": "ban_tokens", "tokens": "abc"}, "BanTokens needs a list of tokens"),
        ({"kind": "ban_tokens", "tokens": [1.5]}, "a token must be an int id or a str"),
        ({"kind": "ban_tokens", "tokens": [1], "steps": 3}, "steps must be a pair"),
        ({"kind": "ban_tokens", "tokens": [1], "steps": []}, "steps must be a pair"),
        ({"kind": "ban_tokens", "tokens": [1], "steps": [5, 5]}, "steps must end after"),
        ({"kind": "token_bias", "weights": 3}, "weights must be a table or a list"),
        ({"kind": "token_bias", "weights": {"a": True}}, "weight of 'a' must be a number"),
        ({"kind": "token_bias", "weights": {"a": "1"}}, "weight of 'a' must be a number"),
        ({"kind": "token_bias", "weights": {"a": math.inf}}, "weight of 'a' must be finite"),
        ({"kind": "token_bias", "weights": [{"token": 1}]}, "item 1: expected the keys token and"),
        (
            {"kind": "token_bias", "weights": [{"token": [1], "weight": 1}]},
            "item 1: token must be an id or a string",
        ),
        (
            {"kind": "token_bias", "weights": [{"token": 1, "weight": w} for w in (1, 2)]},
            "item 2: token 1 occurs twice",
        ),
        ({"kind": "used_token_penalty", "scope": "all"}, "scope must be 'response' or"),
        ("eos_ramp", "rule 2: expected a table with a kind, got str"),
    ],
)
def test_a_faulty_rule_is_named_by_file_number_and_key(
    rule: Any, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "rules.json"
    path.write_text(
        json.dumps({"rules": [{"kind": "eos_ramp"}, rule]}).replace("Infinity", "1e999")
    )
    with pytest.raises(ValueError, match=message) as caught:
        load_rules(path)
    assert str(caught.value).startswith(f"{path}, rule 2")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "expected a table"),
        ({"rule": []}, "unknown key 'rule' .did you mean 'rules'.*; keys are name, preset, rules"),
        ({"name": 3}, "name must be a string, got 3"),
        ({"preset": "hewitt"}, "no preset 'hewitt'; presets: hewitt2024, hewitt2024:released"),
        ({"rules": {}}, "rules must be a list of tables, got dict"),
        (
            {"preset": "hewitt2024", "rules": [{"kind": "used_token_penalty"}]},
            "at most one UsedTokenPenalty",
        ),
    ],
)
def test_a_faulty_top_level_is_named(data: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        parse_rules(data, source="mine")
    assert str(caught.value).startswith("mine: ")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.toml", b"kind = ", "a.toml is not a TOML file"),
        ("a.json", b"{", "a.json is not a JSON file"),
        ("a.json", b"\xff", "a.json is not a JSON file"),
        ("a.json", b'{"name": "a", "name": "b"}', "the key 'name' occurs twice"),
        ("a.json", b'{"rules": [{"kind": "eos_ramp", "weight": -Infinity}]}', "-Infinity is not"),
        ("a.yaml", b"", r"ends in \.toml or \.json"),
        ("a.toml", b"", "a.toml: expected rules or a preset, got neither; add"),
        ("a.json", b"{}", "a.json: expected rules or a preset, got neither; add"),
        ("a.toml", b'name = "x"', "a.toml: expected rules or a preset, got neither; add"),
        ("a.json", b"[" * 99_999, "a.json is nested too deeply: a rule file is a table with name,"),
        ("a.toml", b"a=" + b"[" * 99_999, "a.toml is nested too deeply: a rule file is a table"),
        (
            "a.json",
            b'{"rules": [{"kind": "eos_ramp", "weight": 1%s}]}' % (b"0" * 400),
            r"a.json, rule 1 \(eos_ramp\): EosRamp weight must be finite, got an int beyond 1e308",
        ),
        (
            "a.toml",
            b'[[rules]]\nkind = "token_bias"\nweights = { x = -1%s }' % (b"0" * 400),
            r"a.toml, rule 1 \(token_bias\): the weight of 'x' must be finite, got an int beyond",
        ),
    ],
)
def test_a_file_that_cannot_be_parsed_is_named(
    name: str, content: bytes, message: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        load_rules(tmp_path / name)


def test_saving_needs_a_known_suffix(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"ends in \.toml or \.json"):
        save_rules(RULES, tmp_path / "rules.txt")
    assert list(tmp_path.iterdir()) == []


def test_an_explicit_list_of_no_rules_is_a_rule_file(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("rules = []")
    assert load_rules(tmp_path / "a.toml") == RuleSet()


def test_a_file_that_cannot_be_read_is_an_os_error_in_words(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as missing:
        load_rules(tmp_path / "none.toml")
    assert str(missing.value) == (
        f"the rule file {tmp_path}/none.toml does not exist; "
        "check the path and the folder it starts from"
    )
    folder = tmp_path / "folder.toml"
    folder.mkdir()
    with pytest.raises(IsADirectoryError) as is_folder:
        load_rules(folder)
    assert str(is_folder.value) == f"{folder} is a folder; pass the .toml or .json rule file in it"
    below_a_file = tmp_path / "a.json" / "b.json"
    below_a_file.parent.write_text("{}")
    with pytest.raises(NotADirectoryError) as unreadable:
        load_rules(below_a_file)
    assert str(unreadable.value) == (
        f"the rule file {below_a_file} cannot be read: Not a directory"
    )


def test_every_kind_a_file_can_hold_has_a_name() -> None:
    assert {kind.__name__ for kind in FILE_KINDS.values()} == {
        "TokenBias",
        "BanTokens",
        "OnlyTokens",
        "EosRamp",
        "UsedTokenPenalty",
    }


def test_a_file_without_a_name_lends_its_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('[[rules]]\nkind = "eos_ramp"\n')
    assert find_rules(path).name == "mine.toml"
    assert load_rules(path).name is None
    path.write_text('name = "own"\n[[rules]]\nkind = "eos_ramp"\n')
    assert find_rules(str(path)).name == "own"
    assert find_rules("hewitt2024") == hewitt2024()
