"""Closes the loop: data of roles and rules, a model tuned on it, its pass rate before and after.

`python -m rnr_kernels.lab.roles.loop --out DIR`
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rnr_kernels.durable import published
from rnr_kernels.generation import generate
from rnr_kernels.lab.roles.held_out import held_out_examples, is_held_out
from rnr_kernels.lab.roles.study import FULL, QUICK, RoleStudy
from rnr_kernels.lab.roles.world_generator import WorldGenerator
from rnr_kernels.lab.roles.world_roles import KINDS, questions
from rnr_kernels.lab.tables import Estimate, percent
from rnr_kernels.loading import EMBEDDED, load_model, load_tokenizer
from rnr_kernels.models.evaluate import BATCH_SIZE, Response, load_prompts, verdicts_on
from rnr_kernels.models.world import World, build_world
from rnr_kernels.roles.example import Example, read_examples
from rnr_kernels.roles.pass_rate import PassRate, kind_label, pass_rate
from rnr_kernels.roles.pipeline.build import build_dataset
from rnr_kernels.roles.responses import answer
from rnr_kernels.tuning.conversations import read_conversations
from rnr_kernels.tuning.train import tune

if TYPE_CHECKING:
    from rich.table import Table as RichTable

RESULTS = "results.json"
SEED = 7
"""Of questions and held-out examples."""

Report = Callable[[str], None]


@dataclass(frozen=True)
class Measured:
    """One model's responses, with and without constraints, and to plain questions."""

    free: PassRate
    constrained: PassRate
    plain: list[bool]


@dataclass(frozen=True)
class Row:
    """A system's rates over its training seeds, in percent."""

    system: str
    all_followed: Estimate
    role_kept: Estimate | None
    """None where no question is in scope."""
    role_declined: Estimate | None
    """None where none is out of scope."""
    plain_questions: Estimate | None
    """None for constrained responses, which plain questions have none of."""
    by_kind: dict[str, Estimate]


def run_loop(study: RoleStudy, folder: Path, *, report: Report = lambda text: None) -> list[Row]:
    """Builds, tunes and measures in `folder`; what is there already is kept."""
    world = build_world()
    report("building the data")
    train = build(study, world, folder)
    counts = study.build_settings().num_requirements
    examples = held_out_examples(world, counts, study.examples, SEED)
    measured = {
        "base": [measure(study, EMBEDDED, examples, report)],
        "instruction-tuned": [measure(study, f"{EMBEDDED}:instruction", examples, report)],
        "tuned on roles and rules": [
            measure(study, str(tuned(study, seed, train, folder, report)), examples, report)
            for seed in study.seeds
        ],
    }
    rows = [row for system, runs in measured.items() for row in _rows(system, runs)]
    with published(folder / RESULTS) as file:
        results = {"study": asdict(study), "rows": [asdict(row) for row in rows]}
        file.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    return rows


def build(study: RoleStudy, world: World, folder: Path) -> Path:
    """The training data by the pipeline, without the combinations that are held out."""
    asked = folder / "questions.jsonl"
    with published(asked) as file:
        lines = [
            json.dumps({"instruction": text, "output": fact.sentence}) + "\n"
            for text, fact in questions(world, study.instructions, SEED)
        ]
        file.write_text("".join(lines), encoding="utf-8")
    out = folder / "data"
    build_dataset(asked, out, WorldGenerator(world), settings=study.build_settings())
    train = folder / "train.jsonl"
    with published(train) as file:
        lines = [
            json.dumps(example.as_record()) + "\n"
            for example in read_examples(out / "train.jsonl")
            if not is_held_out(each.requirement.kind for each in example.requirements)
        ]
        file.write_text("".join(lines), encoding="utf-8")
    return train


