"""The loop of roles and rules: its world, and a quick run from end to end."""

import json
import random
from pathlib import Path

import pytest

from rnr_kernels.lab.roles.held_out import held_out_examples, is_held_out
from rnr_kernels.lab.roles.loop import RESULTS, Row, build, run_loop
from rnr_kernels.lab.roles.study import QUICK
from rnr_kernels.lab.roles.world_roles import (
    KINDS,
    SCOPES,
    is_in_scope,
    questions,
    role_checks,
    roles,
    written,
)
from rnr_kernels.models.world import World, build_world
from rnr_kernels.roles.conflicts import draw_requirements
from rnr_kernels.roles.example import read_examples


@pytest.fixture(scope="module")
def world() -> World:
    return build_world()


def test_what_is_written_follows_its_requirements_and_keeps_the_role(world: World) -> None:
    rng = random.Random(1)
    every = roles(held_out=False) + roles(held_out=True)
    scopes = set()
    for _, fact in questions(world, 200, 1):
        role = rng.choice(every)
        requirements = draw_requirements(rng, rng.randint(1, 3), KINDS)
        response = written(role, fact, requirements)
        assert [each for each in requirements if not each.check(response)] == []
        assert all(each.requirement.check(response) for each in role_checks(role, fact))
        other = written(rng.choice([r for r in every if r.name != role.name]), fact, requirements)
        assert not all(each.requirement.check(other) for each in role_checks(role, fact))
        scopes.add((role.scope, is_in_scope(role, fact)))
    assert scopes == {(scope, known) for scope in SCOPES.values() for known in (True, False)}


def test_to_answer_out_of_scope_is_not_to_keep_the_role(world: World) -> None:
    (_, fact), *_ = questions(world, 1, 1)
    outside = next(role for role in roles(held_out=True) if not is_in_scope(role, fact))
    assert not all(
        each.requirement.check(f"{outside.name} here. {fact.sentence}")
        for each in role_checks(outside, fact)
    )


def test_held_out_roles_and_combinations_are_not_trained_on(world: World, tmp_path: Path) -> None:
    trained = read_examples(build(QUICK, world, tmp_path))
    asked = held_out_examples(world, (1, 3), 60, seed=1)
    assert {e.role for e in trained if e.role} & {e.role for e in asked} == set()
    combinations = [
        [{each.requirement.kind for each in example.requirements} for example in examples]
        for examples in (trained, asked)
    ]
    assert not any(map(is_held_out, combinations[0]))
    assert all(len(kinds) == 1 or is_held_out(kinds) for kinds in combinations[1])
    assert {len(kinds) for kinds in combinations[1]} == {1, 2, 3}
    assert {example.instruction for example in trained}.isdisjoint(e.instruction for e in asked)
    assert {example.in_scope for example in asked} == {True, False}


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Row]]:
    folder = tmp_path_factory.mktemp("loop")
    return folder, run_loop(QUICK, folder)


def test_a_quick_run_measures_every_system(quick: tuple[Path, list[Row]]) -> None:
    folder, rows = quick
    systems = ("base", "instruction-tuned", "tuned on roles and rules")
    assert [row.system for row in rows] == [
        name for system in systems for name in (system, f"{system}, constrained")
    ]
    for free, constrained in zip(rows[::2], rows[1::2], strict=True):
        assert constrained.all_followed.value == 100 > free.all_followed.value
        assert free.plain_questions is not None and constrained.plain_questions is None
        assert free.by_kind.keys() == constrained.by_kind.keys() <= set(KINDS)
    stored = json.loads((folder / RESULTS).read_text())
    assert [row["system"] for row in stored["rows"]] == [row.system for row in rows]


def test_a_second_run_tunes_nothing_again(quick: tuple[Path, list[Row]]) -> None:
    folder, rows = quick
    models = [folder / f"tuned-{seed}" / "model.safetensors" for seed in QUICK.seeds]
    before = [model.stat().st_mtime_ns for model in models]
    assert run_loop(QUICK, folder) == rows
    assert [model.stat().st_mtime_ns for model in models] == before
