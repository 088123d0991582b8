"""The pass rate in numbers that a reader can count."""

import json
from dataclasses import replace
from threading import Barrier

import pytest
from role_examples import CLERK, NO_COMMA, THREE, WordJudge, example, says

from rnr_kernels.intervals import bootstrap_interval, ratio_interval
from rnr_kernels.roles.example import Example, StatedRequirement
from rnr_kernels.roles.findings import Findings, role_checks
from rnr_kernels.roles.pass_rate import PassRate, pass_rate
from rnr_kernels.roles.rates import Rate
from rnr_kernels.roles.requirement import Requirement
from rnr_kernels.roles.verdict import Verdict


def counts(rate: Rate | None) -> tuple[int, int, int] | None:
    """Followed strictly, followed loosely, all."""
    if rate is None:
        return None
    assert rate.strict.total == rate.loose.total
    return rate.strict.followed, rate.loose.followed, rate.strict.total


def three() -> PassRate:
    return pass_rate(THREE, judge=WordJudge())


def test_all_requirements_and_each_are_counted_strict_and_loose() -> None:
    rate = three()
    assert counts(rate.all_followed) == (1, 2, 3)
    assert counts(rate.each_followed) == (2, 3, 5)
    assert rate.all_followed is not None
    assert rate.all_followed.strict.value == pytest.approx(1 / 3)
    assert (rate.num_skipped, rate.num_undecided) == (0, 0)


def test_rates_by_number_of_requirements_by_kind_and_by_requirement() -> None:
    rate = three()
    assert {n: counts(each) for n, each in rate.by_count.items()} == {1: (0, 1, 1), 2: (1, 1, 2)}
    assert {kind: counts(each) for kind, each in rate.by_kind.items()} == {
        "free_form:tone": (1, 1, 2),
        "punctuation:no_comma": (1, 2, 3),
    }
    more = [*THREE, example("4", says("no"), says("aye"), response="no, no")]
    by_requirement = pass_rate(more, judge=WordJudge()).by_requirement
    assert {each: counts(rate) for each, rate in by_requirement.items()} == {
        NO_COMMA: (1, 2, 3),
        says("aye"): (1, 1, 3),
        says("no"): (1, 1, 1),
    }


def test_every_verdict_keeps_its_reason() -> None:
    first, second, third = three().findings
    assert [each.strict for each in first.requirements] == [
        Verdict(True),
        Verdict(True, "looked for aye"),
    ]
    assert second.requirements[0].strict == Verdict(False, "1 comma")
    assert second.requirements[0].loose == Verdict(True)
    assert not second.all_followed() and second.all_followed(loose=True)
    assert third.num_followed() == 0 and third.example == THREE[2]


def test_intervals_are_bootstraps_over_examples() -> None:
    rate = three()
    assert rate.all_followed is not None and rate.each_followed is not None
    assert rate.all_followed.strict.interval == bootstrap_interval([1, 0, 0])
    assert rate.each_followed.strict.interval == ratio_interval([2, 0, 0], [2, 1, 2])
    assert rate.each_followed.loose.interval == ratio_interval([2, 1, 0], [2, 1, 2])


@pytest.mark.parametrize(
    ("count", "margin"), [(1, 0.975), (2, 1 - 0.025**0.5), (41, 0.0860438362940334)]
)
def test_a_rate_of_none_or_all_has_an_exact_interval(count: int, margin: float) -> None:
    examples = [example(str(n), NO_COMMA, NO_COMMA) for n in range(count)]
    none, every = pass_rate(examples, ["a, b"] * count), pass_rate(examples, ["a"] * count)
    for rate in (none.all_followed, none.each_followed):
        assert rate is not None
        assert rate.strict.interval == (0.0, pytest.approx(margin, rel=1e-12))
    for rate in (every.all_followed, every.each_followed):
        assert rate is not None
        assert rate.strict.interval == (pytest.approx(1 - margin, abs=1e-12), 1.0)


def test_equal_partial_shares_are_not_certain() -> None:
    digits = example("1", NO_COMMA, Requirement("characters:no_digits"))
    (one,) = [pass_rate([digits], ["a, b"]).each_followed]
    assert one is not None and (one.strict.followed, one.strict.total) == (1, 2)
    assert one.strict.interval == (0.0, 1.0)
    ten = [replace(digits, id=str(n)) for n in range(10)]
    every = pass_rate(ten, ["a, b"] * 10).each_followed
    # 5 of 10, as tables of Clopper and Pearson's interval have it.
    assert every is not None
    assert every.strict.interval == pytest.approx((0.187086, 0.812914), abs=1e-6)


