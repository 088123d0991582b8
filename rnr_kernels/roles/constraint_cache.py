"""ConstraintCache of many sets of requirements, one after the other, for one model."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from rnr_kernels.automata.tokens import TokenTree
from rnr_kernels.forward import logits_width
from rnr_kernels.generation import end_token_ids
from rnr_kernels.roles.constraints import Constraint, constrain
from rnr_kernels.roles.requirement import Requirement

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

KEPT = 64
"""Compiled constraints, as a repair has that of the response before."""


class ConstraintCache:
    """Compiles constraints for responses of up to `max_new_tokens`, and keeps the last of them."""

    def __init__(
        self,
        model: "PreTrainedModel",
        tokenizer: "PreTrainedTokenizerBase",
        max_new_tokens: int,
    ) -> None:
        self._tokenizer = tokenizer
        self._max_new_tokens = max_new_tokens
        ends = end_token_ids(model, tokenizer)
        self._tree = TokenTree.of(tokenizer, logits_width(model), ends)
        self._of: Callable[[tuple[Requirement, ...]], Constraint | str] = lru_cache(KEPT)(
            self._compiled
        )

    def of(self, requirements: Sequence[Requirement]) -> Constraint | str:
        """The constraint of all requirements together; words for why there is none."""
        return self._of(tuple(requirements))

    def _compiled(self, requirements: tuple[Requirement, ...]) -> Constraint | str:
        try:
            found = constrain(requirements, self._tokenizer, tree=self._tree)
        except ValueError as error:
            return str(error)
        needed = 0 if found.automaton is None else found.automaton.tokens_needed
        if needed > self._max_new_tokens:
            return (
                f"a response may need {needed} tokens to follow its requirements, and has at most "
                f"{self._max_new_tokens}"
            )
        return found
