"""The likelihood of responses under a base model times rules, through the ops that decode."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from torch import Tensor

from rnr_kernels.forward import context_window, logits_width
from rnr_kernels.generation import end_token_ids
from rnr_kernels.ops import rule_log_softmax
from rnr_kernels.rules.compiler import compile_rules
from rnr_kernels.rules.kinds import RuleSet
from rnr_kernels.rules.scope import find_used_from
from rnr_kernels.teacher_forcing import Forced, draft_rows, response_logits
from rnr_kernels.templates import TEMPLATES, PromptTemplate
from rnr_kernels.tuning.conversations import Conversation
from rnr_kernels.tuning.examples import encode_example

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class LogLikelihood:
    """What some responses and the EOS of each are worth under a model, in nats."""

    responses: tuple[float, ...]
    """The log-probability of each response, EOS included; -inf where rules forbid a token of it."""
    lengths: tuple[int, ...]
    """Tokens of each response, its EOS included."""

    @property
    def num_tokens(self) -> int:
        """Of all responses together."""
        return sum(self.lengths)

    @property
    def total(self) -> float:
        """Of all responses together."""
        return math.fsum(self.responses)

    @property
    def per_token(self) -> float:
        """The mean over tokens."""
        return self.total / self.num_tokens

    @property
    def per_response(self) -> float:
        """The mean over responses."""
        return self.total / len(self.responses)


@dataclass(frozen=True)
class Adjusted:
    """One batch of teacher-forced responses under several rule sets."""

    indices: list[int]
    """Positions of the texts in the input; their rows follow each other in this order."""
    lengths: list[int]
    """Response tokens of each of them."""
    token_ids: Tensor
    """int64 [N], the response tokens."""
    logprobs: list[Tensor]
    """Of each rule set, float32 [N, V]: the log of p_base * p_rules / Z."""


def response_texts(
    conversations: Sequence[Conversation],
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    template: PromptTemplate,
) -> list[Forced]:
    """Every response of the conversations, each closed by EOS, behind the text so far.

    ValueError for no conversations, an empty response, one that does not fit into the model's
    window, and a tokenizer whose EOS does not end the model's responses.
    """
    if not conversations:
        raise ValueError("there are no conversations: pass at least one")
    ends = end_token_ids(model, tokenizer)
    if tokenizer.eos_token_id not in ends:
        raise ValueError(
            f"the tokenizer's EOS is {tokenizer.eos_token_id}, the model ends a response with "
            f"{ends}; set tokenizer.eos_token to one of those"
        )
    texts = []
    window = context_window(model)
    for conversation in conversations:
        if not all(turn.response.strip() for turn in conversation.turns):
            raise ValueError(f"{conversation.where}: a response is empty; leave the record out")
        example = encode_example(conversation, tokenizer, template=template)
        if window is not None and len(example.token_ids) > window:
            raise ValueError(
                f"{conversation.where}: {len(example.token_ids)} tokens, more than the model's "
                f"window of {window}; shorten the record or leave it out"
            )
        start = 0
        for trained, tokens in groupby(example.is_trained):
            end = start + len(list(tokens))
            if trained:
                texts.append(Forced(example.token_ids[:start], example.token_ids[start:end]))
            start = end
    return texts


def rules_log_likelihood(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    rule_sets: Sequence[RuleSet],
    conversations: Sequence[Conversation],
    *,
    template: PromptTemplate = TEMPLATES["tags"],
) -> list[LogLikelihood]:
    """The log-likelihood of all responses under the model times each rule set, in one pass.

    `RuleSet()` is the bare model. In a conversation of several turns each response is scored as if
    it were decoded behind the text before it. ValueError as in `response_texts` and
    `compile_rules`, and for a model whose logits are NaN.
    """
    texts = response_texts(conversations, model, tokenizer, template)
    scores = [[0.0] * len(texts) for _ in rule_sets]
    for batch in adjusted(model, tokenizer, rule_sets, texts):
        for values, logprobs in zip(scores, batch.logprobs, strict=True):
            chosen = logprobs.gather(1, batch.token_ids[:, None])[:, 0].double().cpu()
            for index, part in zip(batch.indices, chosen.split(batch.lengths), strict=True):
                values[index] = float(part.sum())
    lengths = tuple(len(text.response_token_ids) for text in texts)
    return [LogLikelihood(tuple(values), lengths) for values in scores]


def adjusted(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    rule_sets: Sequence[RuleSet],
    texts: Sequence[Forced],
) -> Iterator[Adjusted]:
    """The distributions from which each response token was chosen, batch by batch."""
    program = compile_rules(
        rule_sets,
        tokenizer,
        logits_width(model),
        eos_token_ids=end_token_ids(model, tokenizer),
        device=model.device,
    )
    starts = [
        [find_used_from(rules, tokenizer, text.prompt_token_ids) for text in texts]
        for rules in rule_sets
    ]
    for batch in response_logits(model, texts):
        some = [texts[index] for index in batch.indices]
        logprobs = []
        for program_id, used_from in enumerate(starts):
            rows = draft_rows(
                program, some, [used_from[index] for index in batch.indices], program_id
            )
            result = rule_log_softmax(
                batch.logits,
                program,
                rows.state,
                state_indices=rows.state_indices,
                row_offsets=rows.row_offsets,
                draft_token_ids=rows.draft_token_ids,
            )
            assert isinstance(result, Tensor)
            _check_rows(result, batch.lengths, batch.indices)
            logprobs.append(result)
        yield Adjusted(batch.indices, batch.lengths, batch.token_ids, logprobs)


def _check_rows(logprobs: Tensor, lengths: list[int], indices: list[int]) -> None:
    invalid = logprobs.isnan().any(1).cpu()
    for index, part in zip(indices, invalid.split(lengths), strict=True):
        if part.any():
            step = int(part.nonzero()[0])
            raise ValueError(
                f"the logits for response {index + 1} are NaN, +inf, or all -inf after {step} "
                "tokens; check the model, or try another dtype"
            )
