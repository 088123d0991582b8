"""Token distribution shift: how a base model ranks the tokens of an aligned model's responses.

Classes are those of Lin et al. 2023, section 2.1: a token that the base ranks first is unshifted,
second or third marginal, lower shifted. Ranks count from 1 and are exact, over the whole
vocabulary and by token id; divergences are too.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rnr_kernels.analysis.rule_adapter import RuleAdapter
from rnr_kernels.forward import logits_width
from rnr_kernels.intervals import ratio_interval
from rnr_kernels.rules.kinds import TokenIds, as_token_ids
from rnr_kernels.teacher_forcing import (
    BATCH_TOKENS,
    Forced,
    ResponseLogits,
    ResponseRows,
    length_buckets,
    response_logits,
    response_rows,
    row_shift_stats,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    Aligned: TypeAlias = PreTrainedModel | RuleAdapter

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

CLASSES = ("unshifted", "marginal", "shifted")
LAST_RANKS = (1, 3)
"""The last base rank that is unshifted, and the last that is marginal."""


@dataclass(frozen=True)
class Share:
    """A class's tokens as a share of all, with its 95 % interval."""

    share: float
    low: float
    high: float


@dataclass(frozen=True)
class ClassShares:
    """The shares of the three classes, and what they are shares of."""

    unshifted: Share
    marginal: Share
    shifted: Share
    num_tokens: int
    num_prompts: int


@dataclass(frozen=True, eq=False)
class PositionCurves:
    """Means over the responses that have a token at a position; [longest response] each."""

    count: Ints
    kl_aligned_base: Floats
    """In nats."""
    kl_base_aligned: Floats
    """In nats."""
    base_rank: Floats
    """From 1."""
    base_probability: Floats


@dataclass(frozen=True)
class ShiftedToken:
    """A token that is shifted somewhere."""

    token_id: int
    num_shifted: int
    num_tokens: int
    """How often it occurs."""


@dataclass(frozen=True, eq=False)
class TokenShift:
    """One row a response token, text after text; every column [N], logarithms and KL in nats."""

    prompt: Ints
    """Position of the text in the input."""
    position: Ints
    """Response tokens before it."""
    token_id: Ints
    rank: NDArray[np.int32]
    """Under the aligned model; 1 throughout a greedy response."""
    num_ties: NDArray[np.int32]
    """Other tokens with the same logit, which do not count for the rank."""
    logprob: NDArray[np.float32]
    entropy: NDArray[np.float32]
    base_rank: NDArray[np.int32]
    base_num_ties: NDArray[np.int32]
    base_logprob: NDArray[np.float32]
    base_entropy: NDArray[np.float32]
    kl_aligned_base: NDArray[np.float32]
    kl_base_aligned: NDArray[np.float32]
    """+inf where the aligned side bans a token."""
    same_argmax: NDArray[np.bool_]
    top_ids: NDArray[np.int32] | None = None
    """[N, k], the aligned model's likeliest tokens, likeliest first; None where none were kept."""
    top_logprobs: NDArray[np.float32] | None = None
    """[N, k]."""
    base_top_ids: NDArray[np.int32] | None = None
    base_top_logprobs: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.token_id)

    @property
    def token_class(self) -> Ints:
        """[N]: 0, 1 or 2, the place in CLASSES."""
        return np.searchsorted(LAST_RANKS, self.base_rank)

    def shares(self, *, with_eos: bool = True, eos_token_ids: TokenIds = ()) -> ClassShares:
        """Tokens of each class by all tokens, with bootstrap intervals over prompts.

        With `with_eos` False, the tokens `eos_token_ids` are left out. ValueError if there are none
        to leave out, or no other tokens.
        """
        left_out = () if with_eos else as_token_ids(eos_token_ids)
        if not with_eos and not left_out:
            raise ValueError("with_eos=False needs eos_token_ids: the tokens to leave out")
        return class_shares(self.class_counts(left_out)[1])

    def class_counts(self, left_out: TokenIds = ()) -> tuple[Ints, Ints]:
        """The prompts with a counted token [P], ascending, and their tokens of each class [P, 3].

        The tokens `left_out` are not counted.
        """
        counted = ~np.isin(self.token_id, as_token_ids(left_out))
        prompts, row = np.unique(self.prompt[counted], return_inverse=True)
        cells = np.bincount(
            len(CLASSES) * row + self.token_class[counted], minlength=len(CLASSES) * len(prompts)
        )
        return prompts, cells.reshape(-1, len(CLASSES))

    def by_position(self) -> PositionCurves:
        """How far the two are apart at the first response token, the second, and so on."""
        count = np.bincount(self.position)

        def mean(column: NDArray[Any]) -> Floats:
            return np.asarray(np.bincount(self.position, column) / count)

        return PositionCurves(
            count,
            mean(self.kl_aligned_base),
            mean(self.kl_base_aligned),
            mean(self.base_rank),
            mean(np.exp(self.base_logprob.astype(np.float64))),
        )

    def most_shifted(self, most: int = 20) -> tuple[ShiftedToken, ...]:
        """The tokens that are shifted most often, lowest id first where equally often."""
        ids, place, totals = np.unique(self.token_id, return_inverse=True, return_counts=True)
        shifted = np.bincount(place, self.token_class == CLASSES.index("shifted")).astype(int)
        order = [i for i in np.argsort(-shifted, kind="stable")[:most] if shifted[i]]
        return tuple(ShiftedToken(int(ids[i]), int(shifted[i]), int(totals[i])) for i in order)