def test_given_responses_take_the_place_of_the_examples_own() -> None:
    rate = pass_rate(THREE, ["aye", "aye, aye", "aye"], judge=WordJudge())
    assert counts(rate.all_followed) == (2, 2, 3)
    assert [each.example.response for each in rate.findings] == ["aye", "aye, aye", "aye"]


def test_an_empty_response_follows_nothing_and_no_judge_is_asked() -> None:
    judge = WordJudge()
    rate = pass_rate(THREE, ["", " \n", "\t"], judge=judge)
    assert counts(rate.each_followed) == (0, 0, 5) and judge.asked == []
    assert rate.findings[0].requirements[1].strict.reason == "the response is empty"


def test_examples_without_requirements_do_not_count() -> None:
    rate = pass_rate([*THREE, example("4", response="Plain, it is.")], judge=WordJudge())
    assert counts(rate.all_followed) == (1, 2, 3) and list(rate.by_count) == [1, 2]
    nothing = pass_rate([example("4", response="Plain.")])
    assert nothing.all_followed is None and nothing.each_followed is None
    assert nothing.by_count == nothing.by_kind == nothing.by_requirement == {}
    json.dumps(nothing.as_record())


def test_what_needs_a_judge_is_refused_without_one_or_left_out_and_counted() -> None:
    with pytest.raises(ValueError, match=r"2 of 3 examples, the first of them '1', .* a judge"):
        pass_rate(THREE)
    rate = pass_rate(THREE, skip_judged=True)
    assert counts(rate.all_followed) == (1, 2, 3) and counts(rate.each_followed) == (1, 2, 3)
    assert list(rate.by_count) == [1] and list(rate.by_kind) == ["punctuation:no_comma"]
    assert rate.num_skipped == 2
    only_judged = pass_rate([example("1", says("aye"), response="aye")], skip_judged=True)
    assert only_judged.all_followed is None and only_judged.num_skipped == 1


def test_a_verdict_that_a_judge_cannot_reach_is_no_pass() -> None:
    rate = pass_rate(THREE, ["aye (fail)", "aye", "aye"], judge=WordJudge())
    assert counts(rate.all_followed) == (2, 2, 3) and rate.num_undecided == 1
    record = rate.as_record()
    assert record["undecided"] == 1
    assert record["examples"][0]["requirements"][1] == {
        "kind": "free_form:tone", "parameters": '{"text": "Say aye"}', "wording": "Say aye",
        "strict": False, "loose": False, "undecided": True,
        "reason": "the judge came to no verdict: HTTP 503",
    }  # fmt: skip


def test_a_judge_sees_the_wording_the_example_and_the_response() -> None:
    judge = WordJudge()
    asked = replace(THREE[0], requirements=(StatedRequirement(says("aye"), "Please do Say aye"),))
    unworded = replace(THREE[2], requirements=(StatedRequirement(says("no"), ""),))
    pass_rate([asked, unworded], judge=judge, requests_in_flight=1)
    assert judge.asked == [("Please do Say aye", "1", "It is aye."), ("Say no", "3", "No, no.")]


def test_a_judge_is_asked_several_questions_at_once() -> None:
    barrier = Barrier(4, timeout=20)

    class Together(WordJudge):
        def verdict(self, requirement: str, example: Example, response: str) -> Verdict:
            barrier.wait()
            return super().verdict(requirement, example, response)

    examples = [example(str(n), says("aye"), response="aye") for n in range(8)]
    rate = pass_rate(examples, judge=Together(), requests_in_flight=4)
    assert counts(rate.all_followed) == (8, 8, 8)


def test_what_a_judge_raises_ends_the_run_after_what_is_finished() -> None:
    class Refused(WordJudge):
        def verdict(self, requirement: str, example: Example, response: str) -> Verdict:
            if example.id == "3":
                raise ValueError("refuses the key")
            return super().verdict(requirement, example, response)

    finished: list[Findings] = []
    with pytest.raises(ValueError, match="refuses the key"):
        pass_rate(THREE, judge=Refused(), on_findings=finished.append)
    assert [each.example.id for each in finished] == ["1", "2"]


IN = {"role": CLERK, "response": "The clerk says nine."}
OUT = {"role": CLERK, "response": "Ask elsewhere.", "in_scope": False}


