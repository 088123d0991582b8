"""What a run found, as text: short enough to read at a glance."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from benchmarks import report
from benchmarks.cases import OURS
from benchmarks.gpu import accuracy
from benchmarks.gpu.cases import COLD, EAGER, MEMORY, WARM, Bound, Case, Selection
from benchmarks.gpu.checks import Outcome
from benchmarks.gpu.measuring import SKIPPED
from benchmarks.results import Record
from rnr_kernels.backends import REFERENCE

Records = Mapping[str, Record]

MAX_REASONS = 12
MAX_WORDS = 150
"""Characters of a reason."""
LABEL = 52
"""Characters of a row's name."""
NOT_MEASURED = "not measured"


def text(
    header: Mapping[str, Any],
    outcomes: Sequence[Outcome],
    failures: Sequence[str],
    records: Records,
    selection: Selection,
) -> str:
    """Checks, figures beside what is required, peers, and what is missing and why."""
    parts = (
        machine_lines(header),
        correctness_lines(header["seed"], outcomes, failures),
        time_lines(selection, records),
        peer_lines(selection, records),
        *(sweep_lines(sweep, records) for sweep in selection.sweeps),
        reason_lines(records),
        verdict_lines(selection, records, outcomes, failures),
    )
    return "\n\n".join("\n".join(lines) for lines in map(list, parts) if lines)


def machine_lines(header: Mapping[str, Any]) -> Iterator[str]:
    copy = header["copy_bandwidth"]
    low, median, high = (copy[name] / 1e12 for name in ("p20", "median", "p80"))
    yield (
        f"{header['gpu']}: torch {header['torch']}, CUDA {header['cuda']}, Triton "
        f"{header['triton']}, nvcc {header['nvcc']}, {report.source(header)}"
    )
    yield (
        f"a copy moves {median:.3f} TB/s ({low:.3f} to {high:.3f}); the times required are for an "
        "NVIDIA H200"
    )


def correctness_lines(
    seed: int, outcomes: Sequence[Outcome], failures: Sequence[str]
) -> Iterator[str]:
    """Failures; of the rest only how many, and what float64 says of the kernels."""
    counts = {
        status: sum(outcome.status == status for outcome in outcomes)
        for status in ("ok", "failed", "not run")
    }
    seconds = sum(outcome.seconds for outcome in outcomes)
    failed = [f"{o.check}, {o.subject}: {o.detail}" for o in outcomes if o.status == "failed"]
    failed += [f"while measured: {failure}" for failure in failures]
    yield (
        f"CORRECTNESS, seed {seed}: {counts['ok']} ok, {counts['failed'] + len(failures)} failed, "
        f"{counts['not run']} not run, {seconds:.0f} s"
    )
    yield from (f"  FAILED {words}" for words in failed[:MAX_REASONS])
    if len(failed) > MAX_REASONS:
        yield f"  FAILED {len(failed) - MAX_REASONS} more, see the results"
    errors = [o for o in outcomes if o.status == "ok" and o.check == accuracy.NAME]
    for outcome in errors:
        if not outcome.subject.startswith(REFERENCE.name):
            yield f"  error {outcome.subject}: {outcome.detail}"
    not_run: dict[str, list[str]] = {}
    for outcome in outcomes:
        if outcome.status == "not run":
            not_run.setdefault(outcome.detail, []).append(f"{outcome.check} ({outcome.subject})")
    for reason, names in not_run.items():
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        yield f"  not run: {', '.join(names[:3])}{more}: {reason}"


def verdict(bound: Bound, records: Records) -> str:
    """One word."""
    got = report.value(bound, records)
    if got is None:
        return NOT_MEASURED
    if bound.limit is None:
        return "-"
    return "ok" if bound.holds(got) else "MISSED"


def microseconds(records: Records, case: Case, name: str = OURS) -> str:
    entry = records.get(str(case), {}).get("times", {}).get(name)
    if entry is None:
        return "-"
    median = entry["median_us"]
    return f"{median:,.1f}" if median < 1000 else f"{median:,.0f}"


def time_lines(selection: Selection, records: Records) -> Iterator[str]:
    """Times of ours, and memory."""
    yield (
        f"{'us a call; recorded logits':{LABEL}}{'required':>9}{'cold':>8}{'warm':>8}{'eager':>8}"
        f"{'random':>8}{'copy':>6}  {'other backends, cold'}"
    )
    for bound in selection.single:
        if bound.quantity not in ("us", "% of a copy", "bytes"):
            continue
        case = bound.case
        limit = "-" if bound.limit is None else f"{bound.limit:,.0f}"
        if bound.quantity == "bytes":
            got = report.value(bound, records)
            limit = f"{(bound.limit or 0) / 1e6:.0f} MB"
            cells = ["-" if got is None else f"{got / 1e6:.1f} MB"]
        elif bound.quantity == "% of a copy":
            limit = f"{limit} %"
            cells = [share(records, case)]
        else:
            cells = [microseconds(records, case)]
        if case.how == COLD and bound.quantity == "us":
            cells += [microseconds(records, replace(case, how=how)) for how in (WARM, EAGER)]
            cells += [microseconds(records, replace(case, logits="random")), share(records, case)]
        line = f"{short(case):{LABEL}}{limit:>9}" + "".join(
            f"{cell:>{6 if index == 4 else 8}}" for index, cell in enumerate(cells)
        )
        others = other_backends(records, case) if bound.quantity == "us" else ""
        yield f"{line}  {verdict(bound, records)}{others}"


