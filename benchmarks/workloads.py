"""An op and its peers on the same inputs, and the proof that they do the same."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks import cases, peers
from benchmarks.cases import Case
from benchmarks.inputs import FILTERED, Sequences, make_logits
from rnr_kernels import (
    DecodeState,
    apply_rules_,
    linear_token_stats,
    rule_log_softmax,
    sample_,
    shift_stats,
    token_stats,
)
from rnr_kernels.layout import num_words
from rnr_kernels.reference.bitmask import pack_bits
from rnr_kernels.sampling import GREEDY

Call = Callable[[], Any]

TOLERANCE = 2e-4
"""Absolute and relative, of peers' float32 sums over a vocabulary."""
GATE_DRAWS = 8


@dataclass(frozen=True)
class Peer:
    """Something that does our op's work, or at least a part of it."""

    run: Call
    gate: Call
    """Raises AssertionError if its result is not ours."""


@dataclass(frozen=True)
class Workload:
    """What is timed in turn."""

    ours: Call
    peers: dict[str, Peer]
    reset: Call = lambda: None
    """Undoes what calls write; runs before every timed block."""
    steps: int = 1
    """Times are divided by this: decoding steps of a call."""

    def check(self) -> None:
        """Every peer's gate, from a fresh start; AssertionError names the peer."""
        for name, peer in self.peers.items():
            self.reset()
            try:
                peer.gate()
            except AssertionError as error:
                raise AssertionError(f"{name} does not compute what we do: {error}") from error
        self.reset()


def assert_close(actual: Tensor, expected: Tensor) -> None:
    """Equal within TOLERANCE, whatever the dtypes."""
    torch.testing.assert_close(
        actual, expected, rtol=TOLERANCE, atol=TOLERANCE, check_dtype=False, check_layout=False
    )


def same_as(run: Call, expected: Call) -> Peer:
    """A peer whose result is one tensor."""
    return Peer(run, lambda: assert_close(run(), expected()))


def build(case: Case) -> Workload:
    """The workload of one of `cases.OP_CASES`."""
    makers = {
        "rule_log_softmax": _rule_log_softmax,
        "apply_rules_": _apply_rules_,
        "sample_ greedy": _sample_greedy,
        "sample_ filtered": _sample_filtered,
        "token_stats": _token_stats,
        "shift_stats": _shift_stats,
    }
    # Graphs of other shapes would count against dynamo's limit, and it would fall back to eager.
    torch.compiler.reset()
    return makers[case.op](make_logits(case.logits, case.rows, case.vocab_size))


def _rule_log_softmax(logits: Tensor) -> Workload:
    rows = Sequences.start(logits, GREEDY)
    out, peer_out = torch.empty_like(logits), torch.empty_like(logits)
    without_rules = DecodeState.allocate(rows.program, len(logits))

    def ours() -> Any:
        return rule_log_softmax(logits, rows.program, rows.state, out=out)

    def ours_without_rules() -> Any:
        return rule_log_softmax(logits, rows.program, without_rules, out=out)

    mask = rows.rule_row + rows.used_mask
    two, one = cases.SCATTER
    found = {
        cases.LOG_SOFTMAX: same_as(lambda: peers.log_softmax(logits, peer_out), ours_without_rules),
        two: same_as(lambda: peers.scatter_log_softmax(logits, peer_out, *rows.scores), ours),
        one: same_as(lambda: peers.scatter_log_softmax(logits, peer_out, rows.all_scores), ours),
        "dense mask added, log_softmax": same_as(
            lambda: peers.dense_log_softmax(logits, mask, peer_out), ours
        ),
    }
    for name, function in peers.compiled(peers.dense_log_softmax_to_compile).items():
        found[name] = same_as(partial(function, logits, mask), ours)
    return Workload(ours, found)


