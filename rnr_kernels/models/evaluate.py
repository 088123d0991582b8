"""The table of the embedded model: base, base x rules, each rule left out, and what it knows.

`python -m rnr_kernels.models.evaluate [--model DIR ...] [--out results.json]`
"""

import argparse
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rnr_kernels.generation import generate
from rnr_kernels.intervals import bootstrap_interval
from rnr_kernels.loading import (
    EMBEDDED_PROMPTS,
    embedded_model_path,
    load_model,
    load_tokenizer,
)
from rnr_kernels.models.judge import Verdict, judge, knows
from rnr_kernels.models.world import World, build_world, held_out_questions
from rnr_kernels.rules.kinds import RuleSet
from rnr_kernels.rules.presets import hewitt2024

if TYPE_CHECKING:
    from rich.table import Table

RESULTS = Path(__file__).parent / "results.json"

CONDITIONS = ("base", "rules", "-eos", "-uniform", "-used")
"""The bare model, all three rules, and each rule left out."""

TITLES = {
    "base": "base",
    "rules": "base x three rules",
    "-eos": "without EOS",
    "-uniform": "without uniform",
    "-used": "without used tokens",
    "probe": "probe `Q: ... A:`",
}

MAX_NEW_TOKENS = 300
PROBE = "Q: {instruction}\nA:"
PROBE_TOKENS = 30
BATCH_SIZE = 50


@dataclass(frozen=True)
class Prompt:
    """One held-out question and the value that answers it."""

    instruction: str
    entity: str
    attribute: str
    answer: str


@dataclass(frozen=True)
class Response:
    """Response text without EOS, and whether EOS came within the limit."""

    text: str
    ended: bool


Respond = Callable[[Path, Sequence[Prompt], str], list[Response]]
"""(model folder, prompts, condition or "probe") -> one response for each prompt."""


def held_out_prompts(world: World) -> list[Prompt]:
    """The held-out questions with what answers them."""
    return [
        Prompt(
            instruction=text,
            entity=fact.entity.name,
            attribute=fact.attribute.name,
            answer=fact.value,
        )
        for text, fact in held_out_questions(world)
    ]


def write_prompts(path: Path) -> None:
    """Writes the held-out questions, one JSON object a line."""
    lines = [json.dumps(asdict(prompt)) for prompt in held_out_prompts(build_world())]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def load_prompts(path: Path = EMBEDDED_PROMPTS) -> list[Prompt]:
    """The stored prompts."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [Prompt(**json.loads(line)) for line in lines if line]


def rules_of(condition: str) -> RuleSet | None:
    """The rules of one of `CONDITIONS`; None where there are none."""
    if condition == "rules":
        return hewitt2024(strict=True)
    if condition in CONDITIONS and condition.startswith("-"):
        return hewitt2024(strict=True).without(condition[1:])
    return None


def respond(folder: Path, prompts: Sequence[Prompt], condition: str) -> list[Response]:
    """Greedy responses in one of `CONDITIONS`, or to the question-answer "probe" without rules."""
    probe = condition == "probe"
    instructions = [prompt.instruction for prompt in prompts]
    completions = generate(
        load_model(str(folder), device="cpu"),
        load_tokenizer(str(folder)),
        [PROBE.format(instruction=text) for text in instructions] if probe else instructions,
        rules=rules_of(condition),
        template="plain" if probe else "tags",
        max_new_tokens=PROBE_TOKENS if probe else MAX_NEW_TOKENS,
        batch_size=BATCH_SIZE,
        stop=("\n",) if probe else (),
    )
    return [Response(done.text, done.finish_reason == "eos") for done in completions]


def verdicts_on(
    prompts: Sequence[Prompt], responses: Sequence[Response], *, probe: bool = False
) -> list[Verdict]:
    """The verdict on each response; a probe need not end by itself."""
    values = {fact.attribute.name: fact.attribute.values for fact in build_world().facts}
    return [
        knows(response.text, prompt.answer, values[prompt.attribute])
        if probe
        else judge(response.text, prompt.answer, values[prompt.attribute], ended=response.ended)
        for prompt, response in zip(prompts, responses, strict=True)
    ]


def evaluate(
    folders: Sequence[Path],
    prompts: Sequence[Prompt],
    *,
    respond: Respond = respond,
    report: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Success rates of all conditions and of the probe over models and prompts, by condition."""
    rows: dict[str, Any] = {}
    for condition in (*CONDITIONS, "probe"):
        verdicts = [
            verdicts_on(prompts, respond(folder, prompts, condition), probe=condition == "probe")
            for folder in folders
        ]
        outcomes = [[verdict == "success" for verdict in row] for row in verdicts]
        rates = [100 * sum(row) / len(row) for row in outcomes]
        rows[condition] = {
            "percent": round(sum(rates) / len(rates), 1),
            "interval": [round(100 * end, 1) for end in bootstrap_interval(outcomes)],
            "per_model": [round(rate, 1) for rate in rates],
            "verdicts": dict(Counter(verdict for row in verdicts for verdict in row)),
            "successes": ["".join("01"[ok] for ok in row) for row in outcomes],
        }
        report(f"{condition:9s}{rows[condition]['percent']:6.1f} %  {rows[condition]['verdicts']}")
    return rows


