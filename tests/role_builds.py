"""Builds of roles and rules that tests share: instructions, endpoints that know the steps."""

import json
import re
from pathlib import Path
from typing import Any

from fake_endpoint import Reply

from rnr_kernels.roles.pipeline.build import Built, build_dataset
from rnr_kernels.roles.pipeline.settings import BuildSettings
from rnr_kernels.roles.pipeline.template_generator import TemplateGenerator

SUBJECTS = (
    "bees", "bridges", "clocks", "tides", "violins", "glaciers", "maps", "ovens", "canals", "moths",
    "castles", "kites", "lanterns", "mills", "nets", "orchards", "pianos", "quarries", "rafts",
    "sundials", "tents", "umbrellas", "vases", "wells", "yachts", "zebras", "anchors", "bells",
    "candles", "deserts", "eagles", "ferns", "geysers", "harps", "islands", "jars", "kettles",
    "lochs",
)  # fmt: skip
QUESTIONS = (
    "Explain to a newcomer what makes {} worth a closer look in {} steps of equal length.",
    "Which mistakes do people make with {} when they have only {} days for it?",
    "Write a letter of {1} lines to a friend about the {0} you saw on a journey.",
    "Compare {} of today with those of {} decades ago, as a historian would.",
)

FINISHED = ("train.jsonl", "train.parquet", "rejected.jsonl", "README.md")

NO_COMMA = BuildSettings(
    num_requirements=(1, 1),
    written_share=0,
    kinds=["punctuation:no_comma"],
    plain_share=0,
    out_of_scope_share=0,
)
"""One requirement, known to every test that answers as a model would."""


def instructions(path: Path, count: int) -> Path:
    """Alpaca records with responses, at most 152; no two are alike."""
    records = []
    for number in range(count):
        question = QUESTIONS[number % 4].format(SUBJECTS[number // 4], number + 2)
        records.append({"instruction": question, "input": "", "output": f"Answer {number}."})
    path.write_text(json.dumps(records))
    return path


def built_by_templates(folder: Path, count: int = 40, **options: Any) -> Built:
    """A build in `folder`/out from `count` instructions, with options of settings and templates."""
    rates = {name: options.pop(name) for name in ("wrong", "mends") if name in options}
    source = folder / "instructions.json"
    if not source.exists():
        instructions(source, count)
    generator = TemplateGenerator(**rates)
    return build_dataset(source, folder / "out", generator, settings=BuildSettings(**options))


def finished(folder: Path) -> dict[str, bytes]:
    """The bytes of the finished files of a build."""
    return {name: (folder / name).read_bytes() for name in FINISHED}


def records(path: Path) -> list[dict[str, Any]]:
    """Of a JSON Lines file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def step_of(prompt: str) -> str:
    """Which step's packaged prompt this is; a system message with a response's is a response's."""
    for step, words in (
        ("role", "Think of an assistant"),
        ("requirements", "more rules for the responses"),
        ("conflict", "Find the rules that no good response"),
        ("judge", "Judge this one requirement"),
    ):
        if words in prompt:
            return step
    return "response"


def follows(prompt: str, before: int) -> Reply:
    """A model that does all steps as it is told; its response has no comma."""
    step = step_of(prompt)
    if step == "role":
        return json.dumps({"name": "Clerk", "description": "You are a clerk.", "scope": "clerking"})
    if step == "requirements":
        count = int(re.search(r"Write (\d+) more", prompt)[1])  # type: ignore[index]
        texts = [{"kind": "tone", "text": f"Be calm ({n})."} for n in range(count)]
        return json.dumps({"requirements": texts})
    if step == "conflict":
        return '{"conflicts": []}'
    if step == "judge":
        return '{"reason": "calm", "followed": true}'
    return "Certainly so."