def _apply_rules_(logits: Tensor) -> Workload:
    rows = Sequences.start(logits, GREEDY)
    mine, theirs = logits.clone(), logits.clone()
    mask = rows.rule_row + rows.used_mask

    def ours() -> Any:
        return apply_rules_(mine, rows.program, rows.state)

    def reset() -> None:
        mine.copy_(logits)
        theirs.copy_(logits)

    found = {
        cases.TWO_MASKS: same_as(
            lambda: peers.dense_add_(theirs, rows.rule_row, rows.used_mask), ours
        ),
        cases.ONE_MASK: same_as(lambda: peers.dense_add_(theirs, mask), ours),
        cases.BY_INDEX: same_as(lambda: peers.scatter_add_(theirs, *rows.all_scores), ours),
    }
    return Workload(ours, found, reset)


def build_bitmask(case: Case) -> Workload:
    """A grammar's mask alone, beside xgrammar, which must be installed."""
    logits = make_logits(case.logits, case.rows, case.vocab_size)
    rows = Sequences.start(logits, GREEDY, has_rules=False)
    random = torch.Generator().manual_seed(0)
    is_allowed = torch.rand(logits.shape, generator=random) < 0.01
    bitmask, is_banned = pack_bits(is_allowed, num_words(case.vocab_size)), ~is_allowed
    mine, theirs = logits.clone(), logits.clone()

    def ours() -> Any:
        return apply_rules_(mine, rows.program, rows.state, allowed_bitmask=bitmask)

    def reset() -> None:
        mine.copy_(logits)
        theirs.copy_(logits)

    found = {
        cases.XGRAMMAR: same_as(lambda: peers.xgrammar_bitmask_(theirs, bitmask), ours),
        "masked_fill_": same_as(lambda: peers.masked_fill_(theirs, is_banned), ours),
    }
    return Workload(ours, found, reset)


def _sample_greedy(logits: Tensor) -> Workload:
    rows = Sequences.start(logits, GREEDY)
    bare = Sequences.start(logits, GREEDY, has_rules=False)
    mask, scratch = rows.rule_row + rows.used_mask, torch.empty_like(logits)
    out = torch.empty(len(logits), dtype=torch.int64)
    columns, column_out = torch.arange(logits.shape[1]).float(), torch.empty(len(logits))

    def ours() -> Tensor:
        return sample_(logits, rows.program, rows.state).token_ids

    def ours_without_rules() -> Tensor:
        return sample_(logits, bare.program, bare.state).token_ids

    found = {
        cases.ARGMAX: same_as(lambda: peers.argmax(logits, out), ours_without_rules),
        "amax, then its column": same_as(
            lambda: peers.argmax_by_amax(logits, columns, scratch, column_out),
            ours_without_rules,
        ),
        "dense mask added, torch.argmax": same_as(
            lambda: peers.dense_argmax(logits, mask, scratch, out), ours
        ),
    }
    return Workload(ours, found, rows.rewind)


def _sample_filtered(logits: Tensor) -> Workload:
    rows = Sequences.start(logits, FILTERED)
    bare = Sequences.start(logits, FILTERED, has_rules=False)
    warpers = peers.make_warpers(FILTERED.temperature, FILTERED.top_k, FILTERED.top_p)

    def ours() -> Tensor:
        return sample_(logits, rows.program, rows.state).token_ids

    def gate() -> None:
        probabilities = peers.warped_probabilities(logits, warpers)
        for _ in range(GATE_DRAWS):
            drawn = sample_(logits, bare.program, bare.state, return_logprob=True)
            expected = probabilities.gather(1, drawn.token_ids[:, None])[:, 0].log()
            assert drawn.logprob is not None
            assert_close(drawn.logprob, expected)

    warp = Peer(lambda: peers.warp_and_draw(logits, warpers), gate)
    return Workload(ours, {cases.WARPERS: warp}, rows.rewind)


