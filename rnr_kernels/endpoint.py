"""Asks a model behind an OpenAI-compatible endpoint, with retries that are counted."""

import json
import re
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from threading import Event
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from openai import APIError, OpenAI

MAX_TRIES = 5
TIMEOUT = 120.0
"""Seconds for one request."""
FIRST_WAIT = 1.0
"""Seconds before the first retry; doubled with each failure of a request."""
LONGEST_WAIT = 60.0

REFUSED_KEY = (401, 403)
NO_MONEY = 402
NOT_FOUND = 404
TRIED_AGAIN = (408, 409, 425, 429)
"""Besides all from 500 on."""
NOT_UNDERSTOOD = (400, 422)

T = TypeVar("T")


@dataclass(frozen=True)
class Answer(Generic[T]):
    """What was read out of a reply; None if every try failed, and then `problem` says how the last.

    `failures` counts requests that failed, `nonsense` replies out of which nothing could be read.
    """

    value: T | None
    failures: int
    nonsense: int
    problem: str = ""


@dataclass(frozen=True)
class Words:
    """What a model said, how many tokens it read and wrote (0 where its server does not count)."""

    text: str
    is_cut: bool = False
    """It stopped at a limit of tokens."""
    num_read: int = 0
    num_written: int = 0


class Endpoint:
    """A chat model at `base_url`, by default OpenAI's.

    Without `api_key` the openai client takes OPENAI_API_KEY; a server of one's own needs none.
    `max_tokens` limits a reply. `sleep` takes the place of the wait between tries, in seconds. May
    be used from many threads.
    """

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        temperature: float = 0.0,
        max_tokens: int | None = None,
        max_tries: int = MAX_TRIES,
        timeout: float = TIMEOUT,
        sleep: Callable[[float], object] | None = None,
    ) -> None:
        if not model:
            raise ValueError("the model needs a name, as its endpoint knows it")
        if base_url is not None and not _is_address(base_url):
            raise ValueError(
                "the base URL must start with http:// or https:// and name a host, as in "
                f"http://localhost:8000/v1, got {_without_secrets(base_url)!r}"
            )
        if max_tries < 1:
            raise ValueError(f"max_tries must be at least 1, got {max_tries}")
        self.model = model
        self._client = _client(base_url, api_key, timeout)
        # The client refers to itself: left to the collector, its connections stay open for long.
        weakref.finalize(self, self._client.close)
        self.temperature = temperature
        self.max_tokens = max_tokens
        self._max_tries = max_tries
        self._timeout = timeout
        self._sleep = sleep
        self._reached = False  # it has sent anything at all
        self._answered = False  # it has sent a reply of the model
        self._takes_extras = True  # it has not refused a seed or a schema

    @property
    def place(self) -> str:
        """Its address, without what may be secret in it."""
        url = urlsplit(str(self._client.base_url))
        return f"{url.scheme}://{url.netloc.rpartition('@')[2]}{url.path}".rstrip("/")

    def ask(
        self, prompt: str, parse: Callable[[str], T | None], *, stopped: Event | None = None
    ) -> Answer[T]:
        """What `parse` reads out of the model's reply; a None of it is asked again.

        Failures that may pass (no connection, HTTP 408, 409, 425, 429, 5xx, no answer in time) are
        tried again after a wait, up to `max_tries` with the replies that made no sense. Raises
        ValueError for what no retry mends: a refused key, an unknown model, a spent quota; and
        ConnectionError for an endpoint that is down: it cannot be connected to at the first
        request, or after `max_tries`, or has failed `max_tries` times before its first reply; and
        for one that has sent nothing but what is no chat model's. Sets out no further try once
        `stopped` is set.
        """
        messages = [{"role": "user", "content": prompt}]
        return self._ask(messages, {}, lambda words: parse(words.text), stopped)

    def reply(
        self,
        messages: Sequence[Mapping[str, str]],
        *,
        schema: Mapping[str, Any] | None = None,
        seed: int | None = None,
        stopped: Event | None = None,
    ) -> Answer[Words]:
        """The model's next message, retried and raised as by `ask`; an empty one is asked again.

        An endpoint that does not take a JSON `schema` or a `seed` is asked without them.
        """
        extras: dict[str, Any] = {}
        if schema is not None:
            described = {"name": "reply", "schema": schema, "strict": True}
            extras["response_format"] = {"type": "json_schema", "json_schema": described}
        if seed is not None:
            extras["seed"] = seed
        return self._ask(
            messages, extras, lambda words: words if words.text.strip() else None, stopped
        )

    def _ask(
        self,
        messages: Sequence[Mapping[str, str]],
        extras: Mapping[str, Any],
        parse: Callable[[Words], T | None],
        stopped: Event | None,
    ) -> Answer[T]:
        import openai

        failures = nonsense = 0
        problem = "interrupted"
        while failures + nonsense < self._max_tries and not (stopped and stopped.is_set()):
            try:
                words = self._words(messages, extras)
            except openai.APIError as error:
                failures += 1
                problem = self._failure(error, last=failures + nonsense == self._max_tries)
                if not _may_pass(error):
                    break
                if failures + nonsense < self._max_tries:
                    self._wait(_seconds(error, failures), stopped)
                continue
            value = parse(words)
            if value is not None:
                return Answer(value, failures, nonsense)
            nonsense += 1
            problem = "no reply could be read"
            if failures + nonsense == self._max_tries and not self._answered:
                raise ConnectionError(
                    f"{self.place} answers, but not as a chat model; check the base URL, which "
                    "often ends in /v1"
                )
        return Answer(None, failures, nonsense, problem)

    def _words(self, messages: Sequence[Mapping[str, str]], extras: Mapping[str, Any]) -> Words:
        import openai

        if not extras or not self._takes_extras:
            return self._request(messages, {})
        try:
            return self._request(messages, extras)
        except openai.APIStatusError as error:
            if error.status_code not in NOT_UNDERSTOOD:
                raise
        words = self._request(messages, {})
        self._takes_extras = False  # as only without them it worked
        return words

    def _request(self, messages: Sequence[Mapping[str, str]], extras: Mapping[str, Any]) -> Words:
        """The model's words; none for a body in which there are none."""
        body: dict[str, Any] = {
            "model": self.model,
            "messages": messages,
            "temperature": self.temperature,
            **extras,
        }
        if self.max_tokens is not None:
            body["max_tokens"] = self.max_tokens
        # The client's method for chats takes the messages apart by their types, for a third of a
        # request's processor time; the text of the answer is all that is wanted.
        text = self._client.post("/chat/completions", body=body, cast_to=str)
        self._reached = True
        try:
            found = json.loads(text)
            choice = found["choices"][0]
            content = choice["message"]["content"]
        except (ValueError, LookupError, TypeError, RecursionError):
            return Words("")
        self._answered = True
        usage = found.get("usage")
        return Words(
            content if isinstance(content, str) and _is_unicode(content) else "",
            choice.get("finish_reason") == "length",
            _count(usage, "prompt_tokens"),
            _count(usage, "completion_tokens"),
        )

    def _failure(self, error: "APIError", *, last: bool) -> str:
        """Words for a failed request; raises where trying again, or going on, is of no use."""
        status = getattr(error, "status_code", None)
        if status is None:
            # httpx's and httpx2's errors have one name; the openai client uses either.
            unconnected = type(error.__cause__).__name__ == "ConnectError"
            if unconnected and (last or not self._reached):
                raise ConnectionError(
                    f"cannot connect to {self.place}; see whether it runs, and check the base URL"
                ) from None
            problem = "the connection failed"
            if _timed_out(error):
                problem = f"no answer within {self._timeout:g} s"
        else:
            self._reached = True
            code = error.code if re.fullmatch(r"[\w.-]{1,60}", error.code or "") else None
            problem = f"HTTP {status}" + (f", {code}" if code else "")
            if status in REFUSED_KEY:
                raise ValueError(
                    f"{self.place} refuses the key ({problem}); set OPENAI_API_KEY to one it takes"
                ) from None
            if status == NOT_FOUND:
                raise ValueError(
                    f"{self.place} knows no model {self.model!r} ({problem}); check the model's "
                    "name, and whether the base URL ends as its server wants, often in /v1"
                ) from None
            if status == NO_MONEY or code == "insufficient_quota":
                raise ValueError(
                    f"the account at {self.place} has no quota left ({problem}); top it up"
                ) from None
        if last and not self._answered and _may_pass(error):
            raise ConnectionError(
                f"{self.place} fails: {self._max_tries} tries and no reply ({problem}); "
                "try again when it works"
            ) from None
        return problem

    def _wait(self, seconds: float, stopped: Event | None) -> None:
        if self._sleep is not None:
            self._sleep(seconds)
        elif stopped is not None:
            stopped.wait(seconds)
        else:
            time.sleep(seconds)


