"""How a model is tuned: the published hyperparameters, by name where paper and code disagree."""

from dataclasses import asdict, dataclass, replace
from typing import Any

from rnr_kernels.loading import DTYPES
from rnr_kernels.tuning.examples import MODES

EPOCHS = {"instruction": 15, "response": 5, "task": 15}
"""Of the authors' scripts for Llama-2-7B on LIMA (Appendix A sweeps 5, 7, 10, 15, 20). Single tasks
had 15 there too, but for GSM8K (7) and recipes (20); OLMo-7B's response tuning had 7."""

SCHEDULES = ("cosine", "linear")

MAX_GRADIENT_NORM = 1.0
"""Longer gradients are shortened to this norm; neither paper nor scripts speak of it."""


@dataclass(frozen=True)
class Lora:
    """Low-rank adaptation of all linear layers but the head, in place of full fine-tuning."""

    rank: int = 16
    alpha: int = 32
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.rank < 1 or self.alpha < 1 or not 0 <= self.dropout < 1:
            raise ValueError(
                "LoRA needs a rank and an alpha of at least 1 and a dropout of 0 to under 1, "
                f"got {self.rank}, {self.alpha}, {self.dropout}"
            )


@dataclass(frozen=True)
class Settings:
    """Hyperparameters; the defaults are those of Appendix A for Llama-2-7B (AdamW without decay).

    `learning_rate` was 3e-6 for OLMo-7B. `warmup` is a share of all steps. `batch_size` counts the
    examples of an optimiser step over all devices, `device_batch_size` those in one forward pass.
    `max_length` is in tokens and never more than the model's window. `dtype` is what products are
    computed in; weights stay float32 while they are trained.
    """

    epochs: int = EPOCHS["instruction"]
    learning_rate: float = 1e-5
    schedule: str = "cosine"
    warmup: float = 0.1
    batch_size: int = 64
    device_batch_size: int = 1
    weight_decay: float = 0.0
    max_length: int = 2048
    dtype: str = "float32"
    seed: int = 1
    lora: Lora | None = None

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "device_batch_size", "max_length"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0 < self.learning_rate < float("inf"):
            raise ValueError(f"learning_rate must be above 0 and finite, got {self.learning_rate}")
        if self.schedule not in SCHEDULES:
            raise ValueError(f"schedule must be {' or '.join(SCHEDULES)}, got {self.schedule!r}")
        if not 0 <= self.warmup < 1:
            raise ValueError(f"warmup must be a share of the steps below 1, got {self.warmup}")
        if not 0 <= self.weight_decay < float("inf"):
            raise ValueError(f"weight_decay must be 0 or more, got {self.weight_decay}")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed must be from 0 to 2**32 - 1, got {self.seed}")
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {self.dtype!r}")
        if self.batch_size % self.device_batch_size:
            raise ValueError(
                f"batch_size {self.batch_size} must be a multiple of device_batch_size "
                f"{self.device_batch_size}: an optimiser step takes whole forward passes"
            )

    def as_dict(self) -> dict[str, Any]:
        """As JSON takes it."""
        return asdict(self)


RECIPES = {
    "paper": Settings(),
    "released": replace(Settings(), schedule="linear", warmup=0.03, dtype="bfloat16"),
}
"""`paper` is Appendix A's text; `released` the authors' scripts, where they differ from it."""


def recipe(name: str, mode: str) -> Settings:
    """A recipe with the epochs of a mode. ValueError for an unknown name or mode."""
    if name not in RECIPES:
        raise ValueError(f"recipe must be {' or '.join(RECIPES)}, got {name!r}")
    if mode not in MODES:
        raise ValueError(f"mode must be one of {', '.join(MODES)}, got {mode!r}")
    return replace(RECIPES[name], epochs=EPOCHS[mode])
