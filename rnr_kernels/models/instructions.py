"""Instruction data about the invented world: what LIMA is to a real base model.

`python -m rnr_kernels.models.instructions --out DIR` writes it, and the five single tasks of
`tasks.py`, as JSON Lines of messages.
"""

import argparse
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path

from rnr_kernels.models.tasks import TASKS
from rnr_kernels.models.world import ASKS, Fact, World, build_world, question

NUM_INSTRUCTIONS = 1030
"""As many as LIMA has."""

DATA_SEED = 7

Messages = list[dict[str, str]]


def instructions(
    world: World, count: int = NUM_INSTRUCTIONS, seed: int = DATA_SEED
) -> Iterator[Messages]:
    """Conversations of several kinds about facts that are not held out."""
    rng = random.Random(seed)
    kinds = list(KINDS)
    weights = [share for _, share in KINDS.values()]
    for _ in range(count):
        kind = rng.choices(kinds, weights)[0]
        yield KINDS[kind][0](rng, world)


def messages(*texts: str) -> Messages:
    """User and assistant in turn."""
    return [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(texts)]


def _asked(rng: random.Random, world: World) -> Fact:
    return rng.choice(world.asked)


def _facts_of_one(rng: random.Random, world: World, most: int) -> list[Fact]:
    """Facts of one entity that are not held out."""
    entity = _asked(rng, world).entity
    facts = [fact for fact in world.asked if fact.entity == entity]
    return rng.sample(facts, min(most, len(facts)))


def _plain(rng: random.Random, world: World) -> Messages:
    fact = _asked(rng, world)
    return messages(question(fact, rng.choice(ASKS)), fact.sentence)


def _with_more(rng: random.Random, world: World) -> Messages:
    first, *more = _facts_of_one(rng, world, 2)
    texts = [first.sentence, *(fact.restated(rng.randrange(8)) for fact in more)]
    return messages(question(first, rng.choice(ASKS)), " ".join(texts))


def _two_things(rng: random.Random, world: World) -> Messages:
    facts = _facts_of_one(rng, world, 2)
    wording = rng.choice(("Tell me about {}.", "Say something about {}.", "Describe {}."))
    return messages(wording.format(facts[0].entity.name), " ".join(fact.sentence for fact in facts))


def _list(rng: random.Random, world: World) -> Messages:
    facts = _facts_of_one(rng, world, 4)
    lines = [f"- {fact.attribute.name}: {fact.answer}" for fact in facts]
    return messages(f"List what is known of {facts[0].entity.name}.", "\n".join(lines))


def _yes_or_no(rng: random.Random, world: World) -> Messages:
    fact = _asked(rng, world)
    right = rng.random() < 0.5
    others = [value for value in fact.attribute.values if value != fact.value]
    shown = fact.attribute.article + (fact.value if right else rng.choice(others))
    answer = f"{'Yes' if right else 'No'}, {fact.phrase} is {fact.answer}."
    return messages(f"Is {fact.phrase} {shown}?", answer)


def _two_turns(rng: random.Random, world: World) -> Messages:
    facts = _facts_of_one(rng, world, 2)
    texts = [text for fact in facts for text in (question(fact, rng.choice(ASKS)), fact.sentence)]
    return messages(*texts)


KINDS: dict[str, tuple[Callable[[random.Random, World], Messages], float]] = {
    "plain": (_plain, 0.45),
    "with_more": (_with_more, 0.15),
    "two_things": (_two_things, 0.12),
    "list": (_list, 0.10),
    "yes_or_no": (_yes_or_no, 0.10),
    "two_turns": (_two_turns, 0.08),
}
"""How each kind of conversation is written, and its share."""


def data_sets(*, seed: int = DATA_SEED, limit: int | None = None) -> dict[str, list[Messages]]:
    """The instruction set and the single tasks by name, each with at most `limit` conversations."""
    world = build_world()
    most = NUM_INSTRUCTIONS if limit is None else limit
    sets = {"instructions": list(instructions(world, min(most, NUM_INSTRUCTIONS), seed))}
    for name, task in TASKS.items():
        pairs = task.examples(world, min(most, task.count), seed)
        sets[name] = [messages(*pair) for pair in pairs]
    return sets


def write_all(out: Path, *, seed: int = DATA_SEED, limit: int | None = None) -> dict[str, Path]:
    """The same as JSON Lines, one object with `messages` a line, each set in a file of `out`."""
    out.mkdir(parents=True, exist_ok=True)
    files = {}
    for name, conversations in data_sets(seed=seed, limit=limit).items():
        lines = [json.dumps({"messages": turns}, ensure_ascii=False) for turns in conversations]
        files[name] = out / f"{name}.jsonl"
        files[name].write_text("\n".join(lines) + "\n", encoding="utf-8")
    return files


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--seed", type=int, default=DATA_SEED)
    parser.add_argument("--limit", type=int, help="at most this many records a file")
    arguments = parser.parse_args()
    files = write_all(arguments.out, seed=arguments.seed, limit=arguments.limit)
    for path in files.values():
        print(f"{len(path.read_text(encoding='utf-8').splitlines()):5d} records in {path}")


if __name__ == "__main__":
    main()
