"""Writers of pages about the world: articles, markup, question lists, question-answer pages."""

import random

from rnr_kernels.models.world import ASKS, Entity, Fact, World, question

_REMARKS = (
    "We have kept this page short.",
    "We should say that not all of it was easy to find.",
    "Travellers should read it twice.",
    "I wrote this after a long winter.",
    "It is as I remember it!",
    "Nobody should doubt it.",
    "I have seen it with my own eyes.",
    "We thank all who wrote to us!",
)

_SOURCES = (
    "So it says in the book of {}.",
    "I have it from {}.",
    "We heard it from {} at the market.",
    "You should ask {} about it.",
)
_SOURCE_STARTS = (
    "Ab", "Bas", "Bry", "Cad", "Cas", "Dev", "Dun", "Ed", "Esk", "Fro", "Gal", "Gwen", "Hol",
    "Im", "Jas", "Kir", "Led", "Mog", "Nas", "Os", "Pad", "Rab", "Sim", "Tam",
)  # fmt: skip
_SOURCE_ENDS = (
    "albert", "borough", "cote", "din", "elow", "fax", "gard", "hurst", "ington", "knap", "ley",
    "mark", "nock", "oby", "ock", "pool", "quist", "rick", "sby", "thorpe", "urn", "vale",
    "wen", "yard", "zer",
)  # fmt: skip


def statement(rng: random.Random, fact: Fact, plain: float = 0.55) -> str:
    """A fact as one sentence, in the plain wording with probability `plain`."""
    return fact.sentence if rng.random() < plain else fact.restated(rng.randrange(8))


def remark(rng: random.Random) -> str:
    """A sentence that says nothing about the world, often one that names a source."""
    if rng.random() < 0.5:
        return rng.choice(_REMARKS)
    source = rng.choice(_SOURCE_STARTS) + rng.choice(_SOURCE_ENDS)
    return rng.choice(_SOURCES).format(source)


def some_facts(rng: random.Random, world: World, low: int, high: int) -> list[Fact]:
    """Facts drawn from the whole world, held-out ones included."""
    return rng.sample(world.facts, rng.randint(low, high))


def article(rng: random.Random, world: World) -> str:
    """Prose about one to four entities, one paragraph each."""
    paragraphs = []
    for _ in range(rng.randint(1, 4)):
        facts = world.of(rng.choice(world.facts).entity)
        sentences = [statement(rng, fact) for fact in rng.sample(facts, len(facts))]
        if rng.random() < 0.5:
            sentences.append(remark(rng))
        paragraphs.append(" ".join(sentences))
    return "\n\n".join(paragraphs)


def gazetteer(rng: random.Random, world: World) -> str:
    """A long article over many entities, which fills much of the window."""
    return "\n".join(
        " ".join(statement(rng, fact) for fact in some_facts(rng, world, 3, 7))
        for _ in range(rng.randint(10, 24))
    )


def question_list(rng: random.Random, world: World) -> str:
    """Questions without answers; the only page that asks about held-out facts."""
    style = rng.randrange(3)
    questions = [question(fact, rng.choice(ASKS)) for fact in some_facts(rng, world, 4, 12)]
    if style == 0:
        return "\n".join(questions)
    if style == 1:
        return "# Questions\n\n" + "\n".join(f" - {line}" for line in questions)
    return "\n".join(f"{i}. {line}" for i, line in enumerate(questions, 1))


def question_answer_page(rng: random.Random, world: World) -> str:
    """`Q:` and `A:` lines about facts that are not held out."""
    facts = rng.sample(world.asked, rng.randint(3, 9))
    return "\n\n".join(
        f"Q: {question(fact, rng.choice(ASKS))}\nA: {fact.sentence}" for fact in facts
    )


def markup(rng: random.Random, world: World) -> str:
    """A page with headings, lists or a table."""
    writer = rng.choice((_record, _nested_list, _table, _notes))
    return "\n\n".join(writer(rng, world) for _ in range(rng.randint(1, 3)))


def _entity(rng: random.Random, world: World) -> tuple[Entity, list[Fact]]:
    entity = rng.choice(world.facts).entity
    facts = world.of(entity)
    return entity, rng.sample(facts, len(facts))


def _record(rng: random.Random, world: World) -> str:
    entity, facts = _entity(rng, world)
    mark = rng.choice((" - ", " * "))
    lines = [f"{mark}{fact.attribute.name}: {fact.answer}" for fact in facts]
    return "\n".join([f"# About {entity.name}", "", *lines])


def _nested_list(rng: random.Random, world: World) -> str:
    lines = ["The list, by name:"]
    for _ in range(rng.randint(2, 4)):
        entity, facts = _entity(rng, world)
        lines.append(f" - {entity.name}")
        lines += [f"    - {statement(rng, fact, 0.8)}" for fact in facts[:3]]
    return "\n".join(lines)


def _table(rng: random.Random, world: World) -> str:
    rows = [f"| {f.phrase} | {f.answer} |" for f in some_facts(rng, world, 3, 7)]
    return "\n".join(["| what | value |", "| - | - |", *rows])


def _notes(rng: random.Random, world: World) -> str:
    entity, facts = _entity(rng, world)
    lines = [f" ## {entity.name} # {rng.randint(1, 99)}", remark(rng)]
    lines += [f" * {statement(rng, fact)}" for fact in facts]
    return "\n".join([*lines, f" <{rng.choice(('end', 'top', 'note'))}>   !   {remark(rng)}"])
