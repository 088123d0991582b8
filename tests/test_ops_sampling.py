"""sample_ and update_state_: filters, greedy choice, uniforms and the state, in literal numbers."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from rnr_kernels import Sampling, sample_, update_state_
from rnr_kernels.layout import ERROR_SLOT, ERROR_TOKEN
from rnr_kernels.ops import SampleOutput
from rnr_kernels.rules.kinds import BanTokens, LogitRule, TokenBias, UsedTokenPenalty
from rnr_kernels.state import DecodeState
from rnr_kernels.testing import admitted, assert_same_bits

INF = math.inf


pytestmark = pytest.mark.usefixtures("every_backend")


def drawn(logits: list[float], sampling: Sampling, rows: int = 20) -> dict[int, float]:
    """Token to final probability, over many positions of one request."""
    program, state = admitted([], len(logits), slots=rows, sampling=sampling)
    state.rng_position.copy_(torch.arange(rows))
    output = sample_(torch.tensor([logits] * rows), program, state, return_logprob=True)
    assert output.logprob is not None
    pairs = zip(output.token_ids.tolist(), output.logprob.exp().tolist(), strict=True)
    return dict(sorted(pairs))


def logs(*probabilities: float) -> list[float]:
    return [math.log(p) if p else -INF for p in probabilities]


# Greedy


def test_greedy_takes_the_lowest_id_on_ties_and_ignores_filters() -> None:
    sampling = Sampling(temperature=0.0, top_k=1, top_p=0.1, min_p=0.9)
    program, state = admitted([], 5, slots=2, sampling=sampling)
    logits = torch.tensor([[1.0, 3.0, 2.0, 3.0, 3.0], [-INF, -0.0, 0.0, -INF, -0.0]])
    output = sample_(
        logits, program, state, return_logprob=True, return_adjusted_logprob=True, return_rank=True
    )
    assert output.token_ids.tolist() == [1, 1]
    assert output.logprob is not None and output.logprob.tolist() == [0.0, 0.0]
    assert output.rank is not None and output.rank.tolist() == [1, 1]
    assert output.adjusted_logprob is not None
    expected = logits.log_softmax(1)[[0, 1], [1, 1]]
    torch.testing.assert_close(output.adjusted_logprob, expected)


def test_results_that_are_not_asked_for_are_none() -> None:
    program, state = admitted([], 3)
    output = sample_(torch.zeros(1, 3), program, state)
    assert output == SampleOutput(output.token_ids, None, None, None)


# Uniforms


def test_the_token_of_a_seed_and_position() -> None:
    # u of seed 0, position 0 starts with hexadecimal digit e: of 16 equal weights, the 14th.
    program, state = admitted([], 16, sampling=Sampling(seed=0))
    assert sample_(torch.zeros(1, 16), program, state).token_ids.tolist() == [14]
    assert state.rng_position.tolist() == [1]


def test_the_uniform_depends_on_seed_and_position_alone() -> None:
    program, state = admitted([], 4096, slots=3, sampling=Sampling(seed=11))
    state.release(2)
    state.admit(2, sampling=Sampling(seed=12))
    first = sample_(torch.zeros(3, 4096), program, state).token_ids.tolist()
    second = sample_(torch.zeros(3, 4096), program, state).token_ids.tolist()
    assert first[0] == first[1] != first[2]
    assert second[0] == second[1] != first[0]
    state.rng_position[:] = 0
    assert sample_(torch.zeros(3, 4096), program, state).token_ids.tolist() == first


def test_a_token_without_mass_is_never_drawn() -> None:
    tokens = drawn([-INF, 0.0, -INF, -60.0, 0.0, -INF], Sampling(seed=5), rows=100)
    assert tokens.keys() == {1, 4}


# Filters


def test_without_filters_probabilities_are_those_of_the_temperature() -> None:
    tokens = drawn(logs(0.2, 0.8), Sampling(seed=1))
    assert tokens == pytest.approx({0: 0.2, 1: 0.8}, rel=1e-6)
    # Temperature 1/2 squares: 0.04 to 0.64.
    tokens = drawn(logs(0.2, 0.8), Sampling(temperature=0.5, seed=1), rows=100)
    assert tokens == pytest.approx({0: 1 / 17, 1: 16 / 17}, rel=1e-6)


@pytest.mark.parametrize(
    ("top_k", "kept"),
    [
        (1, {1}),
        (2, {1, 2, 3}),
        (3, {1, 2, 3}),
        (4, {0, 1, 2, 3, 4}),
        (5, {0, 1, 2, 3, 4}),
        (6, {0, 1, 2, 3, 4}),
        (0, {0, 1, 2, 3, 4}),
        (-1, {0, 1, 2, 3, 4}),
    ],
)
def test_top_k_keeps_ties_with_the_kth_largest(top_k: int, kept: set[int]) -> None:
    probabilities = [0.15, 0.3, 0.2, 0.2, 0.15]
    tokens = drawn(logs(*probabilities), Sampling(top_k=top_k, seed=3))
    mass = sum(probabilities[token] for token in kept)
    assert tokens == pytest.approx({t: probabilities[t] / mass for t in sorted(kept)}, rel=1e-6)


@pytest.mark.parametrize(
    ("top_p", "kept"),
    [
        (1e-300, {2}),
        (0.39, {2}),
        (0.41, {0, 2, 3}),  # The ties stay together: above each of them lies 0.4.
        (0.79, {0, 2, 3}),
        (0.81, {0, 1, 2, 3, 4}),
        (1.0, {0, 1, 2, 3, 4}),
        (1.5, {0, 1, 2, 3, 4}),
    ],
)
def test_top_p_keeps_what_has_less_than_top_p_above_it(top_p: float, kept: set[int]) -> None:
    probabilities = [0.2, 0.1, 0.4, 0.2, 0.1]
    tokens = drawn(logs(*probabilities), Sampling(top_p=top_p, seed=4), rows=24)
    mass = sum(probabilities[token] for token in kept)
    assert tokens == pytest.approx({t: probabilities[t] / mass for t in sorted(kept)}, rel=1e-6)


def test_top_p_excludes_what_has_exactly_top_p_above_it() -> None:
    # At this temperature a logit of -1 halves the weight: 2/4, 1/4, 1/4.
    in_bits = math.log2(math.e)
    logits = [0.0, -1.0, -1.0]
    assert drawn(logits, Sampling(in_bits, top_p=0.5, seed=2)).keys() == {0}
    assert drawn(logits, Sampling(in_bits, top_p=0.5001, seed=2)).keys() == {0, 1, 2}


def test_top_p_compares_masses_of_different_tiles() -> None:
    # 0.6 and 0.4 lie 4,096 columns apart; 0.4 against its own tile alone would weigh more.
    logits = [-INF] * 4100
    logits[0], logits[4099] = math.log(0.6), math.log(0.4)
    assert drawn(logits, Sampling(top_p=0.55, seed=2), rows=16).keys() == {0}
    assert drawn(logits, Sampling(top_p=0.65, seed=2), rows=16).keys() == {0, 4099}


def test_top_p_acts_on_what_top_k_left() -> None:
    # Of 0.4 and 0.3 alone the first has 4/7 > 0.5; of all four tokens 0.4 < 0.5.
    logits = logs(0.4, 0.3, 0.2, 0.1)
    assert drawn(logits, Sampling(top_p=0.5, seed=6)).keys() == {0, 1}
    assert drawn(logits, Sampling(top_k=2, top_p=0.5, seed=6)).keys() == {0}


def test_top_k_looks_at_logits_before_temperature_and_top_p_after() -> None:
    # At temperature 1/2 the masses are 16, 9, 4, 1 of 30.
    logits = logs(0.4, 0.3, 0.2, 0.1)
    assert drawn(logits, Sampling(temperature=0.5, top_p=0.5, seed=6)).keys() == {0}
    assert drawn(logits, Sampling(temperature=0.5, top_k=2, seed=6)).keys() == {0, 1}


@pytest.mark.parametrize(
    ("temperature", "min_p", "kept"),
    [
        (1.0, 0.2, {0, 1}),  # log 0.2 = -1.61
        (2.0, 0.2, {0, 1, 2}),
        (0.5, 0.2, {0}),
        (1.0, 1.0, {0}),
        (1.0, 0.0, {0, 1, 2}),
        (1.0, -1.0, {0, 1, 2}),
    ],
)
def test_min_p_compares_with_the_largest(temperature: float, min_p: float, kept: set[int]) -> None:
    sampling = Sampling(temperature=temperature, min_p=min_p, seed=8)
    assert drawn([0.0, -1.0, -2.0], sampling, rows=64).keys() == kept


def test_filters_are_each_slots_own() -> None:
    samplings = [Sampling(temperature=0.0), Sampling(seed=1, top_k=1), Sampling(seed=1)]
    program, state = admitted([], 3, slots=3)
    for slot, sampling in enumerate(samplings):
        state.release(slot)
        state.admit(slot, sampling=sampling)
    logits = torch.tensor([logs(0.3, 0.5, 0.2)] * 3)
    output = sample_(logits, program, state, return_logprob=True)
    assert output.logprob is not None
    assert output.token_ids[:2].tolist() == [1, 1]
    assert output.logprob[:2].tolist() == [0.0, 0.0]
    assert output.logprob[2].item() == pytest.approx(logits[2][output.token_ids[2]].item())


def test_rank_and_adjusted_logprob_ignore_temperature_and_filters_but_not_rules() -> None:
    rules: list[LogitRule] = [TokenBias({3: math.log(8)}), BanTokens([0])]
    sampling = Sampling(temperature=0.5, top_k=1, seed=9)
    program, state = admitted(rules, 4, sampling=sampling)
    logits = torch.tensor([logs(0.5, 0.2, 0.2, 0.1)])
    output = sample_(
        logits, program, state, return_logprob=True, return_adjusted_logprob=True, return_rank=True
    )
    assert output.token_ids.tolist() == [3]
    assert output.logprob is not None and output.logprob.item() == 0.0
    assert output.rank is not None and output.rank.tolist() == [1]
    assert output.adjusted_logprob is not None
    assert output.adjusted_logprob.exp().item() == pytest.approx(0.8 / 1.2, rel=1e-6)


def test_rank_counts_the_tokens_above() -> None:
    # u = 0.88 lies past the 0.85 of the first three tokens.
    program, state = admitted([], 4, sampling=Sampling(seed=0))
    logits = torch.tensor([logs(0.3, 0.3, 0.25, 0.15)])
    output = sample_(logits, program, state, return_rank=True)
    assert output.token_ids.tolist() == [3]
    assert output.rank is not None and output.rank.tolist() == [4]


# The state


def test_sampling_advances_length_bits_and_position() -> None:
    program, state = admitted([UsedTokenPenalty(3.0)], 4)
    logits = torch.tensor([[0.0, 2.0, 1.0, 0.0]])
    tokens = [sample_(logits, program, state).token_ids.item() for _ in range(4)]
    assert tokens == [1, 2, 0, 3]
    assert state.num_output_tokens.tolist() == [4]
    assert state.rng_position.tolist() == [4]
    assert state.used_bitmask[0, 0].item() == 0b1111


def test_later_rows_of_a_slot_are_padding() -> None:
    # Only reachable below the public function on the CPU, which raises; devices cannot look.
    program, state = admitted([], 3, slots=2)
    logits = torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
    arguments = (program.vocab_size, list(program.tensors), list(state.tensors), state.error)
    options = (torch.tensor([0, 0, 1]), None, None, None, True, True, True)
    tokens, *floats, rank = torch.ops.rnr.sample_.default(logits, *arguments, *options)
    assert tokens.tolist() == [1, -1, 0]
    assert rank.tolist() == [1, 0, 1]
    assert all(values.isnan().tolist() == [False, True, False] for values in floats)
    assert state.num_output_tokens.tolist() == [1, 1]
    assert state.used_bitmask[:, 0].tolist() == [0b010, 0b001]
    assert state.error.item() == ERROR_SLOT
    # The first row decides even if it is invalid.
    logits[0] = math.nan
    tokens = torch.ops.rnr.sample_.default(logits, *arguments, torch.tensor([0, 0, -1]))[0]
    assert tokens.tolist() == [-1, -1, -1]
    assert state.num_output_tokens.tolist() == [1, 1]


def test_update_state_commits_the_first_counts_tokens() -> None:
    _, state = admitted([UsedTokenPenalty(1.0)], 40, slots=3, sampling=Sampling(seed=1))
    tokens = torch.tensor([[1, 2, 33], [4, 5, 6], [7, 8, 9]], dtype=torch.int32)
    update_state_(state, tokens, torch.tensor([3, 0, 1]))
    assert state.num_output_tokens.tolist() == [3, 0, 1]
    assert state.rng_position.tolist() == [3, 0, 1]
    assert state.used_bitmask[:, :2].tolist() == [[0b110, 0b10], [0, 0], [0b10000000, 0]]
    update_state_(state, torch.tensor([0]), state_indices=torch.tensor([1]))
    assert state.num_output_tokens.tolist() == [3, 1, 1]
    assert state.used_bitmask[1, 0].item() == 1


def test_update_state_clamps_counts_and_skips_padding_slots() -> None:
    _, state = admitted([], 8, slots=2)
    tokens = torch.tensor([[1, 2], [3, 4], [5, 6]])
    index = torch.tensor([1, -1, 2])
    update_state_(state, tokens, torch.tensor([9, 2, 2]), state_indices=index)
    assert state.num_output_tokens.tolist() == [0, 2]
    assert state.error.item() == ERROR_SLOT
    update_state_(state, tokens[:2], torch.tensor([-3, 1]))
    assert state.num_output_tokens.tolist() == [0, 3]


def test_update_state_counts_ids_outside_the_vocabulary() -> None:
    _, state = admitted([], 8)
    update_state_(state, torch.tensor([[-1, 2]]))
    assert state.error.item() == 0
    update_state_(state, torch.tensor([[8, 3, 99]]), torch.tensor([2]))
    assert state.num_output_tokens.tolist() == [4]
    assert state.used_bitmask[0, 0].item() == 0b1100
    assert state.error.item() == ERROR_TOKEN


# Drafts

VOCAB = 50


def with_output(tokens: list[int]) -> tuple[Any, DecodeState]:
    rules: list[LogitRule] = [UsedTokenPenalty(2.0), TokenBias({7: 3.0}, steps=(4, 5))]
    sampling = Sampling(temperature=1.3, top_k=30, seed=21)
    return admitted(rules, VOCAB, output_token_ids=tokens, sampling=sampling)


def test_draft_rows_choose_what_stepping_would_choose() -> None:
    random = torch.Generator().manual_seed(1)
    logits = 2 * torch.randn(4, VOCAB, generator=random)
    program, state = with_output([3, 9])
    stepped: list[int] = []
    for row in logits:
        stepped += sample_(row[None], program, state).token_ids.tolist()

    program, drafting = with_output([3, 9])
    before = [table.clone() for table in drafting.tensors]
    output = sample_(
        logits, program, drafting, state_indices=torch.zeros(4, dtype=torch.int64),
        row_offsets=torch.arange(4), draft_token_ids=torch.tensor([-1, *stepped[:3]]),
    )  # fmt: skip
    assert output.token_ids.tolist() == stepped
    for table, old in zip(drafting.tensors, before, strict=True):
        assert_same_bits(table, old)

    update_state_(drafting, output.token_ids[None], torch.tensor([4]))
    for table, other in zip(drafting.tensors, state.tensors, strict=True):
        assert_same_bits(table, other)


def test_committing_a_part_of_a_draft_equals_stepping_through_it() -> None:
    _, drafting = with_output([3, 9])
    update_state_(drafting, torch.tensor([[11, 12, 13]]), torch.tensor([2]))
    _, stepped = with_output([3, 9, 11, 12])
    for table, other in zip(drafting.tensors, stepped.tensors, strict=True):
        assert_same_bits(table, other)


@pytest.mark.parametrize("option", ["row_offsets", "draft_token_ids"])
def test_each_draft_argument_alone_makes_the_call_read_only(option: str) -> None:
    program, state = with_output([3])
    argument: dict[str, Tensor] = {option: torch.zeros(1, dtype=torch.int64)}
    assert sample_(torch.zeros(1, VOCAB), program, state, **argument).token_ids.item() >= 0  # type: ignore[arg-type]
    assert state.num_output_tokens.tolist() == [1]
