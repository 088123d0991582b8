"""What the ops would launch on a GPU that need not be there, in Triton's own words."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest

triton = pytest.importorskip("triton", reason="Triton is not installed")

from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource, make_backend  # noqa: E402
from triton.runtime.jit import JITFunction, create_function_from_signature  # noqa: E402


def target(capability: int) -> Any:
    return GPUTarget("cuda", capability, 32)


@dataclass(frozen=True)
class Launch:
    """A kernel as one call specialises it."""

    kernel: Any
    signature: dict[str, Any]
    constants: dict[tuple[int, ...], Any]
    attributes: dict[tuple[int, ...], Any]
    options: dict[str, Any]
    key: str
    """Under which Triton keeps what it has compiled."""

    def __str__(self) -> str:
        return str(self.kernel.fn.__name__)

    def compiled(self, capability: int) -> Any:
        source = ASTSource(self.kernel, self.signature, self.constants, self.attributes)
        return triton.compile(source, target=target(capability), options=self.options)


@cache
def binder(kernel: Any) -> tuple[Any, Callable[..., Any]]:
    """As JITFunction.create_binder makes them for the GPU it finds."""
    backend = make_backend(target(90))
    return backend, create_function_from_signature(kernel.signature, kernel.params, backend)


def launch_of(kernel: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> Launch:
    """What JITFunction.run would look up, and compile if it is not there."""
    backend, bind = binder(kernel)
    bound, specialization, extra = bind(*arguments, **named)
    options, *rest = kernel._pack_args(backend, named, bound, specialization, extra)
    key = f"{kernel.fn.__qualname__} {specialization} {extra}"
    given = {name: value for name, value in options.__dict__.items() if name in named}
    return Launch(kernel, *rest, given, key)


def record(monkeypatch: pytest.MonkeyPatch) -> list[Launch]:
    """The list that fills with launches from now on; nothing runs."""
    found: list[Launch] = []

    def run(kernel: Any, *arguments: Any, grid: Any, warmup: bool, **named: Any) -> None:
        assert all(size > 0 for size in grid)
        found.append(launch_of(kernel, arguments, named))

    monkeypatch.setattr(JITFunction, "run", run)
    return found
