"""Random responses under automata, and the masks of matchers as sets of tokens."""

import random

import numpy as np
import numpy.typing as npt
import torch
from transformers import PreTrainedTokenizerBase

from rnr_kernels.automata.automaton import Automaton
from rnr_kernels.automata.matcher import Matcher, allocate_bitmask


def allowed_tokens(matcher: Matcher) -> list[int]:
    """The ids of the matcher's next mask."""
    bitmask = allocate_bitmask(1, matcher.automaton.tree.vocab_size)
    assert matcher.fill_next_token_bitmask(bitmask)
    return ids_of(bitmask[0]).tolist()


def ids_of(mask: torch.Tensor) -> npt.NDArray[np.int64]:
    bits = np.unpackbits(mask.numpy().view(np.uint8), bitorder="little")
    return np.flatnonzero(bits)


def random_response(
    automaton: Automaton, tokenizer: PreTrainedTokenizerBase, budget: int, seed: int
) -> str:
    """The text of a response whose every token is drawn evenly from those allowed."""
    rng = random.Random(seed)
    matcher = Matcher(automaton, budget)
    bitmask = allocate_bitmask(1, automaton.tree.vocab_size)
    token_ids: list[int] = []
    while not matcher.is_terminated():
        matcher.fill_next_token_bitmask(bitmask)
        allowed = ids_of(bitmask[0])
        assert len(allowed), f"no token is allowed after {token_ids}"
        token_ids.append(int(rng.choice(allowed)))
        assert matcher.accept_token(token_ids[-1])
    assert len(token_ids) == matcher.num_tokens <= budget
    return str(tokenizer.decode(token_ids[:-1]))
