"""An endpoint that goes away rejects nothing: the same command asks again, and the files agree."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from fake_endpoint import Behaviour, Failure, Reply, fake_endpoint
from role_builds import finished, follows, records, step_of
from test_roles_build_endpoint import KEY, WRITTEN, built

from rnr_kernels.endpoint import Endpoint
from rnr_kernels.roles.judge import EndpointJudge
from rnr_kernels.roles.pipeline.asks import Reply as Said
from rnr_kernels.roles.pipeline.unanswered import MOST_FAILURES, Unanswered
from rnr_kernels.roles.verdict import Verdict

BUSY = Failure(503)
YES = '{"reason": "calm", "followed": true}'


def until(most: int, behaviour: Behaviour, failure: Reply = BUSY) -> Behaviour:
    """Answers so many requests, and then never again."""
    answered = 0

    def behaves(prompt: str, before: int) -> Reply:
        nonlocal answered
        answered += 1
        return behaviour(prompt, before) if answered <= most else failure

    return behaves


def outcomes(folder: Path) -> list[dict[str, Any]]:
    """Those of a build's journal."""
    return [each for each in records(folder / "journal.jsonl") if "outcome" in each]


@pytest.mark.parametrize("failure", [Failure(503), Failure(429), None], ids=str)
def test_an_endpoint_that_never_comes_back_rejects_nothing(tmp_path: Path, failure: Reply) -> None:
    (tmp_path / "whole").mkdir()
    built(tmp_path / "whole", follows, count=30)
    for answers in (60, 25):
        words = (
            r"writer-1 no longer answers: nothing came of \d+ requests .*asks for the rest again"
        )
        with pytest.raises(ConnectionError, match=words):
            built(tmp_path, until(answers, follows, failure), count=30, max_tries=2)
        lines = records(tmp_path / "out" / "journal.jsonl")
        assert not any("problem" in each.get("reply", {}) for each in lines)
        assert not any(each["outcome"]["step"] for each in outcomes(tmp_path / "out"))
        assert not (tmp_path / "out" / "README.md").exists()
    done, server = built(tmp_path, follows, count=30)
    assert done.tally.num_accepted == 30 and len(server.requests) == 90 - 85
    assert finished(tmp_path / "out") == finished(tmp_path / "whole" / "out")


@pytest.mark.parametrize("count", [20, 60])
def test_a_judge_that_goes_away_rejects_nothing(tmp_path: Path, count: int) -> None:
    def judged(folder: Path, behaviour: Behaviour) -> int:
        with fake_endpoint(behaviour) as server:
            endpoint = Endpoint(
                "judge-1", base_url=server.url, api_key=KEY, max_tries=2, sleep=lambda seconds: None
            )
            judge = EndpointJudge(endpoint)
            built(folder, follows, count=count, settings=WRITTEN, judge=judge)
            return len(server.requests)

    (tmp_path / "whole").mkdir()
    judged(tmp_path / "whole", lambda prompt, before: YES)
    words = r"judge-1 (no longer answers|has not answered 32 requests in a row).*asks for the rest"
    with pytest.raises(ConnectionError, match=words):
        judged(tmp_path, until(10, lambda prompt, before: YES))
    assert judged(tmp_path, lambda prompt, before: YES) == count - 10
    assert finished(tmp_path / "out") == finished(tmp_path / "whole" / "out")


def test_a_request_that_fails_by_itself_at_the_end_is_one_of_its_example(tmp_path: Path) -> None:
    asked: list[str] = []

    def fails_at_conflicts(prompt: str, before: int) -> Reply:
        asked.append(prompt)
        return BUSY if step_of(prompt) == "conflict" else follows(prompt, before)

    # A model that still says yes is there: the example is out, and with it all there were.
    with pytest.raises(ValueError, match="any of 1 examples; for the last: no reply: HTTP 503"):
        built(tmp_path, fails_at_conflicts, count=1, max_tries=2)
    assert asked[-1] == "Say yes."
    assert outcomes(tmp_path / "out")[0]["outcome"]["step"] == "conflict"


def test_a_small_build_of_nothing_of_use_asks_again_too(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"any of 3 examples; .*the same command asks about them"):
        built(tmp_path, lambda prompt, before: "Hm.", count=3)
    done, server = built(tmp_path, follows, count=3)
    assert done.tally.num_accepted == 3 and len(server.requests) == 9
    assert built(tmp_path, follows, count=3)[1].requests == []


@dataclass(frozen=True)
class Came:
    heard: Said | Verdict
    sent: float
    came: float


def test_only_an_answer_to_a_later_request_settles_a_failure() -> None:
    failures: Unanswered[Came] = Unanswered("m", lambda failed: "down")
    failed = Came(Said("", "HTTP 503"), sent=1.0, came=4.0)
    sent_before, sent_after = Came(Said("a"), 3.0, 5.0), Came(Said("b"), 4.5, 6.0)
    assert failures.take(failed) == []
    assert failures.take(sent_before) == [sent_before] and len(failures) == 1
    assert failures.take(sent_after) == [failed, sent_after] and len(failures) == 0
    undecided = Came(Verdict(False, "HTTP 503", undecided=True), 7.0, 8.0)
    for _ in range(MOST_FAILURES - 1):
        assert failures.take(undecided) == []
    with pytest.raises(ConnectionError, match="m has not answered 32 requests in a row"):
        failures.take(undecided)


def test_plain_examples_between_do_not_hide_that_a_model_gives_nothing_of_use(
    tmp_path: Path,
) -> None:
    settings = replace(WRITTEN, plain_share=0.3)
    with pytest.raises(ValueError, match="nothing of use for 32 examples in a row"):
        built(tmp_path, lambda prompt, before: "Hm.", count=80, settings=settings)
    assert all(each["outcome"]["is_plain"] for each in outcomes(tmp_path / "out"))
