"""Which implementation serves an op: one table, asked by device, op, dtype and vocabulary size.

`RNR_BACKEND=name` in the environment or `with backends.use(name)` picks one by name. Else the one
serves that was fastest on this device, by figures kept beside this file (see figures). The number
of rows never decides, so a row's result does not depend on its batch.
"""

import math
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

from rnr_kernels import reference
from rnr_kernels.backends import figures, native, triton


@dataclass(frozen=True, eq=False)
class Backend:
    """One implementation: a name, the functions it offers by op name, and what it can serve."""

    name: str
    functions: dict[str, Callable[..., Any]]
    refuses: Callable[[str, torch.device, torch.dtype, int], str | None]
    """The reason why it does not serve (op, device, dtype, vocab_size), or None."""


def _serves_everything(
    op: str, device: torch.device, dtype: torch.dtype, vocab_size: int
) -> str | None:
    return None


REFERENCE = Backend(
    "reference",
    {name: getattr(reference, name) for name in reference.__all__},
    _serves_everything,
)

NATIVE = Backend("native", native.functions(), native.refuses)

TRITON = Backend("triton", triton.functions(), triton.refuses)

BACKENDS: tuple[Backend, ...] = (NATIVE, TRITON, REFERENCE)
"""In order of preference where nothing was measured (see `in_order`)."""

_chosen: ContextVar[str | None] = ContextVar("rnr_backend", default=None)


@contextmanager
def use(name: str) -> Iterator[None]:
    """Within the block, every op runs on this backend, or is a ValueError with the reason."""
    named(name)
    token = _chosen.set(name)
    try:
        yield
    finally:
        _chosen.reset(token)


def find(
    op: str,
    device: torch.device,
    dtype: torch.dtype,
    vocab_size: int,
    gradients: bool = False,
) -> Callable[..., Any]:
    """The function that serves a call; the reference where gradients are asked for and no backend
    was picked by name, as no other one has them."""
    name = _chosen.get() or default_name()
    table = (REFERENCE,) if gradients else BACKENDS
    return _serving(table, name, op, device, dtype, vocab_size)


@cache
def default_name() -> str | None:
    """The name in `RNR_BACKEND`, which is read once."""
    return os.environ.get("RNR_BACKEND") or None


def refusal(
    backend: Backend, op: str, device: torch.device, dtype: torch.dtype, vocab_size: int
) -> str | None:
    """The reason why a backend does not serve a call, or None."""
    if op not in backend.functions:
        return f"it has no {op}"
    return backend.refuses(op, device, dtype, vocab_size)


def in_order(
    table: tuple[Backend, ...], op: str, device: torch.device, dtype: torch.dtype, vocab_size: int
) -> list[Backend]:
    """The first that does not refuse serves: what was measured, fastest first, then the others, the
    reference last."""
    seconds = figures.seconds(op, device, dtype, vocab_size)

    def rank(backend: Backend) -> tuple[bool, float]:
        return backend is REFERENCE, seconds.get(backend.name, math.inf)

    return sorted(table, key=rank)


@cache
def _serving(
    table: tuple[Backend, ...],
    name: str | None,
    op: str,
    device: torch.device,
    dtype: torch.dtype,
    vocab_size: int,
) -> Callable[..., Any]:
    call = (op, device, dtype, vocab_size)
    if name is not None:
        backend = named(name)
        reason = refusal(backend, *call)
        if reason is not None:
            raise ValueError(f"backend {name!r} does not serve {op} here: {reason}")
        return backend.functions[op]
    missing = None
    for backend in in_order(table, *call):
        reason = refusal(backend, *call)
        if reason is None:
            if backend is REFERENCE and missing is not None:
                _warn_of_the_reference(missing)
            return backend.functions[op]
        if reason == native.unavailable() or (backend is TRITON and device.type == "cuda"):
            missing = reason
    raise AssertionError("the reference serves everything")


@cache
def _warn_of_the_reference(reason: str) -> None:
    """Once: cached, and a warning that is an error is no result."""
    message = f"rnr_kernels runs on its slow reference, because {reason}"
    warnings.warn(message, RuntimeWarning, stacklevel=6)


def named(name: str) -> Backend:
    """The backend of this name; ValueError if there is none."""
    for backend in BACKENDS:
        if backend.name == name:
            return backend
    names = ", ".join(backend.name for backend in BACKENDS)
    raise ValueError(f"backend must be one of {names}, got {name!r}; see RNR_BACKEND")
