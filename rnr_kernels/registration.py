"""Registers the ops with torch: schemas read off the reference, fake kernels, one implementation.

A schema stands once, in the signature of the reference's function. Which backend runs is decided
inside the op (see backends), so compiled graphs hold one opaque call whatever serves it.
"""

import inspect
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.library import Library, infer_schema, register_fake

from rnr_kernels import backends, reference

NAMESPACE = "rnr"

MUTATES: dict[str, tuple[str, ...]] = {
    "apply_rules_": ("logits", "error"),
    "rule_log_softmax": ("error",),
    "rule_log_softmax_out": ("error", "out", "log_z"),
    "sample_": ("state", "error"),
    "update_state_": ("state", "error"),
    "token_stats": (),
    "shift_stats": (),
    "linear_token_stats": (),
    "linear_shift_stats": (),
}
"""The arguments that an op writes to."""

_library = Library(NAMESPACE, "FRAGMENT")

Arguments = tuple[Any, ...]


@cache
def argument(op: str, name: str) -> Callable[[Arguments], Any]:
    """Reads one argument of a call; the dispatcher leaves out trailing defaults."""
    parameters = inspect.signature(getattr(reference, op)).parameters
    index, default = list(parameters).index(name), parameters[name].default
    return lambda values: values[index] if len(values) > index else default


def overload(op: str) -> str:
    """The reference's `x_out` is the overload `x.out`."""
    return f"{op.removesuffix('_out')}.out" if op.endswith("_out") else op


def registered(op: str) -> Callable[..., Any]:
    """The op as torch sees it. Takes a backend function's arguments."""
    name, _, which = overload(op).partition(".")
    function = getattr(getattr(torch.ops.rnr, name), which or "default")

    def call(*values: Any) -> Any:
        # Schemas know lists of tensors, not the tuples with names that programs and states hold.
        return function(*[list(value) if isinstance(value, tuple) else value for value in values])

    return call


def _implementation(op: str) -> Callable[..., Any]:
    linear = op.startswith("linear_")
    tensor_of = argument(
        op, "hidden" if linear else "token_ids" if op == "update_state_" else "logits"
    )
    size_of = argument(op, "weight" if linear else "vocab_size")

    def run(*values: Any) -> Any:
        tensor, size = tensor_of(values), size_of(values)
        vocab_size = size.shape[0] if linear else size
        gradients = torch.is_grad_enabled() and any(
            isinstance(value, Tensor) and value.requires_grad for value in values
        )
        serve = backends.find(op, tensor.device, tensor.dtype, vocab_size, gradients)
        results = serve(*values)
        return _with_empties(results, values) if op == "sample_" else results

    return run


def _with_empties(results: tuple[Tensor | None, ...], values: Arguments) -> tuple[Tensor, ...]:
    """A backend may give None for what `sample_` was not asked for; the op's schema may not."""
    return tuple(
        empty if result is None else result
        for result, empty in zip(results, _fake_sample_(*values), strict=True)
    )


def _fake_nothing(*values: Any) -> None:
    return None


def _fake_rule_log_softmax(*values: Any) -> tuple[Tensor, Tensor]:
    logits = values[0]
    out = logits.new_empty(logits.shape, dtype=torch.float32)
    asked = argument("rule_log_softmax", "return_log_z")(values)
    return out, out.new_empty(logits.shape[0] if asked else 0)


def _fake_sample_(*values: Any) -> tuple[Tensor, ...]:
    logits = values[0]

    def column(flag: str, dtype: torch.dtype) -> Tensor:
        asked = argument("sample_", flag)(values)
        return logits.new_empty(logits.shape[0] if asked else 0, dtype=dtype)  # type: ignore[no-any-return]

    return (
        logits.new_empty(logits.shape[0], dtype=torch.int64),
        column("return_logprob", torch.float32),
        column("return_adjusted_logprob", torch.float32),
        column("return_rank", torch.int32),
    )


def _stats_like(rows: Tensor, top_k: int) -> tuple[Tensor, ...]:
    n = rows.shape[0]
    shapes = [
        (torch.int32, (n,)),
        (torch.int32, (n,)),
        (torch.float32, (n,)),
        (torch.float32, (n,)),
        (torch.int64, (n, top_k)),
        (torch.float32, (n, top_k)),
    ]
    return tuple(rows.new_empty(shape, dtype=dtype) for dtype, shape in shapes)


def _fake_stats(op: str) -> Callable[..., tuple[Tensor, ...]]:
    top_k_of = argument(op, "top_k")

    def fake(*values: Any) -> tuple[Tensor, ...]:
        rows, top_k = values[0], top_k_of(values)
        one_side = _stats_like(rows, top_k)
        if not op.endswith("shift_stats"):
            return one_side
        divergence = [rows.new_empty(rows.shape[0], dtype=torch.float32) for _ in range(2)]
        same = rows.new_empty(rows.shape[0], dtype=torch.bool)
        return (*one_side, *_stats_like(rows, top_k), *divergence, same)

    return fake


_FAKES: dict[str, Callable[..., Any]] = {
    "apply_rules_": _fake_nothing,
    "rule_log_softmax": _fake_rule_log_softmax,
    "rule_log_softmax_out": _fake_nothing,
    "sample_": _fake_sample_,
    "update_state_": _fake_nothing,
    **{
        op: _fake_stats(op)
        for op in ("token_stats", "shift_stats", "linear_token_stats", "linear_shift_stats")
    },
}

for _op, _mutates in MUTATES.items():
    # The stable ABI knows no SymInt, and a vocabulary size is static anyway.
    _schema = infer_schema(getattr(reference, _op), mutates_args=_mutates).replace("SymInt", "int")
    _library.define(overload(_op) + _schema, tags=(torch.Tag.pt2_compliant_tag,))
    _library.impl(overload(_op), _implementation(_op), "CompositeExplicitAutograd")
    register_fake(f"{NAMESPACE}::{overload(_op)}", _FAKES[_op], lib=_library)

REGISTERED = {op: registered(op) for op in MUTATES}
"""The ops by name, called as a backend's functions are."""
