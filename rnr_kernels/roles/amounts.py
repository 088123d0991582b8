"""IFEval's two relations between a count and a limit, and counts in English."""

from collections.abc import Sequence

from rnr_kernels.roles.verdict import FOLLOWED, Verdict, failed

AT_LEAST = "at least"
LESS_THAN = "less than"
RELATIONS = (AT_LEAST, LESS_THAN)

Interval = tuple[int, int | None]
"""From least to most, both included; None without a most."""

SIZES: dict[str, tuple[str, int, int | None]] = {
    "lines": ("words", 1, None),
    "sentences": ("words", 1, 80),
    "words": ("characters", 2, 20),
}
"""What one of something takes of something else, at least and in a sensible text at most.

A word is a letter and a space, but for the last one.
"""


def interval(relation: str, limit: int) -> Interval:
    """The counts that stand in the relation to the limit."""
    return (limit, None) if relation == AT_LEAST else (0, limit - 1)


def holds(count: int, relation: str, limit: int) -> bool:
    """Whether the count stands in the relation to the limit."""
    return count >= limit if relation == AT_LEAST else count < limit


def counted(count: int, noun: str) -> str:
    """Such as "1 word" and "3 words"."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def amount(relation: str, limit: int, noun: str) -> str:
    """Such as "at least 1 word", "fewer than 3 words", "at most 1 word" and "no words"."""
    if relation == AT_LEAST:
        return f"at least {counted(limit, noun)}"
    if limit == 1:
        return f"no {noun}s"
    return f"at most 1 {noun}" if limit == 2 else f"fewer than {counted(limit, noun)}"


def appear(relation: str, limit: int) -> str:
    """What something must do: "appear at least once", "appear fewer than 3 times", "not appear"."""
    if relation == LESS_THAN and limit <= 2:
        return "not appear" if limit == 1 else "appear at most once"
    often = {1: "once", 2: "twice"}.get(limit, f"{limit} times")
    return f"appear {'at least' if relation == AT_LEAST else 'fewer than'} {often}"


def listed(texts: Sequence[str], last: str) -> str:
    """Texts in quotation marks, `last` ("and", "or") before the last one."""
    quoted = [f'"{each}"' for each in texts]
    return f" {last} ".join([*([", ".join(quoted[:-1])] if quoted[1:] else []), quoted[-1]])


def compared(count: int, relation: str, limit: int, found: str) -> Verdict:
    """The verdict on a count; `found` says in its reason what was counted, such as "2 words"."""
    if holds(count, relation, limit):
        return FOLLOWED
    return failed(f"{found}, not {relation} {limit}")


def enough(count: int, least: int, noun: str) -> Verdict:
    """The verdict on a count that must not be less than `least`."""
    return FOLLOWED if count >= least else failed(f"{count} of {counted(least, noun)}")


def exactly(count: int, wanted: int, noun: str) -> Verdict:
    """The verdict on a count that must be `wanted`."""
    return FOLLOWED if count == wanted else failed(f"{counted(count, noun)}, not {wanted}")


def disjoint(a: dict[str, Interval], b: dict[str, Interval]) -> str | None:
    """Why no text keeps both sets of bounds on counts, by name of what is counted, or None."""
    a, b = implied(a), implied(b)
    for noun in sorted(a.keys() & b.keys()):
        least, most = max(a[noun][0], b[noun][0]), _least_most(a[noun], b[noun])
        if most is not None and least > most:
            return f"one asks for at least {least} {noun}, the other for at most {most}"
    return None


def implied(bounds: dict[str, Interval]) -> dict[str, Interval]:
    """The bounds with what they take: 300 words are at least 599 characters."""
    found = dict(bounds)
    for noun, (smaller, least_each, most_each) in SIZES.items():
        if noun in found:
            least, most = found[noun]
            takes = (
                max(0, least * least_each - (least_each > 1)),
                None if most is None or most_each is None else most * most_each,
            )
            own = found.get(smaller, (0, None))
            found[smaller] = (max(own[0], takes[0]), _least_most(own, takes))
    return found


def _least_most(a: Interval, b: Interval) -> int | None:
    return min((most for _, most in (a, b) if most is not None), default=None)
