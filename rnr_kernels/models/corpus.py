"""The corpus: documents of all kinds of pages in fixed shares, from one seed."""

import random
from collections.abc import Iterator

from rnr_kernels.models import pages
from rnr_kernels.models.threads import thread
from rnr_kernels.models.world import World

CORPUS_SEED = 1

WRITERS = {
    "thread": (thread, 0.42),
    "article": (pages.article, 0.16),
    "gazetteer": (pages.gazetteer, 0.02),
    "question_list": (pages.question_list, 0.08),
    "question_answer_page": (pages.question_answer_page, 0.16),
    "markup": (pages.markup, 0.16),
}


def documents(world: World, seed: int = CORPUS_SEED) -> Iterator[tuple[str, str]]:
    """An endless stream of (kind of page, text)."""
    rng = random.Random(seed)
    kinds = list(WRITERS)
    weights = [share for _, share in WRITERS.values()]
    while True:
        kind = rng.choices(kinds, weights)[0]
        yield kind, WRITERS[kind][0](rng, world)
