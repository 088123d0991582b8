"""How many tokens complete a text: upper bounds that some tokens of the vocabulary reach."""

import numpy as np
import torch
from torch import Tensor

from rnr_kernels.automata.characters import END, SURROGATES
from rnr_kernels.automata.counts import Count, Layers, things_begun, tracked
from rnr_kernels.automata.dfa import DEAD, Dfa, Ints, spans
from rnr_kernels.automata.languages import Language
from rnr_kernels.automata.tokens import TokenTree
from rnr_kernels.automata.walk import IMPOSSIBLE


def class_costs(dfa: Dfa, tree: TokenTree) -> Ints:
    """[classes] The tokens that the cheapest character of a class takes.

    One where a token prints exactly that, else its bytes where they are tokens.
    """
    costs = np.full(dfa.num_classes, IMPOSSIBLE, np.int32)
    if tree.has_bytes:
        ends = [*dfa.starts[1:].tolist(), END]
        for start, end, each in zip(dfa.starts.tolist(), ends, dfa.class_of.tolist(), strict=True):
            # ASCII characters are single bytes and tokens of their own, or not to be had.
            lowest = max(start, 0x80)
            if lowest in SURROGATES:
                lowest = SURROGATES.stop
            if lowest < end:
                costs[each] = min(costs[each], len(chr(lowest).encode()))
    costs[dfa.classes_at(tree.characters)] = 1
    return costs


def completion_costs(dfa: Dfa, marks: Ints, layers: Layers, costs_of_classes: Ints) -> Tensor:
    """int32 [layers, states]: the cheapest completion, character by character.

    Dijkstra's algorithm backwards from acceptance, all states of one cost at a time.
    """
    num_states = dfa.num_states
    sources = np.repeat(np.arange(num_states), dfa.num_classes)
    targets = dfa.table.ravel()
    weights = np.tile(costs_of_classes, num_states)
    order = np.lexsort((weights, sources, targets))
    sources, targets, weights = sources[order], targets[order], weights[order]
    is_first = np.ones(len(order), np.bool_)
    is_first[1:] = (np.diff(sources) != 0) | (np.diff(targets) != 0)
    is_edge = is_first & (weights < IMPOSSIBLE) & (targets != DEAD)
    sources, targets, weights = sources[is_edge], targets[is_edge], weights[is_edge]
    steps = things_begun(marks[sources], marks[targets]).astype(np.int64)
    offsets = np.searchsorted(targets, np.arange(num_states + 1))

    last = layers.count - 1
    costs = np.full((layers.count, num_states), IMPOSSIBLE, np.int32)
    costs[np.ix_(layers.accepts, dfa.accepts)] = 0
    flat = costs.ravel()
    waiting = {0: [np.flatnonzero(flat == 0)]}
    cost = 0
    while waiting:
        near = np.concatenate(waiting.pop(cost, [np.zeros(0, np.int64)]))
        near = near[flat[near] == cost]
        if len(near):
            layer, state = np.divmod(near, num_states)
            edges = spans(offsets, state)
            layer = np.repeat(layer, offsets[state + 1] - offsets[state])
            # The last layer counts no further: its states are reached from itself as well.
            stays = (layer == last) & (steps[edges] == 1) & layers.is_open
            earlier = np.concatenate([layer - steps[edges], layer[stays]])
            edges = np.concatenate([edges, edges[stays]])
            is_there = earlier >= 0
            earlier, edges = earlier[is_there], edges[is_there]
            to = earlier * num_states + sources[edges]
            found = cost + weights[edges]
            is_lower = found < flat[to]
            np.minimum.at(flat, to[is_lower], found[is_lower])
            for each in np.unique(found[is_lower]).tolist():
                reached = np.unique(to[is_lower & (found == each)])
                waiting.setdefault(each, []).append(reached)
        cost += 1
    return torch.from_numpy(costs)


def is_possible(language: Language, count: Count | None) -> bool:
    """Whether the language has a text with a count of things."""
    dfa, marks = tracked(language.dfa, count)
    for layers in Layers.ever_more(count, 1):
        costs = completion_costs(dfa, marks, layers, np.ones(dfa.num_classes, np.int32))
        if torch.equal(costs[0], costs[min(1, len(costs) - 1)]):
            break
    return int(costs[0, dfa.start]) < IMPOSSIBLE
