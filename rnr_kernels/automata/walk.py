"""Walks over all tokens from one state of an automaton: which may come next, and at what cost.

The functions here are the definition, in numpy; where the compiled kernels are there, they do the
same (csrc/cpu/automata.cpp) and give the same bits.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from rnr_kernels.automata.counts import things_begun
from rnr_kernels.automata.dfa import DEAD, Ints
from rnr_kernels.automata.tokens import TokenTree, bitmask
from rnr_kernels.automata.utf8 import ROOT
from rnr_kernels.backends import native

IMPOSSIBLE = 2**30
"""The cost of what cannot be completed."""

MOST_STEPS = 256
"""Nodes that `lower_costs_` follows from one state: enough where few ways lead on."""


@dataclass(frozen=True)
class Place:
    """Where a response stands in an automaton."""

    state: int
    node: int = ROOT
    """What has come of a character, a node of ByteClasses."""
    count: int = 0
    """The things counted so far."""


class Arrays(NamedTuple):
    """Numpy's views of the tensors of the same names."""

    next: Ints
    rest: Ints
    offsets: Ints
    classes: Ints
    table: Ints
    marks: Ints
    costs: Ints


@dataclass(frozen=True, eq=False)
class WalkTables:
    """All that a walk reads: contiguous int32 tensors on the CPU."""

    tree: TokenTree
    next: Tensor
    """[nodes, 256], as the three that follow it of ByteClasses."""
    rest: Tensor
    """[nodes]; IMPOSSIBLE where no tokens spell the missing bytes."""
    offsets: Tensor
    classes: Tensor
    table: Tensor
    """[states, classes] The next state."""
    marks: Tensor
    """[states] What the last character is to a Count: OUTSIDE, INSIDE or ALONE."""
    costs: Tensor
    """[layers, states] The tokens of a completion without EOS; IMPOSSIBLE where there is none."""
    skipped: int
    """The count that layer 0 stands for, as it does for all below."""

    def layer(self, count: int) -> int:
        """The layer of costs for so many things."""
        return min(max(count - self.skipped, 0), len(self.costs) - 1)

    @cached_property
    def arrays(self) -> Arrays:
        """What numpy reads."""
        return Arrays(*(getattr(self, name).numpy() for name in Arrays._fields))

    @cached_property
    def shortcuts(self) -> tuple[Tensor, Tensor]:
        """For kernels alone: int64 [nodes] and [states], sets of classes (csrc/cpu/automata.h).

        Where all classes below a node are among those that a state stays in, all tokens there are
        allowed, or none is.
        """
        below = torch.empty(len(self.tree.nodes) - 1, dtype=torch.int64)
        stay = torch.empty(len(self.table), dtype=torch.int64)
        native.LIBRARY.find_shortcuts_(below, stay, *self.kernel_arguments())
        return below, stay

    def kernel_arguments(self) -> tuple[Tensor, ...]:
        """In the order of the kernels' arguments."""
        return (
            self.tree.nodes, self.tree.token_ids, self.next, self.rest, self.offsets, self.classes,
            self.table, self.marks, self.costs,
        )  # fmt: skip


def token_mask_(mask: Tensor, tables: WalkTables, place: Place, limit: int) -> int:
    """Sets the bits of the tokens after which a completion takes at most `limit` tokens.

    `mask`: int32 [words], bit v % 32 of word v // 32, all of it written. Returns the most tokens
    that a completion takes after one of the tokens that are set, 0 where none is.
    """
    if native.unavailable() is None:
        found: int = native.LIBRARY.token_mask_(
            mask, *tables.kernel_arguments(), *tables.shortcuts, tables.tree.every,
            place.state, place.node, tables.layer(place.count), limit,
        )  # fmt: skip
        return found
    return token_mask_by_numpy_(mask, tables, place, limit)


