"""A language model as judge: each pair is asked in both orders."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

from rnr_kernels.endpoint import Answer, Endpoint, json_objects
from rnr_kernels.prompt_files import check_fields, fill_in, read_prompt
from rnr_kernels.tuning.win_rate import TIE, Pair, Preference

JUDGE_PROMPT = Path(__file__).parent / "judge_prompt.txt"
FIELDS = ("instruction", "output_1", "output_2")
REQUESTS_IN_FLIGHT = 8

SCORES = {"1": 1.0, "2": 0.0, "tie": TIE}
"""What a verdict is worth to response 1."""

TITLE = "the judge's prompt"


class OpenAIJudge:
    """Asks `endpoint` which response is better, A's first and then B's first.

    Two verdicts for the same response are a win. Verdicts that differ are a tie, marked as changed
    with the order. Identical responses are a tie without asking, as `alpaca_eval` has it. A pair
    has no verdict if one of its two requests has none after all tries.

    `prompt` is a text with {instruction}, {output_1} and {output_2} that asks for a JSON object
    with a "verdict" of 1, 2 or "tie", and a "reason"; the packaged one is `JUDGE_PROMPT`.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        prompt: str | None = None,
        requests_in_flight: int = REQUESTS_IN_FLIGHT,
    ) -> None:
        self._endpoint = endpoint
        self._prompt = read_judge_prompt() if prompt is None else prompt
        check_fields(self._prompt, FIELDS, TITLE)
        if requests_in_flight < 1:
            raise ValueError(f"requests_in_flight must be at least 1, got {requests_in_flight}")
        self._requests_in_flight = requests_in_flight

    @property
    def name(self) -> str:
        return self._endpoint.model

    def preferences(self, pairs: Sequence[Pair]) -> Iterator[Preference]:
        """In the pairs' order, though many are asked at once; raises as `Endpoint.ask` does."""
        stopped = Event()
        threads = ThreadPoolExecutor(self._requests_in_flight, thread_name_prefix="judge")
        try:
            yield from threads.map(lambda pair: self._preference(pair, stopped), pairs)
        finally:  # an error, Ctrl-C, or a caller that wants no more
            stopped.set()
            threads.shutdown(wait=False, cancel_futures=True)

    def _preference(self, pair: Pair, stopped: Event) -> Preference:
        a, b = pair.a.output, pair.b.output
        if a == b:
            return Preference(TIE, ("identical responses",))
        first = self._ask(pair.a.instruction, a, b, stopped)
        if first.value is None:
            return Preference(
                None, (first.problem,), failures=first.failures, nonsense=first.nonsense
            )
        second = self._ask(pair.a.instruction, b, a, stopped)
        failures = first.failures + second.failures
        nonsense = first.nonsense + second.nonsense
        if second.value is None:
            return Preference(None, (second.problem,), failures=failures, nonsense=nonsense)
        scores = first.value[0], 1 - second.value[0]
        return Preference(
            scores[0] if scores[0] == scores[1] else TIE,
            (first.value[1], second.value[1]),
            order_changed=scores[0] != scores[1],
            failures=failures,
            nonsense=nonsense,
        )

    def _ask(
        self, instruction: str, output_1: str, output_2: str, stopped: Event
    ) -> Answer[tuple[float, str]]:
        texts = dict(zip(FIELDS, (instruction, output_1, output_2), strict=True))
        prompt = fill_in(self._prompt, texts)
        return self._endpoint.ask(prompt, read_verdict, stopped=stopped)


def read_verdict(reply: str) -> tuple[float, str] | None:
    """The score of response 1 and the reason, from the last JSON object with a verdict in `reply`.

    None where there is none: the words of a model that thinks aloud first are passed over.
    """
    for record in json_objects(reply):
        score = SCORES.get(str(record.get("verdict")).strip().lower())
        if score is not None:
            return score, str(record.get("reason", ""))
    return None


def read_judge_prompt(path: Path = JUDGE_PROMPT) -> str:
    """The text of a judge's prompt; ValueError where there is no such text."""
    return read_prompt(path, TITLE)
