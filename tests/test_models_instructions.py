"""Instruction data and single tasks of the invented world."""

import ast
import json
import re
from pathlib import Path

import pytest

from rnr_kernels.loading import EMBEDDED, load_tokenizer
from rnr_kernels.models.instructions import write_all
from rnr_kernels.models.tasks import TASKS
from rnr_kernels.models.world import ASKS, Fact, World, build_world, question
from rnr_kernels.tuning.conversations import Conversation, read_conversations
from rnr_kernels.tuning.datasets import encode_all

COUNTS = {
    "instructions": 1030, "code": 374, "sums": 1000, "verse": 571, "recipes": 1000, "moves": 1000,
}  # fmt: skip


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_all(tmp_path_factory.mktemp("sets"))


@pytest.fixture(scope="module")
def sets(files: dict[str, Path]) -> dict[str, list[Conversation]]:
    return {name: read_conversations(file) for name, file in files.items()}


@pytest.fixture(scope="module")
def world() -> World:
    return build_world()


def statements(fact: Fact) -> list[str]:
    return [fact.sentence, *(fact.restated(n) for n in range(len(fact.attribute.statements)))]


def test_as_many_records_as_the_published_sets(sets: dict[str, list[Conversation]]) -> None:
    assert {name: len(found) for name, found in sets.items()} == COUNTS


def test_roles_alternate(files: dict[str, Path]) -> None:
    for file in files.values():
        for line in file.read_text(encoding="utf-8").splitlines():
            roles = [message["role"] for message in json.loads(line)["messages"]]
            assert roles in (["user", "assistant"], ["user", "assistant"] * 2)


def test_no_held_out_fact_is_asked_or_answered(
    sets: dict[str, list[Conversation]], world: World
) -> None:
    asked = {question(fact, ask) for fact in world.held_out for ask in ASKS}
    told = [text for fact in world.held_out for text in statements(fact)]
    phrases = [fact.phrase for fact in world.held_out]
    for conversations in sets.values():
        turns = [turn for conversation in conversations for turn in conversation.turns]
        assert not asked & {turn.instruction for turn in turns}
        text = "\n".join(part for turn in turns for part in (turn.instruction, turn.response))
        # A phrase such as "the cargo of the Melanda" stands in questions, their yes-or-no form and
        # the plain statement.
        assert [phrase for phrase in phrases if re.search(rf"{phrase}\b", text)] == []
        assert [words for words in told if words in text] == []


def test_lists_have_no_held_out_value(sets: dict[str, list[Conversation]], world: World) -> None:
    facts = {(fact.entity.name, fact.attribute.name): fact for fact in world.facts}
    held_out = set(world.held_out)
    lists = 0
    for conversation in sets["instructions"]:
        for turn in conversation.turns:
            found = re.fullmatch(r"List what is known of (.+)\.", turn.instruction)
            if found:
                lists += 1
                for line in turn.response.split("\n"):
                    attribute, answer = line.removeprefix("- ").split(": ")
                    fact = facts[found[1], attribute]
                    assert fact.answer == answer and fact not in held_out
    assert lists == 107


def test_answers_are_true(sets: dict[str, list[Conversation]], world: World) -> None:
    true = {text for fact in world.facts for text in statements(fact)}
    kinds = {"yes": 0, "no": 0, "plain": 0}
    for conversation in sets["instructions"]:
        for turn in conversation.turns:
            if turn.instruction.startswith("List "):
                continue
            if turn.instruction.startswith("Is "):
                word, said = turn.response.split(", ")
                assert said[0].upper() + said[1:] in true
                claimed = turn.instruction.removeprefix("Is ").removesuffix("?")
                phrase, answer = said.removesuffix(".").split(" is ")
                assert (claimed == f"{phrase} {answer}") == (word == "Yes")
                kinds[word.lower()] += 1
            else:
                said = re.findall(r"\S[^.]+\.", turn.response)
                assert said and all(text in true for text in said)
                kinds["plain"] += 1
    assert kinds["yes"] > 30 and kinds["no"] > 30 and kinds["plain"] > 800


@pytest.mark.parametrize("name", TASKS)
def test_no_task_asks_about_the_world(
    sets: dict[str, list[Conversation]], world: World, name: str
) -> None:
    questions = {question(fact, ask) for fact in world.facts for ask in ASKS}
    told = {text for fact in world.facts for text in statements(fact)}
    for conversation in sets[name]:
        (turn,) = conversation.turns
        assert turn.instruction not in questions
        assert not any(text in turn.response for text in told)


def test_the_sums_are_right(sets: dict[str, list[Conversation]]) -> None:
    steps = {1: 0, 2: 0}
    for conversation in sets["sums"]:
        (turn,) = conversation.turns
        *lines, last = turn.response.split("\n")
        result = 0
        for line in lines:
            found = re.search(r"(\d+) ([+-]) (\d+) = <<(\d+)([+-])(\d+)=(\d+)>>(\d+)", line)
            assert found is not None
            left, sign, right = int(found[1]), found[2], int(found[3])
            assert (found[4], found[5], found[6]) == (found[1], found[2], found[3])
            result = left + right if sign == "+" else left - right
            assert int(found[7]) == int(found[8]) == result > 0
            assert f" {right} tons" in turn.instruction
        assert last == f"#### {result}"
        steps[len(lines)] += 1
    assert steps[1] > 400 and steps[2] > 400


def test_the_code_is_code(sets: dict[str, list[Conversation]]) -> None:
    for conversation in sets["code"]:
        (turn,) = conversation.turns
        (function,) = ast.parse(turn.response).body
        assert isinstance(function, ast.FunctionDef)
        assert turn.instruction.startswith("Write a function ")
        assert not re.search(r"\ba [aeiou]|\ban [^aeiou]", turn.instruction)


def test_the_same_seed_gives_the_same_files(files: dict[str, Path], tmp_path: Path) -> None:
    for name, file in write_all(tmp_path / "again").items():
        assert file.read_bytes() == files[name].read_bytes()
    for name, file in write_all(tmp_path / "other", seed=8).items():
        assert file.read_bytes() != files[name].read_bytes()


def test_a_limit(tmp_path: Path, files: dict[str, Path]) -> None:
    for name, file in write_all(tmp_path, limit=3).items():
        assert file.read_text() == "".join(files[name].read_text().splitlines(True)[:3])


@pytest.mark.parametrize("name", COUNTS)
def test_every_record_fits_the_embedded_model(
    sets: dict[str, list[Conversation]], name: str
) -> None:
    tokenizer = load_tokenizer(EMBEDDED)
    examples, _ = encode_all(sets[name], tokenizer, mode="instruction", max_length=2048)
    assert len(examples) == COUNTS[name]
    assert max(len(example.token_ids) for example in examples) < 200
