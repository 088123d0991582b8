"""Judges of requirements that no program can check."""

from pathlib import Path
from threading import Event, Lock
from typing import TYPE_CHECKING, Any, Protocol

from rnr_kernels.endpoint import Endpoint, json_objects
from rnr_kernels.prompt_files import check_fields, fill_in, mark_of, read_prompt
from rnr_kernels.roles.verdict import Verdict

if TYPE_CHECKING:
    from rnr_kernels.roles.example import Example

JUDGE_PROMPT = Path(__file__).parent / "judge_prompt.txt"
PROMPT_TITLE = "the judge's prompt"
NEEDED_FIELDS = ("requirement", "response")
LONGEST_REASON = 400
"""Characters of a judge's reason that are kept."""


class Judge(Protocol):
    """Judges responses; may be asked from many threads at once."""

    def verdict(self, requirement: str, example: "Example", response: str) -> Verdict:
        """Whether a response to the example's conversation follows a requirement, and why.

        An undecided verdict where the judge failed on this one. Raises ValueError or OSError where
        it would fail on all.
        """


def name_of(judge: Judge | None) -> str:
    """What errors and cards call a judge: its name, or that of its class."""
    return str(getattr(judge, "name", type(judge).__name__))


class EndpointJudge:
    """Asks a model behind an endpoint about one requirement at a time.

    `prompt` is a text with {requirement} and {response}, and where it likes {role}, {conversation}
    and {mark}, that asks for a JSON object with a "reason" and "followed", true or false; the
    packaged one is `JUDGE_PROMPT`. The mark is made of the material: a response cannot know the
    tags that end it. Replies without a verdict are asked again, as failed requests are; what fails
    every time is an undecided verdict. Once `stopped` is set, nothing is tried again.
    """

    def __init__(
        self, endpoint: Endpoint, *, prompt: str | None = None, stopped: Event | None = None
    ) -> None:
        self._endpoint = endpoint
        self._prompt = read_judge_prompt() if prompt is None else prompt
        check_fields(self._prompt, NEEDED_FIELDS, PROMPT_TITLE)
        self._stopped = stopped
        self._lock = Lock()
        self.failures = 0
        """Requests that failed, those that a later try made good among them."""
        self.nonsense = 0
        """Replies without a verdict, those that a later try made good among them."""

    @property
    def name(self) -> str:
        """The model's."""
        return self._endpoint.model

    @property
    def place(self) -> str:
        """The endpoint's address, without what may be secret in it."""
        return self._endpoint.place

    def verdict(self, requirement: str, example: "Example", response: str) -> Verdict:
        """As `Judge.verdict`; raises as `Endpoint.ask` does."""
        prompt = filled_prompt(self._prompt, requirement, example, response)
        answer = self._endpoint.ask(prompt, read_verdict, stopped=self._stopped)
        with self._lock:
            self.failures += answer.failures
            self.nonsense += answer.nonsense
        if answer.value is None:
            return Verdict(False, f"the judge came to no verdict: {answer.problem}", undecided=True)
        return answer.value


def filled_prompt(prompt: str, requirement: str, example: "Example", response: str) -> str:
    """A judge's prompt with its fields filled in."""
    texts = {
        "requirement": requirement,
        "role": example.role_text(),
        "conversation": example.conversation_text(),
        "response": response,
    }
    return fill_in(prompt, texts | {"mark": mark_of(texts)})


def read_verdict(reply: str) -> Verdict | None:
    """The last JSON object in a reply that says true or false; None where there is none."""
    for record in json_objects(reply):
        said = str(record.get("followed")).strip().lower()
        if said in ("true", "false"):
            return Verdict(said == "true", short_reason(record.get("reason")))
    return None


def read_judge_prompt(path: Path = JUDGE_PROMPT) -> str:
    """The text of a judge's prompt; ValueError where there is no such text."""
    return read_prompt(path, PROMPT_TITLE)


def short_reason(reason: Any) -> str:
    """A judge's reason on one line of at most `LONGEST_REASON` characters, as files hold it: half
    of a surrogate pair, which JSON may escape, becomes a question mark."""
    words = " ".join(str(reason or "").encode(errors="replace").decode().split())
    return words if len(words) <= LONGEST_REASON else words[: LONGEST_REASON - 4] + " ..."
