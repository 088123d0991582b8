"""IFEval's prompts decoded under their requirements: python -m benchmarks.constrained_ifeval DATA

DATA is the folder of real inputs (ifeval_prompts.jsonl, llama2_tokenizer/). All 541 prompts become
constraints; the first `--prompts` whose requirements do not contradict each other are answered by
two models of random weights (32,000 pieces; byte-level, 131,072), to which text means nothing, and
by the embedded one, with and without the constraint. What is certain has to pass the strict check
on every prompt; for the rest both rates are given, with 95 % intervals.
"""

import argparse
import json
import shutil
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

from benchmarks.generation import make_llama
from benchmarks.timing import no_collection, settle_process
from rnr_kernels.automata.tokens import TokenTree
from rnr_kernels.forward import logits_width
from rnr_kernels.generation import end_token_ids, generate
from rnr_kernels.intervals import exact_interval
from rnr_kernels.loading import EMBEDDED, load_model, load_tokenizer
from rnr_kernels.roles.constraints import Constraint, constrain
from rnr_kernels.roles.example import Example, read_examples
from rnr_kernels.sampling import Sampling

BATCH_SIZE = 8
LEAST_TOKENS = 192
"""What every response may have; more where its requirements need more."""
MARGIN = 32
"""Tokens beyond what they need."""
WINDOW = 4096
EOS = 2
"""In both real vocabularies."""


@dataclass
class Subject:
    """A model, and what constrains it."""

    name: str
    model: Any
    tokenizer: Any
    tree: TokenTree = field(init=False)

    def __post_init__(self) -> None:
        ends = end_token_ids(self.model, self.tokenizer)
        self.tree = TokenTree.of(self.tokenizer, logits_width(self.model), ends)


@dataclass
class Tally:
    """Verdicts on one kind under one promise."""

    constrained: list[bool] = field(default_factory=list)
    free: list[bool] = field(default_factory=list)


def subjects(data: Path, folder: Path) -> Iterator[Subject]:
    """Two models of random weights, and the embedded one."""
    import mistral_common
    from transformers import AutoTokenizer

    byte_level = folder / "byte_level"
    byte_level.mkdir()
    source = Path(str(mistral_common.__file__)).parent / "data" / "tekken_240911.json"
    shutil.copy(source, byte_level / "tekken.json")
    for name, place in (
        ("random, 32,000", data / "llama2_tokenizer"),
        ("random, bytes", byte_level),
    ):
        tokenizer = AutoTokenizer.from_pretrained(place)
        model = make_llama(len(tokenizer), WINDOW)
        model.generation_config.eos_token_id = EOS
        yield Subject(name, model, tokenizer)
    yield Subject("embedded", load_model(EMBEDDED, device="cpu"), load_tokenizer(EMBEDDED))


def constraints(
    subject: Subject, examples: Sequence[Example]
) -> tuple[list[tuple[Example, Constraint]], list[str]]:
    """Of every example whose requirements a text can follow; and why there is none for others."""
    found, problems, seconds = [], [], []
    for example in examples:
        start = perf_counter()
        try:
            asked = [each.requirement for each in example.requirements]
            found.append((example, constrain(asked, subject.tokenizer, tree=subject.tree)))
        except ValueError as error:
            problems.append(f"prompt {example.id}: {error}")
        seconds.append(1e3 * (perf_counter() - start))
    ordered = sorted(seconds)
    left_out = sum(len(each.left_out) for _, each in found)
    print(
        f"{subject.name}: {len(found)} of {len(examples)} prompts constrained; median "
        f"{statistics.median(seconds):.0f} ms, 90 % under "
        f"{ordered[len(ordered) * 9 // 10]:.0f} ms, "
        f"longest {ordered[-1]:.0f} ms; {left_out} requirements left out",
        flush=True,
    )
    return found, problems


