"""Reading prompts, and reading and writing responses, as JSON Lines."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from rnr_kernels.generation import Completion
from rnr_kernels.templates import check_text

INSTRUCTION_FIELDS = ("instruction", "prompt")
ALPACA_INPUT = "{instruction}\n\n{input}"
"""An instruction that comes with an input (Alpaca's own files join the two in a sentence)."""

EXPECTED = "one JSON object a line with an 'instruction'"
EXPECTED_OUTPUTS = (
    "one JSON object a line (or an array of them) with 'instruction', 'output' and 'generator', as "
    "rnr-kernels generate --out and AlpacaEval write it"
)


@dataclass(frozen=True)
class ModelOutput:
    """One response, of whom, and how it ended (None where its file does not say)."""

    instruction: str
    output: str
    generator: str
    finish_reason: str | None = None


def read_instructions(path: str | Path) -> list[str]:
    """The `instruction` (or `prompt`) of every record of a JSON Lines file, or of a JSON array.

    Raises ValueError that names the line for anything else, and for a file without records.
    """
    records = read_records(path, "prompts", EXPECTED)
    return [_instruction(record, where) for where, record in records]


def read_outputs(path: str | Path) -> list[ModelOutput]:
    """The responses of one generator, from `rnr-kernels generate --out` or in AlpacaEval's format.

    An instruction may come more than once, and an output may be empty. Raises ValueError that names
    the line for a field that is missing or no text, and for a second generator.
    """
    outputs: list[ModelOutput] = []
    for where, record in read_records(path, "outputs", EXPECTED_OUTPUTS):
        found = ModelOutput(
            _instruction(record, where),
            text_field(record, ("output",), where, EXPECTED_OUTPUTS),
            text_field(record, ("generator",), where, EXPECTED_OUTPUTS),
            None
            if record.get("finish_reason") is None
            else text_field(record, ("finish_reason",), where, EXPECTED_OUTPUTS),
        )
        if outputs and found.generator != outputs[0].generator:
            raise ValueError(
                f"{where}: a response of {found.generator!r} in a file of {outputs[0].generator!r};"
                " put each generator's responses into a file of their own"
            )
        outputs.append(found)
    return outputs


def text_field(record: object, names: Sequence[str], where: str, expected: str) -> str:
    """The text of the first of some fields that a record has.

    Raises ValueError that says `where`, and what was `expected`, for what is no object, for a
    record with none of them, and for a value that is no text.
    """
    if not isinstance(record, Mapping):
        raise ValueError(f"{where}: expected a JSON object, got {type(record).__name__}")
    for name in names:
        if name in record:
            return checked_text(record[name], f"{where}: {name!r}")
    fields = " or ".join(map(repr, names))
    raise ValueError(f"{where}: the field {fields} is missing; expected {expected}")


def checked_text(value: object, where: str) -> str:
    """`value`; ValueError that says `where` for what is no text that UTF-8 can hold."""
    if not isinstance(value, str):
        raise ValueError(f"{where} must be text, got {type(value).__name__}")
    check_text(value, where)
    return value


def record_id(record: Mapping[str, Any], where: str) -> str | None:
    """A record's `id` as text; None where it is absent or null. ValueError for no text or int."""
    value = record.get("id")
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise ValueError(f"{where}: 'id' must be text or a whole number, got {value!r:.60}")
    check_text(str(value), f"{where}: 'id'")
    return str(value)


def read_records(path: str | Path, kind: str, expected: str) -> list[tuple[str, Any]]:
    """The records of a JSON Lines file, or of a JSON array, each with words for where it stands.

    Raises ValueError that says what was `expected` of this `kind` of file, and names the line, for
    what is not JSON and for a file without records.
    """
    return list(iterate_records(path, kind, expected))


def iterate_records(path: str | Path, kind: str, expected: str) -> Iterator[tuple[str, Any]]:
    """The same one by one: of a JSON Lines file, one line is in memory."""
    path, empty = Path(path), True
    try:
        with path.open(encoding="utf-8-sig") as file:
            for where, record in _records(file, path, expected):
                empty = False
                yield f"{path}, {where}", record
    except FileNotFoundError:
        raise ValueError(f"the {kind} file {path} does not exist; expected {expected}") from None
    except IsADirectoryError:
        raise ValueError(f"the {kind} file {path} is a folder; expected {expected}") from None
    except UnicodeDecodeError:
        line = _undecodable_line(path)
        raise ValueError(f"{path}, line {line}: not UTF-8 text; expected {expected}") from None
    if empty:
        raise ValueError(f"the {kind} file {path} is empty; expected {expected}")


def _undecodable_line(path: Path) -> int:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                line.decode()
            except UnicodeDecodeError:
                return number
    return 1  # the file has changed meanwhile


def _records(file: IO[str], path: Path, expected: str) -> Iterator[tuple[str, Any]]:
    is_first = True
    for number, line in enumerate(file, start=1):
        if not line.strip():
            continue
        if is_first and line.lstrip().startswith("["):
            yield from _array("\n" * (number - 1) + line + file.read(), path, expected)
            return
        is_first = False
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(
                f"{path}, line {number}: not JSON: {error.msg} at column {error.colno}; "
                f"expected {expected}"
            ) from None
        except RecursionError:
            raise ValueError(f"{path}, line {number}: too deeply nested for a record") from None
        yield f"line {number}", record


def _array(text: str, path: Path, expected: str) -> Iterator[tuple[str, Any]]:
    try:
        records = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{path}, line {error.lineno}: not JSON: {error.msg}; expected {expected}"
        ) from None
    except RecursionError:
        raise ValueError(f"{path}: too deeply nested to be a list of records") from None
    yield from ((f"record {number}", record) for number, record in enumerate(records, start=1))


