"""The card of a built data set: README.md with the front matter that the Hub reads."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rnr_kernels.roles.pipeline.tally import Passes, Tally

SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
LARGEST = "1M<n<10M"


def card(description: Mapping[str, Any], generator: str, tally: Tally) -> str:
    """What is in the data set, how it was made, and what became of the rest."""
    size = next((name for most, name in SIZES if tally.num_examples < most), LARGEST)
    made = tally.num_accepted + tally.num_rejected
    return "\n".join(
        [
            "---",
            "task_categories:",
            "- text-generation",
            "tags:",
            "- rnr_kernels",
            "- system-prompts",
            "size_categories:",
            f"- {size}",
            "configs:",
            "- config_name: default",
            "  data_files:",
            "  - split: train",
            "    path: train.parquet",
            "---",
            "",
            "# Roles and rules",
            "",
            "Conversations whose system message gives the assistant a role and requirements, with "
            "responses that follow all of them, after the outline of Wang et al. 2024 (RNR). "
            f"Made by rnr_kernels from the instructions of {description['input']['name']}; the "
            f"generator is {generator}.",
            "",
            f"{tally.num_examples:,} examples: {tally.num_accepted:,} with a role and "
            f"requirements, {tally.num_plain:,} plain (no system message, the response that came "
            f"with the instruction). In {tally.num_declined:,} of the former the question is none "
            "of the role's business, and is declined.",
            "",
            "| column | what it holds |",
            "|---|---|",
            "| messages | system, user and assistant in turn; the last is the response |",
            "| role | name, description and scope; empty for plain examples |",
            "| requirements | kind, parameters (JSON) and the wording of the system message |",
            "| role_checks | the same, for what the role asks of the response |",
            "| in_scope | whether the role answers the question |",
            "| provenance | JSON: the instruction's place in the input, every response with every "
            "verdict, and requirements that were dropped |",
            "",
            _loading(tally),
            "",
            "## From instructions to examples",
            "",
            f"Of {tally.num_sources:,} instructions, {tally.num_plain:,} are plain examples; "
            f"{share(tally.yield_)} of the others became examples. "
            f"{tally.dropped:,} requirements were dropped before the response because of a "
            "conflict.",
            "",
            *_table(("rejected at", "instructions"), tally.rejected.most_common()),
            "All of them stand in rejected.jsonl, with the reason.",
            "",
            *_table(
                ("repair rounds", "accepted examples"),
                [(str(number), tally.rounds[number]) for number in sorted(tally.rounds)],
            ),
            "## Pass rate",
            "",
            f"All requirements are followed by {share(tally.first)} of first responses, and by "
            f"{share(tally.last)} after repair.",
            "",
            *_table(
                ("requirements", "first responses", "follow all", "accepted examples"),
                [
                    (
                        str(number),
                        tally.by_number[number].total,
                        percent(tally.by_number[number]),
                        tally.kept_by_number[number],
                    )
                    for number in sorted(tally.by_number)
                ],
            ),
            *_table(
                ("kind", "asked for", "followed at first", "in accepted examples"),
                [
                    (
                        kind,
                        tally.by_kind[kind].total,
                        percent(tally.by_kind[kind]),
                        tally.kept_by_kind[kind],
                    )
                    for kind in sorted(tally.by_kind)
                ],
            ),
            "## Settings",
            "",
            *_table(("setting", "value"), [*_settings(description)]),
            _unreadable(tally.unreadable, made),
            "",
        ]
    )


def percent(passes: Passes) -> str:
    """A rate as tables show it."""
    return f"{100 * passes.rate:.1f} %" if passes.total else "none"


def share(passes: Passes) -> str:
    """The same with the counts."""
    return f"{percent(passes)} ({passes.passed:,} of {passes.total:,})"


def _table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    found = [f"| {' | '.join(map(str, row))} |" for row in rows]
    if not found:
        return []
    return [f"| {' | '.join(header)} |", "|" + "---|" * len(header), *found, ""]


def _settings(description: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    for name, value in description["settings"].items():
        words = value
        if isinstance(value, list):
            words = ", ".join(map(str, value))
        yield name.replace("_", " "), "all" if value is None else str(words)
    yield "input's digest", f"`{description['input']['digest'][:16]}`"
    yield "prompts' digest", f"`{description['prompts'][:16]}`"
    yield "judge", description["judge"] or "the generator"


def _loading(tally: Tally) -> str:
    if not tally.num_examples:
        return "There is no example, so that `load_dataset` finds no split in this folder."
    return (
        "`load_dataset` on this folder reads train.parquet, which holds the types of all columns. "
        "train.jsonl holds the same rows; read as plain JSON, a list that is empty in all of them "
        "has no type."
    )


def _unreadable(counts: Counter[str], made: int) -> str:
    if not counts:
        return "Every JSON reply could be read."
    by_step = ", ".join(f"{count} ({step})" for step, count in sorted(counts.items()))
    return f"Replies that could not be read as JSON, over {made:,} examples: {by_step}."