def token_mask_by_numpy_(mask: Tensor, tables: WalkTables, place: Place, limit: int) -> int:
    """What `token_mask_` does, one level of the tree at a time."""
    tree = tables.tree
    following, _, _, _, table, marks, _ = tables.arrays
    num_nodes = len(following)
    count = len(tree.nodes) - 1
    states = np.zeros(count, np.int32)
    nodes = np.zeros(count, np.int32)
    layers = np.zeros(count, np.int32)
    states[0], nodes[0], layers[0] = place.state, place.node, tables.layer(place.count)
    for level in tree.levels:
        parents = level.parents
        before = states[parents]
        after = following[nodes[parents], level.bytes]
        is_character = after >= num_nodes
        state = np.where(is_character, table[before, np.where(is_character, after - num_nodes, 0)],
                         np.where(after >= 0, before, DEAD))  # fmt: skip
        states[level.nodes] = state
        nodes[level.nodes] = np.where(is_character, ROOT, np.maximum(after, 0))
        begun = things_begun(marks[before], marks[state])
        layers[level.nodes] = layers[parents] + np.where(is_character, begun, 0)
    at = np.repeat(np.arange(count), np.diff(tree.nodes.numpy()[:, 2]))
    costs = costs_at(tables, states, nodes, layers)[at]
    is_allowed = costs <= limit
    mask.copy_(bitmask(tree.token_ids.numpy()[is_allowed], mask.numel()))
    return int(costs[is_allowed].max(initial=0))


def costs_at(
    tables: WalkTables,
    states: Ints,
    nodes: Ints,
    layers: Ints,
) -> Ints:
    """What completions take, also of characters of which some bytes are there."""
    _, rest, offsets, classes, table, marks, costs = tables.arrays
    last = len(costs) - 1
    found: Ints = costs[np.minimum(layers, last), states]
    partial = np.flatnonzero((nodes != ROOT) & (states != DEAD))
    for node in np.unique(nodes[partial]).tolist():
        here = partial[nodes[partial] == node]
        before = states[here][:, None]
        after = table[before, classes[offsets[node] : offsets[node + 1]]]
        layer = layers[here][:, None] + things_begun(marks[before], marks[after])
        cheapest = costs[np.minimum(layer, last), after].min(axis=1, initial=IMPOSSIBLE)
        # In 64 bits: where both are impossible, their sum is beyond int32.
        found[here] = np.minimum(cheapest.astype(np.int64) + rest[node], IMPOSSIBLE)
    return found


def lower_costs_(tables: WalkTables, order: Tensor, limits: Tensor) -> None:
    """Lowers `tables.costs` by tokens that print several characters.

    `order`: int64, indices into the costs, completed cheaper first; `limits`: the costs by single
    characters. Tried are tokens of which every character comes nearer to the end by `limits`:
    few, and those that matter where only one way leads on, as along a text to repeat.
    """
    if native.unavailable() is None:
        native.LIBRARY.lower_costs_(*tables.kernel_arguments(), order, limits)
        return
    lower_costs_by_numpy_(tables, order, limits)


def lower_costs_by_numpy_(tables: WalkTables, order: Tensor, limits: Tensor) -> None:
    """What `lower_costs_` does, one state after the other."""
    nodes, following = tables.tree.nodes.tolist(), tables.next.tolist()
    table, marks = tables.table.tolist(), tables.marks.tolist()
    costs, nearer = tables.arrays.costs, limits.tolist()
    num_nodes, last, num_states = len(following), len(costs) - 1, len(table)
    for index in order.tolist():
        layer, state = divmod(index, num_states)
        best = int(costs[layer, state])
        path = [(state, ROOT, layer)]
        at, end, steps_left = 1, len(nodes) - 1, MOST_STEPS
        while at < end and steps_left:
            mark, after_it, _ = nodes[at]
            before, node, counted = path[(mark >> 8) - 1]
            after = following[node][mark & 255]
            if after >= num_nodes:
                to = table[before][after - num_nodes]
                counted_to = min(counted + int(things_begun(marks[before], marks[to])), last)
                if nearer[counted_to][to] >= nearer[counted][before]:
                    at = after_it
                    continue
                reached = (to, ROOT, counted_to)
                if nodes[at + 1][2] > nodes[at][2]:
                    best = min(best, int(costs[counted_to, to]) + 1)
            elif after >= 0:
                reached = (before, after, counted)
            else:
                at = after_it
                continue
            del path[mark >> 8 :]
            path.append(reached)
            at += 1
            steps_left -= 1
        costs[layer, state] = best
