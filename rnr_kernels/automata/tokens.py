"""What the tokens of a vocabulary print, as a tree of bytes that automata walk."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from rnr_kernels.automata.dfa import Ints
from rnr_kernels.layout import BITS, num_words
from rnr_kernels.rules.kinds import TokenIds, as_token_ids
from rnr_kernels.rules.vocabulary import Vocabulary

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_FOLLOWING = range(0x80, 0xC0)
_LEADS = range(0xC2, 0xF5)

_MOST_TRIED = 256
"""Ordinary tokens whose decoding is tried."""


@dataclass(frozen=True)
class Level:
    """The nodes of one depth."""

    nodes: Ints
    parents: Ints
    bytes: Ints


@dataclass(frozen=True, eq=False)
class TokenTree:
    """The tokens of a vocabulary by what they print; made once and used by many automata.

    Special tokens, ids that print nothing, and added tokens that decoding changes are in no node:
    automata never allow them.
    """

    printed: list[bytes]
    """By token id; empty for what is in no node."""
    eos_token_ids: tuple[int, ...]
    nodes: Tensor
    """int32 [nodes + 1, 3] In the order of a walk: depth * 256 + byte, the first node that is no
    descendant, the start of its part of `token_ids`. The root and an end mark are nodes too."""
    token_ids: Tensor
    """int32: the tokens by the node at which they end."""
    has_bytes: bool
    """Whether every byte of characters beyond ASCII is a token, so that any can be spelled."""
    drops_first_space: bool
    """Whether decoding drops a space at the start of a response, as SentencePiece's does."""

    @classmethod
    def of(
        cls,
        tokenizer: "PreTrainedTokenizerBase | TokenTree",
        vocab_size: int | None = None,
        eos_token_ids: TokenIds | None = None,
    ) -> "TokenTree":
        """The tree of a tokenizer; one that is made is returned as it is.

        `vocab_size`: the model's (default: the tokenizer's); `eos_token_ids`: the ids that end a
        response (default: the tokenizer's). ValueError where there is none, where the tokenizer
        decodes to other text than its tokens print one after the other, or for a size or ends
        beside a tree, which has its own.
        """
        if isinstance(tokenizer, TokenTree):
            if vocab_size is not None or eos_token_ids is not None:
                raise ValueError(
                    f"the tree was made for {tokenizer.vocab_size} ids, of which "
                    f"{list(tokenizer.eos_token_ids)} end a response; leave vocab_size and "
                    "eos_token_ids out, or make another tree"
                )
            return tokenizer
        vocabulary = Vocabulary.of(tokenizer)
        size = vocabulary.size if vocab_size is None else vocab_size
        ends = vocabulary.eos_token_ids if eos_token_ids is None else as_token_ids(eos_token_ids)
        ends = tuple(token_id for token_id in ends if 0 <= token_id < size)
        if not ends:
            raise ValueError(
                f"an automaton ends responses itself, but no id below {size} ends one; pass "
                "eos_token_ids"
            )
        if getattr(tokenizer, "clean_up_tokenization_spaces", False):
            raise ValueError(
                "the tokenizer changes spaces when it decodes; set its "
                "clean_up_tokenization_spaces to False"
            )
        special = vocabulary.special_token_ids.union(ends)
        printed = [
            b"" if token_id in special else text
            for token_id, text in enumerate(vocabulary.printed_by(range(size)))
        ]
        drops_first_space = _drops_first_space(tokenizer, vocabulary)
        added = vocabulary.literal_token_ids
        _leave_out_what_decoding_changes_(printed, added, tokenizer, drops_first_space)
        nodes, token_ids = _tree(printed)
        have = {text[0] for text in printed if len(text) == 1}
        return cls(
            printed,
            ends,
            torch.from_numpy(nodes),
            torch.from_numpy(token_ids),
            have.issuperset(_FOLLOWING) and have.issuperset(_LEADS),
            drops_first_space,
        )

    @property
    def vocab_size(self) -> int:
        """How many ids there are."""
        return len(self.printed)

    @property
    def num_words(self) -> int:
        """The int32 words of a mask."""
        return num_words(self.vocab_size)

    @cached_property
    def every(self) -> Tensor:
        """int32 [words] The mask of all tokens in the tree."""
        return bitmask(self.token_ids.numpy(), self.num_words)

    @cached_property
    def ends(self) -> Tensor:
        """int32 [words] The mask of the ids that end a response."""
        return bitmask(np.array(self.eos_token_ids, np.int32), self.num_words)

    @cached_property
    def longest(self) -> int:
        """The most bytes that a token prints."""
        return max(map(len, self.printed), default=0)

    @cached_property
    def characters(self) -> Ints:
        """The code points that a token of their own prints, ascending."""
        points = set()
        for printed in self.printed:
            if 1 <= len(printed) <= 4:
                try:
                    text = printed.decode()
                except UnicodeDecodeError:
                    continue
                if len(text) == 1:
                    points.add(ord(text))
        return np.array(sorted(points), np.int32)

    @cached_property
    def levels(self) -> list[Level]:
        """The nodes by depth, without the root."""
        marks = self.nodes.numpy()[:-1, 0]
        depth, byte = marks >> 8, marks & 255
        parents = np.zeros(len(marks), np.int32)
        path = [0] * (int(depth.max()) + 2)
        for node, level in enumerate(depth.tolist()):
            path[level] = node
            parents[node] = path[level - 1] if level else 0
        return [
            Level(nodes, parents[nodes], byte[nodes])
            for level in range(1, len(path) - 1)
            for nodes in [np.flatnonzero(depth == level).astype(np.int32)]
        ]


