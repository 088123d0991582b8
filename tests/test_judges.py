"""A model as judge: both orders, retries that are counted, and what ends a run at once."""

import json
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from fake_endpoint import (
    CUT,
    Behaviour,
    Body,
    Failure,
    FakeEndpoint,
    Reply,
    fake_endpoint,
    longer_wins,
    responses_in,
)

from rnr_kernels.endpoint import Endpoint
from rnr_kernels.records import ModelOutput
from rnr_kernels.tuning.judges import OpenAIJudge, read_judge_prompt, read_verdict
from rnr_kernels.tuning.win_rate import Pair, Preference

KEY = "sk-secret"


def pair(a: str, b: str, instruction: str = "Say it.") -> Pair:
    return Pair(ModelOutput(instruction, a, "x"), ModelOutput(instruction, b, "y"))


def endpoint_at(url: str, slept: list[float], *, max_tries: int = 5) -> Endpoint:
    return Endpoint(
        "judge-1", base_url=url, api_key=KEY, max_tries=max_tries, sleep=slept.append, timeout=20
    )


def judged(
    behaviour: Behaviour, pairs: Sequence[Pair], *, max_tries: int = 5
) -> tuple[list[Preference], FakeEndpoint, list[float]]:
    slept: list[float] = []
    with fake_endpoint(behaviour) as server:
        judge = OpenAIJudge(endpoint_at(server.url, slept, max_tries=max_tries))
        return list(judge.preferences(pairs)), server, slept


def test_both_orders_are_asked_of_the_named_model_at_temperature_0() -> None:
    (preference,), server, slept = judged(longer_wins, [pair("longer", "short")])
    assert preference == Preference(1.0, ("longer", "longer"))
    assert [responses_in(p) for p in server.prompts] == [("longer", "short"), ("short", "longer")]
    assert {(r["model"], r["temperature"]) for r in server.requests} == {("judge-1", 0.0)}
    assert server.keys == [f"Bearer {KEY}"] * 2 and slept == []


def test_a_verdict_that_changes_with_the_order_is_a_tie() -> None:
    def tie_then_second(prompt: str, before: int) -> str:
        return json.dumps({"verdict": "tie" if responses_in(prompt)[0] == "a" else 2})

    def first(prompt: str, before: int) -> str:
        return '{"reason": "first", "verdict": 1}'

    def tie(prompt: str, before: int) -> str:
        return '{"verdict": "Tie"}'

    assert judged(first, [pair("a", "b")])[0] == [
        Preference(0.5, ("first", "first"), order_changed=True)
    ]
    assert judged(tie_then_second, [pair("a", "b")])[0][0].order_changed
    assert judged(tie, [pair("a", "b")])[0] == [Preference(0.5, ("", ""))]


def test_identical_responses_are_tied_without_asking() -> None:
    preferences, server, _ = judged(longer_wins, [pair("a", "a"), pair("", "")])
    assert [each.score for each in preferences] == [0.5, 0.5] and server.requests == []


def test_preferences_come_in_the_pairs_order() -> None:
    pairs = [pair("x" * n, "x" * 9, f"Say {n}.") for n in range(20)]
    preferences, server, _ = judged(longer_wins, pairs)
    assert [each.score for each in preferences] == [0.0] * 9 + [0.5] + [1.0] * 10
    assert len(server.requests) == 38


def test_what_passes_is_tried_again_and_counted() -> None:
    troubles: list[Reply] = [
        Failure(429), Failure(500), CUT, "Both are fine.", None, '{"verdict": 3}',
        '{"verdict": true}', Body("<html>"), Body("[]"), Body('{"choices": []}'),
    ]  # fmt: skip

    def behaviour(prompt: str, before: int) -> Reply:
        if responses_in(prompt)[0] == "longer" and before < len(troubles):
            return troubles[before]
        return longer_wins(prompt, before)

    (preference,), server, slept = judged(behaviour, [pair("longer", "short")], max_tries=11)
    assert preference == Preference(1.0, ("longer", "longer"), failures=3, nonsense=7)
    assert len(server.requests) == 12 and slept == [1.0, 2.0, 4.0]