def _targets(logits: Tensor) -> Tensor:
    """int64 [R]: tokens among the hundred likeliest, as tokens of a text are."""
    likely = logits.topk(min(100, logits.shape[1]), -1).indices
    random = torch.Generator().manual_seed(0)
    which = torch.randint(0, likely.shape[1], (len(logits), 1), generator=random)
    return likely.gather(1, which)[:, 0]


def assert_same_stats(actual: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> None:
    """Integers are equal, floats close."""
    assert len(actual) == len(expected)
    for value, wanted in zip(actual, expected, strict=True):
        if wanted.is_floating_point():
            assert_close(value, wanted)
        else:
            torch.testing.assert_close(value, wanted, rtol=0, atol=0, check_dtype=False)


def _token_stats(logits: Tensor) -> Workload:
    token_ids = _targets(logits)
    above = torch.empty(logits.shape, dtype=torch.bool)
    first, second = torch.empty_like(logits), torch.empty_like(logits)

    def ours() -> Any:
        return token_stats(logits, token_ids)

    def peer(run: Call) -> Peer:
        def gate() -> None:
            stats = ours()
            assert_same_stats(run(), (stats.rank, stats.logprob, stats.entropy))

        return Peer(run, gate)

    found = {
        cases.EAGER: peer(lambda: peers.token_stats(logits, token_ids, above, first, second)),
        cases.rearranged(cases.EAGER): peer(
            lambda: peers.token_stats_rearranged(logits, token_ids, first)
        ),
    }
    for name, function in peers.compiled(peers.token_stats_to_compile).items():
        found[name] = peer(partial(function, logits, token_ids))
    for name, function in peers.compiled(peers.token_stats_rearranged_to_compile).items():
        found[cases.rearranged(name)] = peer(partial(function, logits, token_ids))
    return Workload(ours, found)


def _shift_stats(logits: Tensor) -> Workload:
    noise = torch.Generator().manual_seed(2)
    base_logits = logits + 0.5 * torch.randn(logits.shape, generator=noise)
    token_ids = _targets(logits)
    scratch = torch.empty_like(logits), torch.empty_like(logits)

    def ours() -> Any:
        return shift_stats(logits, base_logits, token_ids)

    def peer(run: Call) -> Peer:
        def gate() -> None:
            stats = ours()
            sides = [(side.rank, side.logprob, side.entropy) for side in stats[:2]]
            assert_same_stats(run(), (*sides[0], *sides[1], *stats[2:]))

        return Peer(run, gate)

    found = {cases.EAGER: peer(lambda: peers.shift_stats(logits, base_logits, token_ids, scratch))}
    for name, function in peers.compiled(peers.shift_stats_to_compile).items():
        found[name] = peer(partial(function, logits, base_logits, token_ids))
    return Workload(ours, found)


def build_linear(case: Case) -> Workload:
    """Statistics from hidden states beside the bare product with the LM head."""
    random = torch.Generator().manual_seed(0)
    width = cases.HIDDEN_SIZE
    hidden = torch.randn(case.rows, width, generator=random)
    weight = torch.randn(case.vocab_size, width, generator=random).mul_(width**-0.5)
    token_ids = torch.randint(0, case.vocab_size, (case.rows,), generator=random)
    logits = torch.empty(case.rows, case.vocab_size)

    def ours() -> Any:
        return linear_token_stats(hidden, weight, token_ids)

    def product() -> Tensor:
        return peers.product(hidden, weight.t(), logits)

    def gate() -> None:
        stats, expected = ours(), token_stats(product(), token_ids)
        assert_close(stats.logprob, expected.logprob)
        assert_close(stats.entropy, expected.entropy)
        # Products of other shapes round otherwise, so logits beside the target's may change sides.
        target = logits.gather(1, token_ids[:, None])
        near = ((logits - target).abs() < TOLERANCE).sum(-1)
        assert ((stats.rank - expected.rank).abs() < near).all(), "ranks differ"

    return Workload(ours, {cases.PRODUCT: Peer(product, gate)})
