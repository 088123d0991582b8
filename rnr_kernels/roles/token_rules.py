"""Rules over logits that serve requirements, and remember nothing of a response but its length."""

from typing import TYPE_CHECKING

from rnr_kernels.automata.characters import Characters
from rnr_kernels.rules.kinds import BanTokens, EosRamp, OnlyTokens, RuleSet
from rnr_kernels.rules.vocabulary import Vocabulary

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TOKENS_A_WORD = 1.3
"""What an English word takes in common vocabularies."""
WORDS_A_SENTENCE = 15


def without_characters(
    tokenizer: "PreTrainedTokenizerBase", banned: Characters, *, label: str
) -> RuleSet:
    """Bans every token that prints one of the characters.

    Tokens that print a part of a character are left, so that other characters can be spelled.
    """
    vocabulary = Vocabulary.of(tokenizer)
    special = vocabulary.special_token_ids
    ids = range(vocabulary.size)
    texts = (printed.decode(errors="ignore") for printed in vocabulary.printed_by(ids))
    tokens = [
        token_id
        for token_id, text in zip(ids, texts, strict=True)
        if token_id not in special and any(map(banned.__contains__, text))
    ]
    return RuleSet([BanTokens(tokens, label=label)] if tokens else [])


def starting_with(tokenizer: "PreTrainedTokenizerBase", text: str, *, label: str) -> RuleSet:
    """Allows only the tokens of a text at the start, one after the other."""
    token_ids = tokenizer.encode(text, add_special_tokens=False)
    return RuleSet(
        [
            OnlyTokens([token_id], steps=(step, step + 1), label=label)
            for step, token_id in enumerate(token_ids)
        ]
    )


def of_length(
    tokenizer: "PreTrainedTokenizerBase", low: int, high: int | None, *, label: str
) -> RuleSet:
    """No end before about `low` tokens; a growing wish for it, and a hard stop, at `high`."""
    rules: list[BanTokens | EosRamp] = []
    ends = Vocabulary.of(tokenizer).eos_token_ids
    if low > 0 and ends:
        rules.append(BanTokens(ends, steps=(0, low), label=label))
    if high is not None:
        rules.append(EosRamp(over=max(high, 1), force_at=max(high, low + 1), label=label))
    return RuleSet(rules)
