"""What a build is told, checked as a whole."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rnr_kernels.roles.kinds import CHECKED, KINDS

MOST_REQUIREMENTS = 20


@dataclass(frozen=True)
class BuildSettings:
    """How examples are made. Two builds with the same settings, instructions and replies are the
    same to the byte. ValueError for a setting out of range."""

    seed: int = 0
    num_requirements: tuple[int, int] = (1, 6)
    """The least and most of an example; their number is drawn evenly."""
    written_share: float = 0.3
    """Of requirements, how many the model writes for the instruction; the others are drawn."""
    kinds: Sequence[str] | None = None
    """Kinds to draw from; None for all that programs can check."""
    repair_rounds: int = 2
    """How often a response that fails is sent back with the reasons."""
    plain_share: float = 0.1
    """Of instructions, how many become plain examples: no system message, and the response that
    came with them. An instruction without one is made an example like the others."""
    out_of_scope_share: float = 0.1
    """Of the others, how many ask a role about what it does not answer, and are declined."""
    max_readings: int = 3
    """How often a model is asked for JSON until an example is given up."""
    likeness: float = 0.8
    """Jaccard index of word triples from which on texts are near duplicates."""
    most_alike: int = 3
    """How many examples may have nearly the same requirement of a model's."""

    def __post_init__(self) -> None:
        for name in ("seed", "repair_rounds", "max_readings", "most_alike"):
            least = 0 if name in ("seed", "repair_rounds") else 1
            _check(name, getattr(self, name), int, least, 2**31)
        for name in ("written_share", "plain_share", "out_of_scope_share"):
            _check(name, getattr(self, name), (int, float), 0, 1)
        _check("likeness", self.likeness, (int, float), 0.1, 1)
        numbers = tuple(self.num_requirements)
        if len(numbers) != 2:
            raise ValueError(f"num_requirements must be the least and the most, got {numbers}")
        for number in numbers:
            _check("num_requirements", number, int, 1, MOST_REQUIREMENTS)
        if numbers[0] > numbers[1]:
            raise ValueError(f"num_requirements must be the least, then the most, got {numbers}")
        object.__setattr__(self, "num_requirements", numbers)
        if self.kinds is not None:
            self._check_kinds(self.kinds)
            object.__setattr__(self, "kinds", tuple(self.kinds))

    def drawn_kinds(self) -> list[str]:
        """The kinds to draw from."""
        return [*(CHECKED if self.kinds is None else self.kinds)]

    def _check_kinds(self, kinds: Sequence[str]) -> None:
        if isinstance(kinds, str) or not kinds:
            raise ValueError("kinds must be a list of at least one kind, or None for all")
        for name in kinds:
            if name not in CHECKED:
                why = "is judged by a model and not drawn" if name in KINDS else "is unknown"
                raise ValueError(f"the kind {name!r} {why}; known: {', '.join(CHECKED)}")

    def as_record(self) -> dict[str, Any]:
        """The settings as JSON holds them."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
        }


def _check(
    name: str, value: object, kind: type | tuple[type, ...], least: float, most: float
) -> None:
    if isinstance(value, bool) or not isinstance(value, kind) or not least <= value <= most:  # type: ignore[operator]
        what = "a whole number" if kind is int else "a number"
        raise ValueError(f"{name} must be {what} from {least} to {most}, got {value!r}")
