"""Which rule moved which token by how much, at every step of a given response."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from rnr_kernels.ops import apply_rules_
from rnr_kernels.rules.compiler import compile_rules
from rnr_kernels.rules.kinds import LogitRule, RuleSet, TokenIds
from rnr_kernels.rules.scope import find_used_from
from rnr_kernels.state import DecodeState

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class StepExplanation:
    """The rules' effect where one response token was chosen."""

    step: int
    """t: response tokens before it."""
    token_id: int
    scores: tuple[float, ...]
    """What each rule added to this token's logit, in the order of the rule set."""
    total: float
    """Their float32 sum: r of this token."""
    raised: tuple[tuple[int, float], ...]
    """The tokens whose logits rose most, with r."""
    lowered: tuple[tuple[int, float], ...]
    """The tokens whose logits fell most, with r."""


def rule_name(rule: LogitRule) -> str:
    """A rule's label, or its kind."""
    return rule.label or type(rule).__name__


def explain_response(
    rules: RuleSet,
    tokenizer: "PreTrainedTokenizerBase",
    prompt_token_ids: Sequence[int],
    response_token_ids: Sequence[int],
    *,
    vocab_size: int | None = None,
    eos_token_ids: TokenIds | None = None,
    most: int = 3,
) -> Iterator[StepExplanation]:
    """One explanation a response token, `most` raised and lowered tokens each.

    A rule's score is what the rule set would add if it held this rule alone, so the scores of a
    step add up to its total but for float32 rounding.
    """
    if most < 0:
        raise ValueError(f"most must be 0 or more tokens, got {most}")
    singles = [RuleSet([rule]) for rule in rules]
    program = compile_rules([rules, *singles], tokenizer, vocab_size, eos_token_ids=eos_token_ids)
    used_from = find_used_from(rules, tokenizer, prompt_token_ids)
    count = 1 + len(singles)
    for step, token_id in enumerate(response_token_ids):
        state = DecodeState.from_token_ids(
            program,
            [response_token_ids[:step]] * count,
            prompt_token_ids=[prompt_token_ids] * count,
            program_ids=range(count),
            used_from=[used_from] * count,
        )
        # Added to zeros, a score comes out as it is.
        scores = apply_rules_(torch.zeros(count, program.vocab_size), program, state)
        total = scores[0]
        known = 0 <= token_id < program.vocab_size
        yield StepExplanation(
            step,
            token_id,
            tuple(scores[1:, token_id].tolist()) if known else (0.0,) * len(singles),
            float(total[token_id]) if known else 0.0,
            _extremes(total, most, largest=True),
            _extremes(total, most, largest=False),
        )


def _extremes(total: torch.Tensor, most: int, *, largest: bool) -> tuple[tuple[int, float], ...]:
    values, ids = total.topk(min(most, len(total)), largest=largest)
    pairs = zip(ids.tolist(), values.tolist(), strict=True)
    return tuple((i, v) for i, v in pairs if (v > 0 if largest else v < 0))