def bitmask(token_ids: Ints, words: int) -> Tensor:
    """int32 [words] Bit v % 32 of word v // 32 is set for each token v."""
    bits = np.zeros(words * BITS, np.uint8)
    bits[token_ids] = 1
    return torch.from_numpy(np.packbits(bits, bitorder="little").view(np.int32))


def _tree(printed: Sequence[bytes]) -> tuple[Ints, Ints]:
    """The tree's nodes and token ids, as TokenTree holds them."""
    order = sorted((token for token, text in enumerate(printed) if text), key=printed.__getitem__)
    marks, ends, firsts = [0], [0], [0]
    path = [0]
    before = b""
    for place, token in enumerate(order):
        text = printed[token]
        shared = 0
        for one, other in zip(before, text, strict=False):
            if one != other:
                break
            shared += 1
        for node in path[shared + 1 :]:
            ends[node] = len(marks)
        del path[shared + 1 :]
        for depth in range(shared, len(text)):
            path.append(len(marks))
            marks.append((depth + 1) * 256 + text[depth])
            ends.append(0)
            firsts.append(place)
        before = text
    for node in path:
        ends[node] = len(marks)
    nodes = np.array([[*marks, 0], [*ends, len(marks)], [*firsts, len(order)]], np.int32).T
    return np.ascontiguousarray(nodes), np.array(order, np.int32)


def _drops_first_space(tokenizer: "PreTrainedTokenizerBase", vocabulary: Vocabulary) -> bool:
    """Tried with a token that starts with a space and goes on; the others cannot tell."""
    for form in (" a", " the", " I", " "):
        token_id = vocabulary.find(form)
        if token_id is not None:
            return str(tokenizer.decode([token_id])) == form[1:]
    return False


def _leave_out_what_decoding_changes_(
    printed: list[bytes],
    added: frozenset[int],
    tokenizer: "PreTrainedTokenizerBase",
    drops_first_space: bool,
) -> None:
    """Empties what added tokens print that decode to something else.

    ValueError where ordinary ones do: some are tried, each before itself and before another.
    """

    def changed(groups: Sequence[Sequence[int]]) -> list[Sequence[int]]:
        """The groups that decode otherwise; all at once, halves only where something is amiss."""
        token_ids = [token_id for group in groups for token_id in group]
        text = b"".join(printed[token_id] for token_id in token_ids).decode()
        decoded = str(tokenizer.decode(token_ids))
        if decoded == (text.removeprefix(" ") if drops_first_space else text):
            return []
        half = len(groups) // 2
        if not half:
            return list(groups)
        # Where both halves are right alone, what stands between them is not.
        between = [*groups[half - 1], *groups[half]]
        return changed(groups[:half]) + changed(groups[half:]) or [between]

    whole = [token_id for token_id, text in enumerate(printed) if text and _is_whole(text)]
    ordinary = [token_id for token_id in whole if token_id not in added]
    tried = ordinary[:: max(len(ordinary) // _MOST_TRIED, 1)]
    if not tried:
        return
    for group in changed([(token_id, token_id) for token_id in tried]):
        text = b"".join(printed[token_id] for token_id in group).decode()
        raise ValueError(
            f"the tokenizer decodes tokens {list(group)} to {tokenizer.decode(list(group))!r}, and "
            f"not to {text!r}, which they print one after the other; automata need a tokenizer "
            "that joins what its tokens print, such as one of bytes or of SentencePiece"
        )
    literal = [(tried[0], token_id, tried[0]) for token_id in whole if token_id in added]
    for group in changed(literal):
        for token_id in added.intersection(group):
            printed[token_id] = b""


def _is_whole(printed: bytes) -> bool:
    """Whether it is no part of a character."""
    try:
        printed.decode()
    except UnicodeDecodeError:
        return False
    return True
