"""Compact columns of a report: numbers as text that its page decodes when it needs them.

A column is unsigned integers, little end first, cut into byte planes (every value's first byte,
then every second one, ...), which gzip packs well, compressed, in base64.
"""

import base64
import gzip
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

NATS_BITS = 14
"""A quantity in nats is stored in steps of 2**-14 (error at most 3.1e-5)."""
TOP_BITS = 10
"""A top token's log-probability in steps of 2**-10: its probability within 0.05 % of itself."""
COMPRESSION = 6


@dataclass(frozen=True)
class Column:
    """A column as it stands in the page."""

    name: str
    kind: str
    """"u1", "u2", "u4": unsigned integers of so many bytes. "json": a value as JSON in UTF-8."""
    text: str


def column(name: str, values: NDArray[Any]) -> Column:
    """Integers of any shape, row after row, in the fewest bytes that hold the largest.

    ValueError for an integer below 0 or above 2**32 - 1.
    """
    largest = int(values.max(initial=0))
    if int(values.min(initial=0)) < 0 or largest >= 2**32:
        raise ValueError(f"column {name}: its integers must be 0 to {2**32 - 1}")
    width = 1 if largest < 2**8 else 2 if largest < 2**16 else 4
    rows = np.ascontiguousarray(values, dtype=f"<u{width}").reshape(-1)
    planes = rows.view(np.uint8).reshape(-1, width).T
    return Column(name, f"u{width}", _text(planes.tobytes()))


def json_column(name: str, value: Any) -> Column:
    """A value as JSON."""
    return Column(name, "json", _text(json.dumps(value, allow_nan=False).encode()))


def nats(values: ArrayLike) -> NDArray[np.uint32]:
    """Entropies, divergences or negated log-probabilities in steps of 2**-NATS_BITS.

    2**32 - 1 is +inf; a number below 0, which only rounding makes, is 0. ValueError for NaN.
    """
    return _steps(values, NATS_BITS, 32).astype(np.uint32)


def falling(logprobs: ArrayLike) -> NDArray[np.uint16]:
    """Top log-probabilities [N, k], largest first: how far each lies below the one before it.

    In steps of 2**-TOP_BITS modulo 2**16, the first below 0. Their sums so far are the negated
    log-probabilities; 65535 is probability 0 and 65534 whatever lies below -63.998.
    """
    below = _steps(-np.asarray(logprobs, dtype=np.float64), TOP_BITS, 16).astype(np.uint16)
    first = np.zeros((len(below), 1), np.uint16)
    return np.diff(below, axis=1, prepend=first)


def _steps(values: ArrayLike, bits: int, width: int) -> NDArray[np.float64]:
    numbers = np.asarray(values, dtype=np.float64)
    if np.isnan(numbers).any():
        raise ValueError("a column of nats holds NaN: such rows are no part of a report")
    infinite = 2.0**width - 1
    steps = np.clip(np.rint(np.maximum(numbers, 0) * 2.0**bits), 0, infinite - 1)
    return np.where(np.isposinf(numbers), infinite, steps)


def _text(data: bytes) -> str:
    return base64.b64encode(gzip.compress(data, COMPRESSION, mtime=0)).decode("ascii")
