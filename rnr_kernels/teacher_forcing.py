"""Teacher forcing: one forward pass over prompt and response, and the logits before each of the
response's tokens."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor

from rnr_kernels.backends.heads import Head
from rnr_kernels.forward import context_window, plain_head
from rnr_kernels.ops import (
    ShiftStats,
    TokenStats,
    linear_shift_stats,
    linear_token_stats,
    shift_stats,
    token_stats,
)
from rnr_kernels.rules.program import RuleProgram
from rnr_kernels.state import DecodeState
from rnr_kernels.templates import PromptTemplate, encode_response

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

BATCH_TOKENS = 2048
"""Tokens in a forward pass, padding included; a longer text stands alone. Activations of more leave
the caches of a CPU, which makes it slower."""

CHECKED_ROWS = 8
TOLERANCE = 1e-4
"""How far logits of a head may be from the model's, by the largest logit of their row."""


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


@dataclass(frozen=True)
class ResponseHidden:
    """`ResponseLogits` before the model's head."""

    indices: list[int]
    lengths: list[int]
    hidden: Tensor
    """float32 [N, D]."""
    head: Head
    token_ids: Tensor

    @property
    def logits(self) -> Tensor:
        """float32 [N, V], made anew at each call."""
        return _project(self.head, self.hidden)


ResponseRows: TypeAlias = ResponseLogits | ResponseHidden


def row_stats(rows: ResponseRows, *, top_k: int = 0) -> TokenStats:
    """`token_stats` of the response tokens."""
    if isinstance(rows, ResponseLogits):
        return token_stats(rows.logits, rows.token_ids, top_k=top_k)
    head = rows.head
    return linear_token_stats(
        rows.hidden,
        head.weight,
        rows.token_ids,
        bias=head.bias,
        logit_scale=head.logit_scale,
        softcap=head.softcap,
        top_k=top_k,
    )


def row_shift_stats(
    rows: ResponseRows,
    base_rows: ResponseRows,
    *,
    top_k: int = 0,
) -> ShiftStats:
    """`shift_stats` of the response tokens under two models, whose rows belong together."""
    device = rows.token_ids.device
    if (
        isinstance(rows, ResponseLogits)
        or isinstance(base_rows, ResponseLogits)
        or base_rows.hidden.device != device
    ):
        base_logits = base_rows.logits.to(device)
        return shift_stats(rows.logits, base_logits, rows.token_ids, top_k=top_k)
    head, base = rows.head, base_rows.head
    return linear_shift_stats(
        rows.hidden,
        head.weight,
        base_rows.hidden,
        base.weight,
        rows.token_ids,
        bias=head.bias,
        base_bias=base.bias,
        logit_scale=head.logit_scale,
        base_logit_scale=base.logit_scale,
        softcap=head.softcap,
        base_softcap=base.softcap,
        top_k=top_k,
    )


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
    return _logits(model, texts, _checked(model, texts, batch_tokens, batches))


def response_rows(
    model: "PreTrainedModel",
    texts: Sequence[Forced],
    *,
    batch_tokens: int = BATCH_TOKENS,
    batches: Sequence[Sequence[int]] | None = None,
) -> Iterator[ResponseRows]:
    """As `response_logits`, for `row_stats` and `row_shift_stats`: logits where they have to be.

    A plain float32 head (`forward.plain_head`) is left to the statistics, which need no [N, V]
    logits then. Its first rows are compared with the model's own logits; where they differ by more
    than TOLERANCE, and with any other head, all rows are logits.
    """
    return _hidden_or_logits(model, texts, _checked(model, texts, batch_tokens, batches))


def _checked(
    model: "PreTrainedModel",
    texts: Sequence[Forced],
    batch_tokens: int,
    batches: Sequence[Sequence[int]] | None,
) -> Sequence[Sequence[int]]:
    """The batches of texts that have been checked."""
    embeddings: Any = model.get_input_embeddings()
    _check(texts, context_window(model), embeddings.weight.shape[0])
    if batches is not None:
        return batches
    return length_buckets([len(text) for text in texts], batch_tokens)


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


