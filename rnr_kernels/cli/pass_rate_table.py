"""Pass rates as terminal tables."""

from collections.abc import Iterator, Mapping
from typing import Any

from rich.table import Table
from rich.text import Text

from rnr_kernels.roles.compare import Comparison
from rnr_kernels.roles.evaluation import Evaluation
from rnr_kernels.roles.judge import EndpointJudge
from rnr_kernels.roles.pass_rate import PassRate, kind_label
from rnr_kernels.roles.rates import Rate, Share

CELL_WIDTH = 17

Row = tuple[str, list[Rate | None]]

HEADLINES = {
    "all requirements followed": "all_followed",
    "  questions in scope": "in_scope",
    "  questions out of scope": "out_of_scope",
    "requirements followed": "each_followed",
    "role kept, in scope": "role_kept",
    "declined, out of scope": "role_declined",
}


def rates_table(systems: Mapping[str, PassRate]) -> Table:
    """Rates in percent with their intervals: of one system strict and loose, of two strict."""
    rates = list(systems.values())
    both_sides = len(rates) > 1
    table = Table(header_style="bold", box=None, pad_edge=False, padding=(0, 1))
    table.add_column("%, with 95 % intervals", no_wrap=True, overflow="ellipsis")
    table.add_column("n", justify="right", no_wrap=True)
    for name in systems if both_sides else ("strict", "loose"):
        # A name of the user's as it is: brackets in it are no markup.
        table.add_column(
            Text(name), justify="right", no_wrap=True, overflow="ellipsis", width=CELL_WIDTH
        )  # fmt: skip
    for title, rows in _sections(rates).items():
        shown = [(label, found) for label, found in rows if any(found)]
        if title and shown:
            table.add_row()
            table.add_row(Text(title, "bold"))
        for label, found in shown:
            total = next(rate.strict.total for rate in found if rate is not None)
            shares: list[Share | None] = [None if r is None else r.strict for r in found]
            if not both_sides:
                shares.append(None if found[0] is None else found[0].loose)
            table.add_row(Text(label), f"{total:,}", *map(_cell, shares))
    return table


def _sections(rates: list[PassRate]) -> dict[str, list[Row]]:
    headlines: list[Row] = [
        (label, [getattr(each, name) for each in rates])
        for label, name in HEADLINES.items()
        # All in scope: one figure twice.
        if name != "in_scope" or any(each.out_of_scope for each in rates)
    ]
    return {
        "": headlines,
        "all followed, by number": [
            (f"  {count}", found) for count, found in _each(rates, "by_count")
        ],
        "followed, by kind": [
            (f"  {kind_label(kind)}", found) for kind, found in _each(rates, "by_kind")
        ],
    }


def _each(rates: list[PassRate], name: str) -> Iterator[Row]:
    tables: list[dict[Any, Rate]] = [getattr(each, name) for each in rates]
    for key in sorted({key for table in tables for key in table}):
        yield str(key), [table.get(key) for table in tables]


def _cell(share: Share | None) -> Text:
    if share is None:
        return Text("-", "dim")
    low, high = (f"{100 * end:.1f}" for end in share.interval)
    # As wide in every row: the columns stand in line, and two of them fit into 80 characters.
    return Text.assemble(
        (f"{100 * share.value:5.1f}", "bold"), (f" {low:>5}\N{EN DASH}{high:<5}", "dim")
    )


def notes(evaluation: Evaluation, judge: EndpointJudge | None) -> list[Text]:
    """What the rates do not say: what was left out or undecided, and how two systems differ."""
    found = []
    rates = list(evaluation.systems.values())
    if skipped := rates[0].num_skipped:
        found.append(Text(f"left out without a judge: {skipped} requirements", "yellow"))
    if judge is not None:
        undecided = sum(each.num_undecided for each in rates)
        found.append(
            Text(
                f"judge {judge.name}: {undecided} verdicts not reached, counted as not followed; "
                f"{judge.failures} failed requests, {judge.nonsense} replies without verdict",
                "yellow" if undecided else "dim",
            )
        )
    comparison = evaluation.comparison()
    if comparison is not None:
        found += _comparison(comparison, *evaluation.systems)
    return found


def _comparison(comparison: Comparison, a: str, b: str) -> list[Text]:
    each = comparison
    differences = (("all followed", each.all_followed), ("requirements", each.each_followed))
    return [
        Text(f"\n{a} less {b}, strict", "bold"),
        *(
            Text.assemble(
                f"{label:<13}",
                (f"{100 * found.value:+6.1f}", "bold"),
                (f"  {100 * found.interval[0]:+6.1f} to {100 * found.interval[1]:+6.1f}", "dim"),
            )
            for label, found in differences
        ),
        Text(
            f"all followed by both {each.both}, only {a} {each.only_a}, only {b} {each.only_b}, "
            f"neither {each.neither}"
        ),
        Text.assemble("McNemar's exact test: p = ", (f"{each.p_value:.3g}", "bold")),
    ]
