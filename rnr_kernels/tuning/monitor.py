"""Watches a training run: losses for the curve, progress, and a loss that runs away."""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

WINDOW = 10
"""Steps whose mean loss is looked at."""

GROWTH = 1.5
"""A mean loss this many times that of the first steps diverges ..."""

MARGIN = 0.5
"""... if it is also this many nats above it: small losses are noisy."""


class Diverged(ValueError):
    """The loss is not finite, or grows."""


@dataclass(frozen=True)
class Step:
    """One optimiser step: loss in nats a token before it, gradient norm, learning rate."""

    step: int
    loss: float
    gradient_norm: float
    learning_rate: float


@dataclass
class Monitor:
    """Keeps the steps, and raises `Diverged` where training makes no sense any more."""

    steps: list[Step] = field(default_factory=list)
    on_step: Callable[[Step, int], None] | None = None
    """Called with every step and the number of all steps."""
    may_overflow: bool = False
    """Whether a gradient that is not finite is part of training: float16's loss scaling leaves such
    a step out and goes on with a smaller scale."""

    def add(self, logs: dict[str, Any], step: int, num_steps: int) -> None:
        """Takes what the trainer logs for a step."""
        if "loss" not in logs:
            return  # the trainer's summary at the end
        seen = _step(logs, step)
        self.steps.append(seen)
        self._check(seen)
        if self.on_step is not None:
            self.on_step(seen, num_steps)

    def load(self, trainer_state: Path) -> None:
        """Takes the steps of an interrupted run from its checkpoint."""
        state = json.loads(trainer_state.read_text(encoding="utf-8"))
        for logs in state["log_history"]:
            if "loss" in logs:
                self.steps.append(_step(logs, logs["step"]))

    def mean_loss(self, last: int = WINDOW) -> float:
        """Of the last steps."""
        some = [step.loss for step in self.steps[-last:]]
        return sum(some) / len(some)

    def _check(self, seen: Step) -> None:
        finite = math.isfinite(seen.gradient_norm) or self.may_overflow
        if not (math.isfinite(seen.loss) and finite):
            raise Diverged(
                f"training diverged at step {seen.step}: the loss is {seen.loss}, the gradient's "
                f"norm {seen.gradient_norm}; try a smaller learning rate; nothing was written"
            )
        if len(self.steps) >= 2 * WINDOW:
            first = sum(step.loss for step in self.steps[:WINDOW]) / WINDOW
            if (now := self.mean_loss()) > max(GROWTH * first, first + MARGIN):
                raise Diverged(
                    f"training diverged at step {seen.step}: the loss rose from {first:.3f} to "
                    f"{now:.3f}; try a smaller learning rate; nothing was written"
                )


def _step(logs: dict[str, Any], step: int) -> Step:
    gradient_norm = float(logs.get("grad_norm", 0.0))
    return Step(step, float(logs["loss"]), gradient_norm, float(logs["learning_rate"]))
