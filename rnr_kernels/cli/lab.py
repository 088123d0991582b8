"""`rnr-kernels lab`: implicit instruction tuning, reproduced in miniature."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from rnr_kernels.cli.startup import collection_paused, quiet_transformers
from rnr_kernels.lab.study import FULL, QUICK
from rnr_kernels.lab.tables import Table


def lab_command(
    out: Annotated[Path, typer.Option(help="Folder for twins, responses, tables and the page.")],
    quick: Annotated[
        bool, typer.Option("--quick", help="Every step on little data, under a minute.")
    ] = False,
) -> None:
    """Tune twins of the embedded base, ask them all, and print the published tables in miniature.

    Seven twins over three seeds: about 15 minutes on two cores. An interrupted run goes on where it
    was.
    """
    with collection_paused():
        from rnr_kernels.lab.run import run_lab

        quiet_transformers()
    console = Console()
    with Console(stderr=True).status("starting") as status:
        lab = run_lab(QUICK if quick else FULL, out, report=status.update)
    for table in lab.tables:
        console.print(_rendered(table))
        for finding in table.findings:
            mark = Text("yes", "green") if finding.holds else Text("not here", "yellow")
            console.print(Text.assemble("  ", finding.claim, ": ", mark, ". ", finding.comment))
        console.print()
    typer.echo(f"{lab.seconds / 60:.1f} minutes; the page is {lab.page}")


def _rendered(table: Table) -> RichTable:
    shown = RichTable(title=table.title, title_justify="left", header_style="bold")
    shown.add_column("")
    for column in table.columns:
        shown.add_column(column, justify="right")
    for title, cells in table.rows.items():
        shown.add_row(Text(title), *(Text(str(cell)) for cell in cells))
    return shown
