"""Instruction data from files, saved datasets and names; examples that are too long."""

from pathlib import Path

import datasets
import pytest
from transformers import PreTrainedTokenizerBase

from rnr_kernels.tuning.conversations import Conversation, Turn, conversations_of
from rnr_kernels.tuning.datasets import digest, encode_all, read_data

MESSAGES = [
    {"role": "user", "content": "What?"},
    {"role": "assistant", "content": "We see the sea."},
]
RECORDS = [{"messages": MESSAGES}, {"messages": MESSAGES * 2}]
EXPECTED = [
    (Turn("What?", "We see the sea."),),
    (Turn("What?", "We see the sea."), Turn("What?", "We see the sea.")),
]


def turns(source: str | Path, **names: str) -> list[tuple[Turn, ...]]:
    return [conversation.turns for conversation in read_data(str(source), **names)]


@pytest.mark.parametrize("name", ["data.jsonl", "data.txt"])
def test_a_file(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text('{"prompt": "a", "response": "b"}\n')
    assert turns(tmp_path / name) == [(Turn("a", "b"),)]


def test_a_saved_dataset(tmp_path: Path) -> None:
    datasets.Dataset.from_list(RECORDS).save_to_disk(tmp_path / "saved")
    assert turns(tmp_path / "saved") == EXPECTED


def test_a_saved_dataset_below_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets.Dataset.from_list(RECORDS).save_to_disk(tmp_path / "saved")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert turns("~/saved") == EXPECTED


def test_a_saved_dataset_with_splits(tmp_path: Path) -> None:
    splits = {
        "train": datasets.Dataset.from_list(RECORDS),
        "test": datasets.Dataset.from_list(RECORDS[:1]),
    }
    datasets.DatasetDict(splits).save_to_disk(tmp_path / "saved")
    assert turns(tmp_path / "saved") == EXPECTED
    assert turns(tmp_path / "saved", split="test") == EXPECTED[:1]
    with pytest.raises(ValueError, match=r"saved has the splits train, test, not 'dev'$"):
        read_data(str(tmp_path / "saved"), split="dev")


def test_a_broken_record_of_a_dataset_is_named(tmp_path: Path) -> None:
    records = [{"prompt": "a", "response": "b"}, {"prompt": "a", "response": " "}]
    datasets.Dataset.from_list(records).save_to_disk(tmp_path / "saved")
    with pytest.raises(ValueError, match=r"^record 2: the response is empty"):
        read_data(str(tmp_path / "saved"))


def test_a_folder_that_is_no_dataset(tmp_path: Path) -> None:
    with pytest.raises(ValueError) as error:
        read_data(str(tmp_path))
    assert str(error.value).startswith(f"cannot load the data set '{tmp_path}': ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("source", ["./missing", "/no/folder", "~/no/folder", "a/b/c"])
def test_a_path_that_is_not_there(source: str) -> None:
    with pytest.raises(ValueError, match=r"^data must be a .jsonl or .json file, a folder that"):
        read_data(source)


def test_a_name_that_cannot_be_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError) as error:
        read_data("nobody/no-such-data")
    assert str(error.value).startswith("cannot load the data set 'nobody/no-such-data': ")
    assert "\n" not in str(error.value)


SHORT = {"prompt": "What?", "response": "sea"}
LONG = {"prompt": "What?", "response": "We see the sea. " * 9}


def conversations(*records: dict[str, str]) -> list[Conversation]:
    return conversations_of(records)


def test_a_record_that_is_too_long_is_named(tiny_bpe: PreTrainedTokenizerBase) -> None:
    both = conversations(SHORT, LONG)
    found, skipped = encode_all(both, tiny_bpe, mode="instruction", max_length=90)
    lengths = [len(example.token_ids) for example in found]
    assert skipped == 0 and lengths == [31, 73]
    with pytest.raises(ValueError) as error:
        encode_all(both, tiny_bpe, mode="instruction", max_length=72)
    assert str(error.value) == (
        "record 2: 73 tokens, more than the 72 that an example may have; shorten it, or leave "
        "long ones out with --skip-long"
    )


def test_long_records_are_left_out_and_counted(tiny_bpe: PreTrainedTokenizerBase) -> None:
    records = conversations(LONG, SHORT, LONG)
    found, skipped = encode_all(
        records, tiny_bpe, mode="instruction", max_length=40, skip_long=True
    )
    assert (len(found), skipped) == (1, 2)
    with pytest.raises(ValueError, match=r"^all 2 records have more than 40 tokens$"):
        encode_all(conversations(LONG, LONG), tiny_bpe, mode="task", max_length=40, skip_long=True)


def test_the_digest_tells_sets_of_examples_apart(tiny_bpe: PreTrainedTokenizerBase) -> None:
    def digest_of(*records: dict[str, str], mode: str = "instruction") -> str:
        encoded, _ = encode_all(conversations(*records), tiny_bpe, mode=mode, max_length=100)
        return digest(encoded)

    assert digest_of(SHORT, LONG) == digest_of(SHORT, LONG) == digest_of(SHORT, LONG, mode="task")
    different = [
        digest_of(SHORT, LONG),
        digest_of(LONG, SHORT),
        digest_of(SHORT),
        digest_of(SHORT, LONG, mode="response"),
    ]
    assert len(set(different)) == 4
