"""Where the responses of a system come from: a file that it wrote, or a model that answers now."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rnr_kernels.generation import Completion, StepCallback, generate
from rnr_kernels.records import INSTRUCTION_FIELDS, read_records, record_id, text_field
from rnr_kernels.roles.constraint_cache import ConstraintCache
from rnr_kernels.roles.constraints import Constraint
from rnr_kernels.roles.example import Example
from rnr_kernels.sampling import GREEDY, Sampling
from rnr_kernels.templates import PromptTemplate

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

RESPONSE_FIELDS = ("response", "output")
EXPECTED = (
    "one JSON object a line with a 'response' (or 'output') and the example's 'id', or its "
    "'instruction' (or 'prompt'), as rnr-kernels generate --out and IFEval have it"
)
SHOWN_CHARACTERS = 60
"""Of an instruction, in errors."""


def read_responses(
    path: str | Path, examples: Sequence[Example], limit: int | None = None
) -> list[str]:
    """The responses of a file to the first `limit` examples, in their order; it may hold more.

    They are told apart by `id`. Without, the records answer the examples in their order, or the
    last question of each example is unlike any other's. Raises ValueError that names the record or
    the example for a field that is missing or no text, an id that only others have, an example
    without a response or with two, and a response to something else.
    """
    records = read_records(path, "responses", EXPECTED)
    texts = [
        (each, text_field(record, RESPONSE_FIELDS, each, EXPECTED)) for each, record in records
    ]
    if keys := _ids(records):
        return _matched([example.id for example in examples], keys, texts, limit, "the id")
    asked = [text_field(record, INSTRUCTION_FIELDS, each, EXPECTED) for each, record in records]
    questions = [example.instruction for example in examples]
    if asked == questions[: len(asked)] and len(asked) >= len(questions[:limit]):
        return [text for _, text in texts][:limit]
    if len(set(questions)) < len(questions):
        twice = Counter(questions).most_common(1)[0][0]
        raise ValueError(
            f"{path}: several examples ask {_shown(twice)}, and the responses are not in the "
            "examples' order; give each record the 'id' of its example"
        )
    return _matched(questions, asked, texts, limit, "the instruction")


def _ids(records: Sequence[tuple[str, Mapping[str, Any]]]) -> list[str]:
    """The ids of all records; none if none has one."""
    found = [record_id(record, where) for where, record in records]
    ids = [each for each in found if each is not None]
    if ids and len(ids) < len(found):
        where = records[found.index(None)][0]
        raise ValueError(
            f"{where}: no 'id', which {len(ids)} of {len(found)} records have; give all of them "
            "the 'id' of their example, or none"
        )
    return ids


def _matched(
    known: Sequence[str],
    keys: Sequence[str],
    texts: Sequence[tuple[str, str]],
    limit: int | None,
    title: str,
) -> list[str]:
    """The text of the first known keys; ValueError for other keys, and for one without a text."""
    found: dict[str, str] = {}
    for key, (where, text) in zip(keys, texts, strict=True):
        if key in found:
            raise ValueError(f"{where}: a second response with {title} {_shown(key)}")
        found[key] = text
    strangers = found.keys() - set(known)
    for key, (where, _) in zip(keys, texts, strict=True):
        if key in strangers:
            raise ValueError(f"{where}: no example has {title} {_shown(key)}")
    wanted = known[:limit]
    missing = [key for key in wanted if key not in found]
    if missing:
        raise ValueError(
            f"{len(missing)} of {len(wanted)} examples have no response; the first has {title} "
            f"{_shown(missing[0])}"
        )
    return [found[key] for key in wanted]


def _shown(text: str) -> str:
    return repr(text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + " ...")


def answer(
    examples: Sequence[Example],
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    *,
    constrained: bool = False,
    template: str | PromptTemplate = "tags",
    sampling: Sampling = GREEDY,
    max_new_tokens: int = 512,
    batch_size: int = 8,
    on_step: StepCallback | None = None,
    on_response: Callable[[int, str], None] = lambda index, response: None,
    on_unconstrained: Callable[[int, str], None] = lambda index, reason: None,
) -> list[str]:
    """A model's responses to examples, each to its system message and conversation.

    `constrained` decodes each under the constraint of its requirements. One that cannot be, as no
    text follows them all or `max_new_tokens` is too few, is decoded without, and `on_unconstrained`
    is told why. With a seed in `sampling`, example i draws from seed + i. Raises as `generate`.
    """
    if not constrained:
        prompts = [example.prompt() for example in examples]
        made: Iterable[Completion] = generate(
            model, tokenizer, prompts, template=template, sampling=sampling,
            max_new_tokens=max_new_tokens, batch_size=batch_size, on_step=on_step,
        )  # fmt: skip
        return _kept(made, 0, on_response)
    constraints = ConstraintCache(model, tokenizer, max_new_tokens)
    responses: list[str] = []
    # Batch by batch: the masks of all examples together would fill the memory.
    for first in range(0, len(examples), batch_size):
        batch = examples[first : first + batch_size]
        found: list[Constraint | None] = []
        for index, example in enumerate(batch, start=first):
            each = constraints.of([stated.requirement for stated in example.requirements])
            if isinstance(each, str):
                on_unconstrained(index, each)
            found.append(None if isinstance(each, str) else each)
        seed = sampling.seed
        made = generate(
            model,
            tokenizer,
            [example.prompt() for example in batch],
            rules=[None if each is None else each.rules for each in found],
            automata=[None if each is None else each.automaton for each in found],
            template=template,
            sampling=sampling if seed is None else replace(sampling, seed=seed + first),
            max_new_tokens=max_new_tokens,
            batch_size=batch_size,
            on_step=on_step,
        )
        responses += _kept(made, first, on_response)
    return responses


def _kept(
    completions: Iterable[Completion], first: int, on_response: Callable[[int, str], None]
) -> list[str]:
    """The texts, each handed on as it comes; the first is that of example `first`."""
    responses = []
    for completion in completions:
        responses.append(completion.text)
        on_response(first + completion.index, completion.text)
    return responses
