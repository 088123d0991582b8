"""The masks of responses of which only the token ids are seen, as a logits processor sees them."""

from collections.abc import Sequence

import torch
from torch import Tensor

from rnr_kernels.automata.automaton import Automaton
from rnr_kernels.automata.masks import Automata, BatchMasks, automata_of
from rnr_kernels.automata.matcher import Matcher
from rnr_kernels.integrations.prompts import rows_a_prompt


class ResponseMasks:
    """A pure function of responses; the matchers of the last ones are kept to go on from.

    `automata`: one for all prompts, or one each; `max_new_tokens` None: no limit. ValueError where
    no response fits into it.
    """

    def __init__(self, automata: Automata, max_new_tokens: int | None) -> None:
        if automata is None or isinstance(automata, Automaton):
            self._automata = [automata]
        else:
            self._automata = list(automata)
        if not self._automata:
            raise ValueError("automata must hold one for each prompt, got an empty list")
        self._max_new_tokens = max_new_tokens
        for each in self._automata:
            self._begun(each)
        self._last: dict[tuple[int, tuple[int, ...]], Matcher | None] = {}

    def __len__(self) -> int:
        """The number of prompts; 1 where all share an automaton."""
        return len(self._automata)

    def check(self, vocab_size: int, eos_token_ids: Sequence[int] | None) -> None:
        """ValueError as from `automata_of`."""
        automata_of(self._automata, len(self), vocab_size, eos_token_ids)

    def of(
        self, responses: Sequence[Sequence[int]], vocab_size: int, device: torch.device
    ) -> Tensor:
        """int32 [rows, words]; row r is of prompt r // n.

        All tokens are allowed after an end, and after tokens that are in no response, as those of
        beams that nothing keeps any more.
        """
        copies = rows_a_prompt(len(responses), len(self))
        keys = [(row // copies, tuple(response)) for row, response in enumerate(responses)]
        found = {key: self._follow(*key) for key in dict.fromkeys(keys)}
        self._last = found
        masks = BatchMasks(len(keys), vocab_size, device)
        return masks.fill([found[key] for key in keys])

    def _begun(self, automaton: Automaton | None) -> Matcher | None:
        return None if automaton is None else Matcher(automaton, self._max_new_tokens)

    def _follow(self, prompt: int, response: tuple[int, ...]) -> Matcher | None:
        """The matcher after a response; None where it allows all."""
        before = response[:-1]
        if (prompt, before) in self._last:
            matcher, rest = self._last[prompt, before], response[-1:]
            matcher = None if matcher is None else matcher.fork()
        else:
            matcher, rest = self._begun(self._automata[prompt]), response
        for token_id in rest:
            if matcher is None or matcher.is_terminated():
                break
            if not matcher.accept_token(token_id):
                return None
        return matcher
