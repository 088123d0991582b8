"""Token shift by position, as a figure for a paper."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rnr_kernels.analysis.summary import CURVES, PairSummary, summarise
from rnr_kernels.analysis.token_shift import TokenShift

FORMATS = (".png", ".svg", ".pdf")
PANELS = ("kl_aligned_base", "base_rank", "base_probability")

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")
STYLES = ("-", "--", "-.", ":")
"""With the colours (Okabe and Ito 2008) they tell lines apart for everyone, and in grey."""


def write_curves(
    shifts: Mapping[str, TokenShift], path: Path, *, width: float = 7.0, dpi: int = 300
) -> None:
    """KL(aligned || base), base rank and base probability by position, a line a pair.

    Bands are 95 % bootstrap intervals over prompts. `path` ends in .png, .svg or .pdf; `width` in
    inches. A line ends where too few responses go on (`summary.MIN_RESPONSES`). ValueError for
    another ending, for no pairs, or for a pair without tokens.
    """
    import matplotlib
    from matplotlib.figure import Figure

    if path.suffix.lower() not in FORMATS:
        raise ValueError(f"path must end in {', '.join(FORMATS)}, got {path.name!r}")
    if not shifts:
        raise ValueError("there are no pairs to draw: pass at least one")
    summaries = summarise(shifts)
    metadata = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(path.suffix.lower(), {})
    with matplotlib.rc_context(
        {"font.size": 8, "svg.fonttype": "none", "svg.hashsalt": "rnr_kernels"}
    ):
        figure = Figure(figsize=(width, 0.34 * width), layout="constrained")
        for axes, curve in zip(figure.subplots(1, len(PANELS)), PANELS, strict=True):
            for number, summary in enumerate(summaries):
                _draw(axes, summary, curve, number)
            _finish(axes, curve)
        figure.axes[0].legend(frameon=False)
        figure.savefig(path, dpi=dpi, metadata=metadata)


def _draw(axes: Any, summary: PairSummary, curve: str, number: int) -> None:
    places = np.arange(1, summary.num_shown + 1)
    colour = COLOURS[number % len(COLOURS)]
    values = getattr(summary.curves, curve)[: summary.num_shown]
    style = STYLES[number % len(STYLES)]
    axes.plot(places, values, style, color=colour, linewidth=1.2, label=summary.name)
    if curve in summary.bands:
        axes.fill_between(places, *summary.bands[curve], color=colour, alpha=0.18, linewidth=0)


def _finish(axes: Any, curve: str) -> None:
    _logarithmic(axes.xaxis, axes.set_xscale)
    axes.set_xlabel("response token")
    axes.set_ylabel(CURVES[curve])
    axes.spines[["top", "right"]].set_visible(False)
    if curve == "base_rank":
        _logarithmic(axes.yaxis, axes.set_yscale)
        axes.set_ylim(bottom=1)
    else:
        axes.set_ylim(bottom=0)


def _logarithmic(axis: Any, set_scale: Callable[[str], None]) -> None:
    """1, 2, 5, 10, ... as they are."""
    from matplotlib.ticker import LogLocator, NullLocator

    set_scale("log")
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter("{x:g}")
