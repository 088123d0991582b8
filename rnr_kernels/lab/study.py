"""What the lab trains and asks, and the settings of its twins."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from rnr_kernels.models.evaluate import CONDITIONS, MAX_NEW_TOKENS
from rnr_kernels.models.tasks import TASKS
from rnr_kernels.tuning.settings import Settings, recipe

TWINS: Mapping[str, str] = {
    "instruction": "instruction",
    "response": "response",
    **dict.fromkeys(TASKS, "task"),
}
"""Each tuned twin of the base, and its mode of tuning."""

RULES = tuple(name for name in CONDITIONS if name != "base")
"""Base times the three rules of Hewitt et al. 2024, and with each left out."""


@dataclass(frozen=True)
class Study:
    """One run of the lab. The same numbers hold for every twin: none is tuned to come out well."""

    seeds: tuple[int, ...] = (1, 2, 3)
    epochs: int = 5
    learning_rate: float = 1e-3
    """A third of what the base was trained with."""
    records: int | None = None
    """Of each data set at most; None is all of it."""
    prompts: int = 200
    max_new_tokens: int = MAX_NEW_TOKENS
    fitted_weights: tuple[int, ...] = (3, 15, 50)
    fitted_conversations: int = 2000

    def settings(self, twin: str, seed: int) -> Settings:
        """The paper's recipe, but for learning rate, epochs, and the whole batch in one pass."""
        return replace(
            recipe("paper", TWINS[twin]),
            epochs=self.epochs,
            learning_rate=self.learning_rate,
            device_batch_size=64,
            seed=seed,
        )

    def as_dict(self) -> dict[str, Any]:
        """As JSON takes it."""
        return {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(self).items()}


FULL = Study()
QUICK = Study(
    seeds=(1,), epochs=2, records=128, prompts=28, max_new_tokens=60, fitted_weights=(3,),
    fitted_conversations=60,
)  # fmt: skip
"""Every step on little data, in under a minute: whether it runs, not what comes out."""
