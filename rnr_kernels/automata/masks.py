"""The masks of a batch, one step after the other."""

from collections.abc import Sequence

import torch
from torch import Tensor

from rnr_kernels.automata.automaton import Automaton
from rnr_kernels.automata.matcher import Matcher, allocate_bitmask

Automata = Automaton | Sequence[Automaton | None] | None
"""One for all rows, or one for each; None for rows without."""


class BatchMasks:
    """One int32 [rows, words] mask in memory, and one on the device of the logits."""

    def __init__(self, num_rows: int, vocab_size: int, device: torch.device) -> None:
        self._masks = allocate_bitmask(num_rows, vocab_size)
        self._on_device = (
            self._masks if device.type == "cpu" else torch.empty_like(self._masks, device=device)
        )

    def fill(self, matchers: Sequence[Matcher | None]) -> Tensor:
        """The masks of the next tokens of some rows; None and ended ones allow every token."""
        for row, matcher in enumerate(matchers):
            if matcher is None or matcher.is_terminated():
                self._masks[row] = -1
            else:
                matcher.fill_next_token_bitmask(self._masks, row)
        masks = self._masks[: len(matchers)]
        if self._on_device is self._masks:
            return masks
        on_device = self._on_device[: len(matchers)]
        on_device.copy_(masks)
        return on_device


def automata_of(
    automata: Automata, num_rows: int, vocab_size: int, end_token_ids: Sequence[int] | None
) -> list[Automaton | None]:
    """One for each row.

    ValueError for another number of them, for one whose vocabulary is larger than the model's, and
    for one that ends responses by other tokens than the model (`end_token_ids` None: not known).
    """
    if automata is None or isinstance(automata, Automaton):
        rows: list[Automaton | None] = [automata] * num_rows
    else:
        rows = list(automata)
        if len(rows) != num_rows:
            raise ValueError(f"automata must be one for each of {num_rows} rows, got {len(rows)}")
    for automaton in {id(each): each for each in rows if each is not None}.values():
        tree = automaton.tree
        if tree.vocab_size > vocab_size:
            raise ValueError(
                f"the automaton has {tree.vocab_size} tokens, the model {vocab_size}; make it with "
                f"vocab_size={vocab_size}"
            )
        if end_token_ids is None:
            continue
        if not end_token_ids:
            raise ValueError(
                f"the automaton ends responses with tokens {list(tree.eos_token_ids)}, but nothing "
                "ends a row, so it would run on after them; pass them as eos_token_ids"
            )
        ends = {token_id for token_id in end_token_ids if token_id < tree.vocab_size}
        if set(tree.eos_token_ids) != ends:
            raise ValueError(
                f"the automaton ends responses with tokens {list(tree.eos_token_ids)}, the model "
                f"with {sorted(end_token_ids)}; make it with the model's eos_token_ids"
            )
    return rows