def tuned(study: RoleStudy, seed: int, train: Path, folder: Path, report: Report) -> Path:
    """The base tuned on the data, trained unless it is there."""
    out = folder / f"tuned-{seed}"
    if not out.is_dir():
        report(f"tuning, seed {seed}")
        tune(
            EMBEDDED,
            read_conversations(train),
            out,
            mode="instruction",
            settings=study.tuning_settings(seed),
            data_name=train.name,
            device="cpu",
        )
    return out


def measure(study: RoleStudy, name: str, examples: Sequence[Example], report: Report) -> Measured:
    """What a model makes of the held-out examples and of plain questions; greedy."""
    report(f"asking {Path(name).name}")
    model, tokenizer = load_model(name, device="cpu"), load_tokenizer(name)

    def rate(*, constrained: bool) -> PassRate:
        responses = answer(
            examples,
            model,
            tokenizer,
            constrained=constrained,
            max_new_tokens=study.max_new_tokens,
            batch_size=BATCH_SIZE,
        )
        return pass_rate(examples, responses)

    prompts = load_prompts()[: study.examples]
    plain = generate(
        model,
        tokenizer,
        [prompt.instruction for prompt in prompts],
        max_new_tokens=study.max_new_tokens,
        batch_size=BATCH_SIZE,
    )
    answered = [Response(each.text, each.finish_reason == "eos") for each in plain]
    right = [verdict == "success" for verdict in verdicts_on(prompts, answered)]
    return Measured(rate(constrained=False), rate(constrained=True), right)


def _rows(system: str, runs: Sequence[Measured]) -> list[Row]:
    free = _row(system, [run.free for run in runs], percent([run.plain for run in runs]))
    return [free, _row(f"{system}, constrained", [run.constrained for run in runs], None)]


def _row(system: str, rates: Sequence[PassRate], plain: Estimate | None) -> Row:
    def role(*, in_scope: bool) -> Estimate | None:
        followed = [
            [each.role_followed() for each in rate.findings if each.example.in_scope == in_scope]
            for rate in rates
        ]
        return percent(followed) if followed[0] else None

    def kind(name: str) -> Estimate:
        return percent(
            [
                [
                    finding.followed()
                    for each in rate.findings
                    for finding in each.requirements
                    if finding.stated.requirement.kind == name
                ]
                for rate in rates
            ]
        )

    return Row(
        system,
        percent([[each.all_followed() for each in rate.findings] for rate in rates]),
        role(in_scope=True),
        role(in_scope=False),
        plain,
        {name: kind(name) for name in KINDS if name in rates[0].by_kind},
    )


def _table(
    title: str, columns: Sequence[str], rows: Sequence[tuple[str, Sequence[Any]]]
) -> "RichTable":
    from rich.table import Table as RichTable

    shown = RichTable(title=title, title_justify="left", header_style="bold")
    shown.add_column("")
    for column in columns:
        shown.add_column(column, justify="right")
    for system, cells in rows:
        shown.add_row(system, *("" if cell is None else str(cell) for cell in cells))
    return shown


def main() -> None:
    """Command line."""
    from rich.console import Console

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for data and models")
    parser.add_argument("--quick", action="store_true", help="every step on little data")
    given = parser.parse_args()
    start = time.perf_counter()
    with Console(stderr=True).status("starting") as status:
        rows = run_loop(QUICK if given.quick else FULL, given.out, report=status.update)
    console = Console()
    columns = ("all followed", "role kept", "declined", "plain questions")
    singles = [
        (row.system, (row.all_followed, row.role_kept, row.role_declined, row.plain_questions))
        for row in rows
    ]
    console.print(_table("Held-out roles and requirement sets, %", columns, singles))
    free = rows[::2]
    kinds = [(kind_label(name), [row.by_kind.get(name) for row in free]) for name in KINDS]
    console.print(
        _table("Followed without constraints, by kind, %", [row.system for row in free], kinds)
    )
    print(f"{(time.perf_counter() - start) / 60:.1f} minutes; {given.out / RESULTS}")


if __name__ == "__main__":
    main()
