"""A tiny random Llama and an oracle of rules that looks at one row at a time."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

from rnr_kernels.reference.rules import add_scores, find_rows, rule_scores
from rnr_kernels.rules.compiler import compile_rules
from rnr_kernels.rules.kinds import BanTokens, EosRamp, RuleSet, TokenBias, UsedTokenPenalty
from rnr_kernels.state import DecodeState

BOS, EOS, PAD = 0, 1, 2
VOCAB_SIZE = 328
"""More than the tokens of the tokenizer `tiny_bpe`: padded embedding rows are common."""

# Each rule depends on the step or on earlier tokens, so a wrong t or a stale bitmap changes scores.
RULES = RuleSet(
    [
        TokenBias({5: 2.0, 70: -3.0, 280: 4.0}, steps=(1, 6)),
        BanTokens([11, 12, 13], steps=(0, 4)),
        UsedTokenPenalty(6.0, label="used"),
        EosRamp(6.0, over=12),
    ]
)
ENDLESS = RULES + RuleSet([BanTokens([EOS])])
SHORT = RuleSet([UsedTokenPenalty(2.0), EosRamp(30.0, over=4)])
WHOLE = RuleSet([UsedTokenPenalty(6.0, scope="prompt+response")])

PROMPTS = [[BOS, 40, 41, 42, 43, 44], [BOS, 90, 91]]
WIDTH = 6
"""Columns of `PROMPTS` in a batch."""


def make_llama(seed: int = 0, *, vocab_size: int = VOCAB_SIZE) -> Any:
    """A LlamaForCausalLM, typed Any because the types of `generate` fit no caller.

    Its random float32 weights are large, so that the next token depends on the whole context.
    """
    config = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=128,
        initializer_range=0.5,
        bos_token_id=BOS,
        eos_token_id=EOS,
        pad_token_id=PAD,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
    return model.eval()


def save_llama(
    folder: Path, tokenizer: PreTrainedTokenizerBase, *, dtype: torch.dtype = torch.float32
) -> Path:
    """A model with ordinary small weights and a window of 96, and its tokenizer, in a folder."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=96,
        bos_token_id=BOS,
        eos_token_id=EOS,
        pad_token_id=PAD,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: Any = LlamaForCausalLM(config)
    model.to(dtype).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def left_padded(prompts: Sequence[Sequence[int]], pad: int = PAD) -> dict[str, Tensor]:
    """`input_ids` and `attention_mask` of a batch."""
    width = max(len(prompt) for prompt in prompts)
    rows = [[pad] * (width - len(prompt)) + list(prompt) for prompt in prompts]
    masks = [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    return {"input_ids": torch.tensor(rows), "attention_mask": torch.tensor(masks)}


BATCH = left_padded(PROMPTS)


def adjusted_row(
    rules: RuleSet | None,
    scores: Tensor,
    prompt: Sequence[int],
    response: Sequence[int],
    *,
    eos_token_ids: Sequence[int] = (EOS,),
    used_from: int = 0,
) -> Tensor:
    """Scores [V] plus the rules' scores, from a state made anew from the tokens."""
    if rules is None:
        return scores
    vocab_size = len(scores)
    program = compile_rules(rules, None, vocab_size, eos_token_ids=eos_token_ids)
    state = DecodeState.from_token_ids(
        program, [response], prompt_token_ids=[prompt], used_from=[used_from]
    )
    rows = find_rows(1, program.tensors, state.tensors, state.error, None, None)
    added = rule_scores(vocab_size, program.tensors, state.tensors, rows, state.error)
    return add_scores(scores[None], added)[0].to(scores.dtype)


@torch.no_grad()
def greedy_response(
    model: Any,
    rules: RuleSet | None,
    prompt: Sequence[int],
    max_new_tokens: int,
    *,
    eos_token_ids: Sequence[int] = (EOS,),
    used_from: int = 0,
) -> list[int]:
    """A response up to and with EOS, by a full forward pass over the bare prompt at every step."""
    response: list[int] = []
    while len(response) < max_new_tokens and not (response and response[-1] in eos_token_ids):
        logits = model(torch.tensor([[*prompt, *response]])).logits[0, -1]
        values = adjusted_row(
            rules, logits, prompt, response, eos_token_ids=eos_token_ids, used_from=used_from
        )
        response.append(int(values.argmax()))
    return response


def responses(
    sequences: Tensor, prompt_length: int, eos_token_ids: Sequence[int] = (EOS,)
) -> list[list[int]]:
    """The response of each row up to and with EOS."""
    found = []
    for row in sequences[:, prompt_length:].tolist():
        ends = [index for index, token in enumerate(row) if token in eos_token_ids]
        found.append(row[: ends[0] + 1] if ends else row)
    return found
