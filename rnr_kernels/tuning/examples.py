"""Training examples: a conversation's token ids, and which of them are trained on.

The format is that of Hewitt et al. 2024, section 3: tags as plain text, an EOS after every
response, loss on responses and their EOS alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from rnr_kernels.templates import TEMPLATES, PromptTemplate, encode_response
from rnr_kernels.tuning.conversations import Conversation

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IGNORED = -100
"""The label of a token without a loss (torch.nn.functional.cross_entropy's ignore_index)."""

MODES = ("instruction", "response", "task")
"""What is learnt (Hewitt et al. 2024): `response` tuning empties the instructions, keeps their tags
(section 4) and leaves out system messages; `instruction` tuning and a single `task` (section 5)
take them as they are."""


@dataclass(frozen=True)
class Example:
    """One conversation for training."""

    token_ids: tuple[int, ...]
    is_trained: tuple[bool, ...]
    """Of each token, whether it has a loss: those of responses and their EOS."""

    def labels(self) -> list[int]:
        """The token ids, IGNORED where there is no loss."""
        pairs = zip(self.token_ids, self.is_trained, strict=True)
        return [token if trained else IGNORED for token, trained in pairs]


def encode_example(
    conversation: Conversation,
    tokenizer: "PreTrainedTokenizerBase",
    *,
    mode: str = "instruction",
    template: PromptTemplate = TEMPLATES["tags"],
) -> Example:
    """A conversation's tokens, BOS first where the tokenizer adds one.

    A prompt has the tokens that generation gives it. ValueError for a mode that is none and for a
    tokenizer without EOS.
    """
    if mode not in MODES:
        raise ValueError(f"mode must be one of {', '.join(MODES)}, got {mode!r}")
    eos = tokenizer.eos_token_id
    if eos is None:
        raise ValueError(
            "the tokenizer has no EOS token: a model could not learn to end; set "
            "tokenizer.eos_token to one of its tokens"
        )
    token_ids: list[int] = []
    is_trained: list[bool] = []
    is_empty = mode == "response"
    messages: list[dict[str, str]] = []
    if conversation.system and not is_empty:
        messages.append({"role": "system", "content": conversation.system})
    for turn in conversation.turns:
        messages.append({"role": "user", "content": "" if is_empty else turn.instruction})
        prompt = template.encode(tokenizer, messages)
        if prompt[: len(token_ids)] != token_ids:
            raise ValueError(
                f"{conversation.where}: template {template.name!r} writes a later turn's prompt "
                "otherwise than the turns before it; train on one turn a record"
            )
        prompt = prompt[len(token_ids) :]
        response = encode_response(template, tokenizer, messages[-1:], turn.response)
        token_ids += [*prompt, *response, int(eos)]
        is_trained += [False] * len(prompt) + [True] * (len(response) + 1)
        messages.append({"role": "assistant", "content": turn.response})
    return Example(tuple(token_ids), tuple(is_trained))


def pad_examples(examples: Sequence[Example], pad_token_id: int) -> dict[str, Tensor]:
    """A batch as models take it: input_ids, attention_mask and labels, int64 [B, longest], padded
    on the right. Padding has no loss, and no token attends to it."""
    longest = max(len(example.token_ids) for example in examples)

    def filled(values: Sequence[int], filler: int) -> list[int]:
        return [*values, *[filler] * (longest - len(values))]

    return {
        "input_ids": torch.tensor([filled(e.token_ids, pad_token_id) for e in examples]),
        "attention_mask": torch.tensor([filled([1] * len(e.token_ids), 0) for e in examples]),
        "labels": torch.tensor([filled(e.labels(), IGNORED) for e in examples]),
    }


def describe_example(example: Example, tokenizer: "PreTrainedTokenizerBase") -> str:
    """One token a line, for people who check a format: * if it is trained on, its id, its text."""
    lines = [
        f"{'*' if trained else ' '} {token:>7}  {tokenizer.decode([token])!r}"
        for token, trained in zip(example.token_ids, example.is_trained, strict=True)
    ]
    return "\n".join(lines)
