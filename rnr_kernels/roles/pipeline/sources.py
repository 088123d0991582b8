"""Where instructions come from: Alpaca, UltraChat, plain prompts, messages."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rnr_kernels.records import ALPACA_INPUT, INSTRUCTION_FIELDS, checked_text, read_records
from rnr_kernels.roles.example import Turns, conversation

EXPECTED = (
    "a JSON array, or one JSON object a line, of records with 'messages' (roles user and assistant "
    "in turn), 'data' (their texts in turn, as UltraChat has it), 'instruction' (with 'input' and "
    "'output', as Alpaca has it) or 'prompt'; a record may also be the prompt alone"
)
RESPONSE_FIELDS = ("output", "response")


@dataclass(frozen=True)
class Source:
    """One instruction, with the conversation before it."""

    index: int
    """Its place in the input, from 0."""
    where: str
    """The same in words, as errors have it."""
    messages: Turns
    """The last is the user's, and is to be answered."""
    response: str | None
    """The answer that came with it."""

    @property
    def instruction(self) -> str:
        """What the user asks last."""
        return self.messages[-1]["content"]


def read_sources(path: str | Path) -> list[Source]:
    """The instructions of a file, in its order; of a record with `messages`, a system one is left
    out.

    Raises ValueError that names the record for a field that is missing, no text, or empty.
    """
    found = []
    for index, (where, record) in enumerate(read_records(path, "instructions", EXPECTED)):
        _, messages, response = conversation(_messages(record, where), where)
        place = where.removeprefix(f"{Path(path)}, ")
        found.append(Source(index, place, messages, response))
    return found


def _messages(record: object, where: str) -> Sequence[Any]:
    """What a record says, as messages in turn."""
    if isinstance(record, str):
        return _in_turn([record])
    if not isinstance(record, Mapping):
        raise ValueError(f"{where}: expected {EXPECTED}; got {type(record).__name__}")
    if "messages" in record:
        messages = record["messages"]
        if not isinstance(messages, Sequence) or isinstance(messages, str):
            raise ValueError(f"{where}: 'messages' must be a list, got {type(messages).__name__}")
        return messages
    if "data" in record:
        data = record["data"]
        turns = [data] if isinstance(data, str) else data
        if not isinstance(turns, Sequence) or not turns:
            raise ValueError(f"{where}: 'data' must be a text, or a list of texts in turn")
        return _in_turn(turns)
    for field in INSTRUCTION_FIELDS:
        if field in record:
            return _instruction(record, field, where)
    raise ValueError(f"{where}: no instruction; expected {EXPECTED}")


def _instruction(record: Mapping[str, Any], field: str, where: str) -> Sequence[Any]:
    asked = _optional_text(record, field, where)
    if not asked.strip():
        raise ValueError(f"{where}: the instruction is empty")
    # A prompt's own "input" would be something else: Alpaca's stands beside an instruction.
    if field == "instruction" and _optional_text(record, "input", where).strip():
        asked = ALPACA_INPUT.format(instruction=asked, input=record["input"])
    answers = [_optional_text(record, each, where) for each in RESPONSE_FIELDS]
    return _in_turn([asked, *[answer for answer in answers if answer.strip()][:1]])


def _optional_text(record: Mapping[str, Any], field: str, where: str) -> str:
    value = record.get(field)
    return "" if value is None else checked_text(value, f"{where}: {field!r}")


def _in_turn(texts: Sequence[Any]) -> list[dict[str, Any]]:
    return [
        {"role": "assistant" if number % 2 else "user", "content": text}
        for number, text in enumerate(texts)
    ]