def answer(
    subject: Subject, some: Sequence[tuple[Example, Constraint]], constrained: bool, seed: int
) -> tuple[list[str], float]:
    """One batch of responses, and the seconds of a step."""
    needed = [each.automaton.tokens_needed for _, each in some if each.automaton is not None]
    limit = max([LEAST_TOKENS, *(tokens + MARGIN for tokens in needed)])
    start = perf_counter()
    done = list(
        generate(
            subject.model,
            subject.tokenizer,
            [example.prompt() for example, _ in some],
            rules=[each.rules for _, each in some] if constrained else None,
            automata=[each.automaton for _, each in some] if constrained else None,
            sampling=Sampling(temperature=1.0, seed=seed),
            max_new_tokens=limit,
            batch_size=len(some),
        )
    )
    steps = max(len(each.token_ids) for each in done)
    return [each.text for each in done], (perf_counter() - start) / steps


def measure(subject: Subject, pairs: Sequence[tuple[Example, Constraint]]) -> dict[str, Any]:
    """Both kinds of responses to all prompts, batch by batch in turn."""
    # Alike in how many tokens they need, so that few wait for one.
    ordered = sorted(pairs, key=lambda p: p[1].automaton.tokens_needed if p[1].automaton else 0)
    tallies: dict[tuple[str, str], Tally] = {}
    seconds: dict[bool, list[float]] = {True: [], False: []}
    failures = []
    for first in range(0, len(ordered), BATCH_SIZE):
        some = ordered[first : first + BATCH_SIZE]
        for constrained in (False, True):
            with no_collection():
                texts, step = answer(subject, some, constrained, seed=first)
            seconds[constrained].append(step)
            for (example, constraint), text in zip(some, texts, strict=True):
                for stated in example.requirements:
                    requirement = stated.requirement
                    promise = constraint.promises.get(requirement, "none")
                    tally = tallies.setdefault((promise, requirement.kind), Tally())
                    verdict = requirement.check(text)
                    (tally.constrained if constrained else tally.free).append(bool(verdict))
                    if constrained and promise == "certain" and not verdict:
                        failures.append(f"prompt {example.id}: {requirement}: {verdict.reason}")
    ratios = [ours / plain for plain, ours in zip(seconds[False], seconds[True], strict=True)]
    return {
        "model": subject.name,
        "prompts": len(pairs),
        "plain_ms": 1e3 * statistics.median(seconds[False]),
        "constrained_ms": 1e3 * statistics.median(seconds[True]),
        "ratio": statistics.median(ratios),
        "failures": failures,
        "kinds": [
            {"promise": promise, "kind": kind, **_rates(tally)}
            for (promise, kind), tally in sorted(tallies.items())
        ],
    }


def _rates(tally: Tally) -> dict[str, Any]:
    return {
        "count": len(tally.constrained),
        **{
            name: {
                "rate": sum(values) / len(values),
                "interval": exact_interval(sum(values), len(values)),
            }
            for name, values in (("constrained", tally.constrained), ("free", tally.free))
        },
    }


def show(result: dict[str, Any]) -> None:
    """As a table."""
    certain = [each for each in result["kinds"] if each["promise"] == "certain"]
    total = sum(each["count"] for each in certain)
    print(
        f"{result['model']}: {total - len(result['failures'])} of {total} certain requirements of "
        f"{result['prompts']} prompts pass the strict check; {result['plain_ms']:.2f} ms a step of "
        f"{BATCH_SIZE} plain, {result['constrained_ms']:.2f} ms constrained, ratio "
        f"{result['ratio']:.3f}"
    )
    for failure in result["failures"]:
        print(f"  FAILED {failure}")
    for each in result["kinds"]:
        rates = [
            "{:5.1f} ({:.1f} to {:.1f})".format(
                *(100 * x for x in (each[name]["rate"], *each[name]["interval"]))
            )
            for name in ("constrained", "free")
        ]
        print(
            f"  {each['promise']:8} {each['kind']:45} {each['count']:3}  {rates[0]:24} {rates[1]}"
        )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="folder with ifeval_prompts.jsonl")
    parser.add_argument("--prompts", type=int, default=200, help="how many are answered")
    parser.add_argument("--results", type=Path, help="JSON file to write")
    given = parser.parse_args()
    settle_process()
    examples = read_examples(given.data / "ifeval_prompts.jsonl")
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for subject in subjects(given.data, Path(folder)):
            pairs, problems = constraints(subject, examples)
            for problem in problems:
                print(f"  {problem[:160]}")
            results.append(measure(subject, pairs[: given.prompts]))
            show(results[-1])
    if given.results is not None:
        given.results.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
