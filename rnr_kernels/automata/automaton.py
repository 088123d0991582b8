"""An automaton over the tokens of one vocabulary, from a language of texts."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rnr_kernels.automata.costs import class_costs, completion_costs
from rnr_kernels.automata.counts import Count, Layers, things_begun, tracked
from rnr_kernels.automata.dfa import DEAD, Bools, Dfa, Ints, numbered
from rnr_kernels.automata.languages import Language
from rnr_kernels.automata.tokens import TokenTree
from rnr_kernels.automata.utf8 import ROOT, byte_classes
from rnr_kernels.automata.walk import (
    IMPOSSIBLE,
    Place,
    WalkTables,
    costs_at,
    lower_costs_,
    token_mask_,
)

_CACHE_BYTES = 2**26

MAX_LOWERED = 300_000
"""States times layers up to which costs are lowered by longer tokens: about a second of work."""


@dataclass
class CachedMask:
    """The mask of a place; without a limit, of places in other layers too."""

    words: Tensor
    highest: int
    """The most tokens that a completion takes after one of the mask's tokens."""
    layer: int
    """For which `highest` is exact."""


@dataclass(frozen=True, eq=False)
class Automaton:
    """A language, a vocabulary, and what leads from one to the other; shared by many matchers.

    Masks that were computed are kept, up to 64 MiB.
    """

    tables: WalkTables
    accepts: Bools
    """[states]"""
    layers: Layers
    start: int
    windows: list[int]
    """[layers] A number that is the same where all layers in reach of a token allow the same."""
    most: list[int]
    """[layers] The dearest completion in reach of a token."""
    masks: dict[tuple[int, int, int, int], CachedMask] = field(default_factory=dict)
    """By state, node, layer (without a limit its number in `windows`), and limit."""

    @classmethod
    def compile(
        cls, language: Language, tree: TokenTree, count: Count | None = None
    ) -> "Automaton":
        """For responses that are in a language and have a count of things.

        What is read is the text that the tokenizer decodes the response to: where it drops a first
        space, so does the automaton. ValueError for a language that the vocabulary cannot spell.
        """
        dfa, marks = tracked(language.dfa, count)
        if tree.drops_first_space:
            dfa, marks = _after_a_dropped_space(dfa, marks)
        classes = byte_classes(dfa)
        rest = classes.rest if tree.has_bytes else np.where(classes.rest > 0, IMPOSSIBLE, 0)
        reach = tree.longest if count is None or not count.in_runs else tree.longest // 2 + 1
        costs_of_classes = class_costs(dfa, tree)
        for layers in Layers.ever_more(count, reach):
            tables = WalkTables(
                tree,
                torch.from_numpy(classes.next),
                torch.from_numpy(rest.astype(np.int32)),
                torch.from_numpy(classes.offsets),
                torch.from_numpy(classes.classes),
                torch.from_numpy(np.ascontiguousarray(dfa.table)),
                torch.from_numpy(marks),
                completion_costs(dfa, marks, layers, costs_of_classes),
                layers.skipped,
            )
            _lower(tables)
            most = tables.costs.numpy()
            # Once layers in reach of one another are equal, all those before them are equal too.
            if (most[: reach + 1] == most[0]).all():
                break
        if most[0, dfa.start] == IMPOSSIBLE:
            raise ValueError(
                "no response of this language can be written in the tokens of this vocabulary"
                if not language.is_empty
                else "the language is empty: no response is in it"
            )
        return cls(
            tables,
            dfa.accepts,
            layers,
            dfa.start,
            _windows(most < IMPOSSIBLE, layers.accepts, reach),
            _most_in_reach(np.where(most < IMPOSSIBLE, most, 0).max(axis=1), reach),
        )

    @property
    def tree(self) -> TokenTree:
        """Its vocabulary."""
        return self.tables.tree

    @property
    def num_states(self) -> int:
        """Of the tables, one for each state of the language and a few more."""
        return len(self.accepts)

    @property
    def tokens_needed(self) -> int:
        """A budget of tokens, EOS included, in which a response fits."""
        return int(self.tables.costs[0, self.start]) + 1

    def fill(self, mask: Tensor, place: Place, budget: int | None) -> None:
        """Writes the mask of the next token: int32 [words] on the CPU.

        `budget`: the tokens that may still come, this one and EOS included; None for no limit.
        """
        limit = _left_after(budget)
        layer = self.tables.layer(place.count)
        cached = self._mask(place, layer, IMPOSSIBLE - 1)
        if limit < (cached.highest if cached.layer == layer else self.most[layer]):
            cached = self._mask(place, layer, limit)
        mask.copy_(cached.words)

    def _mask(self, place: Place, layer: int, limit: int) -> CachedMask:
        """The mask of tokens after which a completion takes at most `limit` tokens."""
        is_limited = limit < IMPOSSIBLE - 1
        key = (place.state, place.node, layer if is_limited else self.windows[layer], limit)
        cached = self.masks.get(key)
        if cached is None:
            words = torch.empty(self.tree.num_words, dtype=torch.int32)
            highest = token_mask_(words, self.tables, place, limit)
            if limit >= -1 and self.may_end(place):
                words |= self.tree.ends
            cached = self.masks[key] = CachedMask(words, highest, layer)
            while len(self.masks) * words.nbytes > _CACHE_BYTES:
                del self.masks[next(iter(self.masks))]
        return cached

    def may_end(self, place: Place) -> bool:
        """Whether the text so far is a whole response."""
        layer = self.tables.layer(place.count)
        return bool(place.node == ROOT and self.accepts[place.state] and self.layers.accepts[layer])

    def fits(self, place: Place, budget: int | None) -> bool:
        """Whether a token of this budget (see `fill`) may lead to a place."""
        layer = self.tables.layer(place.count)
        if place.node == ROOT:
            cost = self.tables.arrays.costs[layer, place.state]
        else:
            here = (np.array([each], np.int32) for each in (place.state, place.node, layer))
            cost = costs_at(self.tables, *here)[0]
        return bool(cost <= _left_after(budget))

    def after(self, place: Place, printed: bytes) -> Place:
        """Where some bytes lead; the state is dead if nowhere."""
        following, rest, _, _, table, marks, _ = self.tables.arrays
        state, node, count = place.state, place.node, place.count
        num_nodes = len(rest)
        for byte in printed:
            to = following.item(node, byte)
            if to < 0:
                return Place(DEAD)
            if to < num_nodes:
                node = to
                continue
            node, before = ROOT, state
            state = table.item(state, to - num_nodes)
            if state == DEAD:
                return Place(DEAD)
            count += things_begun(marks.item(before), marks.item(state))
        return Place(state, node, count)