def test_the_wait_is_as_long_as_the_endpoint_asks_and_at_most_a_minute() -> None:
    asked = [{"Retry-After": "7"}, {"Retry-After": "3600"}, {"Retry-After": "Mon, 1 Jan"}]

    def behaviour(prompt: str, before: int) -> Reply:
        if responses_in(prompt)[0] == "a" and before < 3:
            return Failure(429, headers=asked[before])
        return longer_wins(prompt, before)

    assert judged(behaviour, [pair("a", "bb")])[2] == [7.0, 60.0, 4.0]


def test_a_pair_without_verdict_after_all_tries() -> None:
    def behaviour(prompt: str, before: int) -> Reply:
        if "gibberish" in prompt:
            return "no idea"
        return Failure(503) if "down" in prompt and before >= 1 else longer_wins(prompt, before)

    pairs = [pair("a", "bb"), pair("a", "gibberish"), pair("bb", "a", "down")]
    slept: list[float] = []
    with fake_endpoint(behaviour) as server:
        judge = OpenAIJudge(endpoint_at(server.url, slept, max_tries=3), requests_in_flight=1)
        assert list(judge.preferences(pairs)) == [
            Preference(0.0, ("longer", "longer")),
            Preference(None, ("no reply could be read",), nonsense=3),
            Preference(1.0, ("longer", "longer")),
        ]
        assert list(judge.preferences(pairs[2:])) == [Preference(None, ("HTTP 503",), failures=3)]
    assert slept == [1.0, 2.0]


def test_a_request_that_the_endpoint_will_never_take_is_not_repeated() -> None:
    def behaviour(prompt: str, before: int) -> Reply:
        if "long" in prompt:
            return Failure(400, "context_length_exceeded")
        return longer_wins(prompt, before)

    preferences, server, slept = judged(behaviour, [pair("long", "b"), pair("bb", "a")])
    assert preferences[0] == Preference(None, ("HTTP 400, context_length_exceeded",), failures=1)
    assert preferences[1].score == 1.0
    assert len(server.requests) == 3 and slept == []


@pytest.mark.parametrize(
    ("failure", "error", "words"),
    [
        (Failure(401), ValueError, "refuses the key (HTTP 401); set OPENAI_API_KEY"),
        (Failure(404, "model_not_found"), ValueError,
         "knows no model 'judge-1' (HTTP 404, model_not_found); check the model's name"),
        (Failure(429, "insufficient_quota"), ValueError, "has no quota left (HTTP 429"),
        (Failure(402), ValueError, "has no quota left (HTTP 402)"),
        (Failure(500), ConnectionError, "fails: 2 tries and no reply (HTTP 500)"),
        (CUT, ConnectionError, "fails: 2 tries and no reply (the connection failed)"),
    ],
    ids=str,
)  # fmt: skip
def test_what_no_retry_mends_ends_the_run(
    failure: Failure, error: type[Exception], words: str
) -> None:
    with pytest.raises(error) as raised:
        judged(lambda prompt, before: failure, [pair("secret a", "b"), pair("c", "d")], max_tries=2)
    text = str(raised.value)
    assert words in text and "http://127.0.0.1:" in text
    assert KEY not in text and "secret" not in text and "\n" not in text
    assert raised.value.__cause__ is None and raised.value.__suppress_context__


