"""Two systems on the same examples: McNemar's exact test, by hand."""

import json
from dataclasses import replace
from math import comb

import pytest
from role_examples import NO_COMMA, THREE, WordJudge, example, says

from rnr_kernels.intervals import bootstrap_interval, ratio_interval
from rnr_kernels.roles.compare import compare
from rnr_kernels.roles.evaluation import Evaluation
from rnr_kernels.roles.pass_rate import PassRate, pass_rate

GOOD, BAD = "Fine.", "Bad, bad."


def rates(pairs: list[tuple[str, str]]) -> tuple[PassRate, PassRate]:
    examples = [example(str(n), NO_COMMA) for n in range(len(pairs))]
    a, b = zip(*pairs, strict=True)
    return pass_rate(examples, a), pass_rate(examples, b)


@pytest.mark.parametrize(
    ("only_a", "only_b", "p_value"),
    [
        (0, 0, 1.0),
        (1, 0, 1.0),
        (3, 3, 1.0),
        (5, 0, 2 / 2**5),
        (0, 5, 2 / 2**5),
        (8, 2, 2 * (1 + 10 + comb(10, 2)) / 2**10),
        (2, 9, 2 * (1 + 11 + comb(11, 2)) / 2**11),
    ],
)
def test_mcnemars_exact_test_is_a_binomial_of_what_only_one_follows(
    only_a: int, only_b: int, p_value: float
) -> None:
    pairs = [(GOOD, BAD)] * only_a + [(BAD, GOOD)] * only_b + [(GOOD, GOOD)] * 3 + [(BAD, BAD)] * 2
    found = compare(*rates(pairs))
    assert (found.both, found.only_a, found.only_b, found.neither) == (3, only_a, only_b, 2)
    assert found.p_value == pytest.approx(p_value, rel=1e-12)
    assert found.all_followed.value == pytest.approx((only_a - only_b) / len(pairs))


def test_differences_are_paired_by_example() -> None:
    examples = [example("1", NO_COMMA, says("aye")), example("2", NO_COMMA), example("3")]
    a = pass_rate(examples, ["aye", "x, y", "x"], judge=WordJudge())
    b = pass_rate(examples, ["no, no", "x", "x, y"], judge=WordJudge())
    found = compare(a, b)
    assert (found.only_a, found.only_b) == (1, 1)  # the example without requirements is left out
    assert found.all_followed.value == 0
    assert found.all_followed.interval == bootstrap_interval([1, -1])
    assert found.each_followed.value == pytest.approx((2 - 0 + 0 - 1) / 3)
    assert found.each_followed.interval == ratio_interval([2, -1], [2, 1])


def test_the_order_of_the_examples_does_not_matter() -> None:
    a, b = rates([(GOOD, BAD), (BAD, BAD), (GOOD, GOOD)])
    assert compare(a, replace(b, findings=b.findings[::-1])) == compare(a, b)


def test_loose_verdicts_on_demand() -> None:
    a, b = pass_rate(THREE[1:2]), pass_rate(THREE[1:2], [BAD])
    assert compare(a, b).neither == 1 and compare(a, b, loose=True).only_a == 1


def test_what_cannot_be_compared() -> None:
    a, _ = rates([(GOOD, BAD)])
    other = pass_rate([example("x", NO_COMMA)], [GOOD])
    with pytest.raises(ValueError, match="2 examples are of one system only, such as '0'"):
        compare(a, other)
    with pytest.raises(ValueError, match="example '0' has other requirements in one system"):
        compare(a, pass_rate([example("0", NO_COMMA, NO_COMMA)], [GOOD]))
    plain = pass_rate([example("x")], [GOOD])
    with pytest.raises(ValueError, match="no example has a requirement"):
        compare(plain, plain)
    with pytest.raises(ValueError, match="both with a judge or both without"):
        compare(pass_rate(THREE, judge=WordJudge()), pass_rate(THREE, skip_judged=True))


def test_an_evaluation_holds_systems_and_their_comparison() -> None:
    a, b = rates([(GOOD, BAD)] * 5)
    record = json.loads(json.dumps(Evaluation({"a": a, "b": b}).as_record()))
    assert [each["name"] for each in record["systems"]] == ["a", "b"]
    assert record["comparison"]["strict"]["p_value"] == 2 / 2**5
    assert record["comparison"]["loose"]["all_followed"] == {"value": 1.0, "interval": [1.0, 1.0]}
    assert Evaluation({"a": a}).as_record()["comparison"] is None
