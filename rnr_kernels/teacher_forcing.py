"""Teacher forcing: one forward pass over prompt and response, and the logits before each of the
response's tokens."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rnr_kernels.forward import context_window
from rnr_kernels.rules.program import RuleProgram
from rnr_kernels.state import DecodeState
from rnr_kernels.templates import PromptTemplate, encode_response

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

BATCH_TOKENS = 8192
"""Tokens in a forward pass, padding included; a longer text stands alone."""


@dataclass(frozen=True)
class Forced:
    """A prompt and the response that follows it, as token ids; both have at least one."""

    prompt_token_ids: tuple[int, ...]
    response_token_ids: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.prompt_token_ids) + len(self.response_token_ids)


@dataclass(frozen=True)
class ResponseLogits:
    """The responses of some texts: row r has the logits from which `token_ids[r]` was chosen."""

    indices: list[int]
    """Positions of the texts in the input; their rows follow each other in this order."""
    lengths: list[int]
    """Response tokens of each of them."""
    logits: Tensor
    """[N, V], N the sum of `lengths`, in the model's dtype."""
    token_ids: Tensor
    """int64 [N], the response tokens."""


def force(
    tokenizer: "PreTrainedTokenizerBase",
    template: PromptTemplate,
    instruction: str,
    response: str,
    *,
    end: int | None = None,
) -> Forced:
    """The tokens of an instruction's prompt and of a response; `end` is an EOS to close it with."""
    token_ids = encode_response(template, tokenizer, instruction, response)
    if end is not None:
        token_ids = [*token_ids, end]
    return Forced(tuple(template.encode(tokenizer, instruction)), tuple(token_ids))


def length_buckets(lengths: Sequence[int], batch_tokens: int = BATCH_TOKENS) -> list[list[int]]:
    """Positions in batches of similar length, each of at most `batch_tokens` tokens when padded."""
    buckets: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda index: (lengths[index], index)):
        # Sorted: the newcomer is the longest, so it is what the others are padded to.
        if buckets and (len(buckets[-1]) + 1) * lengths[index] <= batch_tokens:
            buckets[-1].append(index)
        else:
            buckets.append([index])
    return buckets


def response_logits(
    model: "PreTrainedModel",
    texts: Sequence[Forced],
    *,
    batch_tokens: int = BATCH_TOKENS,
    batches: Sequence[Sequence[int]] | None = None,
) -> Iterator[ResponseLogits]:
    """Logits of all responses, in batches of texts of similar length.

    `batches` (positions of the texts in each forward pass) takes the place of `length_buckets`:
    two models that are given the same ones yield rows that belong together. Only the rows before
    response tokens go through the model's head. Everything is checked before the first forward
    pass: ValueError for no texts, for one without prompt or response, for one longer than the
    model's window, and for a token that the model does not know.
    """
    embeddings: Any = model.get_input_embeddings()
    _check(texts, context_window(model), embeddings.weight.shape[0])
    if batches is None:
        batches = length_buckets([len(text) for text in texts], batch_tokens)
    return _batches(model, texts, batches)


def _check(texts: Sequence[Forced], window: int | None, num_embeddings: int) -> None:
    if not texts:
        raise ValueError("there are no texts to score: pass at least one")
    for number, text in enumerate(texts, start=1):
        for what, ids in (("prompt", text.prompt_token_ids), ("response", text.response_token_ids)):
            if not ids:
                raise ValueError(f"text {number}: its {what} is empty; leave it out")
            if max(ids) >= num_embeddings or min(ids) < 0:
                raise ValueError(
                    f"text {number}: its {what} has token {max(ids)}, the model knows "
                    f"{num_embeddings}; check that the tokenizer belongs to the model"
                )
        if window is not None and len(text) > window:
            raise ValueError(
                f"text {number}: prompt and response have {len(text)} tokens, the model's window "
                f"is {window}; shorten it or leave it out"
            )


@torch.no_grad()
def _batches(
    model: "PreTrainedModel", texts: Sequence[Forced], buckets: Sequence[Sequence[int]]
) -> Iterator[ResponseLogits]:
    device = model.device
    for bucket in buckets:
        rows = [texts[index] for index in bucket]
        width = max(map(len, rows))
        ids = torch.zeros(len(rows), width, dtype=torch.long)
        mask, wanted = torch.zeros_like(ids), torch.zeros_like(ids, dtype=torch.bool)
        for row, text in enumerate(rows):
            whole = (*text.prompt_token_ids, *text.response_token_ids)
            ids[row, : len(whole)] = torch.tensor(whole)
            mask[row, : len(whole)] = 1
            wanted[row, len(text.prompt_token_ids) - 1 : len(whole) - 1] = True
        logits = _selected_logits(model, ids.to(device), mask.to(device), wanted.to(device))
        token_ids = torch.tensor([t for text in rows for t in text.response_token_ids])
        lengths = [len(text.response_token_ids) for text in rows]
        yield ResponseLogits(list(bucket), lengths, logits, token_ids.to(device))


def _selected_logits(model: "PreTrainedModel", ids: Tensor, mask: Tensor, wanted: Tensor) -> Tensor:
    """Logits [N, V] of the wanted positions [B, T]: the head sees no others.

    What a model does to its logits after the head (a scale, a soft cap) it does to each by itself,
    so it may do it to the rows that are left.
    """
    head: Any = model.get_output_embeddings()

    def select(module: Any, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (inputs[0][wanted][None], *inputs[1:])

    handle = head.register_forward_pre_hook(select)
    try:
        # On the right, padding changes no position before it; causal models see nothing of it.
        output = model(input_ids=ids, attention_mask=mask, use_cache=False, return_dict=True)
    finally:
        handle.remove()
    logits: Tensor = output.logits
    return logits.reshape(-1, logits.shape[-1])


@dataclass(frozen=True)
class DraftRows:
    """The rows of teacher-forced responses as the ops take them: each text is one long draft.

    Row t of a text stands behind the response tokens before it, as rows of speculative decoding do,
    so rules act on it as at the step when its first t response tokens had been chosen.
    """

    state: DecodeState
    state_indices: Tensor
    """int64 [N]: each text has a slot."""
    row_offsets: Tensor
    """int64 [N]: t."""
    draft_token_ids: Tensor
    """int64 [N]: the response token before, -1 in a text's first row."""


def draft_rows(
    program: RuleProgram, texts: Sequence[Forced], used_from: Sequence[int], program_id: int = 0
) -> DraftRows:
    """The rows of `response_logits` under a program, text after text.

    `used_from` is where prompt tokens begin to count as used, for each text.
    """
    slots = [slot for slot, text in enumerate(texts) for _ in text.response_token_ids]
    steps = [step for text in texts for step in range(len(text.response_token_ids))]
    before = [token for text in texts for token in (-1, *text.response_token_ids[:-1])]
    state = DecodeState.from_token_ids(
        program,
        [()] * len(texts),
        prompt_token_ids=[text.prompt_token_ids for text in texts],
        program_ids=[program_id] * len(texts),
        used_from=used_from,
    )
    device = program.device
    return DraftRows(state, *(torch.tensor(v, device=device) for v in (slots, steps, before)))
