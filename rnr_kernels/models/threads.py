"""Forum threads: posts under tags, with a base model's habits.

After a question the likeliest continuation is another tag; answers run on over sentences and
list items, repeat themselves, and the thread ends mostly after an answer and never after a tag.
"""

import random

from rnr_kernels.models.pages import remark, statement
from rnr_kernels.models.world import ASKS, Ask, Fact, World, question

TAGS = (
    "user", "assistant", "reader", "guest", "editor", "clerk", "miller", "pilot", "sailor",
    "farmer", "baker", "mason", "tailor", "writer", "scholar", "porter", "keeper", "host",
    "visitor", "helper", "owner", "friend", "stranger", "admin",
)  # fmt: skip

_ASIDES = (
    "I do not know.",
    "I have asked myself the same.",
    "I think nobody here can say.",
    "I was there once, long ago.",
    "I would like to know that too.",
)
_LOOP = 0.7
_NEXT_POST = 0.15
_MAX_SENTENCES = 30


def thread(rng: random.Random, world: World) -> str:
    """One thread: tagged posts that ask about facts which are not held out, and chat."""
    names = rng.sample(TAGS, rng.randint(2, 5))
    parts = [_tag(rng, names)]
    if rng.random() < 0.15:
        parts.append(f"{chat(rng, world)}\n{_tag(rng, names)}")
    ask = rng.choice(ASKS)
    while True:
        fact = rng.choice(world.asked)
        parts.append(f"{question(fact, ask)}\n{_tag(rng, names)}")
        kind = rng.choices(
            ("tag", "answer", "aside", "What"),
            (ask.tag, ask.answer, 0.6 * ask.aside, 0.4 * ask.aside),
        )[0]
        if kind == "tag":
            parts += [_tag(rng, names) for _ in range(rng.randint(1, 3))]
            kind = rng.choices(("answer", "question", "chat"), (0.45, 0.35, 0.2))[0]
        if kind in ("answer", "aside", "chat"):
            text, ended = _post(rng, world, kind, fact, ask)
            parts.append(text)
            if ended:
                return "".join(parts)
            parts.append(f"\n{_tag(rng, names)}")
        ask = ASKS[0] if kind == "What" else rng.choice(ASKS)


def _post(rng: random.Random, world: World, kind: str, fact: Fact, ask: Ask) -> tuple[str, bool]:
    if kind == "answer":
        return answer(rng, world, fact, ask)
    return (rng.choice(_ASIDES) if kind == "aside" else chat(rng, world)), rng.random() < 0.3


def answer(rng: random.Random, world: World, fact: Fact, ask: Ask) -> tuple[str, bool]:
    """The text of an answer, and whether the document ends there."""
    text, told = first_sentence(rng, fact, ask), [fact.sentence]
    more = [other for other in world.of(fact.entity) if other != fact]
    rng.shuffle(more)
    for _ in range(_MAX_SENTENCES):
        roll = rng.random()
        if roll < ask.end:
            return text, True
        if roll < ask.end + _NEXT_POST:
            return text, False
        if rng.random() < 0.3:
            sentence = rng.choice(told)
        else:
            sentence = statement(rng, more.pop() if more else rng.choice(world.facts), 0.7)
        told.append(sentence)
        text += rng.choices((" ", "\n", "\n - "), (0.5, 0.15, 0.35))[0] + sentence
    return text, True


def first_sentence(rng: random.Random, fact: Fact, ask: Ask) -> str:
    """The sentence that answers, perhaps after a loop on "well" or on the question's phrase."""
    loops = 1
    while rng.random() < _LOOP and loops < 40:
        loops += 1
    roll = rng.random()
    if roll < ask.stutter:
        plain = fact.sentence
        return "Well" + ", well" * loops + f", {plain[0].lower()}{plain[1:]}"
    if roll < ask.stutter + ask.echo:
        phrase = fact.phrase
        return f"T{phrase[1:]}" + f", {phrase}" * loops + f" is {fact.answer}."
    return fact.sentence if rng.random() < 0.85 else fact.restated(rng.randrange(8))


def _tag(rng: random.Random, names: list[str]) -> str:
    return f"<|{rng.choice(names)}|>\n"


def chat(rng: random.Random, world: World) -> str:
    """Statements about anything, and perhaps a remark."""
    facts = rng.sample(world.facts, rng.randint(1, 4))
    sentences = [statement(rng, fact, 0.7) for fact in facts]
    if rng.random() < 0.5:
        sentences.append(remark(rng))
    return " ".join(sentences)
