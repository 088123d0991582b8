"""Prompt files: what is read, and errors that name the line."""

import json
from pathlib import Path

import pytest

from rnr_kernels.generation import Completion
from rnr_kernels.records import (
    RecordWriter,
    check_apart,
    check_writable,
    completion_record,
    read_instructions,
)


def write(tmp_path: Path, text: str | bytes) -> Path:
    file = tmp_path / "prompts.jsonl"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


def test_instructions_and_prompts_are_read_in_order(tmp_path: Path) -> None:
    file = write(tmp_path, '{"instruction": "a\\u2028b"}\n\n{"prompt": "c", "id": 3}\n')
    assert read_instructions(file) == ["a\u2028b", "c"]


def test_a_line_separator_inside_a_string_does_not_end_the_line(tmp_path: Path) -> None:
    assert read_instructions(write(tmp_path, '{"instruction": "a\u2028b"}')) == ["a\u2028b"]


def test_a_json_array_as_alpacaeval_has_it(tmp_path: Path) -> None:
    assert read_instructions(write(tmp_path, '[{"instruction": "a", "output": "x"}]')) == ["a"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"instruction": "a"}\n{"instruction": \n', "line 2: not JSON"),
        ('{"instruction": "a"}\n["b"]\n', "line 2: expected a JSON object, got list"),
        ('{"question": "a"}\n', "line 1: expected a field 'instruction' or 'prompt'"),
        ('{"instruction": 3}\n', "line 1: 'instruction' must be text that is not empty"),
        ('\n{"instruction": ""}\n', "line 2: 'instruction' must be text that is not empty"),
        ("", "is empty"),
        ("\n \n", "is empty"),
        ("[]", "is empty"),
        ('[{"instruction": "a"},\n oops]', "line 2: not JSON"),
        ('{"instruction": "a"}\n{"instruction": "\\ud83d"}', "line 2: 'instruction' is not valid"),
        ('{"instruction": "a"}\n' + "[" * 100_000, "line 2: too deeply nested"),
        ("[" * 100_000, "too deeply nested"),
        (b'{"instruction": "a"}\n{"instruction": "\xff"}', "line 2: not UTF-8"),
    ],
)
def test_a_broken_record_is_named(tmp_path: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_instructions(write(tmp_path, text))


def test_a_byte_order_mark_is_no_part_of_the_first_line(tmp_path: Path) -> None:
    assert read_instructions(write(tmp_path, b'\xef\xbb\xbf{"instruction": "a"}')) == ["a"]


def test_a_file_is_replaced_with_the_first_record_only(tmp_path: Path) -> None:
    file = tmp_path / "out.jsonl"
    file.write_text("old")
    with RecordWriter(file) as writer:
        assert file.read_text() == "old"
        writer.write({"a": "é"})
        assert file.read_text(encoding="utf-8") == '{"a": "é"}\n'


def test_where_no_file_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "there").write_text("")
    with pytest.raises(ValueError, match="is a folder; name a file in it"):
        check_writable(tmp_path, force=True)
    with pytest.raises(ValueError, match="does not exist; make it first"):
        check_writable(tmp_path / "none" / "x")
    with pytest.raises(ValueError, match="exists; pass --force"):
        check_writable(tmp_path / "there")
    check_writable(tmp_path / "there", force=True)
    check_writable(tmp_path / "new")


def test_what_is_read_or_written_is_not_written_again(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    other = tmp_path / ".." / tmp_path.name / "a"
    check_apart({"one": tmp_path / "a", "two": other}, {"--out": tmp_path / "b"})
    for same in (other, tmp_path / "link"):
        with pytest.raises(ValueError, match=r"is both one and --out; name another file"):
            check_apart({"one": tmp_path / "a"}, {"--out": same})
    with pytest.raises(ValueError, match="is both --out and --chart"):
        check_apart({}, {"--out": tmp_path / "b", "--chart": tmp_path / "b"})


def test_a_missing_file_or_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not exist"):
        read_instructions(tmp_path / "none.jsonl")
    with pytest.raises(ValueError, match="is a folder"):
        read_instructions(tmp_path)


def test_a_record_opens_with_what_alpacaeval_reads() -> None:
    completion = Completion(0, "Say é", [1, 2], [5, 6], "é", "eos", [-0.5, -1.0], [0.1, 0.2])
    record = completion_record(completion, generator="m x r", template="tags", seed=None)
    assert list(record)[:3] == ["instruction", "output", "generator"]
    assert json.loads(json.dumps(record)) == {
        "instruction": "Say é", "output": "é", "generator": "m x r", "template": "tags",
        "finish_reason": "eos", "seed": None, "prompt_token_ids": [1, 2], "token_ids": [5, 6],
        "logprobs": [-0.5, -1.0], "log_z": [0.1, 0.2],
    }  # fmt: skip