def class_shares(counts: Ints) -> ClassShares:
    """The shares and intervals of `class_counts` [P, 3]. ValueError if there are no prompts."""
    if not len(counts):
        raise ValueError("there are no tokens but EOS: nothing has a share")
    totals = counts.sum(axis=1)

    def share(name: str) -> Share:
        of_class = counts[:, CLASSES.index(name)]
        return Share(float(of_class.sum() / totals.sum()), *ratio_interval(of_class, totals))

    named = {name: share(name) for name in CLASSES}
    return ClassShares(**named, num_tokens=int(totals.sum()), num_prompts=len(totals))


def token_shift(
    aligned: "Aligned",
    base: "PreTrainedModel",
    texts: Sequence[Forced],
    *,
    base_texts: Sequence[Forced] | None = None,
    batch_tokens: int = BATCH_TOKENS,
    top_k: int = 0,
) -> TokenShift:
    """Compares an aligned model with its base at every token of its responses.

    `texts` are prompts with the aligned model's responses; `aligned` may be a RuleAdapter.
    `base_texts` are the same responses after other prompts, for a base that is asked in another
    template. One forward pass a text and model. `top_k` also keeps both sides' likeliest tokens.
    Everything is checked before the first pass: ValueError for models of different vocabulary
    sizes, for other responses in `base_texts`, and as `response_logits` raises; afterwards for
    logits that are NaN or +inf.
    """
    return join_rows(
        list(
            shift_batches(
                aligned, base, texts, base_texts=base_texts, batch_tokens=batch_tokens, top_k=top_k
            )
        )
    )


def join_rows(parts: Sequence[TokenShift]) -> TokenShift:
    """All rows of at least one part, by prompt and position."""
    joined = {
        column.name: np.concatenate([getattr(part, column.name) for part in parts])
        for column in fields(TokenShift)
        if getattr(parts[0], column.name) is not None
    }
    order = np.lexsort((joined["position"], joined["prompt"]))
    return TokenShift(**{name: column[order] for name, column in joined.items()})


