"""What tells models, prompts and rules apart: digests that do not depend on when a file was made.

They say whether a run is gone on with what it was begun with.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rnr_kernels.loading import (
    TOKENIZER_FILES,
    WEIGHT_PATTERNS,
    display_name,
    load_config,
    model_location,
)
from rnr_kernels.rules.kinds import RuleSet

SMALL_FILES = (
    "config.json",
    "generation_config.json",
    "chat_template.jinja",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.json",
    "merges.txt",
    "sentencepiece.bpe.model",
    "spiece.model",
    *TOKENIZER_FILES,
)
READ_WHOLE = 2**26
"""Bytes up to which a file is read from end to end."""
NUM_SAMPLES = 256
SAMPLE = 2**16
"""Of a larger file, that many blocks of so many bytes are read, evenly spread: other weights differ
almost everywhere."""


def model_identity(name: str) -> dict[str, Any]:
    """A model's short name with its files' digests, or with its commit if it is from the hub."""
    location = model_location(name)
    if isinstance(location, str):
        commit = getattr(load_config(name), "_commit_hash", None)
        return {"name": display_name(name), "commit": commit}
    small = [location / file for file in SMALL_FILES]
    weights = [path for pattern in WEIGHT_PATTERNS for path in location.glob(pattern)]
    files = sorted({path for path in (*small, *weights) if path.is_file()})
    return {"name": display_name(name), "files": {path.name: file_digest(path) for path in files}}


def rules_digest(rules: RuleSet) -> str:
    """Of what the rules do, wherever they are from."""
    return hashlib.sha256(repr(rules.rules).encode()).hexdigest()


def file_digest(path: Path, *, whole: bool = False) -> str:
    """SHA-256 of a file's size and content; of blocks spread over a large one unless `whole`."""
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    step = SAMPLE if whole or size <= READ_WHOLE else (size - SAMPLE) // (NUM_SAMPLES - 1)
    for block in _blocks(path, range(0, size, step)):
        digest.update(block)
    return digest.hexdigest()


def _blocks(path: Path, starts: range) -> Iterator[bytes]:
    with path.open("rb") as file:
        for start in starts:
            file.seek(start)
            yield file.read(SAMPLE)


def differences(found: dict[str, Any], wanted: dict[str, Any], where: str = "") -> str:
    """In words, the keys of two descriptions of runs whose values differ; "" for none."""
    words = []
    for key in {**found, **wanted}:
        old, new = found.get(key), wanted.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            words.append(differences(old, new, f"{where}{key}."))
        elif old != new:
            words.append(f"{where}{key} is {old!r} there and {new!r} here")
    return ", ".join(word for word in words if word)
