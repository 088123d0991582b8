"""Prompt files of token shift: records as texts, with or without a response, and their tokens."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rnr_kernels.generation import response_text
from rnr_kernels.records import ALPACA_INPUT, checked_text, iterate_records
from rnr_kernels.rules.kinds import RuleSet
from rnr_kernels.rules.scope import find_used_from
from rnr_kernels.templates import PromptTemplate, encode_response

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FIELDS: Mapping[str, tuple[str, ...]] = {
    "instruction": ("response", "output"),
    "prompt": ("response", "output"),
    "question": ("answer",),
}
"""Where a record has its prompt, and where its response then; the first that is there counts. An
answer beside a prompt is what a grader looks for, as in the embedded questions, and no response."""
EXPECTED = (
    "one JSON object a line (or an array of them) with 'instruction' or 'prompt', and perhaps "
    "'response' or 'output'; or with 'question' and 'answer'"
)

GIVEN = "given"
"""The finish reason of a response whose record does not say how it ended: it is closed with EOS."""
CLOSED = ("eos", GIVEN)


@dataclass(frozen=True)
class Text:
    """A record's instruction and response."""

    index: int
    """Position of the record in its file."""
    where: str
    """The same in words, for errors."""
    instruction: str
    response: str | None
    """None: to be decoded."""
    finish_reason: str | None
    token_ids: tuple[int, ...] | None
    """The response as it was emitted, where the record has it."""


@dataclass(frozen=True)
class Skip:
    """A record that is left out, and why."""

    index: int
    where: str
    reason: str

    @property
    def line(self) -> int:
        """The line of a JSON Lines file, or the record's number in an array; from 1."""
        return int(self.where.rpartition(" ")[2])


@dataclass(frozen=True)
class ShiftPrompt:
    """A prompt of a run, with its response; the response is None where it is yet to be decoded."""

    index: int
    """Position of the record in its file; TokenShift.prompt."""
    instruction: str
    response: str | None
    """Without EOS."""
    finish_reason: str | None
    """`eos`, `stop`, `length`; `given` for a response of a record that does not say."""
    prompt_token_ids: tuple[int, ...]
    base_prompt_token_ids: tuple[int, ...]
    response_token_ids: tuple[int, ...] | None


def read_texts(path: str | Path, limit: int | None = None) -> Iterator[Text | Skip]:
    """The first `limit` records of a JSON Lines file or a JSON array, one by one.

    A record with an empty prompt or response is a Skip. ValueError that names the line for a file
    or a record that cannot be read.
    """
    for index, (where, record) in enumerate(iterate_records(path, "prompts", EXPECTED)):
        if index == limit:
            return
        yield _text_of(index, where, record)


def _text_of(index: int, where: str, record: Any) -> Text | Skip:
    if not isinstance(record, Mapping):
        raise ValueError(f"{where}: expected a JSON object, got {type(record).__name__}")
    field = next((field for field in FIELDS if field in record), None)
    if field is None:
        raise ValueError(f"{where}: expected a field {' or '.join(map(repr, FIELDS))}")
    instruction = checked_text(record[field], f"{where}: {field!r}")
    if record.get("input") and checked_text(record["input"], f"{where}: 'input'").strip():
        instruction = ALPACA_INPUT.format(instruction=instruction, input=record["input"])
    if not instruction.strip():
        return Skip(index, where, "the prompt is empty")
    answer = next((name for name in FIELDS[field] if record.get(name) is not None), None)
    if answer is None:
        return Text(index, where, instruction, None, None, None)
    response = checked_text(record[answer], f"{where}: {answer!r}")
    if not response.strip():
        return Skip(index, where, "the response is empty")
    reason = record.get("finish_reason")
    return Text(
        index, where, instruction, response,
        reason if isinstance(reason, str) else GIVEN,
        _token_ids(record.get("token_ids")),
    )  # fmt: skip


def _token_ids(value: object) -> tuple[int, ...] | None:
    if not isinstance(value, list) or not value or not all(type(each) is int for each in value):
        return None
    return tuple(value)


@dataclass(frozen=True)
class Encoder:
    """Turns texts into tokens, and finds those that the models cannot take."""

    tokenizer: "PreTrainedTokenizerBase"
    template: PromptTemplate
    base_template: PromptTemplate | None
    """None: the base sees the same prompt."""
    rules: RuleSet | None
    eos_token_ids: tuple[int, ...]
    window: int | None
    """The smallest of all models'."""
    num_tokens: int
    """What all models know: ids below it."""

    def encode(self, text: Text) -> ShiftPrompt | Skip:
        """The text's tokens; a Skip where they do not fit into the window.

        A response's own token ids are taken where they print its text; otherwise it is encoded, and
        closed with EOS unless its record says that it was cut. ValueError that names the record for
        tokens that a model does not know, and for a prompt without what the rules look for.
        """
        prompt = tuple(self.template.encode(self.tokenizer, text.instruction))
        base_prompt = prompt
        if self.base_template is not None:
            base_prompt = tuple(self.base_template.encode(self.tokenizer, text.instruction))
        response = None if text.response is None else self._response(text, text.response)
        largest = max((*prompt, *base_prompt, *(response or ())), default=0)
        if largest >= self.num_tokens:
            raise ValueError(
                f"{text.where}: it has token {largest}, the models know {self.num_tokens}; check "
                "that the tokenizer belongs to them"
            )
        shorter, longer = sorted((len(prompt), len(base_prompt)))
        reason = self._unfit(shorter, longer, response)
        if reason is not None:
            return Skip(text.index, text.where, reason)
        if self.rules is not None:
            try:
                find_used_from(self.rules, self.tokenizer, prompt)
            except ValueError as error:
                raise ValueError(f"{text.where}: {error}") from error
        return ShiftPrompt(
            text.index, text.instruction, text.response, text.finish_reason, prompt, base_prompt,
            response,
        )  # fmt: skip

    def _response(self, text: Text, response: str) -> tuple[int, ...]:
        emitted = text.token_ids
        if (
            emitted is not None
            and 0 <= min(emitted) <= max(emitted) < self.num_tokens
            and response_text(self.tokenizer, emitted, self.eos_token_ids) == response
        ):
            return emitted
        ids = encode_response(self.template, self.tokenizer, text.instruction, response)
        if text.finish_reason not in CLOSED or not self.eos_token_ids:
            return tuple(ids)
        # The tokenizer's, unless the model ends its responses with others.
        end = self.tokenizer.eos_token_id
        return (*ids, end if end in self.eos_token_ids else self.eos_token_ids[0])

    def _unfit(self, shorter: int, longer: int, response: tuple[int, ...] | None) -> str | None:
        if not shorter:
            return "the prompt has no tokens"
        if response is not None and not response:
            return "the response has no tokens"
        if self.window is None:
            return None
        if response is None and longer >= self.window:
            return (
                f"the prompt has {longer} tokens, the window is {self.window}: there is no room "
                "for a response"
            )
        if response is not None and longer + len(response) > self.window:
            return (
                f"prompt and response have {longer + len(response)} tokens, the window is "
                f"{self.window}"
            )
        return None
