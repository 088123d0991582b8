"""The decode loop: instructions in, finished responses out, rules multiplied in at every step."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch

from rnr_kernels import backends
from rnr_kernels.automata.automaton import Automaton
from rnr_kernels.automata.masks import Automata, BatchMasks, automata_of
from rnr_kernels.automata.matcher import Matcher
from rnr_kernels.forward import ForwardPass, context_window, logits_width
from rnr_kernels.ops import rule_log_softmax, sample_
from rnr_kernels.rules.compiler import compile_rules
from rnr_kernels.rules.kinds import RuleSet, as_token_ids
from rnr_kernels.rules.program import RuleProgram
from rnr_kernels.rules.scope import find_used_from
from rnr_kernels.rules.vocabulary import Vocabulary
from rnr_kernels.sampling import GREEDY, Sampling, check_sampling
from rnr_kernels.state import DecodeState
from rnr_kernels.templates import Chat, Prompt, PromptTemplate, prompt_template

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass
class Completion:
    """One prompt's response, growing while it is decoded."""

    index: int
    """Position of the prompt in the input."""
    instruction: str
    """What the user asks, last where the prompt is a chat."""
    prompt_token_ids: list[int]
    token_ids: list[int] = field(default_factory=list)
    """Response tokens; the last is EOS if the response ended itself."""
    text: str = ""
    """The response without EOS, cut before a stop string."""
    finish_reason: str | None = None
    """`eos`, `stop` (a stop string), `length` (the limit or the window); None while running."""
    logprobs: list[float] = field(default_factory=list)
    """Of each token under the adjusted distribution; with `details` only."""
    log_z: list[float] = field(default_factory=list)
    """log Z of each step, the normaliser of p_base * p_rules; with `details` only."""


class LogitsError(ValueError):
    """No token can be chosen for a prompt, because its logits are no numbers."""

    def __init__(self, index: int, num_tokens: int, is_masked: bool = False) -> None:
        super().__init__(index, num_tokens, is_masked)  # what pickle makes it anew from
        self.index = index
        """Position of the prompt in the input."""
        self.num_tokens = num_tokens
        self.is_masked = is_masked
        """Whether an automaton forbade some tokens."""

    def __str__(self) -> str:
        which, remedy = "all -inf", "try another dtype"
        if self.is_masked:
            which = "-inf for every token that its automaton allows"
            remedy = "allow more by the rules, or try another dtype"
        return (
            f"the model's logits for prompt {self.index + 1} are NaN, +inf, or {which} after "
            f"{self.num_tokens} tokens; {remedy}"
        )


StepCallback = Callable[[Sequence[Completion]], None]


def generate(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    instructions: Sequence[Prompt],
    *,
    rules: RuleSet | Sequence[RuleSet | None] | None = None,
    automata: Automata = None,
    template: str | PromptTemplate = "tags",
    sampling: Sampling = GREEDY,
    seeds: Sequence[int] | None = None,
    max_new_tokens: int = 512,
    batch_size: int = 8,
    stop: str | Sequence[str] = (),
    details: bool = False,
    on_step: StepCallback | None = None,
) -> Iterator[Completion]:
    """Answers instructions in batches and yields the responses in their order.

    An instruction is a str, or the messages of a chat of which the last is the user's.
    `rules` are for all prompts, or one set a prompt; None is the bare model. With a seed in
    `sampling`, prompt i draws from seed + i, and with `seeds` from `seeds[i]`, so a response does
    not depend on its batch. `automata`, one or one a prompt, keep responses within a language and
    end them within `max_new_tokens` and the window. `stop` ends a response at a string, in whatever
    language, `on_step` sees the batch after every token (for streaming).
    `details` also records log-probabilities and log Z.
    Everything is checked before the first forward pass: ValueError for no prompts, a prompt that
    does not fit into the model's window, a tokenizer that is not the model's, an automaton whose
    responses may not fit into `max_new_tokens`. If decoding fails or
    is interrupted, the batch's finished responses are yielded before the exception.
    """
    if max_new_tokens < 1 or batch_size < 1:
        raise ValueError(
            "max_new_tokens and batch_size must be at least 1, "
            f"got {max_new_tokens} and {batch_size}"
        )
    if isinstance(instructions, str) or not instructions:
        raise ValueError("instructions must be a list with at least one string, or chat")
    samplings = _samplings(sampling, seeds, len(instructions))
    rule_sets = _rule_sets(rules, len(instructions))
    stop = (stop,) if isinstance(stop, str) else tuple(stop)
    if "" in stop:
        raise ValueError("a stop string must not be empty")
    if isinstance(template, str):
        template = prompt_template(template)
    window = context_window(model)
    asked = [
        Chat.of(instruction, f"prompt {number}").instruction
        for number, instruction in enumerate(instructions, start=1)
    ]
    completions = [
        Completion(index, asked[index], template.encode(tokenizer, instruction))
        for index, instruction in enumerate(instructions)
    ]
    embeddings: Any = model.get_input_embeddings()
    for completion in completions:
        _check_fits(completion, window, embeddings.weight.shape[0])
    backends.find("sample_", model.device, model.dtype, logits_width(model))
    eos_token_ids = end_token_ids(model, tokenizer)
    program_ids = {each: number for number, each in enumerate(dict.fromkeys(rule_sets))}
    program = compile_rules(
        list(program_ids),
        tokenizer,
        logits_width(model),
        eos_token_ids=eos_token_ids,
        device=model.device,
    )
    matchers = [
        None if automaton is None else _matcher(automaton, completion, window, max_new_tokens)
        for automaton, completion in zip(
            automata_of(automata, len(completions), logits_width(model), eos_token_ids),
            completions,
            strict=True,
        )
    ]
    starts = [
        find_used_from(each, tokenizer, completion.prompt_token_ids)
        for each, completion in zip(rule_sets, completions, strict=True)
    ]
    admissions = [
        _Admission(program_ids[each], used_from, sampling)
        for each, used_from, sampling in zip(rule_sets, starts, samplings, strict=True)
    ]
    return _generate_batches(
        _Run(
            model, tokenizer, program, set(eos_token_ids), window, max_new_tokens, stop, details,
            on_step, admissions, matchers,
        ),
        completions, batch_size,
    )  # fmt: skip


