"""From which prompt position on tokens count as used."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rnr_kernels.rules.kinds import RuleSet, UsedTokenPenalty
from rnr_kernels.rules.vocabulary import Vocabulary

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def find_used_from(
    rules: RuleSet,
    tokenizer: "PreTrainedTokenizerBase | Vocabulary",
    prompt_token_ids: Sequence[int],
) -> int:
    """What `used_from=` takes: the prompt position where the UsedTokenPenalty starts to look.

    0 without a locator. Raises ValueError if the locator's text is not in the prompt.
    """
    for rule in rules:
        if isinstance(rule, UsedTokenPenalty) and rule.after is not None:
            return Vocabulary.of(tokenizer).used_from(prompt_token_ids, rule.after)
    return 0
