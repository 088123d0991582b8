"""JSON of limited nesting as a regular language (RFC 8259)."""

from functools import cache
from typing import NamedTuple

from rnr_kernels.automata.characters import Characters
from rnr_kernels.automata.languages import EMPTY, Language, concatenation, literal
from rnr_kernels.automata.machines import machine

DEEPEST = 3
"""How deep lists and objects may be nested: each level doubles the states."""

ENDS_NUMBER = ("zero", "digits", "fraction", "exponent")

WORDS = {"t": "true", "f": "false", "n": "null"}

NUMBERS = {
    ("minus", "0"): "zero",
    ("minus", "1-9"): "digits",
    ("digits", "0"): "digits",
    ("digits", "1-9"): "digits",
    ("zero", "."): "point",
    ("digits", "."): "point",
    ("point", "0"): "fraction",
    ("point", "1-9"): "fraction",
    ("fraction", "0"): "fraction",
    ("fraction", "1-9"): "fraction",
    **{(part, each): "e" for part in ("zero", "digits", "fraction") for each in "eE"},
    ("e", "+"): "sign",
    ("e", "-"): "sign",
    **{(part, each): "exponent" for part in ("e", "sign", "exponent") for each in ("0", "1-9")},
}
"""The part of a number that a character leads to."""


class _Place(NamedTuple):
    """Where a text stands: the open brackets, and what comes next."""

    stack: str
    expects: str
    """A value, a key, punctuation; or the place within a string, a number or a word."""


def _kinds() -> dict[str, Characters]:
    """The characters that JSON tells apart."""
    return {
        **{each: Characters.of(each) for each in '"\\/{}[]:,-+.0abcdeflnrstuE'},
        "1-9": Characters.of("123456789"),
        "hex": Characters.of("ABCDF"),
        # In strings it may stand, and other blanks may not.
        "space": Characters.of(" "),
        "blank": Characters.of("\t\n\r"),
        "control": Characters((0, 0x20)),
    }


HEX = frozenset(("0", "1-9", "hex", "E", *"abcdef"))
BETWEEN = frozenset(("value", "value or ]", "key", "key or }", "colon", "end"))
"""What is expected where blanks may stand."""
ESCAPES = frozenset('"\\/bfnrt')


def _step(place: _Place, kind: str) -> _Place | None:
    """One character on; a blank may stand wherever punctuation or a value may."""
    stack, expects = place
    if expects.startswith("string"):
        return _in_string(stack, expects, kind)
    if (expects, kind) in NUMBERS:
        return _Place(stack, NUMBERS[expects, kind])
    if expects.startswith("word "):
        rest = expects.removeprefix("word ")
        if kind != rest[0]:
            return None
        return _Place(stack, f"word {rest[1:]}" if rest[1:] else "end")
    if expects in ENDS_NUMBER:
        expects = "end"
    if kind in ("space", "blank") and expects in BETWEEN:
        # Not before and after the whole value, where it would never have to end.
        return _Place(stack, expects) if stack else None
    if expects.startswith("value"):
        return _value(stack, expects, kind)
    if expects.startswith("key") and kind == '"':
        return _Place(stack, "string key")
    if expects == "key or }" and kind == "}":
        return _Place(stack[:-1], "end")
    if expects == "colon" and kind == ":":
        return _Place(stack, "value")
    if expects == "end" and stack:
        if kind == ",":
            return _Place(stack, "key" if stack[-1] == "{" else "value")
        if stack[-1] + kind in ("{}", "[]"):
            return _Place(stack[:-1], "end")
    return None


def _value(stack: str, expects: str, kind: str) -> _Place | None:
    if kind == '"':
        return _Place(stack, "string value")
    if kind in "{[":
        if len(stack) == DEEPEST:
            return None
        return _Place(stack + kind, "key or }" if kind == "{" else "value or ]")
    if kind == "]" and expects == "value or ]":
        return _Place(stack[:-1], "end")
    if kind in WORDS:
        return _Place(stack, f"word {WORDS[kind][1:]}")
    if kind == "-":
        return _Place(stack, "minus")
    number = NUMBERS.get(("minus", kind))
    return None if number is None else _Place(stack, number)


def _in_string(stack: str, expects: str, kind: str) -> _Place | None:
    """`expects` is "string", what it is, and what of an escape is missing."""
    _, role, *missing = expects.split()
    if missing == ["escape"]:
        if kind == "u":
            return _Place(stack, f"string {role} 4")
        return _Place(stack, f"string {role}") if kind in ESCAPES else None
    if missing:
        left = int(missing[0]) - 1
        if kind not in HEX:
            return None
        return _Place(stack, f"string {role} {left}" if left else f"string {role}")
    if kind == "\\":
        return _Place(stack, f"string {role} escape")
    if kind == '"':
        return _Place(stack, "colon" if role == "key" else "end")
    return None if kind in ("blank", "control") else _Place(stack, expects)


@cache
def json_values() -> Language:
    """One JSON value, in a fence of ``` or ```json or in none."""
    value = machine(
        _kinds(),
        _Place("", "value"),
        _step,
        lambda place: not place.stack and place.expects in ("end", *ENDS_NUMBER),
    )
    opened = literal("```") + (literal("json") | EMPTY) + literal("\n")
    return value | concatenation(opened, value, literal("\n```"))
