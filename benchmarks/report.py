"""The README's table of speed: python -m benchmarks.report [--write]"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import results
from benchmarks.cases import AT_LEAST, BOUNDS, OURS, Bound, Quantity
from benchmarks.gpu import cases as gpu

README = results.ROOT / "README.md"
BEGIN = "<!-- python -m benchmarks.report --write -->"
END = "<!-- end of what benchmarks.report writes -->"

NOTHING = "Nothing has been measured yet: `make bench` does."
NO_GPU = (
    "The kernels for GPUs have not been measured on a GPU yet: `make gpu-check` does, and checks "
    "them."
)


def value(bound: Bound, records: Mapping[str, Any]) -> float | None:
    """What was measured in the bound's unit; None where there is no such record."""
    record = records.get(str(bound.case), {})
    if bound.quantity == "bytes":
        return float(record["bytes"]) if "bytes" in record else None
    times = record.get("times", {})
    if OURS not in times:
        return None
    ours = times[OURS]["median_us"]
    if bound.quantity == "% of a copy":
        return float(times[OURS]["percent_of_copy"])
    if bound.quantity == "us":
        return float(ours)
    if bound.quantity == "ns an element":
        return float(1e3 * ours / (bound.case.rows * bound.case.vocab_size))
    fastest = _fastest(bound, times)
    if fastest is None:
        return None
    theirs = times[fastest]["median_us"]
    if bound.quantity == "us more":
        return float(ours - theirs)
    return float(theirs / ours if bound.quantity == "times faster" else ours / theirs)


def _fastest(bound: Bound, times: Mapping[str, Any]) -> str | None:
    """Of the peers that were measured."""
    measured = [name for name in bound.against if name in times]
    return min(measured, key=lambda name: float(times[name]["median_us"]), default=None)


def worst(bounds: Sequence[Bound], records: Mapping[str, Any]) -> Bound:
    """The one that is met least, or the first that was not measured."""

    def margin(bound: Bound) -> float:
        got = value(bound, records)
        return -float("inf") if got is None else got / (bound.limit or 1.0)

    assert all(bound.quantity in AT_LEAST for bound in bounds)
    return min(bounds, key=margin)


