"""Responses as terminal tables."""

from collections.abc import Sequence

from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from rnr_kernels.generation import Completion

ENDINGS = {"eos": "ended by itself", "stop": "stop string", "length": "cut at the limit"}
SHOWN_CHARACTERS = 360


def response_cell(completion: Completion | None) -> Text:
    """A response with how it ended."""
    if completion is None:
        return Text("(not finished)", style="dim")
    text = completion.text.strip("\n")
    shown = text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + " ..."
    ending = ENDINGS[completion.finish_reason or "length"]
    note = f"\n{len(completion.token_ids)} tokens, {ending}"
    return Text.assemble(shown, (note, "green" if completion.finish_reason == "eos" else "yellow"))


def response_panel(completion: Completion) -> Panel:
    """An instruction and its response."""
    return Panel(response_cell(completion), title=Text(completion.instruction), title_align="left")


def side_by_side(
    instructions: Sequence[str], names: Sequence[str], columns: Sequence[Sequence[Completion]]
) -> Table:
    """One row a prompt, one column a model; a column may be shorter than the prompts."""
    table = Table(show_lines=True, header_style="bold", expand=True)
    table.add_column("instruction", ratio=1)
    for name in names:
        table.add_column(name, ratio=2)
    for row, instruction in enumerate(instructions):
        cells = [response_cell(column[row] if row < len(column) else None) for column in columns]
        table.add_row(Text(instruction), *cells)
    return table
