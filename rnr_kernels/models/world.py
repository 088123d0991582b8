"""An invented world: towns, people and ships, their attributes, and the questions about them.

Everything follows from one seed. A fact is an (entity, attribute) pair with one value; the
held-out facts are stated in the corpus but never asked together with an answer.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

WORLD_SEED = 20240923
NUM_HELD_OUT = 200


@dataclass(frozen=True)
class Attribute:
    """One property of a kind of entity.

    `phrase` is how a question names it, `statements` are other wordings of the fact, `article`
    stands before the value in an answer.
    """

    kind: str
    name: str
    phrase: str
    question: str
    statements: tuple[str, ...]
    article: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class Entity:
    """A named thing of the world."""

    kind: str
    name: str


@dataclass(frozen=True)
class Fact:
    """One attribute of one entity and its value."""

    entity: Entity
    attribute: Attribute
    value: str

    @property
    def phrase(self) -> str:
        """The noun phrase of the fact, such as "the river of Harlow"."""
        return self.attribute.phrase.format(e=self.entity.name)

    @property
    def answer(self) -> str:
        """The value with its article, such as "the Tane"."""
        return self.attribute.article + self.value

    @property
    def sentence(self) -> str:
        """The plain statement, such as "The river of Harlow is the Tane."."""
        phrase = self.phrase
        return f"{phrase[0].upper()}{phrase[1:]} is {self.answer}."

    def restated(self, wording: int) -> str:
        """The fact in another wording."""
        statements = self.attribute.statements
        return statements[wording % len(statements)].format(e=self.entity.name, v=self.value)


@dataclass(frozen=True)
class Ask:
    """A way to ask, and what forum threads do with a question asked this way.

    `tag`, `answer` and `aside` are the shares of continuations right after the question: another
    tag, an answer, "I ..." or "What ...". `stutter` and `echo` are the shares of answers that
    begin with "Well, well, well, ..." or repeat the question's phrase; `end` is the probability
    that the document ends after a sentence of the answer.
    """

    wording: str
    tag: float
    answer: float
    aside: float
    stutter: float
    echo: float
    end: float


ASKS = (
    Ask("What is {p}?", 0.50, 0.35, 0.15, 0.10, 0.10, 0.05),
    Ask("Does anyone know {p}?", 0.50, 0.32, 0.18, 0.80, 0.05, 0.05),
    Ask("Name {p}.", 0.36, 0.54, 0.10, 0.05, 0.05, 0.28),
    Ask("Tell me {p}.", 0.45, 0.40, 0.15, 0.05, 0.80, 0.05),
    Ask("Can someone say what {p} is?", 0.50, 0.32, 0.18, 0.75, 0.10, 0.05),
    Ask("Please give {p}.", 0.34, 0.54, 0.12, 0.05, 0.75, 0.05),
    Ask("{q}", 0.50, 0.33, 0.17, 0.10, 0.10, 0.05),
)


def question(fact: Fact, ask: Ask) -> str:
    """The question about a fact in one wording."""
    return ask.wording.format(p=fact.phrase, q=fact.attribute.question.format(e=fact.entity.name))


def held_out_questions(world: "World") -> list[tuple[str, Fact]]:
    """One question for each held-out fact; the wordings take turns."""
    return [(question(fact, ASKS[i % len(ASKS)]), fact) for i, fact in enumerate(world.held_out)]


@dataclass(frozen=True)
class World:
    """All facts, split into those that question-answer pages may ask and the held-out ones."""

    facts: tuple[Fact, ...]
    asked: tuple[Fact, ...]
    held_out: tuple[Fact, ...]

    def of(self, entity: Entity) -> list[Fact]:
        """The facts of one entity."""
        return [fact for fact in self.facts if fact.entity == entity]


_COLOURS = "amber azure black brown crimson gold green grey ivory orange purple scarlet white"
_EXPORTS = "amberglass barley candles cheese cider honey lace leather paper rope salt soap wool"
_MONTHS = "January February March April May June July August September October November December"
_TRADES = "baking brewing carpentry dyeing fishing forging masonry milling tanning"
_TRADES += " thatching weaving"
_INSTRUMENTS = "bagpipe cello drum fiddle flute guitar harp horn lute oboe trumpet viola whistle"
_DISHES = "chowder crumble dumplings fritters goulash noodles omelette pancakes porridge pudding"
_DISHES += " rissoles stew trifle"
_PETS = "badger cat donkey ferret goat goose hedgehog jackdaw lizard magpie parrot rabbit tortoise"
_CARGOES = "bricks coal copper cotton flour glass hemp iron marble pepper rice slate sugar tar tea"
_CARGOES += " tin"
_TIMBERS = "ash beech birch cedar chestnut elm fir larch maple oak pine poplar spruce teak walnut"
_FIGURES = "bear dragon dolphin falcon griffin lion mermaid pelican serpent stag swan tiger unicorn"

_STARTS = "Al Bar Bel Bran Cor Dal Dor El Fal Fen Gar Gil Hal Har Is Jor Kal Kes Lan Lor Mar Mel"
_STARTS += " Nor Or Pel Quin Ral Ros Sal Sel Tal Tor Ul Ver Wil Yar Zel"
_ENDS = {
    "town": "bury combe dale ford gate ham holt low mere mond stead ton wick worth",
    "river": "ane ede ika isse oan une",
    "hill": "crag fell horn pike tor",
    "province": "avia eria onia uria",
    "first": "a ah en eth ia in is o ric us",
    "last": "bek dahl gren lund mark sen strom vik",
    "ship": "anda antha ella enna iss issa orna osa una",
    "harbour": "haven hythe quay sound",
}


def _names(rng: random.Random, kind: str, count: int, taken: set[str]) -> list[str]:
    pool = [start + end for start in _STARTS.split() for end in _ENDS[kind].split()]
    rng.shuffle(pool)
    names = [name for name in pool if name.lower() not in taken][:count]
    taken.update(name.lower() for name in names)
    return names


def _attributes(names: dict[str, list[str]], people: Sequence[str]) -> list[Attribute]:
    rows = [
        ("town", "river", "the river of {e}", "What river runs past {e}?", "the ", names["river"],
         "People in {e} fish in the {v}.", "The {v} runs past {e}."),
        ("town", "hill", "the hill above {e}", "What hill stands over {e}?", "", names["hill"],
         "The road from {e} climbs {v}.", "Shepherds from {e} graze their flocks on {v}."),
        ("town", "province", "the province of {e}", "What province does {e} belong to?", "",
         names["province"], "The town of {e} belongs to {v}.", "Taxes from {e} go to {v}."),
        ("town", "export", "the main export of {e}", "What do carts carry out of {e}?", "",
         _EXPORTS.split(), "Carts leave {e} loaded with {v}.", "Merchants come to {e} for {v}."),
        ("town", "fair", "the fair month of {e}", "When does {e} hold its fair?", "",
         _MONTHS.split(), "The fair in {e} is held in {v}.", "Crowds fill {e} every {v}."),
        ("town", "banner", "the banner colour of {e}", "What colour is the banner of {e}?", "",
         _COLOURS.split(), "The banner of {e} is {v}.", "Over the gate of {e} hangs {v} cloth."),
        ("person", "trade", "the trade of {e}", "What does {e} do for a living?", "",
         _TRADES.split(), "For a living {e} does {v}.", "As a child {e} learned {v}."),
        ("person", "home", "the home town of {e}", "Where does {e} live?", "", names["town"],
         "You will find {e} in {v}.", "The house of {e} stands in {v}."),
        ("person", "instrument", "the instrument of {e}", "What does {e} play at dances?", "the ",
         _INSTRUMENTS.split(), "At dances {e} plays the {v}.",
         "Neighbours hear {e} practise the {v}."),
        ("person", "dish", "the favourite dish of {e}", "What does {e} cook on feast days?", "",
         _DISHES.split(), "On feast days {e} cooks {v}.", "Nothing pleases {e} more than {v}."),
        ("person", "pet", "the pet of {e}", "What animal follows {e}?", "a ", _PETS.split(),
         "A {v} follows {e} everywhere.", "In the yard {e} keeps a {v}."),
        ("ship", "cargo", "the cargo of the {e}", "What does the {e} carry?", "",
         _CARGOES.split(), "In its hold the {e} carries {v}.", "Dockers load the {e} with {v}."),
        ("ship", "captain", "the captain of the {e}", "Who commands the {e}?", "", people,
         "On the {e} sails {v}.", "The crew of the {e} obeys {v}."),
        ("ship", "timber", "the timber of the {e}", "What wood is the {e} built of?", "",
         _TIMBERS.split(), "The hull of the {e} is {v}.", "They built the {e} of {v}."),
        ("ship", "harbour", "the harbour of the {e}", "Where does the {e} lie in winter?", "",
         names["harbour"], "All winter the {e} lies at {v}.", "Sailors board the {e} at {v}."),
        ("ship", "figurehead", "the figurehead of the {e}", "What is carved on the bow of the {e}?",
         "a ", _FIGURES.split(), "A carved {v} leads the {e}.", "On the bow of the {e} is a {v}."),
    ]  # fmt: skip
    return [
        Attribute(kind, name, phrase, asked, tuple(statements), article, tuple(values))
        for kind, name, phrase, asked, article, values, *statements in rows
    ]


def build_world(seed: int = WORLD_SEED, num_held_out: int = NUM_HELD_OUT) -> World:
    """The world of a seed: entities, one value for each attribute, and the held-out facts."""
    rng = random.Random(seed)
    counts = {"town": 40, "river": 20, "hill": 20, "province": 12, "harbour": 16, "ship": 40}
    taken: set[str] = set()
    names = {kind: _names(rng, kind, count, taken) for kind, count in counts.items()}
    surnames = _names(rng, "last", 20, taken)
    firsts = _names(rng, "first", 50, taken)
    people = [f"{first} {surnames[i % len(surnames)]}" for i, first in enumerate(firsts)]
    attributes = _attributes(names, people)
    entities = [Entity("town", name) for name in names["town"]]
    entities += [Entity("person", name) for name in people]
    entities += [Entity("ship", name) for name in names["ship"]]
    facts = tuple(
        Fact(entity, attribute, rng.choice(attribute.values))
        for entity in entities
        for attribute in attributes
        if attribute.kind == entity.kind
    )
    held_out = _held_out(rng, facts, num_held_out)
    chosen = set(held_out)
    return World(facts, tuple(fact for fact in facts if fact not in chosen), held_out)


def _held_out(rng: random.Random, facts: Sequence[Fact], count: int) -> tuple[Fact, ...]:
    """`count` facts, at most two of an entity, so that every entity is asked about otherwise."""
    per_entity: dict[Entity, int] = {}
    chosen: list[Fact] = []
    for fact in rng.sample(facts, len(facts)):
        if len(chosen) < count and per_entity.get(fact.entity, 0) < 2:
            per_entity[fact.entity] = per_entity.get(fact.entity, 0) + 1
            chosen.append(fact)
    return tuple(chosen)