def table(found: Mapping[str, Any]) -> str:
    """Every bound beside what one machine's results say of it, in Markdown."""
    records = found["records"]
    bounds = BOUNDS
    if "gpu" in found.get("header", {}):
        bounds = (*gpu.SINGLE, *(worst(sweep, records) for sweep in gpu.SWEEPS))
    rows = [_row(bound, records) for bound in bounds]
    lines = ["| measured | against | required | got |", "|---|---|---|---|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def _row(bound: Bound, records: Mapping[str, Any]) -> tuple[str, str, str, str]:
    got = value(bound, records)
    against = bound.against[0] if bound.against else ""
    if got is None:
        return bound.case.label, against, _required(bound), "not measured"
    text = _amount(got, bound.quantity)
    times = records[str(bound.case)].get("times", {})
    if bound.against:
        against = _fastest(bound, times) or against
        text += f": {_microseconds(times[OURS])}, not {_microseconds(times[against])}"
    elif bound.quantity == "ns an element":
        text += f": {_microseconds(times[OURS])}"
    return (
        bound.case.label, against, _required(bound),
        text if bound.holds(got) else f"**missed**: {text}",
    )  # fmt: skip


def _required(bound: Bound) -> str:
    if bound.limit is None:
        return "(reported)"
    word = "at least" if bound.quantity in AT_LEAST else "at most"
    return f"{word} {_amount(bound.limit, bound.quantity)}"


def _amount(number: float, quantity: Quantity) -> str:
    if quantity == "bytes":
        return f"{number / 1e6:.3g} MB" if number >= 1e6 else f"{number / 1e3:.1f} kB"
    if quantity in ("us", "us more"):
        return f"{number:.1f} {quantity}"
    if quantity == "ns an element":
        return f"{number:.2f} ns an element"
    if quantity == "% of a copy":
        return f"{number:.1f} % of a copy's bandwidth"
    digits = 2 if quantity == "times the time" else 1
    return f"{number:.{digits}f} {quantity}"


def _microseconds(times: Mapping[str, float]) -> str:
    """The median and its spread, in ms where that is shorter."""
    low, median, high = times["p20_us"], times["median_us"], times["p80_us"]
    unit, scale = ("us", 1.0) if median < 10_000 else ("ms", 1e-3)
    digits = 1 if scale * median < 100 else 0
    low_text, text, high_text = (f"{scale * x:,.{digits}f}" for x in (low, median, high))
    return f"{text} {unit} ({low_text} to {high_text})"


def section(machines: Sequence[Mapping[str, Any]]) -> str:
    """What stands between the README's markers: the newest results, and which others there are.

    First of CPUs, then of GPUs.
    """
    gpus = [found for found in machines if "gpu" in found["header"]]
    cpus = [found for found in machines if found not in gpus]
    return f"{_newest(cpus, NOTHING)}\n\n{_newest(gpus, NO_GPU)}"


def _newest(machines: Sequence[Mapping[str, Any]], nothing: str) -> str:
    if not machines:
        return nothing
    newest, *others = sorted(machines, key=lambda found: str(found["header"]["date"]), reverse=True)
    parts = [f"{_caption(newest['header'])}:", table(newest)]
    if others:
        older = "; ".join(_caption(found["header"]) for found in others)
        parts.append(f"Measured earlier, on other machines: {older}.")
    return "\n\n".join(parts)


def _caption(header: Mapping[str, Any]) -> str:
    changed = " with changes" if header["dirty"] else ""
    if "gpu" in header:
        return (
            f"{header['gpu']}, driver {header['driver']}, a copy within the device moving "
            f"{header['copy_bandwidth']['median'] / 1e12:.2f} TB/s, torch {header['torch']}, "
            f"Triton {header['triton']}, {source(header)}{changed}, {header['date']}"
        )
    return (
        f"{header['processor']}, {header['instruction_set']}, {header['threads']} thread, "
        f"torch {header['torch']}, transformers {header['transformers']}, commit "
        f"{header['commit'][:9]}{changed}, {header['date']}"
    )


def source(header: Mapping[str, Any]) -> str:
    """The commit, or where none is known a hash of the sources."""
    if header["commit"] == "unknown":
        return f"sources {header['sources']}"
    return f"commit {header['commit'][:9]}"


def replaced(text: str, content: str) -> str:
    """A README with another section; ValueError if it has no markers for one."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"README.md must hold the lines {BEGIN} and {END}, in this order")
    return f"{before}{BEGIN}\n{content}\n{END}{after}"


def grid(found: Mapping[str, Any]) -> str:
    """Everything a machine's results hold, a line a contender."""
    lines = []
    for name, record in found["records"].items():
        if "bytes" in record:
            lines.append(f"{name}: {_amount(record['bytes'], 'bytes')}")
            continue
        lines.append(f"{name}, {record.get('rounds', 0)} rounds")
        for contender, times in record.get("times", {}).items():
            ratio = f"{times['ratio']:8.2f} x" if "ratio" in times else " " * 10
            lines.append(f"{ratio}  {_microseconds(times):28}  {contender}")
    return "\n".join(lines)


def main() -> None:
    """Prints the README's section, writes it, or prints all that was measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="into README.md")
    parser.add_argument("--all", action="store_true", help="every contender in every case")
    parser.add_argument("--results", type=Path, default=results.RESULTS, help="the folder to read")
    arguments = parser.parse_args()
    machines = results.read(arguments.results)
    print("\n\n".join(map(grid, machines)) if arguments.all else section(machines))
    if arguments.write:
        text = README.read_text(encoding="utf-8")
        README.write_text(replaced(text, section(machines)), encoding="utf-8")


if __name__ == "__main__":
    main()
