"""Which backends serve a call on a device, asked of the backends' own table."""

from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import torch

from rnr_kernels import backends
from rnr_kernels.backends import REFERENCE, Backend

OPS = tuple(REFERENCE.functions)


def refusals(
    op: str, device: torch.device, dtype: torch.dtype, vocab_size: int
) -> dict[str, str | None]:
    """By backend, in order of preference: why it does not serve, or None."""
    call = (op, device, dtype, vocab_size)
    return {
        backend.name: backends.refusal(backend, *call)
        for backend in backends.in_order(backends.BACKENDS, *call)
    }


def default(op: str, device: torch.device, dtype: torch.dtype, vocab_size: int) -> str:
    """The backend that the selection picks."""
    found = refusals(op, device, dtype, vocab_size)
    return next(name for name, reason in found.items() if reason is None)


def serving(device: torch.device) -> list[Backend]:
    """The backends that serve any op there."""
    return [backend for backend in backends.BACKENDS if served_ops(backend, device)]


def served_ops(backend: Backend, device: torch.device) -> list[str]:
    """The ops that a backend serves in float32 with an ordinary vocabulary."""
    call = (device, torch.float32, 32_000)
    return [op for op in OPS if backends.refusal(backend, op, *call) is None]


@contextmanager
def preferring(backend: Backend) -> Iterator[None]:
    """Within the block it serves what it does not refuse, and the reference the rest."""
    with mock.patch.object(backends, "BACKENDS", (backend, REFERENCE)):
        yield
