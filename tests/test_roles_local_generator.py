"""A local model as generator: requests in batches, system message and all."""

import json
from dataclasses import replace
from pathlib import Path
from threading import Event

import pytest
from role_builds import instructions, records

from rnr_kernels.generation import generate
from rnr_kernels.loading import load_model, load_tokenizer
from rnr_kernels.roles.example import Example, StatedRequirement
from rnr_kernels.roles.pipeline.asks import Ask
from rnr_kernels.roles.pipeline.build import build_dataset
from rnr_kernels.roles.pipeline.by_step import ByStep
from rnr_kernels.roles.pipeline.local_generator import LocalGenerator
from rnr_kernels.roles.pipeline.settings import BuildSettings
from rnr_kernels.roles.pipeline.template_generator import TemplateGenerator
from rnr_kernels.roles.requirement import Requirement
from rnr_kernels.sampling import Sampling

SYSTEM = {"role": "system", "content": "You are a clerk."}


def ask(question: str, seed: int = 1) -> Ask:
    messages = (SYSTEM, {"role": "user", "content": question})
    return Ask("response", messages, seed, Example("1", None, (), messages[1:]))


@pytest.fixture(scope="module")
def generator() -> LocalGenerator:
    return LocalGenerator(
        load_model("embedded:instruction"),
        load_tokenizer("embedded:instruction"),
        name="embedded:instruction",
        identity={"name": "embedded:instruction"},
        template="tags",
        max_new_tokens=12,
        batch_size=2,
    )


def test_replies_are_those_of_the_decode_loop(generator: LocalGenerator) -> None:
    asks = [ask("What is the fair month of Elham?"), ask("Name a river.")]
    replies = generator.replies(asks, Event())
    expected = generate(
        load_model("embedded:instruction"),
        load_tokenizer("embedded:instruction"),
        [each.messages for each in asks],
        max_new_tokens=12,
    )
    for reply, completion in zip(replies, expected, strict=True):
        assert reply.text == completion.text and reply.problem == ""
        assert reply.num_read == len(completion.prompt_token_ids)
        assert reply.num_written == len(completion.token_ids)
        assert reply.is_cut == (completion.finish_reason == "length")


def test_a_prompt_that_does_not_fit_fails_alone(generator: LocalGenerator) -> None:
    fits, too_long = ask("Name a river."), ask("river " * 5000)
    replies = generator.replies([fits, too_long], Event())
    assert replies[0] == generator.replies([fits], Event())[0]
    assert replies[1].text == "" and "window" in replies[1].problem


def test_what_a_reply_depends_on_is_its_identity(generator: LocalGenerator) -> None:
    identity = generator.identity()
    assert identity["name"] == "embedded:instruction" and identity["template"] == "tags"
    assert identity["max_new_tokens"] == 12 and identity["sampling"] == [0.0, 0, 1.0, 0.0]
    assert identity["rules"] is None
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        LocalGenerator(
            load_model("embedded"), load_tokenizer("embedded"), name="x", identity={}, batch_size=0
        )


def test_a_model_without_json_gets_its_roles_from_templates(
    generator: LocalGenerator, tmp_path: Path
) -> None:
    source = instructions(tmp_path / "instructions.json", 6)
    settings = BuildSettings(
        num_requirements=(1, 2), kinds=["punctuation:no_comma", "characters:no_digits"],
        written_share=0, plain_share=0, out_of_scope_share=0, repair_rounds=0,
    )  # fmt: skip
    both = ByStep(generator, TemplateGenerator(writes=False))
    built = build_dataset(source, tmp_path / "out", both, settings=settings)
    rows = [
        *records(built.folder / "train.jsonl"),
        *[each["example"] for each in records(built.folder / "rejected.jsonl")],
    ]
    assert built.tally.first.total == len(rows) == 6 and built.tally.unreadable == {}
    assert all(row["role"]["description"].startswith("You are the ") for row in rows)
    attempts = [
        attempt
        for each in records(built.folder / "journal.jsonl")
        for attempt in each.get("outcome", {}).get("attempts", [])
    ]
    assert len(attempts) == 6 and len({json.dumps(each) for each in attempts}) > 1
    assert both.name == "embedded:instruction, roles by templates"


def requirements_asked(*requirements: Requirement) -> Ask:
    asked = ask("Name a river.")
    stated = tuple(StatedRequirement(each, each.wording()) for each in requirements)
    return replace(asked, example=replace(asked.example, requirements=stated))


def test_responses_are_decoded_under_the_constraints_of_their_requirements(
    generator: LocalGenerator,
) -> None:
    capital = Requirement("change_case:english_capital")
    title = Requirement("detectable_format:title")
    free = Requirement("free_form:tone", text="Be calm.")
    asks = [requirements_asked(each) for each in (capital, title, free)]
    replies = generator.replies(asks, Event())
    assert capital.check(replies[0].text) and title.check(replies[1].text)
    assert [reply.note for reply in replies] == ["", "", ""]
    unconstrained = generator.replies([replace(asks[0], step="role")], Event())
    assert not capital.check(unconstrained[0].text)
    assert replies[2].text == generator.replies([ask("Name a river.")], Event())[0].text


def test_what_cannot_be_constrained_is_decoded_without_and_says_so(
    generator: LocalGenerator,
) -> None:
    long = Requirement("length_constraints:number_words", relation="at least", num_words=400)
    (reply,) = generator.replies([requirements_asked(long)], Event())
    assert reply.text and reply.problem == "" and reply.note.startswith("not constrained: ")


def test_a_sampled_reply_follows_from_its_request_not_from_its_batch() -> None:
    sampled = LocalGenerator(
        load_model("embedded:instruction"),
        load_tokenizer("embedded:instruction"),
        name="embedded:instruction",
        identity={},
        template="tags",
        sampling=Sampling(temperature=1.0),
        max_new_tokens=12,
    )
    title = requirements_asked(Requirement("detectable_format:title"))
    digits = requirements_asked(Requirement("characters:no_digits"))
    asks = [ask("Name a river.", 5), ask("Name a river.", 6), title, replace(digits, seed=9)]
    together = sampled.replies(asks, Event())
    assert together == [sampled.replies([each], Event())[0] for each in asks]
    assert together[0].text != together[1].text
