"""Template responses follow by construction, and break what they are to break: checks agree."""

import random
from threading import Event

import pytest

from rnr_kernels.roles.conflicts import draw_requirements
from rnr_kernels.roles.example import Example, StatedRequirement
from rnr_kernels.roles.kinds import KINDS
from rnr_kernels.roles.pipeline.asks import Ask
from rnr_kernels.roles.pipeline.readings import CONFLICTS, conflicts_of, read_object
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


@pytest.mark.parametrize("rates", [{"wrong": -0.1}, {"wrong": 1.1}, {"mends": 2}])
def test_a_rate_is_a_share(rates: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be from 0 to 1"):
        TemplateGenerator(**rates)