def end_token_ids(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    """Every id that ends a response: the generation config's, else the tokenizer's."""
    eos = model.generation_config.eos_token_id if model.generation_config else None
    return list(Vocabulary.of(tokenizer).eos_token_ids if eos is None else as_token_ids(eos))


@dataclass(frozen=True)
class _Admission:
    """How a prompt takes its slot."""

    program_id: int
    used_from: int
    sampling: Sampling


@dataclass(frozen=True)
class _Run:
    """What is the same for all batches."""

    model: "PreTrainedModel"
    tokenizer: "PreTrainedTokenizerBase"
    program: RuleProgram
    eos_token_ids: set[int]
    window: int | None
    max_new_tokens: int
    stop: tuple[str, ...]
    details: bool
    on_step: StepCallback | None
    admissions: list[_Admission]
    """By prompt."""
    matchers: list[Matcher | None]
    """By prompt."""


def _samplings(sampling: Sampling, seeds: Sequence[int] | None, number: int) -> list[Sampling]:
    """One a prompt, each with its own seed."""
    check_sampling(sampling)
    if seeds is None:
        if sampling.seed is None:
            return [sampling] * number
        seeds = range(sampling.seed, sampling.seed + number)
    if len(seeds) != number:
        raise ValueError(f"seeds must be one for each of {number} prompts, got {len(seeds)}")
    return [replace(sampling, seed=seed) for seed in seeds]


def _rule_sets(rules: RuleSet | Sequence[RuleSet | None] | None, number: int) -> list[RuleSet]:
    """One a prompt."""
    if rules is None or isinstance(rules, RuleSet):
        return [rules or RuleSet()] * number
    if len(rules) != number:
        raise ValueError(f"rules must be one set for each of {number} prompts, got {len(rules)}")
    return [each or RuleSet() for each in rules]


def _matcher(
    automaton: Automaton, completion: Completion, window: int | None, max_new_tokens: int
) -> Matcher:
    room = max_new_tokens
    if window is not None:
        room = min(room, window - len(completion.prompt_token_ids))
    try:
        return Matcher(automaton, room)
    except ValueError as error:
        raise ValueError(f"prompt {completion.index + 1}: {error}") from None


def _check_fits(completion: Completion, window: int | None, num_embeddings: int) -> None:
    length = len(completion.prompt_token_ids)
    if not length:
        raise ValueError(f"prompt {completion.index + 1} is empty: it has no tokens to continue")
    if window is not None and length >= window:
        raise ValueError(
            f"prompt {completion.index + 1} has {length} tokens, the model's window is {window}; "
            "shorten it to leave room for a response"
        )
    largest = max(completion.prompt_token_ids)
    if largest >= num_embeddings:
        raise ValueError(
            f"prompt {completion.index + 1} has token {largest}, the model knows {num_embeddings}; "
            "check that the tokenizer belongs to the model"
        )


def _generate_batches(
    run: _Run, completions: list[Completion], batch_size: int
) -> Iterator[Completion]:
    for first in range(0, len(completions), batch_size):
        batch = completions[first : first + batch_size]
        try:
            _decode_batch(run, batch)
        except BaseException:
            yield from (c for c in batch if c.finish_reason is not None)
            raise
        yield from batch


def _decode_batch(run: _Run, batch: list[Completion]) -> None:
    """Decodes until every row is finished; finished rows become padding rows."""
    device = run.model.device
    state = DecodeState.allocate(run.program, len(batch))
    for slot, completion in enumerate(batch):
        own = run.admissions[completion.index]
        state.admit(
            slot, own.program_id, prompt_token_ids=completion.prompt_token_ids,
            used_from=own.used_from, sampling=own.sampling,
        )  # fmt: skip
    masks = None
    if any(run.matchers[completion.index] is not None for completion in batch):
        masks = BatchMasks(len(batch), logits_width(run.model), device)
    forward = _start(run, batch)
    in_forward, slots = batch, torch.arange(len(batch), device=device)
    while any(completion.finish_reason is None for completion in batch):
        if run.window is not None and forward.input_ids.shape[1] > run.window:
            # Padding and finished rows fill the window: go on with the running rows alone.
            in_forward = [c for c in in_forward if c.finish_reason is None]
            forward = _start(run, in_forward)
            slots = slots[slots >= 0]
        logits = forward.next_logits()
        allowed = log_probabilities = log_z = None
        if masks is not None:
            allowed = masks.fill(
                [None if c.finish_reason else run.matchers[c.index] for c in in_forward]
            )
        if run.details:
            log_probabilities, log_z = rule_log_softmax(
                logits, run.program, state,
                state_indices=slots, allowed_bitmask=allowed, return_log_z=True,
            )  # fmt: skip
        token_ids = sample_(
            logits, run.program, state, state_indices=slots, allowed_bitmask=allowed
        ).token_ids
        chosen = token_ids.tolist()
        for row, completion in enumerate(in_forward):
            if completion.finish_reason is not None:
                continue
            _append(run, completion, chosen[row])
            if log_probabilities is not None and log_z is not None:
                completion.logprobs.append(float(log_probabilities[row, chosen[row]]))
                completion.log_z.append(float(log_z[row]))
            if completion.finish_reason is not None:
                slots[row] = -1
        if run.on_step is not None:
            run.on_step(batch)
        forward.append(token_ids.clamp(min=0))
    state.check()


def _start(run: _Run, rows: list[Completion]) -> ForwardPass:
    """A forward pass over what the rows have so far, left-padded."""
    token_ids = [row.prompt_token_ids + row.token_ids for row in rows]
    width, pad = max(map(len, token_ids)), run.tokenizer.pad_token_id or 0
    ids = torch.tensor([[pad] * (width - len(row)) + row for row in token_ids])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in token_ids])
    device = run.model.device
    return ForwardPass(run.model, ids.to(device), attention_mask=mask.to(device))