def shift_batches(
    aligned: "Aligned",
    base: "PreTrainedModel",
    texts: Sequence[Forced],
    *,
    base_texts: Sequence[Forced] | None = None,
    batch_tokens: int = BATCH_TOKENS,
    top_k: int = 0,
) -> Iterator[TokenShift]:
    """The rows of `token_shift` batch by batch, texts of similar length together."""
    model = aligned.model if isinstance(aligned, RuleAdapter) else aligned
    check_same_width(model, base)
    contexts = texts if base_texts is None else base_texts
    _check_responses(texts, contexts)
    lengths = [max(map(len, both)) for both in zip(texts, contexts, strict=True)]
    batches = length_buckets(lengths, batch_tokens)
    # Rules act on logits.
    read = response_logits if isinstance(aligned, RuleAdapter) else response_rows
    rows = read(model, texts, batches=batches)
    if model is base and base_texts is None:
        return _batches(aligned, texts, ((batch, batch) for batch in rows), top_k)
    base_rows = read(base, contexts, batches=batches)
    return _batches(aligned, texts, zip(rows, base_rows, strict=True), top_k)


def check_same_width(model: "PreTrainedModel", base: "PreTrainedModel") -> None:
    """ValueError for models of different vocabulary sizes."""
    sizes = logits_width(model), logits_width(base)
    if sizes[0] != sizes[1]:
        raise ValueError(
            f"both models must have the same vocabulary size, got {sizes[0]} and, for the base, "
            f"{sizes[1]}; compare a model with the base that it was made from"
        )


def _check_responses(texts: Sequence[Forced], base_texts: Sequence[Forced]) -> None:
    if len(texts) != len(base_texts):
        raise ValueError(f"base_texts must be one a text, {len(texts)}, got {len(base_texts)}")
    for number, (text, other) in enumerate(zip(texts, base_texts, strict=True), start=1):
        if text.response_token_ids != other.response_token_ids:
            raise ValueError(
                f"text {number}: base_texts has another response; only the prompt may differ"
            )


def _batches(
    aligned: "Aligned",
    texts: Sequence[Forced],
    batches: Iterator[tuple[ResponseRows, ResponseRows]],
    top_k: int,
) -> Iterator[TokenShift]:
    for batch, base_batch in batches:
        rows = aligned_rows(aligned, batch, [texts[index] for index in batch.indices])
        yield compare_rows(rows, base_batch, top_k=top_k)


def aligned_rows(aligned: "Aligned", batch: ResponseRows, texts: Sequence[Forced]) -> ResponseRows:
    """The aligned side's rows of a batch of its model's: with the rules of a RuleAdapter.

    `texts` are the batch's alone.
    """
    if not isinstance(aligned, RuleAdapter):
        return batch
    logits = aligned.adjusted(batch.logits, texts)
    return ResponseLogits(batch.indices, batch.lengths, logits, batch.token_ids)


def compare_rows(batch: ResponseRows, base_batch: ResponseRows, *, top_k: int = 0) -> TokenShift:
    """A batch's rows, in its order, from both sides' rows.

    ValueError that names the text, `batch.indices` + 1, for logits that are NaN or +inf.
    """
    token_ids = batch.token_ids
    stats = row_shift_stats(batch, base_batch, top_k=top_k)
    aligned, base = stats.aligned, stats.base
    columns = [
        token_ids, aligned.rank, aligned.num_ties, aligned.logprob, aligned.entropy,
        base.rank, base.num_ties, base.logprob, base.entropy,
        stats.kl_aligned_base, stats.kl_base_aligned, stats.same_argmax,
    ]  # fmt: skip
    if top_k:
        columns += [aligned.top_token_ids, aligned.top_logprobs]
        columns += [base.top_token_ids, base.top_logprobs]
    prompt = np.repeat(batch.indices, batch.lengths)
    position = np.concatenate([np.arange(length) for length in batch.lengths])
    shift = TokenShift(prompt, position, *(column.cpu().numpy() for column in columns))
    invalid = (shift.rank == 0) | (shift.base_rank == 0)
    if invalid.any():
        row = int(invalid.argmax())
        side = "base" if shift.base_rank[row] == 0 else "aligned model"
        raise ValueError(
            f"text {shift.prompt[row] + 1}: the logits of the {side} are NaN or +inf before token "
            f"{shift.position[row] + 1} of the response; try another dtype"
        )
    return shift