def _instruction(record: object, where: str) -> str:
    if not isinstance(record, Mapping):
        raise ValueError(f"{where}: expected a JSON object, got {type(record).__name__}")
    for field in INSTRUCTION_FIELDS:
        if field in record:
            value = record[field]
            if not isinstance(value, str) or not value:
                raise ValueError(f"{where}: {field!r} must be text that is not empty")
            check_text(value, f"{where}: {field!r}")
            return value
    raise ValueError(f"{where}: expected a field {' or '.join(map(repr, INSTRUCTION_FIELDS))}")


def completion_record(
    completion: Completion, *, generator: str, template: str, seed: int | None
) -> dict[str, Any]:
    """A finished response as a record; its first three fields are AlpacaEval's."""
    return {
        "instruction": completion.instruction,
        "output": completion.text,
        "generator": generator,
        "template": template,
        "finish_reason": completion.finish_reason,
        "seed": seed,
        "prompt_token_ids": completion.prompt_token_ids,
        "token_ids": completion.token_ids,
        "logprobs": completion.logprobs,
        "log_z": completion.log_z,
    }


def check_writable(path: Path, *, force: bool = False) -> None:
    """ValueError if a file cannot be written there, or exists and is not to be replaced."""
    if path.is_dir():
        raise ValueError(f"{path} is a folder; name a file in it")
    if not path.parent.is_dir():
        raise ValueError(f"the folder {path.parent} of {path} does not exist; make it first")
    if path.exists() and not force:
        raise ValueError(f"{path} exists; pass --force to replace it, or name another file")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise ValueError(f"{path} may not be written; name a file in a folder of yours")


def check_apart(inputs: Mapping[str, Path], outputs: Mapping[str, Path]) -> None:
    """ValueError if a file is to be written that is also read, or written a second time.

    Both are given by what errors call them, such as --out.
    """
    seen = {path.resolve(): name for name, path in inputs.items()}
    for name, path in outputs.items():
        place = path.resolve()
        if place in seen:
            raise ValueError(
                f"{path} is both {seen[place]} and {name}; name another file for one of them"
            )
        seen[place] = name


class RecordWriter:
    """Writes JSON Lines. The file is opened, and so replaced, with the first record; every line is
    flushed, so that an interrupted run keeps its finished records."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[str] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._file is not None:
            self._file.close()

    def write(self, record: Mapping[str, Any]) -> None:
        """One line."""
        if self._file is None:
            self._file = self._path.open("w", encoding="utf-8")
        self._file.write(json.dumps(record, ensure_ascii=False) + "\n")
        self._file.flush()
