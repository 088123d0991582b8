"""Instruction data from wherever it lies: a file, a saved Hugging Face dataset, the hub."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rnr_kernels.templates import TEMPLATES, PromptTemplate
from rnr_kernels.tuning.conversations import Conversation, conversations_of, read_conversations
from rnr_kernels.tuning.examples import Example, encode_example

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def read_data(source: str, *, split: str = "train") -> list[Conversation]:
    """Conversations of a JSON or JSON Lines file, a folder that `datasets` saved, or a hub name.

    ValueError that names the record, or says what was expected at `source`.
    """
    path = Path(source).expanduser()
    if path.is_file() or path.suffix in (".json", ".jsonl"):
        return read_conversations(path)
    if path.is_dir():
        return conversations_of(_rows(str(path), split, saved=True))
    if path.exists() or source.startswith((".", "/", "~")) or source.count("/") > 1:
        raise ValueError(
            f"data must be a .jsonl or .json file, a folder that datasets saved, or a Hugging Face "
            f"name; there is no {source!r}"
        )
    return conversations_of(_rows(source, split, saved=False))


def _rows(source: str, split: str, *, saved: bool) -> Any:
    try:
        import datasets
    except ImportError:
        raise ValueError(
            "Hugging Face datasets need the package datasets; pip install 'rnr_kernels[tuning]'"
        ) from None
    try:
        found: Any = datasets.load_from_disk(source) if saved else datasets.load_dataset(source)
    except Exception as error:  # whatever a broken folder or a missing network makes it raise
        reason = str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__
        raise ValueError(f"cannot load the data set {source!r}: {reason}") from error
    if isinstance(found, dict):
        if split not in found:
            raise ValueError(f"{source} has the splits {', '.join(found)}, not {split!r}")
        found = found[split]
    return found


def encode_all(
    conversations: Sequence[Conversation],
    tokenizer: "PreTrainedTokenizerBase",
    *,
    mode: str,
    max_length: int,
    template: PromptTemplate = TEMPLATES["tags"],
    skip_long: bool = False,
) -> tuple[list[Example], int]:
    """The examples, and how many were left out for their length.

    ValueError that names the first record of more than `max_length` tokens unless `skip_long`, and
    if none is left.
    """
    examples, skipped = [], 0
    for conversation in conversations:
        example = encode_example(conversation, tokenizer, mode=mode, template=template)
        if len(example.token_ids) <= max_length:
            examples.append(example)
        elif skip_long:
            skipped += 1
        else:
            raise ValueError(
                f"{conversation.where}: {len(example.token_ids)} tokens, more than the "
                f"{max_length} that an example may have; shorten it, or leave long ones out with "
                "--skip-long"
            )
    if not examples:
        raise ValueError(f"all {skipped} records have more than {max_length} tokens")
    return examples, skipped


def digest(examples: Sequence[Example]) -> str:
    """What tells two sets of examples apart: a hash of their tokens and masks."""
    found = hashlib.sha256()
    for example in examples:
        found.update(repr((example.token_ids, example.is_trained)).encode())
    return found.hexdigest()[:16]
