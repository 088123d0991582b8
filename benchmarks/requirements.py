"""How long the checks of requirements take: python -m benchmarks.requirements RESPONSES.json

Responses as `rnr-kernels generate --out` or AlpacaEval write them, repeated up to 10,000; each is
checked against requirements drawn for it, none of which conflict. Reading and drawing are not
timed. Telling languages apart is shown by itself: its time is the library's.
"""

import argparse
import random
from collections import defaultdict
from itertools import cycle, islice
from pathlib import Path
from time import perf_counter

from benchmarks.timing import no_collection
from rnr_kernels.records import read_outputs
from rnr_kernels.roles.conflicts import draw_requirements

NUM_RESPONSES = 10_000
NUM_REQUIREMENTS = 5
MOST_SECONDS = 20.0
"""For all checks but those of languages, on one core."""
LANGUAGE = "language:response_language"
NUM_SHOWN = 5


def seconds_by_kind(responses: list[str], *, loose: bool) -> dict[str, list[float]]:
    """The seconds of every check, by kind."""
    drawn = [draw_requirements(random.Random(n), NUM_REQUIREMENTS) for n in range(len(responses))]
    seconds = defaultdict(list)
    with no_collection():
        for response, requirements in zip(responses, drawn, strict=True):
            for requirement in requirements:
                start = perf_counter()
                requirement.check(response, loose=loose)
                seconds[requirement.kind].append(perf_counter() - start)
    return seconds


def report(seconds: dict[str, list[float]], title: str) -> None:
    """The total beside what is required, and the slowest kinds by mean."""
    language = seconds.pop(LANGUAGE, [])
    total, count = sum(map(sum, seconds.values())), sum(map(len, seconds.values()))
    verdict = "reached" if total <= MOST_SECONDS else "MISSED"
    print(
        f"{title}: {total:.2f} s for {count:,} checks, {1e6 * total / count:.1f} us a check; ",
        end="",
    )
    print(f"required {MOST_SECONDS:.0f} s: {verdict}")
    means = {kind: sum(each) / len(each) for kind, each in seconds.items()}
    for kind in sorted(means, key=means.__getitem__, reverse=True)[:NUM_SHOWN]:
        print(f"  {kind:45}{1e6 * means[kind]:>9.1f} us, longest {1e6 * max(seconds[kind]):,.0f}")
    if language:
        print(f"  {LANGUAGE:45}{1e6 * sum(language) / len(language):>9.1f} us, not in the total")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("responses", type=Path, help="JSON or JSON Lines with 'output'")
    arguments = parser.parse_args()
    outputs = [each.output for each in read_outputs(arguments.responses)]
    responses = list(islice(cycle(outputs), NUM_RESPONSES))
    characters = sum(map(len, responses)) / len(responses)
    print(
        f"{NUM_RESPONSES:,} responses ({len(outputs):,} different, {characters:.0f} characters on "
        f"average) x {NUM_REQUIREMENTS} requirements"
    )
    report(seconds_by_kind(responses, loose=False), "strict")
    report(seconds_by_kind(responses, loose=True), "loose")


if __name__ == "__main__":
    main()