def _left_after(budget: int | None) -> int:
    """The most tokens that a completion may take after the next token, without EOS."""
    return IMPOSSIBLE - 1 if budget is None else budget - 2


def _after_a_dropped_space(dfa: Dfa, marks: Ints) -> tuple[Dfa, Ints]:
    """A start before the start, which one space leaves without a trace."""
    starts = np.unique(np.concatenate([dfa.starts, [0x20, 0x21]])).astype(np.int32)
    class_of = dfa.classes_at(starts)
    column = dfa.table[:, class_of[starts == 0x20]]
    space = class_of[starts == 0x20] = dfa.num_classes
    table = np.concatenate([dfa.table, column], axis=1)
    first = table[dfa.start].copy()
    first[space] = dfa.start
    longer = Dfa(
        starts,
        class_of,
        np.concatenate([table, first[None]]),
        np.append(dfa.accepts, dfa.accepts[dfa.start]),
        len(table),
    )
    return longer, np.append(marks, marks[dfa.start])


def _lower(tables: WalkTables) -> None:
    costs = tables.costs
    if costs.numel() > MAX_LOWERED:
        return
    limits = costs.clone()
    flat = limits.view(-1)
    order = torch.argsort(flat, stable=True)
    is_open = (flat[order] > 0) & (flat[order] < IMPOSSIBLE)
    lower_costs_(tables, order[is_open], limits)


def _windows(is_possible: Bools, accepts: Bools, reach: int) -> list[int]:
    """Numbers the layers by what they and the next `reach` ones allow."""
    numbers = numbered(np.column_stack([is_possible, accepts]))
    found: list[int] = numbered(_in_reach(numbers, reach)).tolist()
    return found


def _most_in_reach(most: Ints, reach: int) -> list[int]:
    """The dearest completion from each layer and the next `reach` ones, and 3 for bytes."""
    found: list[int] = (_in_reach(most, reach).max(axis=1) + 3).tolist()
    return found


def _in_reach(values: npt.NDArray[Any], reach: int) -> npt.NDArray[Any]:
    """[layers, reach + 1] Each layer's value and the next ones'; the last stands for all above."""
    padded = np.concatenate([values, np.repeat(values[-1:], reach)])
    return np.lib.stride_tricks.sliding_window_view(padded, reach + 1)