def _is_unicode(text: str) -> bool:
    """JSON may escape half of a surrogate pair, which no file of UTF-8 holds."""
    return text.isascii() or not any("\ud800" <= each <= "\udfff" for each in text)


def _without_secrets(url: str) -> str:
    """What is shown of a text that is no address: no user, password, query and fragment."""
    start, mark, rest = url.rpartition("://")
    # All before the last @, as a password may hold any of the signs that end one.
    return start.rpartition("@")[2] + mark + re.split("[?#]", rest.rpartition("@")[2])[0]


def _count(usage: object, name: str) -> int:
    value = usage.get(name) if isinstance(usage, Mapping) else None
    return value if isinstance(value, int) and value >= 0 else 0


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number
        return False


def _client(base_url: str | None, api_key: str | None, timeout: float) -> "OpenAI":
    try:
        import openai
    except ImportError:
        raise ValueError("an endpoint needs openai; pip install openai") from None
    try:
        return openai.OpenAI(api_key=api_key, base_url=base_url, timeout=timeout, max_retries=0)
    except openai.OpenAIError:
        if base_url is None:
            raise ValueError(
                "OPENAI_API_KEY is not set; set it, or give the base URL of another endpoint"
            ) from None
        return openai.OpenAI(api_key="none", base_url=base_url, timeout=timeout, max_retries=0)


def _timed_out(error: "APIError") -> bool:
    import openai

    return isinstance(error, openai.APITimeoutError)


def _may_pass(error: "APIError") -> bool:
    status = getattr(error, "status_code", None)
    return status is None or status in TRIED_AGAIN or status >= 500


def _seconds(error: "APIError", failures: int) -> float:
    """How long to wait: doubled with each failure, and as long as the endpoint asks for."""
    wait: float = FIRST_WAIT * 2 ** (failures - 1)
    response = getattr(error, "response", None)
    asked = "" if response is None else str(response.headers.get("retry-after", ""))
    if re.fullmatch(r"\d+(\.\d+)?", asked):
        wait = max(wait, float(asked))
    return min(wait, LONGEST_WAIT)


def json_objects(reply: str) -> Iterator[dict[str, Any]]:
    """The JSON objects in a reply, the last first, and those inside of others too.

    Words around them are passed over: a model may think aloud first, or fence its answer.
    """
    decoder = json.JSONDecoder()
    for start in reversed([found.start() for found in re.finditer(r"\{", reply)]):
        try:
            record, _ = decoder.raw_decode(reply, start)
        except (ValueError, RecursionError):
            continue
        yield record