def _append(run: _Run, completion: Completion, token_id: int) -> None:
    """Adds a token to a running response and sees whether it is finished."""
    matcher = run.matchers[completion.index]
    if token_id < 0:
        raise LogitsError(completion.index, len(completion.token_ids), matcher is not None)
    if matcher is not None:
        matcher.accept_token(token_id)
    completion.token_ids.append(token_id)
    length = len(completion.token_ids)
    if token_id in run.eos_token_ids:
        completion.finish_reason = "eos"
    elif run.stop and (cut := _find_stop(run, completion)) is not None:
        completion.finish_reason = "stop"
        completion.text = cut
        return
    elif length == run.max_new_tokens or (
        run.window is not None and len(completion.prompt_token_ids) + length == run.window
    ):
        completion.finish_reason = "length"
    if completion.finish_reason is not None:
        completion.text = response_text(run.tokenizer, completion.token_ids, run.eos_token_ids)


def response_text(
    tokenizer: "PreTrainedTokenizerBase",
    token_ids: Sequence[int],
    eos_token_ids: Sequence[int] | set[int] = (),
) -> str:
    """The text of response tokens, without a final EOS."""
    shown = list(token_ids)
    if shown and shown[-1] in eos_token_ids:
        shown.pop()
    return str(tokenizer.decode(shown))


def _find_stop(run: _Run, completion: Completion) -> str | None:
    """The text before the first stop string, if the last token completed one.

    Looks at the text of the last tokens first: each prints at least a byte or nothing.
    """
    longest = max(len(text.encode()) for text in run.stop)
    tail = str(run.tokenizer.decode(completion.token_ids[-(longest + 4) :]))
    if not any(text in tail for text in run.stop):
        return None
    text = response_text(run.tokenizer, completion.token_ids)
    found = [position for stop in run.stop if (position := text.find(stop)) >= 0]
    return text[: min(found)] if found else None
