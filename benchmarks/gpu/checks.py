"""Checks of a run: what each found, and how long it took."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Literal
from warnings import catch_warnings, simplefilter

import torch

from benchmarks.gpu.budget import Budget

MAX_DETAIL = 300
POISONED_BLOCKS = tuple(4**power for power in range(5, 13))
"""Elements of float32 blocks that are filled and given back: 4 KB to 64 MB."""


class NotRun(Exception):
    """Why a check cannot run here."""


@dataclass(frozen=True)
class Check:
    """Something that has to hold."""

    name: str
    subject: str
    """The backend, the case."""
    run: Callable[[], str]
    """Returns what was seen; raises AssertionError, or whatever an op raises, or NotRun."""


@dataclass(frozen=True)
class Outcome:
    """What came of a check."""

    check: str
    subject: str
    status: Literal["ok", "failed", "not run"]
    detail: str
    seconds: float


def run_all(checks: Iterable[Check], budget: Budget) -> Iterator[Outcome]:
    """One outcome a check; those that the time does not reach are not run."""
    for check in checks:
        if budget.left() <= 0:
            yield Outcome(check.name, check.subject, "not run", "skipped: time", 0.0)
        else:
            yield run_one(check)


def run_one(check: Check) -> Outcome:
    """Whatever a check raises is its outcome."""
    start = perf_counter()
    status: Literal["ok", "failed", "not run"] = "ok"
    try:
        with torch.no_grad(), catch_warnings():
            simplefilter("ignore")  # torch warns of what poisoning and sync checks switch on
            detail = check.run()
    except NotRun as reason:
        status, detail = "not run", str(reason)
    except Exception as error:
        status = "failed"
        detail = str(error) if isinstance(error, AssertionError) else f"{error!r}"
    detail = " ".join(detail.split())
    if len(detail) > MAX_DETAIL:
        detail = f"{detail[: MAX_DETAIL - 3]}..."
    return Outcome(check.name, check.subject, status, detail, round(perf_counter() - start, 3))


def need_cuda(device: torch.device) -> None:
    """NotRun elsewhere."""
    if device.type != "cuda":
        raise NotRun("no CUDA")


@contextmanager
def poisoned(device: torch.device) -> Iterator[None]:
    """Within the block new tensors hold NaN and the largest integers until something is written.

    torch fills what it allocates itself; blocks of its cache are filled for those it does not see.
    """
    if device.type == "cuda":
        blocks = [torch.full((size,), torch.nan, device=device) for size in POISONED_BLOCKS]
        del blocks
    was_on = torch.are_deterministic_algorithms_enabled()
    only_warned = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(was_on, warn_only=only_warned)
