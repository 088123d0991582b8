"""Template responses follow by construction, and break what they are to break: checks agree."""

import random
from pathlib import Path
from threading import Event

import pytest
from role_builds import built_by_templates

from rnr_kernels.roles.conflicts import draw_requirements
from rnr_kernels.roles.example import Example, StatedRequirement
from rnr_kernels.roles.kinds import KINDS
from rnr_kernels.roles.pipeline.asks import Ask
from rnr_kernels.roles.pipeline.readings import CONFLICTS, conflicts_of, read_object
from rnr_kernels.roles.pipeline.settings import MOST_REQUIREMENTS
from rnr_kernels.roles.pipeline.template_breaks import BREAKERS, broken
from rnr_kernels.roles.pipeline.template_generator import TemplateGenerator
from rnr_kernels.roles.pipeline.template_texts import WRITTEN, CannotWriteError, write_response
from rnr_kernels.roles.requirement import Requirement

UNWRITTEN = {"characters:script", "language:response_language"}
CHECKED = [name for name in WRITTEN if not KINDS[name].is_judged]


def test_every_kind_but_two_has_a_template_and_a_way_to_break_it() -> None:
    assert set(KINDS) - set(WRITTEN) == UNWRITTEN
    assert set(BREAKERS) == set(WRITTEN)


@pytest.mark.parametrize("kind", CHECKED)
def test_one_requirement_is_followed_and_broken(kind: str) -> None:
    for seed in range(30):
        requirement = Requirement.draw(seed, [kind])
        text = write_response([requirement], random.Random(seed))
        assert requirement.check(text), (requirement, text)
        assert not requirement.check(broken(text, requirement)), (requirement, text)


def test_sets_are_followed_as_a_whole_and_one_is_broken() -> None:
    written = 0
    for seed in range(400):
        rng = random.Random(seed)
        requirements = draw_requirements(rng, rng.randint(2, 6), CHECKED)
        try:
            text = write_response(requirements, rng)
        except CannotWriteError:
            continue
        written += 1
        assert all(each.check(text) for each in requirements), (requirements, text)
        chosen = rng.choice(requirements)
        assert not chosen.check(broken(text, chosen)), (chosen, text)
    assert written > 320


def test_a_set_without_a_template_loses_what_is_in_the_way() -> None:
    requirements = [
        Requirement("punctuation:no_comma"),
        Requirement("language:response_language", language="de"),
        Requirement("detectable_format:one_of_answers", answers=["yes", "no"]),
    ]
    stated = tuple(StatedRequirement(each, each.wording()) for each in requirements)
    example = Example("1", None, stated, ({"role": "user", "content": "Who?"},))
    (reply,) = TemplateGenerator().replies([Ask("conflict", (), 1, example)], Event())
    found = conflicts_of(read_object(reply.text, CONFLICTS), 3)
    assert found[1] == "there is no template for language:response_language"
    assert set(found) in ({0, 1}, {1, 2})


def test_templates_write_as_many_requirements_as_an_example_may_have(tmp_path: Path) -> None:
    most = {"num_requirements": (MOST_REQUIREMENTS, MOST_REQUIREMENTS), "written_share": 1.0}
    done = built_by_templates(tmp_path, 8, plain_share=0, wrong=0, **most)
    assert done.tally.kept_by_number == {MOST_REQUIREMENTS: 8}


def test_templates_that_write_responses_are_others_than_those_that_do_not() -> None:
    one, other = TemplateGenerator(), TemplateGenerator(writes=False)
    assert one.identity() != other.identity()


@pytest.mark.parametrize("rates", [{"wrong": -0.1}, {"wrong": 1.1}, {"mends": 2}])
def test_a_rate_is_a_share(rates: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be from 0 to 1"):
        TemplateGenerator(**rates)