def test_following_the_role_is_counted_apart_from_the_requirements() -> None:
    keeps, declines = (says("clerk", "free_form:persona"), NO_COMMA), (says("elsewhere."),)
    examples = [
        example("1", NO_COMMA, role_checks=keeps, **IN),  # type: ignore[arg-type]
        example("2", NO_COMMA, role_checks=keeps, role=CLERK, response="Clerk\nnine, sir."),
        example("3", NO_COMMA, role_checks=declines, **OUT),  # type: ignore[arg-type]
        example("4", role_checks=declines, role=CLERK, response="Nine.", in_scope=False),
    ]
    rate = pass_rate(examples, judge=WordJudge())
    assert counts(rate.role_kept) == (1, 1, 2) and counts(rate.role_declined) == (1, 1, 2)
    assert counts(rate.all_followed) == (2, 3, 3)
    assert counts(rate.in_scope) == (1, 2, 2) and counts(rate.out_of_scope) == (1, 1, 1)
    assert list(rate.by_kind) == ["punctuation:no_comma"]
    assert [each.role_followed() for each in rate.findings] == [True, False, True, False]
    with pytest.raises(ValueError, match="4 of 4 examples"):
        pass_rate(examples)
    skipped = pass_rate(examples, skip_judged=True)
    assert counts(skipped.role_kept) == (1, 2, 2) and skipped.role_declined is None
    assert skipped.num_skipped == 4


def test_role_checks_of_programs_need_no_judge() -> None:
    examples = [
        example("1", role_checks=(NO_COMMA,), **IN),  # type: ignore[arg-type]
        example("2", role_checks=(NO_COMMA,), role=CLERK, response="No, sir.", in_scope=False),
    ]
    rate = pass_rate(examples)
    assert counts(rate.role_kept) == (1, 1, 1) and counts(rate.role_declined) == (0, 0, 1)


def test_a_role_without_checks_is_the_judges_where_there_is_one() -> None:
    inside, outside = example("1", **IN), example("2", **OUT)  # type: ignore[arg-type]
    (kept,), (declined,) = role_checks(inside), role_checks(outside)
    assert kept.requirement.kind == "free_form:persona" and "(Harbour clerk)" in kept.wording
    assert declined.requirement.kind == "free_form:refusal" and "declines" in declined.wording
    assert role_checks(example("3", response="Nine.")) == ()
    judge = WordJudge()
    rate = pass_rate([inside, outside], judge=judge)
    assert {asked[:2] for asked in judge.asked} == {(kept.wording, "1"), (declined.wording, "2")}
    assert counts(rate.role_kept) == (0, 0, 1) and counts(rate.role_declined) == (0, 0, 1)
    without = pass_rate([inside, outside])
    assert without.role_kept is None and without.num_skipped == 0


@pytest.mark.parametrize(
    ("examples", "responses", "message"),
    [
        ([], None, "there are no examples"),
        ([example("1", NO_COMMA)], None, "example '1' has no response; give the responses"),
        ([THREE[1]], [], "there must be 1 responses, one an example, got 0"),
        ([THREE[1]], "a", "there must be 1 responses"),
        ([THREE[1]], ["\ud800"], "the response to example '2' is not valid Unicode"),
        ([THREE[1], THREE[1]], None, "an id comes twice"),
    ],
)
def test_what_cannot_be_evaluated(
    examples: list[Example], responses: list[str] | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        pass_rate(examples, responses)


def test_requests_in_flight_are_at_least_one() -> None:
    with pytest.raises(ValueError, match="requests_in_flight must be at least 1, got 0"):
        pass_rate(THREE, judge=WordJudge(), requests_in_flight=0)


def test_the_record_holds_every_rate_and_verdict() -> None:
    record = json.loads(json.dumps(three().as_record()))
    rates = record["rates"]
    assert rates["all_followed"]["strict"] == {
        "rate": pytest.approx(1 / 3), "interval": list(bootstrap_interval([1, 0, 0])),
        "followed": 1, "total": 3,
    }  # fmt: skip
    assert rates["out_of_scope"] is None and rates["role_kept"] is None
    assert set(rates["by_count"]) == {"1", "2"}
    assert [each["kind"] for each in rates["by_requirement"]] == [
        "punctuation:no_comma", "free_form:tone",
    ]  # fmt: skip
    assert record["examples"][1] == {
        "id": "2", "in_scope": True, "instruction": "Question 2?",
        "response": "Well, sure:\nIt is.", "role": [], "skipped": 0,
        "requirements": [
            {
                "kind": "punctuation:no_comma", "parameters": "{}",
                "wording": THREE[1].requirements[0].wording,
                "strict": False, "loose": True, "undecided": False, "reason": "1 comma",
            }
        ],
    }  # fmt: skip