def _cells(condition: str, row: dict[str, Any]) -> tuple[str, str, str, str]:
    """Title, success, interval, and success by training seed."""
    low, high = row["interval"]
    rates = ", ".join(f"{rate:.1f}" for rate in row["per_model"])
    return TITLES[condition], f"{row['percent']:.1f}", f"{low:.1f} to {high:.1f}", rates


def render(results: dict[str, Any]) -> "Table":
    """The stored table for a terminal."""
    from rich.table import Table

    table = Table(title="Embedded base model on held-out questions: success in %")
    table.add_column("condition")
    for heading in ("success", "95 % interval", "by training seed"):
        table.add_column(heading, justify="right")
    table.add_column("failures")
    for condition, row in results["rows"].items():
        failures = [f"{name} {n}" for name, n in row["verdicts"].items() if name != "success"]
        table.add_row(*_cells(condition, row), ", ".join(failures))
    return table


def markdown(results: dict[str, Any]) -> str:
    """The stored table as Markdown, as README and card have it."""
    lines = ["| | success % | 95 % interval | by training seed |", "|---|---|---|---|"]
    for condition, row in results["rows"].items():
        lines.append(f"| {' | '.join(_cells(condition, row))} |")
    return "\n".join(lines)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, action="append", help="folder; once for each seed")
    parser.add_argument("--out", type=Path, help="file for the results")
    parser.add_argument("--stored", action="store_true", help="show the stored table and stop")
    parser.add_argument("--markdown", action="store_true", help="show it as Markdown")
    parser.add_argument("--write-prompts", type=Path, help="write the held-out questions and stop")
    arguments = parser.parse_args()
    if arguments.write_prompts:
        write_prompts(arguments.write_prompts)
        return
    if arguments.stored:
        results = json.loads(RESULTS.read_text(encoding="utf-8"))
    else:
        folders = arguments.model or [embedded_model_path()]
        prompts = load_prompts()
        results = {
            "command": "python -m rnr_kernels.models.evaluate --model SEED_0 --model SEED_1 ...",
            "num_prompts": len(prompts),
            "num_models": len(folders),
            "settings": {
                "rules": "hewitt2024 (paper)",
                "template": "tags",
                "decoding": "greedy, float32, CPU",
                "max_new_tokens": MAX_NEW_TOKENS,
                "probe": PROBE,
                "interval": "95 %, bootstrap over prompts and training seeds, 2,000 draws",
            },
            "rows": evaluate(folders, prompts),
        }
        if arguments.out:
            arguments.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    if arguments.markdown:
        print(markdown(results))
        return
    from rich.console import Console

    Console().print(render(results))


if __name__ == "__main__":
    main()