@contextmanager
def closed_port() -> Iterator[int]:
    """A port on which nothing listens, kept from others."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


def test_an_endpoint_that_is_down_ends_the_run_at_once() -> None:
    slept: list[float] = []
    with closed_port() as port:
        endpoint = endpoint_at(f"http://user:pass@127.0.0.1:{port}/v1", slept)
        with pytest.raises(ConnectionError) as raised:
            list(OpenAIJudge(endpoint).preferences([pair("a", "b")]))
    assert str(raised.value).startswith(f"cannot connect to http://127.0.0.1:{port}/v1; see")
    assert slept == []


def test_an_endpoint_that_goes_down_is_waited_for_then_ends_the_run() -> None:
    slept: list[float] = []
    with fake_endpoint(lambda prompt, before: Failure(503)) as server:
        endpoint = endpoint_at(server.url, slept, max_tries=3)
        with pytest.raises(ConnectionError, match="no reply \\(HTTP 503\\)"):
            endpoint.ask("p", read_verdict)
    with pytest.raises(ConnectionError, match="cannot connect to"):
        endpoint.ask("p", read_verdict)
    assert slept == [1.0, 2.0, 1.0, 2.0]


def test_a_caller_that_stops_early_stops_the_asking() -> None:
    with fake_endpoint(longer_wins) as server:
        judge = OpenAIJudge(endpoint_at(server.url, []), requests_in_flight=1)
        preferences = judge.preferences([pair("aa", "b", f"Say {n}.") for n in range(200)])
        assert next(preferences).score == 1.0
        preferences.close()  # type: ignore[attr-defined]
    assert len(server.requests) < 400


def test_a_field_named_in_a_response_is_not_filled_in() -> None:
    with fake_endpoint(longer_wins) as server:
        judge = OpenAIJudge(
            endpoint_at(server.url, []),
            prompt="{instruction} {x}\n<response_1>\n{output_1}\n</response_1>\n"
            "<response_2>\n{output_2}\n</response_2>",
        )
        list(judge.preferences([pair("{output_2}", "{instruction}!", "Go")]))
    assert responses_in(server.prompts[0]) == ("{output_2}", "{instruction}!")
    assert server.prompts[0].startswith("Go {x}\n")


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ('{"reason": "r", "verdict": 1}', (1.0, "r")),
        ('```json\n{"verdict": "2", "reason": "r"}\n```', (0.0, "r")),
        ('{"verdict": 1} or rather {"verdict": "tie"}', (0.5, "")),
        ('Say {"a": 1} {"verdict": 2} {done', (0.0, "")),
        ('{"verdict": 0}', None),
        ('{"verdict": null}', None),
        ("1", None),
        ("", None),
        ('{"a":' * 3000, None),
    ],
)
def test_the_last_verdict_in_a_reply_counts(reply: str, expected: tuple[float, str] | None) -> None:
    assert read_verdict(reply) == expected


def test_the_packaged_prompt_has_every_field_once() -> None:
    prompt = read_judge_prompt()
    assert [prompt.count(f) for f in ("{instruction}", "{output_1}", "{output_2}")] == [1, 1, 1]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"base_url": "localhost:8000/v1"}, "must start with http:// or https://"),
        ({"base_url": "http://"}, "and name a host"),
        ({"base_url": "http://h:port/v1"}, "as in http://localhost:8000/v1"),
        ({"model": ""}, "needs a name"),
        ({"max_tries": 0}, "max_tries must be at least 1, got 0"),
    ],
)
def test_an_endpoint_that_cannot_be(options: dict[str, str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Endpoint(**{"model": "m", "base_url": "http://h/v1", **options})  # type: ignore[arg-type]


def test_a_key_is_needed_for_openais_own_endpoint_only(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_ADMIN_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ValueError, match="OPENAI_API_KEY is not set; set it, or"):
        Endpoint("m")
    assert Endpoint("m", base_url="http://h:1/v1").place == "http://h:1/v1"


def test_a_prompt_that_lacks_a_field_or_cannot_be_read(tmp_path: Path) -> None:
    endpoint = Endpoint("m", base_url="http://h/v1")
    with pytest.raises(ValueError, match=r"lacks \{instruction\}, \{output_2\}; put it in"):
        OpenAIJudge(endpoint, prompt="{output_1}")
    with pytest.raises(ValueError, match="requests_in_flight must be at least 1, got 0"):
        OpenAIJudge(endpoint, requests_in_flight=0)
    with pytest.raises(ValueError, match=r"cannot read the judge's prompt .*: No such file"):
        read_judge_prompt(tmp_path / "none.txt")
    (tmp_path / "latin.txt").write_bytes(b"\xe9")
    with pytest.raises(ValueError, match="is not UTF-8 text"):
        read_judge_prompt(tmp_path / "latin.txt")
