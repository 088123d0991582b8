"""The loss curve as a picture."""

from collections.abc import Sequence
from pathlib import Path

from rnr_kernels.tuning.monitor import WINDOW, Step


def write_curve(steps: Sequence[Step], path: Path) -> None:
    """Loss by step with its running mean, and the learning rate, as PNG or SVG by the suffix."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    numbers = [step.step for step in steps]
    losses = [step.loss for step in steps]
    recent = [losses[max(0, end - WINDOW) : end] for end in range(1, len(losses) + 1)]
    means = [sum(some) / len(some) for some in recent]
    # A lone step is a point: a line through it would not be seen.
    marker = "o" if len(steps) == 1 else None
    axes.plot(numbers, losses, "tab:blue", alpha=0.4, linewidth=1, marker=marker, label="loss")
    axes.plot(numbers, means, "tab:blue", linewidth=2, label=f"mean of the last {WINDOW} steps")
    rates = [step.learning_rate for step in steps]
    axes.plot([], [], "tab:gray", linestyle=":", label="learning rate")  # its entry in the legend
    axes.set_xlabel("optimiser step")
    axes.set_ylabel("loss (nats a trained token)")
    axes.set_ylim(bottom=0)
    axes.grid(axis="y", alpha=0.25)
    axes.legend(loc="upper right", frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    rate = axes.twinx()
    rate.plot(numbers, rates, "tab:gray", linestyle=":", marker=marker)
    rate.set_ylabel("learning rate", color="tab:gray")
    rate.set_ylim(bottom=0)
    rate.tick_params(axis="y", colors="tab:gray")
    rate.ticklabel_format(axis="y", style="sci", scilimits=(0, 0), useMathText=True)
    rate.spines[["top", "left", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
