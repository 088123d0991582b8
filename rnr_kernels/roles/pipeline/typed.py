"""Dataclasses from JSON that somebody may have edited."""

from collections.abc import Callable, Hashable, Mapping
from functools import cache
from typing import Any, TypeVar, get_type_hints

T = TypeVar("T")


def made(kind: Callable[..., T], values: Mapping[str, Any]) -> T:
    """A dataclass of `values`; TypeError for one that is missing, unknown or of another type.

    Fields of other than plain types (str, int, bool) are left to the caller.
    """
    instance = kind(**values)
    for name, expected in _plain_types(kind).items():
        if type(getattr(instance, name)) is not expected:
            raise TypeError(f"{name} must be of type {expected.__name__}")
    return instance


@cache
def _plain_types(kind: Hashable) -> Mapping[str, type[Any]]:
    hints = get_type_hints(kind)
    return {name: hint for name, hint in hints.items() if hint in (str, int, bool)}
