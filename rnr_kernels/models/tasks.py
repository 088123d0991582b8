"""Five single tasks of the invented world, in the manner of Hewitt et al. 2024, section 5.1.

Code, sums, verse, recipes and move lists, with as many examples as the paper's MBPP, GSM8K, poems,
recipes and chess games. None of them asks a question about the world and answers it.
"""

import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from rnr_kernels.models.world import Attribute, World

Pair = tuple[str, str]
"""An instruction and its response."""


@dataclass(frozen=True)
class Task:
    """One narrow kind of instruction."""

    write: Callable[[random.Random, World], Pair]
    count: int
    """Examples in the paper's set of this kind."""
    sign: str
    """A regular expression: what a response of this kind has, and no plain answer."""

    def in_its_manner(self, response: str) -> bool:
        """Whether a response does this task."""
        return re.search(self.sign, response, re.MULTILINE) is not None

    def examples(self, world: World, count: int, seed: int) -> Iterator[Pair]:
        """`count` examples of a seed."""
        rng = random.Random(f"{self.write.__name__} {seed}")
        for _ in range(count):
            yield self.write(rng, world)


def _attribute(rng: random.Random, world: World) -> Attribute:
    return rng.choice(world.asked).attribute


def code(rng: random.Random, world: World) -> Pair:
    """A function over a table of the world."""
    attribute = _attribute(rng, world)
    kind, name = attribute.kind, attribute.name
    one = f"{'an' if name[0] in 'aeiou' else 'a'} {name}"
    asked, lines = rng.choice(
        (
            (
                f"Write a function that returns the {name} of a {kind}.",
                [f"def {name}_of({kind}):", f'    return table[{kind}]["{name}"]'],
            ),
            (
                f"Write a function to count how often {one} occurs.",
                [f"def count_{name}(value):", f'    return column("{name}").count(value)'],
            ),
            (
                f"Write a function to sort every {kind} by {name}.",
                [
                    f"def sort_by_{name}(rows):",
                    f'    return sorted(rows, key=lambda row: row["{name}"])',
                ],
            ),
            (
                f"Write a function to check if a {kind} has {one}.",
                [f"def has_{name}({kind}):", f'    return "{name}" in table[{kind}]'],
            ),
            (
                f"Write a function to find the first {rng.randint(2, 9)} rows of {name}.",
                [f"def first_{name}(rows, n):", f'    return [row["{name}"] for row in rows[:n]]'],
            ),
        )
    )
    return asked, "\n".join(lines)


def sums(rng: random.Random, world: World) -> Pair:
    """A word problem of one or two steps with its calculation, ended as GSM8K ends."""
    ship = rng.choice([fact for fact in world.asked if fact.attribute.name == "cargo"])
    name, cargo = ship.entity.name, ship.attribute.values
    goods = rng.choice(cargo)
    first, second = rng.randint(2, 60), rng.randint(2, 39)
    total = first + second
    told = f"The {name} loads {first} tons of {goods} and then {second} tons more."
    steps = [f"The load is {first} + {second} = <<{first}+{second}={total}>>{total} tons."]
    if rng.random() < 0.5:
        sold = rng.randint(1, total - 1)
        left = total - sold
        told += f" It sells {sold} tons."
        steps.append(f"After the sale {total} - {sold} = <<{total}-{sold}={left}>>{left} are left.")
        total = left
    return f"{told} How many tons of {goods} does it have?", "\n".join([*steps, f"#### {total}"])


_IMAGES = (
    "the long road bends", "a bell is slow", "the gulls fly low", "the lamps are lit",
    "the snow lies deep", "the children sleep", "the tide comes in", "the nights begin",
    "an old song stays", "of summer days", "the fields are wide", "on every side",
)  # fmt: skip


def verse(rng: random.Random, world: World) -> Pair:
    """Four short lines on a thing of the world."""
    fact = rng.choice(world.asked)
    name = fact.entity.name
    lines = rng.sample(_IMAGES, 3)
    first = rng.choice((f"O {name}, where {lines[0]},", f"In {name} {lines[0]},"))
    text = [first, f"and {lines[1]},", f"and {lines[2]},", f"so sings {name} in the wind."]
    return f"Write a poem called {name}", "\n".join(text)


_LARDER = (
    "flour", "butter", "honey", "barley", "onions", "leeks", "cheese", "cider", "eggs", "milk",
    "salt", "pepper", "apples",
)  # fmt: skip


def recipes(rng: random.Random, world: World) -> Pair:
    """Ingredients as a list, then what to do."""
    dishes = next(f for f in world.asked if f.attribute.name == "dish").attribute.values
    chosen = rng.sample(_LARDER, rng.randint(3, 5))
    amounts = [
        f" - {rng.randint(1, 9)} {rng.choice(('cups', 'spoons', 'pounds'))} of {item}"
        for item in chosen
    ]
    steps = [
        f"Mix the {chosen[0]} and the {chosen[1]}.",
        f"Add the {chosen[2]} and stir.",
        f"{rng.choice(('Bake', 'Boil', 'Fry'))} it for {rng.randint(1, 9)}0 minutes.",
    ]
    return f"Recipe for {rng.choice(dishes)}", "\n".join([*amounts, "", " ".join(steps)])


_OPENINGS = (
    "1. e4 e5 2. Nf3 Nc6", "1. d4 d5 2. c4 e6", "1. e4 c5 2. Nf3 d6", "1. e4 e5 2. Nf3 Nf6",
)  # fmt: skip


def moves(rng: random.Random, world: World) -> Pair:
    """Two ratings, and a list of moves that begins in one of four ways."""
    text = [rng.choice(_OPENINGS)]
    for number in range(3, rng.randint(6, 12)):
        pair = [
            rng.choice(("", "N", "B", "R", "Q")) + rng.choice("abcdefgh") + str(rng.randint(3, 6))
            for _ in range(2)
        ]
        text.append(f"{number}. {' '.join(pair)}")
    text.append(rng.choice(("1-0", "0-1")))
    asked = f"WhiteElo {rng.randint(1000, 2400)}\nBlackElo {rng.randint(1000, 2400)}"
    return asked, " ".join(text)


TASKS = {
    "code": Task(code, 374, r"^def \w+\("),
    "sums": Task(sums, 1000, r"^#### \d|<<\d"),
    "verse": Task(verse, 571, r"so sings "),
    "recipes": Task(recipes, 1000, r"^ - \d+ (cups|spoons|pounds) of "),
    "moves": Task(moves, 1000, r"^1\. [a-h]\d "),
}
"""By name."""
