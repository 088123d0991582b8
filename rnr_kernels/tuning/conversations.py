"""Instruction data: records of the usual formats as conversations."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rnr_kernels.records import ALPACA_INPUT, checked_text, read_records

EXPECTED = (
    "one JSON object a line (or an array of them): 'messages' with roles user and assistant "
    "(perhaps after a system message), "
    "Alpaca's 'instruction', 'input' and 'output', LIMA's 'conversations', or 'prompt' and "
    "'response'"
)


@dataclass(frozen=True)
class Turn:
    """What a user asks and what the assistant answers."""

    instruction: str
    response: str


@dataclass(frozen=True)
class Conversation:
    """One or more turns, and the words for where the record stands, for errors."""

    turns: tuple[Turn, ...]
    where: str
    system: str = ""
    """The system message before the first turn; "" for none."""


def read_conversations(path: str | Path) -> list[Conversation]:
    """Every record of a JSON Lines file, or of a JSON array; all of one format.

    ValueError that names the record for one of another format, without a response, or with an empty
    one.
    """
    return _conversations(read_records(path, "data", EXPECTED))


def conversations_of(records: Iterable[Mapping[str, Any]]) -> list[Conversation]:
    """The same for records in memory, such as the rows of a Hugging Face dataset."""
    found = _conversations([(f"record {n}", record) for n, record in enumerate(records, start=1)])
    if not found:
        raise ValueError(f"there are no records; expected {EXPECTED}")
    return found


def _conversations(records: Iterable[tuple[str, Any]]) -> list[Conversation]:
    first: tuple[str, str] | None = None
    found = []
    for where, record in records:
        if not isinstance(record, Mapping):
            raise ValueError(f"{where}: expected a JSON object, got {type(record).__name__}")
        name = _format_of(record, where)
        if first is None:
            first = where, name
        elif name != first[1]:
            raise ValueError(
                f"{where}: a record of the format {name!r}, but {first[0]} has {first[1]!r}; put "
                "one format into a file"
            )
        turns = tuple(FORMATS[name](record, where))
        system = _system_message(record, where) if name == "messages" else ""
        found.append(Conversation(turns, where, system))
    return found


def _format_of(record: Mapping[str, Any], where: str) -> str:
    for name in FORMATS:
        if all(field in record for field in FIELDS[name]):
            return name
    has = ", ".join(map(repr, record)) or "none"
    raise ValueError(f"{where}: its fields are {has}; expected {EXPECTED}")


def _turn(instruction: object, response: object, where: str) -> Turn:
    asked, answered = (
        checked_text(instruction, f"{where}: instruction"),
        checked_text(response, f"{where}: response"),
    )
    if not answered.strip():
        raise ValueError(f"{where}: the response is empty; leave the record out")
    return Turn(asked.strip(), answered.strip())


def _from_messages(record: Mapping[str, Any], where: str) -> Iterable[Turn]:
    messages = record["messages"]
    if not isinstance(messages, list) or not all(isinstance(m, Mapping) for m in messages):
        raise ValueError(f"{where}: 'messages' must be a list of objects with role and content")
    roles = [message.get("role") for message in messages]
    has_system = roles[:1] == ["system"]
    num_turns = len(roles) // 2
    if not num_turns or roles[has_system:] != ["user", "assistant"] * num_turns:
        raise ValueError(
            f"{where}: roles must be user and assistant in turn, from user to assistant, perhaps "
            f"after a system message, got {roles}"
        )
    contents = [message.get("content") for message in messages[has_system:]]
    return _in_turns(contents, where)


def _system_message(record: Mapping[str, Any], where: str) -> str:
    first = record["messages"][0]
    return (
        checked_text(first.get("content"), f"{where}: system message")
        if first["role"] == "system"
        else ""
    )


def _from_lima(record: Mapping[str, Any], where: str) -> Iterable[Turn]:
    texts = record["conversations"]
    if not isinstance(texts, list) or not texts or len(texts) % 2:
        raise ValueError(
            f"{where}: 'conversations' must be a list of questions and answers in turn; the last "
            "one has no response"
        )
    return _in_turns(texts, where)


def _in_turns(texts: list[object], where: str) -> Iterable[Turn]:
    for n, (asked, answered) in enumerate(zip(texts[::2], texts[1::2], strict=True), start=1):
        yield _turn(asked, answered, f"{where}, turn {n}")


def _from_alpaca(record: Mapping[str, Any], where: str) -> Iterable[Turn]:
    instruction = checked_text(record["instruction"], f"{where}: instruction")
    more = checked_text(record.get("input") or "", f"{where}: input")
    if more.strip():
        instruction = ALPACA_INPUT.format(instruction=instruction.strip(), input=more)
    yield _turn(instruction, record["output"], where)


def _from_pair(record: Mapping[str, Any], where: str) -> Iterable[Turn]:
    yield _turn(record["prompt"], record["response"], where)


FORMATS: dict[str, Callable[[Mapping[str, Any], str], Iterable[Turn]]] = {
    "messages": _from_messages,
    "alpaca": _from_alpaca,
    "lima": _from_lima,
    "pair": _from_pair,
}
"""How a record of each format is read."""

FIELDS = {
    "messages": ("messages",),
    "alpaca": ("instruction", "output"),
    "lima": ("conversations",),
    "pair": ("prompt", "response"),
}
"""What tells a format: its fields."""
