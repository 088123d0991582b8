"""The parameters of requirement kinds: dataclass fields that know their range and draw a value.

A kind declares `num_words: int = whole_number(1, 5000, drawn=(40, 400))`; the field's metadata
holds the `Parameter`, which checks what a user gives and draws what a pipeline needs.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import Field, field
from difflib import get_close_matches
from typing import Any

from rnr_kernels.templates import check_text

METADATA = "parameter"

Draw = Callable[[random.Random], Any]


class Parameter:
    """One parameter: `check` gives the value as it is kept, or raises ValueError in words."""

    def __init__(self, check: Callable[[str, object], Any], draw: Draw) -> None:
        self.check = check
        self.draw = draw


def parameter_of(declared: "Field[Any]") -> Parameter:
    """The parameter behind a field of a kind."""
    found: Parameter = declared.metadata[METADATA]
    return found


def whole_number(low: int, high: int, *, drawn: tuple[int, int]) -> Any:
    """An int from `low` to `high`; drawn evenly from the narrower range `drawn`."""

    def check(name: str, value: object) -> int:
        # 3.0 is what JSON of some writers makes of 3.
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise ValueError(f"{name} must be a whole number from {low} to {high}, got {value!r}")
        return value

    return _field(check, lambda rng: rng.randint(*drawn))


def one_of(options: Sequence[str], *, drawn: Sequence[str] | None = None) -> Any:
    """One of some words."""

    def check(name: str, value: object) -> str:
        if not isinstance(value, str) or value not in options:
            near = get_close_matches(str(value), options)
            nearest = f"; the nearest: {', '.join(map(repr, near))}" if near else ""
            raise ValueError(
                f"{name} must be one of {', '.join(map(repr, options))}, got {value!r:.60}{nearest}"
            )
        return value

    return _field(check, lambda rng: rng.choice(list(drawn or options)))


def character(*, drawn: Sequence[str]) -> Any:
    """One character that is not blank."""

    def check(name: str, value: object) -> str:
        if not isinstance(value, str) or len(value) != 1 or not value.strip():
            raise ValueError(f"{name} must be one character, no blank one, got {value!r:.60}")
        check_text(value, name)
        return value

    return _field(check, lambda rng: rng.choice(list(drawn)))


def text(*, drawn: Sequence[str], longest: int = 10_000) -> Any:
    """Some text that is not blank, kept without blanks around it; drawn from examples."""

    def check(name: str, value: object) -> str:
        return _text(name, value, longest)

    return _field(check, lambda rng: rng.choice(list(drawn)))


def texts(*, drawn: Sequence[str], count: tuple[int, int], most: int = 100) -> Any:
    """A list of different texts, kept as a tuple; drawn as `count` (from, to) examples."""
    return _field(
        lambda name, value: _texts(name, value, most),
        lambda rng: tuple(rng.sample(list(drawn), rng.randint(*count))),
    )


def text_set(*, drawn: Sequence[tuple[str, ...]], most: int = 100) -> Any:
    """A list of different texts, kept as a tuple; drawn as one of some such lists."""
    return _field(
        lambda name, value: _texts(name, value, most), lambda rng: rng.choice(list(drawn))
    )


def _texts(name: str, value: object, most: int) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, Sequence) or not 1 <= len(value) <= most:
        raise ValueError(f"{name} must be a list of 1 to {most} texts, got {value!r:.60}")
    return tuple(dict.fromkeys(_text(name, each, 1000) for each in value))


def _text(name: str, value: object, longest: int) -> str:
    stripped = value.strip() if isinstance(value, str) else ""
    if not 1 <= len(stripped) <= longest:
        shown = f"{len(stripped)} characters" if stripped else value
        raise ValueError(f"{name} must be text of 1 to {longest} characters, got {shown!r:.60}")
    check_text(stripped, name)
    return stripped


def _field(check: Callable[[str, object], Any], draw: Draw) -> Any:
    return field(metadata={METADATA: Parameter(check, draw)})
