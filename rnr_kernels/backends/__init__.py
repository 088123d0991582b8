"""Which implementation serves an op: one table, asked by device, op, dtype and vocabulary size.

`RNR_BACKEND=name` in the environment or `with backends.use(name)` picks one by name. The number of
rows never decides, so a row's result does not depend on its batch.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch

from rnr_kernels import reference


@dataclass(frozen=True)
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

BACKENDS: tuple[Backend, ...] = (REFERENCE,)
"""In order of preference: the first that does not refuse serves."""

_chosen: ContextVar[str | None] = ContextVar("rnr_backend", default=None)


@contextmanager
def use(name: str) -> Iterator[None]:
    """Within the block, every op runs on this backend, or is a ValueError with the reason."""
    _named(name)
    token = _chosen.set(name)
    try:
        yield
    finally:
        _chosen.reset(token)


def find(op: str, device: torch.device, dtype: torch.dtype, vocab_size: int) -> Callable[..., Any]:
    """The function that serves a call."""
    name = _chosen.get() or os.environ.get("RNR_BACKEND")
    if name:
        backend = _named(name)
        reason = _refusal(backend, op, device, dtype, vocab_size)
        if reason is not None:
            raise ValueError(f"backend {name!r} does not serve {op} here: {reason}")
        return backend.functions[op]
    for backend in BACKENDS:
        if _refusal(backend, op, device, dtype, vocab_size) is None:
            return backend.functions[op]
    raise AssertionError("the reference serves everything")


def _refusal(
    backend: Backend, op: str, device: torch.device, dtype: torch.dtype, vocab_size: int
) -> str | None:
    if op not in backend.functions:
        return f"it has no {op}"
    return backend.refuses(op, device, dtype, vocab_size)


def _named(name: str) -> Backend:
    for backend in BACKENDS:
        if backend.name == name:
            return backend
    names = ", ".join(backend.name for backend in BACKENDS)
    raise ValueError(f"backend must be one of {names}, got {name!r}; see RNR_BACKEND")
