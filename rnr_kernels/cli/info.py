"""`rnr-kernels info`: what runs where, and why."""

import platform

import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rnr_kernels import __version__, backends
from rnr_kernels.backends import native

VOCAB_SIZE = 128_256
"""Of the calls that are asked about; logits are float32."""


def info_command() -> None:
    """Show versions, the backends, and which of them serves which op, with the reasons."""
    console = Console()
    versions = {
        "rnr_kernels": __version__,
        "torch": torch.__version__,
        "Python": platform.python_version(),
        "threads": torch.get_num_threads(),
        "processor": f"{platform.machine()}, {_instruction_sets()}",
        "backends": ", ".join(backend.name for backend in backends.BACKENDS),
    }
    chosen = backends.default_name()
    if chosen is not None:
        backends.named(chosen)
        versions["RNR_BACKEND"] = f"{chosen}: it alone serves"
    facts = Table.grid("", "", padding=(0, 2))
    for name, value in versions.items():
        facts.add_row(Text(name, "bold"), Text(str(value)))
    console.print(facts)
    for device in [torch.device("cpu"), *[torch.device("cuda")] * torch.cuda.is_available()]:
        console.print()
        console.print(_served_on(device))


def _instruction_sets() -> str:
    names = native.instruction_sets()
    if not names:
        return "no compiled kernels"
    others = f" (also compiled: {', '.join(names[1:])})" if names[1:] else ""
    return f"kernels for {names[0]}{others}"


def _served_on(device: torch.device) -> Table:
    """One row for the ops that the same backend serves for the same reasons."""
    rows: dict[tuple[str, str], list[str]] = {}
    for op in backends.REFERENCE.functions:
        if not op.endswith("_out"):  # served as the op without out=
            rows.setdefault(_server(op, device), []).append(op)
    table = Table(f"on {device}", "served by", "because", box=None, header_style="bold")
    for (server, reasons), ops in rows.items():
        table.add_row("\n".join(ops), Text(server, "green" if server != "none" else "red"), reasons)
    return table


def _server(op: str, device: torch.device) -> tuple[str, str]:
    """The backend that serves an op, and why none before it does."""
    chosen = backends.default_name()
    refusals: list[str] = []
    call = (op, device, torch.float32, VOCAB_SIZE)
    ordered = backends.in_order(backends.BACKENDS, *call)
    for backend in ordered if chosen is None else [backends.named(chosen)]:
        reason = backends.refusal(backend, *call)
        if reason is None:
            first = "RNR_BACKEND chooses it" if chosen else "it is the first that can"
            return backend.name, "; ".join(refusals) or first
        refusals.append(f"{backend.name} does not: {reason}")
    return "none", "; ".join(refusals)