def short(case: Case) -> str:
    """A case in few letters."""
    size = "" if case.vocab_size == 128_256 else f", V = {case.vocab_size:,}"
    dtype = {"bfloat16": "bf16", "float32": "fp32"}.get(case.dtype, case.dtype)
    how = {MEMORY: ", extra memory", "host": f", host, {case.backend}"}.get(case.how, "")
    return f"{case.op}, B = {case.rows}{size}, {dtype}{how}"


def share(records: Records, case: Case) -> str:
    """Of the copy's bandwidth."""
    entry = records.get(str(case), {}).get("times", {}).get(OURS, {})
    return f"{entry['percent_of_copy']:.0f} %" if "percent_of_copy" in entry else "-"


def other_backends(records: Records, case: Case) -> str:
    times = records.get(str(case), {}).get("times", {})
    prefix = f"{OURS} on "
    found = [
        f"{name.removeprefix(prefix)} {microseconds(records, case, name)}"
        for name in times
        if name.startswith(prefix)
    ]
    return f"  ({', '.join(found)})" if found else ""


def peer_lines(selection: Selection, records: Records) -> Iterator[str]:
    """Peers of single cases."""
    yield f"{'beside peers':{LABEL}}{'required':>12}{'got':>9}  against"
    for bound in selection.single:
        if not bound.against:
            continue
        got = report.value(bound, records)
        limit = "-" if bound.limit is None else f"{bound.limit:.1f}"
        amount = "-" if got is None else f"{got:.2f}"
        word = "x faster" if bound.quantity == "times faster" else "x the time"
        yield (
            f"{short(bound.case):{LABEL}}{limit:>12}{amount:>9}  {word}, {bound.against[0]}: "
            f"{verdict(bound, records)}"
        )


def sweep_lines(sweep: Sequence[Bound], records: Records) -> Iterator[str]:
    """One op beside one peer for every number of rows."""
    first = sweep[0]
    ratios = [report.value(bound, records) for bound in sweep]
    cells = ["-" if ratio is None else f"{ratio:.1f}" for ratio in ratios]
    words = [verdict(bound, records) for bound in sweep]
    missed = [str(b.case.rows) for b, word in zip(sweep, words, strict=True) if word == "MISSED"]
    told = f"MISSED at B = {', '.join(missed)}" if missed else "ok"
    if set(words) == {NOT_MEASURED}:
        told = NOT_MEASURED
    elif NOT_MEASURED in words:
        told += f", {words.count(NOT_MEASURED)} not measured"
    peer = first.against[0]
    name = f"{first.case.op}, {first.case.dtype}"
    yield f"{name} beside {peer}, at least {first.limit:g} x faster: {told}"
    yield "  B       " + "".join(f"{bound.case.rows:>8}" for bound in sweep)
    yield "  ours, us" + "".join(f"{microseconds(records, bound.case):>8}" for bound in sweep)
    yield "  faster  " + "".join(f"{cell:>8}" for cell in cells)


def reason_lines(records: Records) -> Iterator[str]:
    """Why something was not measured, each reason once."""
    counts: dict[tuple[str, str], int] = {}
    skipped = 0
    for record in records.values():
        for name, reason in record.get("not_measured", {}).items():
            if reason == SKIPPED:
                skipped += 1
            else:
                counts[name, reason] = counts.get((name, reason), 0) + 1
    if skipped:
        yield f"skipped: time, {skipped} of {len(records)} cases"
    for (name, reason), count in list(counts.items())[:MAX_REASONS]:
        yield f"{name}: not measured: {reason[:MAX_WORDS]}" + (f" ({count} x)" if count > 1 else "")
    if len(counts) > MAX_REASONS:
        yield f"and {len(counts) - MAX_REASONS} more reasons in the results"


def verdict_lines(
    selection: Selection, records: Records, outcomes: Sequence[Outcome], failures: Sequence[str]
) -> Iterator[str]:
    """The last line."""
    bounds = (*selection.single, *(bound for sweep in selection.sweeps for bound in sweep))
    words = [verdict(bound, records) for bound in bounds if bound.limit is not None]
    is_right = not failures and all(outcome.status != "failed" for outcome in outcomes)
    yield (
        f"{'CORRECT' if is_right else 'WRONG'}; of {len(words)} requirements {words.count('ok')} "
        f"met, {words.count('MISSED')} MISSED, {words.count(NOT_MEASURED)} not measured"
    )
