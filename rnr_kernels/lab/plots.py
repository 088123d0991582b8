"""The lab's plots, as SVG that takes the page's text colour."""

import io
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from rnr_kernels.analysis.token_shift import PositionCurves
from rnr_kernels.lab import published
from rnr_kernels.lab.tables import Estimate

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK = "#010203"
"""Becomes the page's text colour."""

BLUE, ORANGE, GREEN, PINK = "#4c8dd6", "#d98a2b", "#3f9d6b", "#c0649c"

MIN_RESPONSES = 20
"""At a position, for a mean to be drawn."""


def win_rate_plot(rates: Mapping[str, Estimate], titles: Mapping[str, str]) -> str:
    """Bars with intervals; a diamond is Llama-2-7B's published figure."""
    figure, axes = _figure(7, 0.42 * len(rates) + 0.9)
    names = list(rates)[::-1]
    places = np.arange(len(names))
    values = np.array([rates[name].value for name in names])
    errors = [
        [rates[name].value - rates[name].low for name in names],
        [rates[name].high - rates[name].value for name in names],
    ]
    axes.barh(places, values, xerr=errors, color=BLUE, ecolor=INK, height=0.6, capsize=3)
    figures = [published.WIN_RATES[name][0] for name in names]
    axes.plot(figures, places, "D", color=ORANGE, markersize=6, label="published, Llama-2-7B")
    axes.axvline(50, color=INK, linewidth=0.8, linestyle=":")
    axes.set_yticks(places, [titles[name] for name in names])
    axes.set_xlim(0, max(60, *(rate.high + 2 for rate in rates.values())))
    axes.set_xlabel("win rate against the instruction-tuned twin, %")
    axes.legend(loc="upper right", frameon=False, labelcolor=INK)
    return _svg(figure)


def shift_plot(curves: Mapping[str, Sequence[PositionCurves]]) -> str:
    """KL from the base by position, each the mean of the seeds, while enough responses go on."""
    figure, axes = _figure(7, 3.2)
    for (name, seeds), colour in zip(curves.items(), (BLUE, ORANGE, GREEN, PINK), strict=False):
        length = min(int((curve.count >= MIN_RESPONSES).sum()) for curve in seeds)
        if length == 0:
            continue
        mean = np.mean([curve.kl_aligned_base[:length] for curve in seeds], axis=0)
        axes.plot(range(length), mean, color=colour, marker="o", markersize=3, label=name)
    axes.set_xlim(-0.5, 40)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("response tokens before")
    axes.set_ylabel("KL(tuned, base), nats")
    axes.legend(frameon=False, labelcolor=INK)
    return _svg(figure)


def _figure(width: float, height: float) -> tuple["Figure", Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    figure.patch.set_alpha(0)
    axes = figure.add_subplot()
    axes.patch.set_alpha(0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(INK)
    axes.tick_params(colors=INK)
    axes.xaxis.label.set_color(INK)
    axes.yaxis.label.set_color(INK)
    return figure, axes


def _svg(figure: "Figure") -> str:
    """The picture as an element of a page, with text as text."""
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "rnr_kernels"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue().replace(INK, "currentColor")
    return re.sub(r"^.*?(?=<svg)", "", text, flags=re.DOTALL)
