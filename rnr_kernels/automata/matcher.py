"""One response on its way through an automaton."""

import torch
from torch import Tensor

from rnr_kernels.automata.automaton import Automaton
from rnr_kernels.automata.dfa import DEAD
from rnr_kernels.automata.walk import Place
from rnr_kernels.layout import num_words


class Matcher:
    """Follows the tokens of one response; the methods are named as in xgrammar's GrammarMatcher.

        while not matcher.is_terminated():
            matcher.fill_next_token_bitmask(bitmask, row)
            matcher.accept_token(sample under the bitmask)

    ends with a response of the language within `max_new_tokens` tokens, EOS included: a token is
    allowed if, and only if, a completion is known that fits into what is left. ValueError if even
    the first completion does not fit.
    """

    def __init__(self, automaton: Automaton, max_new_tokens: int | None = None) -> None:
        if max_new_tokens is not None and max_new_tokens < automaton.tokens_needed:
            raise ValueError(
                f"a response may need up to {automaton.tokens_needed} tokens, end of sequence "
                f"included, and max_new_tokens is {max_new_tokens}; allow more"
            )
        self.automaton = automaton
        self.max_new_tokens = max_new_tokens
        self.num_tokens = 0
        """The tokens accepted so far."""
        self._place = Place(automaton.start)
        self._has_ended = False

    def fill_next_token_bitmask(self, bitmask: Tensor, index: int = 0) -> bool:
        """Writes the allowed tokens into a row of int32 [rows, words]; always True.

        Bit v % 32 of word v // 32 is token v; words beyond the vocabulary are cleared. ValueError
        after the end, or for a bitmask that is not contiguous and on the CPU.
        """
        if self._has_ended:
            raise ValueError("the response has ended; reset() begins another")
        words = self.automaton.tree.num_words
        has_shape = bitmask.dim() == 2 and bitmask.shape[1] >= words
        is_plain = bitmask.device.type == "cpu" and bitmask.is_contiguous()
        if bitmask.dtype != torch.int32 or not has_shape or not is_plain:
            raise ValueError(
                f"bitmask must be int32 [rows, at least {words}], contiguous and on the CPU, got "
                f"{bitmask.dtype} {tuple(bitmask.shape)} with strides {bitmask.stride()} on "
                f"{bitmask.device}; use allocate_bitmask"
            )
        row = bitmask[index]
        if len(row) > words:
            row[words:] = 0
            row = row[:words]
        self.automaton.fill(row, self._place, self._budget)
        return True

    def accept_token(self, token_id: int) -> bool:
        """Goes on by a token; False, and nothing changes, for one that the mask does not allow."""
        tree = self.automaton.tree
        if self._has_ended or not 0 <= token_id < tree.vocab_size:
            return False
        if token_id in tree.eos_token_ids:
            self._has_ended = self.automaton.may_end(self._place)
            self.num_tokens += self._has_ended
            return self._has_ended
        printed = tree.printed[token_id]
        place = self.automaton.after(self._place, printed)
        if not printed or place.state == DEAD or not self.automaton.fits(place, self._budget):
            return False
        self._place = place
        self.num_tokens += 1
        return True

    def is_terminated(self) -> bool:
        """Whether EOS was accepted."""
        return self._has_ended

    def reset(self) -> None:
        """Begins another response."""
        self._place = Place(self.automaton.start)
        self.num_tokens = 0
        self._has_ended = False

    def fork(self) -> "Matcher":
        """Another matcher at the same place, which goes its own way."""
        copy = Matcher(self.automaton, self.max_new_tokens)
        copy._place, copy._has_ended = self._place, self._has_ended
        copy.num_tokens = self.num_tokens
        return copy

    @property
    def _budget(self) -> int | None:
        return None if self.max_new_tokens is None else self.max_new_tokens - self.num_tokens


def allocate_bitmask(num_rows: int, vocab_size: int) -> Tensor:
    """int32 [rows, words] with every bit set: a row without an automaton stays as it is."""
    return torch.full((num_rows, num_words(vocab_size)), -1, dtype=torch.int32)