@dataclass(frozen=True)
class _Batch:
    """Some texts as a model takes them: [B, T] each, padded on the right."""

    indices: list[int]
    lengths: list[int]
    input_ids: Tensor
    attention_mask: Tensor
    wanted: Tensor
    """bool: the positions before response tokens, N in all."""
    token_ids: Tensor
    """int64 [N]."""


def _batch(texts: Sequence[Forced], indices: Sequence[int], device: torch.device) -> _Batch:
    rows = [texts[index] for index in indices]
    ends = torch.tensor([[len(text)] for text in rows])
    starts = torch.tensor([[len(text.prompt_token_ids)] for text in rows])
    columns = torch.arange(int(ends.max()))
    mask, wanted = columns < ends, (columns >= starts - 1) & (columns < ends - 1)
    ids = torch.zeros(mask.shape, dtype=torch.long)
    ids[mask] = torch.tensor(
        [token for text in rows for token in (*text.prompt_token_ids, *text.response_token_ids)]
    )
    token_ids = torch.tensor([token for text in rows for token in text.response_token_ids])
    lengths = [len(text.response_token_ids) for text in rows]
    moved = (tensor.to(device) for tensor in (ids, mask.long(), wanted, token_ids))
    return _Batch(list(indices), lengths, *moved)


@torch.no_grad()
def _logits(
    model: "PreTrainedModel", texts: Sequence[Forced], batches: Sequence[Sequence[int]]
) -> Iterator[ResponseLogits]:
    for indices in batches:
        # No name here holds a batch's logits while the next are computed.
        yield _response_logits(model, _batch(texts, indices, model.device))


@torch.no_grad()
def _hidden_or_logits(
    model: "PreTrainedModel", texts: Sequence[Forced], batches: Sequence[Sequence[int]]
) -> Iterator[ResponseRows]:
    head = plain_head(model)
    is_checked = False
    for indices in batches:
        batch = _batch(texts, indices, model.device)
        if head is not None and not is_checked:
            hidden, logits = _forward(model, batch, CHECKED_ROWS)
            if not _agree(head, hidden[: len(logits)], logits):
                head = None
            is_checked = True
        elif head is not None:
            hidden, _ = _forward(model, batch, 0)
        if head is None:
            yield _response_logits(model, batch)
        else:
            yield ResponseHidden(batch.indices, batch.lengths, hidden, head, batch.token_ids)


def _response_logits(model: "PreTrainedModel", batch: _Batch) -> ResponseLogits:
    _, logits = _forward(model, batch, None)
    return ResponseLogits(batch.indices, batch.lengths, logits, batch.token_ids)


def _forward(
    model: "PreTrainedModel", batch: _Batch, num_rows: int | None
) -> tuple[Tensor, Tensor]:
    """What the head gets at the wanted positions, [N, D], and the first `num_rows` logits.

    The head sees no others. What a model does to its logits after the head (a scale, a soft cap) it
    does to each by itself, so it may do it to the rows that are left.
    """
    head: Any = model.get_output_embeddings()
    seen: list[Tensor] = []

    def select(module: Any, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        seen.append(inputs[0][batch.wanted])
        return (seen[0][None, :num_rows], *inputs[1:])

    handle = head.register_forward_pre_hook(select)
    try:
        # On the right, padding changes no position before it; causal models see nothing of it.
        output = model(
            input_ids=batch.input_ids,
            attention_mask=batch.attention_mask,
            use_cache=False,
            return_dict=True,
        )
    finally:
        handle.remove()
    logits: Tensor = output.logits
    return seen[0], logits.reshape(-1, logits.shape[-1])


def _agree(head: Head, hidden: Tensor, logits: Tensor) -> bool:
    """Whether logits [n, V] are what the head makes of the hidden states [n, D].

    To TOLERANCE of the largest of a row; not if any is infinite or NaN.
    """
    if hidden.dtype != torch.float32 or len(head.weight) != logits.shape[1]:
        return False
    allowed = TOLERANCE * logits.abs().amax(-1, keepdim=True)
    return bool(((_project(head, hidden) - logits).abs() <= allowed).all())


def _project(head: Head, hidden: Tensor) -> Tensor:
    return head.finish(hidden @ head.weight.T, slice(None))


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
