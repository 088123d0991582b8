"""Instruction data of the usual formats, and errors that name the record."""

import json
from pathlib import Path
from typing import Any

import pytest
from real_inputs import real_input

from rnr_kernels.tuning.conversations import (
    Conversation,
    Turn,
    conversations_of,
    read_conversations,
)


def turns(*records: dict[str, Any]) -> list[tuple[Turn, ...]]:
    return [conversation.turns for conversation in conversations_of(records)]


def message(role: str, content: object) -> dict[str, object]:
    return {"role": role, "content": content}


def test_messages_of_several_turns() -> None:
    messages = [
        message("user", " a "), message("assistant", "b\n"),
        message("user", "c"), message("assistant", "d"),
    ]  # fmt: skip
    assert turns({"messages": messages, "id": 7}) == [(Turn("a", "b"), Turn("c", "d"))]


def test_alpaca_with_and_without_input() -> None:
    plain = {"instruction": "Name a river.", "input": "", "output": "Elbe."}
    more = {"instruction": "Add.", "input": "1 2", "output": "3"}
    assert turns(plain, more) == [
        (Turn("Name a river.", "Elbe."),),
        (Turn("Add.\n\n1 2", "3"),),
    ]
    assert turns({"instruction": "a", "output": "b"}) == [(Turn("a", "b"),)]


def test_lima_and_pairs() -> None:
    lima = {"conversations": ["a", "b", "c", "d"], "source": "wikihow"}
    assert turns(lima) == [(Turn("a", "b"), Turn("c", "d"))]
    assert turns({"prompt": "a", "response": "b"}) == [(Turn("a", "b"),)]


def test_a_file_of_lines_says_where_each_stands(tmp_path: Path) -> None:
    file = tmp_path / "data.jsonl"
    file.write_text('{"prompt": "a", "response": "b"}\n\n{"prompt": "", "response": "c"}\n')
    assert read_conversations(file) == [
        Conversation((Turn("a", "b"),), f"{file}, line 1"),
        Conversation((Turn("", "c"),), f"{file}, line 3"),
    ]


PAIR = {"prompt": "a", "response": "b"}


@pytest.mark.parametrize(
    ("record", "words"),
    [
        (
            {"prompt": "a", "response": " \n"},
            "record 2: the response is empty; leave the record out",
        ),
        ({"prompt": "a", "response": None}, "record 2: response must be text, got NoneType"),
        ({"prompt": 3, "response": "b"}, "record 2: instruction must be text, got int"),
        ({"prompt": "\ud83d", "response": "b"}, "record 2: instruction is not valid Unicode"),
        ({"prompt": "a"}, "record 2: its fields are 'prompt'; expected one JSON object a line"),
        ({"instruction": "a", "output": "b"}, "'alpaca', but record 1 has 'pair'"),
        (["a", "b"], "record 2: expected a JSON object, got list"),
    ],
    ids=str,
)
def test_a_broken_record_is_named(record: Any, words: str) -> None:
    with pytest.raises(ValueError) as error:
        conversations_of([PAIR, record])
    assert words in str(error.value)


def test_a_system_message_comes_before_the_turns() -> None:
    chat = [message("system", "Be brief."), message("user", "a"), message("assistant", "b")]
    (conversation,) = conversations_of([{"messages": chat}])
    assert conversation.system == "Be brief." and conversation.turns == (Turn("a", "b"),)


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ({"messages": "a"}, "'messages' must be a list of objects with role and content"),
        ({"messages": []}, "roles must be user and assistant in turn"),
        ({"messages": [message("user", "a")]}, "got ['user']"),
        (
            {"messages": [message("system", "s"), message("user", "a")]},
            "perhaps after a system message, got ['system', 'user']",
        ),
        (
            {"messages": [message("user", "a"), message("assistant", "")]},
            "record 1, turn 1: the response is empty",
        ),
        (
            {"messages": [{"role": "system"}, message("user", "a"), message("assistant", "b")]},
            "record 1: system message must be text, got NoneType",
        ),
        ({"conversations": ["a", "b", "c"]}, "the last one has no response"),
        ({"conversations": []}, "must be a list of questions and answers in turn"),
        ({"instruction": "a", "input": 1, "output": "b"}, "record 1: input must be text, got int"),
    ],
    ids=str,
)
def test_a_broken_conversation_is_named(record: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError) as error:
        conversations_of([record])
    assert words in str(error.value)


def test_files_without_records(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"the data file .* does not exist; expected one JSON"):
        read_conversations(tmp_path / "missing.jsonl")
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(ValueError, match=r"the data file .* is empty; expected one JSON"):
        read_conversations(tmp_path / "empty.jsonl")
    with pytest.raises(ValueError, match="there are no records"):
        conversations_of([])


def test_real_alpaca_records() -> None:
    records = json.loads(real_input("alpaca_en_demo.json").read_text())
    found = conversations_of([record for record in records if record["output"].strip()])
    assert len(found) > 900
    assert found[0].turns[0].instruction.startswith(records[0]["instruction"].strip())
