"""Pass rates of one system or two, as a figure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rnr_kernels.durable import published
from rnr_kernels.roles.pass_rate import PassRate, kind_label
from rnr_kernels.roles.rates import Rate, Share

FORMATS = (".png", ".svg", ".pdf")
MOST_SYSTEMS = 2

COLOURS = ("#0072b2", "#d55e00")
"""Okabe and Ito 2008: told apart by everyone, and by their markers in grey."""
MARKERS = ("o", "s")
GREY = "#777777"
ROW_HEIGHT = 0.27
"""Inches."""
OFFSET = 0.17
"""Of a row's two marks from its middle, in rows."""


@dataclass(frozen=True)
class _Row:
    """A line of the figure: a rate of each system, None where it has none."""

    label: str
    rates: tuple[Rate | None, ...]
    is_headline: bool = False


def check_chart(path: Path) -> None:
    """ValueError for a file that cannot be a figure's."""
    if path.suffix.lower() not in FORMATS:
        raise ValueError(f"the chart's file must end in {', '.join(FORMATS)}, got {path.name!r}")


def write_chart(
    systems: Mapping[str, PassRate], path: Path, *, width: float = 7.0, dpi: int = 200
) -> None:
    """Pass rates with 95 % intervals, first of all requirements, then by kind, the best first.

    One system is drawn with strict and loose verdicts, two with their strict ones side by side.
    `path` ends in .png, .svg or .pdf; `width` in inches. ValueError for another ending, for more
    than two systems or none, and where there is nothing to draw.
    """
    import matplotlib
    from matplotlib.figure import Figure

    check_chart(path)
    if not 1 <= len(systems) <= MOST_SYSTEMS:
        raise ValueError(f"a chart shows 1 or {MOST_SYSTEMS} systems, got {len(systems)}")
    rows = _rows(list(systems.values()))
    if not rows:
        raise ValueError("no example has a requirement: there is nothing to draw")
    metadata = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(path.suffix.lower(), {})
    with matplotlib.rc_context(
        {"font.size": 8, "svg.fonttype": "none", "svg.hashsalt": "rnr_kernels"}
    ):
        figure = Figure(figsize=(width, ROW_HEIGHT * len(rows) + 1.1), layout="constrained")
        axes = figure.add_subplot()
        _draw(axes, rows, list(systems))
        figure.legend(loc="outside upper center", ncols=2, frameon=False)
        with published(path) as file:
            figure.savefig(file, format=path.suffix[1:].lower(), dpi=dpi, metadata=metadata)


def _rows(systems: Sequence[PassRate]) -> list[_Row]:
    headlines = {
        "all requirements": tuple(each.all_followed for each in systems),
        "each requirement": tuple(each.each_followed for each in systems),
        "role kept": tuple(each.role_kept for each in systems),
        "out of scope declined": tuple(each.role_declined for each in systems),
    }
    rate_of = [each.by_kind for each in systems]
    kinds = sorted(
        {kind for rates in rate_of for kind in rates},
        key=lambda kind: (
            [-rates[kind].strict.value if kind in rates else 1.0 for rates in rate_of],
            kind,
        ),
    )
    rows = [_Row(label, rates, True) for label, rates in headlines.items() if any(rates)]
    return rows + [
        _Row(
            kind_label(kind),
            tuple(each.by_kind.get(kind) for each in systems),
        )
        for kind in kinds
    ]


def _draw(axes: Any, rows: Sequence[_Row], names: Sequence[str]) -> None:
    for number, (label, colour, marker, filled) in enumerate(_series(names)):
        offset = OFFSET * (2 * number - 1)
        drawn = [
            (place + offset, share)
            for place, row in enumerate(rows)
            if (share := _share(row, number, len(names))) is not None
        ]
        values = [100 * share.value for _, share in drawn]
        # An interval of percentiles may miss the rate of few examples by a rounding error.
        errors = [
            [max(0.0, 100 * (share.value - share.interval[0])) for _, share in drawn],
            [max(0.0, 100 * (share.interval[1] - share.value)) for _, share in drawn],
        ]
        axes.errorbar(
            values,
            [place for place, _ in drawn],
            xerr=errors,
            fmt=marker,
            color=colour,
            markerfacecolor=colour if filled else "white",
            markersize=4.5,
            elinewidth=1.2,
            label=label,
            clip_on=False,
            zorder=3,
        )
    _finish(axes, rows)


def _series(names: Sequence[str]) -> list[tuple[str, str, str, bool]]:
    """Label, colour, marker and whether it is filled: of two systems, or of strict and loose."""
    if len(names) == 1:
        return [
            (f"{names[0]}, strict", COLOURS[0], MARKERS[0], True),
            ("loose", COLOURS[0], MARKERS[0], False),
        ]
    return [(*each, True) for each in zip(names, COLOURS, MARKERS, strict=True)]


def _share(row: _Row, number: int, num_systems: int) -> Share | None:
    rate = row.rates[number if num_systems > 1 else 0]
    if rate is None:
        return None
    return rate.loose if num_systems == 1 and number == 1 else rate.strict


def _finish(axes: Any, rows: Sequence[_Row]) -> None:
    num_headlines = sum(row.is_headline for row in rows)
    for place, row in enumerate(rows):
        if place % 2:
            axes.axhspan(place - 0.5, place + 0.5, color="#f4f4f4", linewidth=0, zorder=0)
        total = next(rate.strict.total for rate in row.rates if rate is not None)
        axes.annotate(
            f"{total:,}", (1.02, place), xycoords=("axes fraction", "data"), va="center",
            color=GREY, annotation_clip=False,
        )  # fmt: skip
    axes.annotate(
        "n", (1.02, -0.9), xycoords=("axes fraction", "data"), va="center", color=GREY,
        annotation_clip=False,
    )  # fmt: skip
    if num_headlines < len(rows):
        axes.axhline(num_headlines - 0.5, color=GREY, linewidth=0.8)
    axes.set_yticks(range(len(rows)), [row.label for row in rows])
    for label, row in zip(axes.get_yticklabels(), rows, strict=True):
        label.set_fontweight("bold" if row.is_headline else "normal")
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(0, 100)
    axes.grid(axis="x", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", length=0, pad=7)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.set_xlabel("followed, % (95 % intervals over examples)")
