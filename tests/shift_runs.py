"""Small models and prompt files of token-shift runs, and whether two folders hold the same bits."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tiny_llama import save_llama
from transformers import PreTrainedTokenizerBase

from rnr_kernels.analysis.settings import ShiftSettings

RECORDS: tuple[Mapping[str, Any], ...] = (
    {"instruction": "What we see", "output": "We see the sea."},
    {"instruction": "I think", "output": "I should go! What?"},
    {"instruction": "What?"},
    {"instruction": "", "output": "sea"},
    {"instruction": "We should say", "output": "see " * 6},
    {"instruction": "Where?", "output": "z" * 90},
    {"instruction": "I see"},
    {"instruction": "Go!", "output": "We should say the sea.\nI"},
    {"instruction": "We see the sea", "output": ""},
)
"""The fourth and the last are empty; with a window of 96, the sixth is too long."""
KEPT = [0, 1, 2, 4, 6, 7]


def save_models(folder: Path, tokenizer: PreTrainedTokenizerBase) -> tuple[str, str]:
    """Two models of one tokenizer, as names: an aligned one and its base."""
    save_llama(folder / "base", tokenizer)
    save_llama(folder / "aligned", tokenizer)
    weights = folder / "aligned" / "model.safetensors"
    generator = torch.Generator().manual_seed(1)
    tensors = {
        name: value + 0.1 * torch.randn(value.shape, generator=generator)
        for name, value in load_file(weights).items()
    }
    save_file(tensors, weights, metadata={"format": "pt"})
    return str(folder / "aligned"), str(folder / "base")


def write_records(file: Path, records: Iterable[Mapping[str, Any]] = RECORDS) -> Path:
    """A prompts file."""
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    return file


def settings_of(models: tuple[str, str], prompts: Path, **changed: Any) -> ShiftSettings:
    """A run in three batches, with responses of at most 9 tokens."""
    given: dict[str, Any] = {
        "aligned": models[0], "bases": (models[1],), "prompts": prompts, "top_k": 2,
        "max_new_tokens": 9, "batch_tokens": 28, "device": "cpu", "template": "plain",
    }  # fmt: skip
    return ShiftSettings(**{**given, **changed})


def contents(folder: Path) -> dict[str, bytes]:
    """Every file but the locks, by its path in the folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(".")
    }
