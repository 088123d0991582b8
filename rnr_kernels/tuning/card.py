"""The model card of a tuned model."""

import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from rnr_kernels.tuning.monitor import WINDOW
from rnr_kernels.tuning.settings import MAX_GRADIENT_NORM

if TYPE_CHECKING:
    from rnr_kernels.tuning.train import Tuned

WHAT = {
    "instruction": "instruction tuning: responses after their instructions",
    "response": "response tuning: responses alone, every instruction emptied and the tags kept",
    "task": "single-task tuning: one narrow kind of instruction and its responses",
}


def write_card(path: Path, description: dict[str, Any], tuned: "Tuned") -> None:
    """README.md with the front matter that model hubs read."""
    path.write_text(card(description, tuned), encoding="utf-8")


def card(description: dict[str, Any], tuned: "Tuned") -> str:
    """What the model is, how it was trained, and how to use it."""
    import transformers

    settings = description["settings"]
    rows = [f"| {name.replace('_', ' ')} | {_shown(value)} |" for name, value in settings.items()]
    losses = [step.loss for step in tuned.steps]
    first, last = _mean(losses[:WINDOW]), _mean(losses[-WINDOW:])
    skipped = f" {tuned.num_skipped} longer records were left out." if tuned.num_skipped else ""
    return "\n".join(
        [
            "---",
            "library_name: transformers",
            "pipeline_tag: text-generation",
            f"base_model: {description['base']}",
            "tags: [rnr_kernels]",
            "---",
            "",
            f"# {tuned.out.name}",
            "",
            f"{description['base']} after {WHAT[description['mode']]} (Hewitt et al. 2024).",
            "",
            "## Data",
            "",
            f"{tuned.num_examples:,} records of {description['data']} (digest "
            f"`{description['digest']}`): {tuned.num_tokens:,} tokens in an epoch, "
            f"{tuned.num_trained:,} with a loss: those of responses and their EOS.{skipped} "
            "The prompt is, with tags as plain text,",
            "",
            "    <|user|>\\n{instruction}\\n<|assistant|>\\n",
            "",
            "## Training",
            "",
            "| setting | value |",
            "|---|---|",
            *rows,
            "",
            f"{len(tuned.steps):,} steps of AdamW, gradients clipped to a norm of "
            f"{MAX_GRADIENT_NORM:g}. torch {torch.__version__}, transformers "
            f"{transformers.__version__}, Python {platform.python_version()}.",
            "",
            f"Loss in nats a trained token: {first:.3f} over the first steps, {last:.3f} over the "
            "last; `training.json` has every step.",
            "",
            "![loss by optimiser step](loss.png)",
            "",
            "## Use",
            "",
            f'    rnr-kernels generate "..." --model {tuned.out.name} --rules none',
            "",
        ]
    )


def _shown(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, dict):
        return ", ".join(f"{key} {each}" for key, each in value.items())
    return str(value)


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else float("nan")
