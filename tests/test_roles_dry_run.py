"""A dry run says what a build asks: which calls, of whom, and how many tokens they read."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from threading import Event

import pytest
from role_builds import instructions

from rnr_kernels.roles.pipeline.asks import RESPONSES, STEPS, Ask, Reply
from rnr_kernels.roles.pipeline.build import build_dataset
from rnr_kernels.roles.pipeline.dry_run import dry_run
from rnr_kernels.roles.pipeline.settings import BuildSettings
from rnr_kernels.roles.pipeline.template_generator import TemplateGenerator

Run = Callable[..., tuple[int, str, str]]

AROUND = [step for step in STEPS if step not in RESPONSES]
LARGE = BuildSettings(num_requirements=(18, 20), written_share=1.0)


class Counting(TemplateGenerator):
    """Counts what it is asked, by step."""

    def __init__(self, wrong: float) -> None:
        super().__init__(wrong=wrong, mends=0)
        self.calls: Counter[str] = Counter()

    def replies(self, asks: list[Ask], stopped: Event) -> list[Reply]:
        self.calls.update(ask.step for ask in asks)
        return super().replies(asks, stopped)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return instructions(tmp_path / "instructions.json", 60)


def test_the_calls_are_those_of_a_build_without_repair(source: Path) -> None:
    generator = Counting(wrong=0)
    build_dataset(source, source.parent / "out", generator)
    found = dry_run(source)
    assert {each.step: each.calls for each in found.steps} == generator.calls
    assert all(
        each.by == "generator" and each.num_read and each.num_written for each in found.steps
    )
    assert set(found.prompts) == {*STEPS, "again"}


def test_repair_and_the_judging_of_it_stay_below_what_is_said(source: Path) -> None:
    generator = Counting(wrong=1)
    build_dataset(source, source.parent / "out", generator)
    found = dry_run(source)
    calls = {each.step: each.calls for each in found.steps}
    repairs, judged = 2 * calls["response"], 2 * calls["judge"]
    assert f"repair: at most {repairs} calls" in found.how
    assert f"and {judged} for judging what comes of them" in found.how
    assert 0 < generator.calls["repair"] <= repairs
    assert calls["judge"] < generator.calls["judge"] <= calls["judge"] + judged


def test_what_templates_take_is_no_call_and_shows_no_prompt(source: Path) -> None:
    found = dry_run(source, by_templates=AROUND)
    assert {each.step: each.by for each in found.steps} == {
        step: "generator" if step == "response" else "templates" for step in STEPS[:4]
    } | {"judge": "templates"}
    assert {each.step for each in found.steps if each.calls} == {"response"}
    assert set(found.prompts) == {*RESPONSES}
    everything = dry_run(source, by_templates=STEPS)
    assert everything.prompts == {} and not any(each.calls for each in everything.steps)


def test_a_judge_of_its_own_takes_the_judges_calls(source: Path) -> None:
    by_generator = {each.step: each for each in dry_run(source).steps}["judge"]
    found = {each.step: each for each in dry_run(source, by_templates=AROUND, judge="j").steps}
    assert (found["judge"].by, found["role"].by) == ("j", "templates")
    assert found["judge"].calls >= by_generator.calls > 0


def test_many_written_requirements_are_estimated(source: Path) -> None:
    found = {each.step: each.calls for each in dry_run(source, settings=LARGE).steps}
    assert found["requirements"] == found["role"] > 0


def test_the_command_passes_on_who_takes_the_steps(run: Run, source: Path) -> None:
    arguments = ("roles", "build", source, "--dry-run", "--roles", "templates")
    code, out, err = run(*arguments, "--judge-model", "judge-1", "--written-share", "1")
    assert code == 0 and err == "" and "Think of an assistant" not in out
    cells = [[cell.strip() for cell in row.split("│")[1:-1]] for row in out.splitlines()]
    by = {row[0]: (row[1] != "0", row[4]) for row in cells if len(row) == 5}
    assert by["role"] == by["conflict"] == (False, "templates")
    assert by["response"] == (True, "generator") and by["judge"] == (True, "judge-1")
    assert run(*arguments[:4], "--roles", "x")[0] == 2
    assert run(*arguments[:4], "--generator", "x")[0] == 2
