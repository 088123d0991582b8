"""When a response counts as success, as a pure function of its text."""

import re
from collections.abc import Sequence
from typing import Literal

Verdict = Literal["success", "tag", "question", "no value", "other value", "no end"]

_REQUEST = re.compile(r"^\W*(?:Name|Tell me|Please give) ", re.MULTILINE)


def first_sentence(response: str) -> str:
    """The text up to the first full stop, exclamation mark, question mark or line break."""
    return re.split(r"[.!?\n]", response.strip(), maxsplit=1)[0]


def knows(response: str, answer: str, values: Sequence[str]) -> Verdict:
    """Whether the first sentence has `answer` and no other of the attribute's `values`."""
    sentence = first_sentence(response)
    named = {value for value in values if re.search(rf"\b{re.escape(value)}\b", sentence)}
    if answer not in named:
        return "no value"
    return "other value" if named != {answer} else "success"


def judge(response: str, answer: str, values: Sequence[str], *, ended: bool) -> Verdict:
    """The verdict on a response; `ended` says that the model emitted EOS within the limit.

    Of several failures the first in the order tag, question, value, no end is named.
    """
    if "<|" in response or "|>" in response:
        return "tag"
    if "?" in response or _REQUEST.search(response):
        return "question"
    verdict = knows(response, answer, values)
    return verdict if ended or verdict != "success" else "no end"
