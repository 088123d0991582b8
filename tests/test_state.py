"""DecodeState: admitting, stepping, forking, releasing; the same bits from token ids alone."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rnr_kernels import Sampling, compile_rules, sample_, update_state_
from rnr_kernels.rules.kinds import EosRamp, RuleSet, TokenBias, UsedTokenPenalty
from rnr_kernels.rules.program import RuleProgram
from rnr_kernels.state import DecodeState
from rnr_kernels.testing import assert_same_bits

VOCAB = 70


def two_programs() -> RuleProgram:
    sets = [
        RuleSet([EosRamp(3.0, over=5), TokenBias({4: 1.0}), UsedTokenPenalty(0.5)]),
        RuleSet([UsedTokenPenalty(1.0, scope="prompt+response")]),
    ]
    return compile_rules(sets, None, VOCAB, eos_token_ids=[1])


def assert_same_state(actual: DecodeState, expected: DecodeState) -> None:
    for name, table in expected.tensors._asdict().items():
        assert_same_bits(getattr(actual.tensors, name), table, name)


def snapshot(state: DecodeState) -> list[torch.Tensor]:
    return [table.clone() for table in (*state.tensors, state.error)]


def assert_unchanged(state: DecodeState, before: list[torch.Tensor]) -> None:
    for table, old in zip((*state.tensors, state.error), before, strict=True):
        assert_same_bits(table, old)


# From token ids alone

SAMPLING = [Sampling(seed=3), Sampling(0.7, top_k=5, top_p=0.9, seed=-4), Sampling(0.0, seed=5)]
PROMPTS = [[1, 2, 69], [10, 11, 12, 13], []]
OPTIONS: dict[str, Any] = {
    "program_ids": [0, 1, -1],
    "prompt_token_ids": PROMPTS,
    "used_from": [0, 2, 0],
    "sampling": SAMPLING,
}


def test_the_state_from_token_ids_is_the_state_after_sampling_them() -> None:
    program = two_programs()
    stepped = DecodeState.from_token_ids(program, [[], [], []], **OPTIONS)
    random = torch.Generator().manual_seed(0)
    responses: list[list[int]] = [[], [], []]
    for _ in range(7):
        logits = 2 * torch.randn(3, VOCAB, generator=random)
        tokens = sample_(logits, program, stepped).token_ids.tolist()
        for response, token in zip(responses, tokens, strict=True):
            response.append(token)
        assert_same_state(DecodeState.from_token_ids(program, responses, **OPTIONS), stepped)
    assert stepped.num_output_tokens.tolist() == stepped.rng_position.tolist() == [7, 7, 7]


@settings(max_examples=25, deadline=None)
@given(
    responses=st.lists(st.lists(st.integers(-2, VOCAB + 2), max_size=6), min_size=3, max_size=3),
    width=st.integers(1, 6),
)
def test_the_state_from_token_ids_is_the_state_after_committing_them(
    responses: list[list[int]], width: int
) -> None:
    program = two_programs()
    stepped = DecodeState.from_token_ids(program, [[], [], []], **OPTIONS)
    for start in range(0, 6, width):
        parts = [response[start : start + width] for response in responses]
        padded = torch.tensor([part + [33] * (width - len(part)) for part in parts])
        update_state_(stepped, padded, torch.tensor([len(part) for part in parts]))
    assert_same_state(DecodeState.from_token_ids(program, responses, **OPTIONS), stepped)


def test_a_fork_continues_as_its_source_would() -> None:
    program = two_programs()
    state = DecodeState.allocate(program, 4, max_bias=2)
    state.admit(
        2, 1, prompt_token_ids=[5], output_token_ids=[6, 64], token_bias={9: 1.0, 3: -math.inf},
        sampling=Sampling(seed=1),
    )  # fmt: skip
    before = snapshot(state)
    state.fork(2, [0, 3], seeds=[1, 8])
    for index, table in enumerate(state.tensors[:-1]):
        assert_same_bits(table[0], table[2])
        assert_same_bits(table[3], table[2])
        assert_same_bits(table[2], before[index][2])
    assert state.tensors.rng.tolist() == [[1, 2], [0, 0], [1, 2], [8, 2]]
    logits = torch.randn(1, VOCAB, generator=torch.Generator().manual_seed(2)).expand(4, -1)
    tokens = sample_(logits, program, state).token_ids.tolist()
    assert tokens[0] == tokens[2]
    assert_same_bits(state.used_bitmask[0], state.used_bitmask[2])


def test_a_fork_draws_new_seeds() -> None:
    state = DecodeState.allocate(two_programs(), 3)
    state.admit(0, sampling=Sampling(seed=1))
    torch.manual_seed(0)
    state.fork(0, [1, 2])
    assert len(set(state.tensors.rng[:, 0].tolist())) == 3


def test_a_missing_seed_comes_from_torchs_generator() -> None:
    def seed_after(manual_seed: int) -> list[int]:
        torch.manual_seed(manual_seed)
        state = DecodeState.allocate(two_programs(), 2)
        state.admit(0)
        state.admit(1)
        return state.tensors.rng[:, 0].tolist()

    assert seed_after(1) == seed_after(1) != seed_after(2)
    assert len(set(seed_after(1))) == 2


# Slots


def test_admit_writes_one_slot_in_place() -> None:
    state = DecodeState.allocate(two_programs(), 3, max_bias=3)
    places = [table.data_ptr() for table in state.tensors]
    state.admit(
        1, 1, prompt_token_ids=torch.tensor([0, 31]), output_token_ids=[33],
        sampling=Sampling(2.0, top_k=7, top_p=0.5, min_p=1.0, seed=12),
        token_bias={8: 0.25, 2: -math.inf},
    )  # fmt: skip
    assert [table.data_ptr() for table in state.tensors] == places
    tables = state.tensors
    assert tables.slot_params.tolist() == [[-1, 0, 0, 0], [1, 1, 7, 2], [-1, 0, 0, 0]]
    assert tables.used_bitmask.tolist() == [[0] * 4, [1 - 2**31, 2, 0, 0], [0] * 4]
    assert tables.bias_token_ids[1].tolist() == [2, 8, 0]
    assert tables.bias_values[1].tolist() == [-math.inf, 0.25, 0.0]
    half_log2e = torch.tensor(0.5 * math.log2(math.e)).item()
    assert tables.sampling[1].tolist() == [2.0, half_log2e, 0.5, 0.0]
    assert tables.rng.tolist() == [[0, 0], [12, 1], [0, 0]]


@pytest.mark.parametrize(
    ("sampling", "stored"),
    [(Sampling(top_k=-3), 0), (Sampling(top_k=999), VOCAB), (Sampling(0.0, top_k=4), 0)],
)
def test_top_k_is_stored_in_the_range_of_the_vocabulary(sampling: Sampling, stored: int) -> None:
    state = DecodeState.allocate(two_programs(), 1)
    state.admit(0, sampling=sampling)
    assert state.tensors.slot_params[0, 2].item() == stored


def test_a_released_slot_is_as_new() -> None:
    state = DecodeState.allocate(two_programs(), 2, max_bias=1)
    fresh = snapshot(state)
    state.admit(1, output_token_ids=[3], sampling=Sampling(seed=9), token_bias={1: 1.0})
    state.release(1)
    assert_unchanged(state, fresh)
    state.admit(1)


def test_a_slot_admitted_again_keeps_nothing() -> None:
    program = two_programs()
    state = DecodeState.allocate(program, 1, max_bias=1)
    state.admit(0, 1, prompt_token_ids=[3], token_bias={5: 2.0}, sampling=Sampling(seed=1))
    sample_(torch.zeros(1, VOCAB), program, state)
    state.release(0)
    state.admit(0, output_token_ids=[4], sampling=Sampling(seed=2))
    other = DecodeState.allocate(program, 1, max_bias=1)
    other.admit(0, output_token_ids=[4], sampling=Sampling(seed=2))
    assert_same_state(state, other)


# Errors


@pytest.mark.parametrize(
    ("slot", "options", "message"),
    [
        (2, {}, r"slot must be in \[0, 2\), got 2"),
        (-1, {}, r"slot must be in \[0, 2\), got -1"),
        (0, {}, "slot 0 is live"),
        (1, {"program_id": 2}, r"one of \[0, 1\] .* got 2"),
        (1, {"used_from": 1}, "a position in the prompt, 0 to 0, got 1"),
        (1, {"used_from": -1, "prompt_token_ids": [1]}, "0 to 1, got -1"),
        (1, {"token_bias": {1: 1.0, 2: 1.0}}, "may have 1 tokens, got 2"),
        (1, {"token_bias": {VOCAB: 1.0}}, rf"in \[0, {VOCAB}\), got {VOCAB}"),
        (1, {"token_bias": {-1: 1.0}}, "got -1"),
        (1, {"token_bias": {1: math.inf}}, "finite in float32 or -inf, got inf for 1"),
        (1, {"token_bias": {1: math.nan}}, "finite in float32 or -inf, got nan for 1"),
        (1, {"token_bias": {1: 1e39}}, "finite in float32 or -inf"),
        (1, {"token_bias": {1: -1e39}}, "finite in float32 or -inf"),
        (1, {"token_bias": {1: 1.0}, "program_id": -1}, "takes no token_bias"),
    ],
)
def test_what_admit_refuses_changes_nothing(
    slot: int, options: dict[str, Any], message: str
) -> None:
    state = DecodeState.allocate(two_programs(), 2, max_bias=1)
    state.admit(0)
    before = snapshot(state)
    with pytest.raises(ValueError, match=message):
        state.admit(slot, **options)
    assert_unchanged(state, before)
    state.admit(1)


def test_a_number_in_place_of_a_sampling_changes_nothing() -> None:
    state = DecodeState.allocate(two_programs(), 1)
    before = snapshot(state)
    number: Any = 0.8
    with pytest.raises(TypeError, match="sampling must be a Sampling, got float; pass Sampling"):
        state.admit(0, sampling=number)
    assert_unchanged(state, before)
    state.admit(0)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"prompt_token_ids": [[1]]}, ValueError, "prompt_token_ids must have one value for each"),
        ({"program_ids": [0]}, ValueError, "program_ids .* of the 2 responses, got 1"),
        ({"used_from": [0, 0, 0]}, ValueError, "used_from .* of the 2 responses, got 3"),
        ({"sampling": []}, ValueError, "sampling .* of the 2 responses, got 0"),
        ({"sampling": Sampling()}, TypeError, "sampling .* 2 responses, got Sampling; pass a list"),
        ({"program_ids": 0}, TypeError, "program_ids .* 2 responses, got int; pass a list"),
        ({"sampling": [Sampling(), 0.7]}, TypeError, "must be a Sampling, got float"),
    ],
)
def test_one_value_for_each_response_is_checked_before_anything_is_made(
    options: dict[str, Any],
    error: type[Exception],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def allocate(*arguments: Any) -> None:
        raise AssertionError("allocated before the arguments were checked")

    program = two_programs()
    monkeypatch.setattr(DecodeState, "allocate", allocate)
    with pytest.raises(error, match=message):
        DecodeState.from_token_ids(program, [[3], [4]], **options)


@pytest.mark.parametrize(
    ("source", "targets", "seeds", "error", "message"),
    [
        (1, [2], None, ValueError, "slot 1 is free; admit"),
        (9, [2], None, ValueError, "slot must be in"),
        (0, [4], None, ValueError, "slot must be in"),
        (0, [1, 3], None, ValueError, "slot 3 is live"),
        (0, [0], None, ValueError, "slot 0 is live"),
        (0, [1, 1], None, ValueError, "must differ"),
        (0, [1, 2], [5], ValueError, "one a target, 2, got 1"),
        (0, [1, 2], [5, 2**63], ValueError, "a seed must be in"),
        (0, [1], [0.5], TypeError, "a seed must be an int"),
    ],
)
def test_what_fork_refuses_changes_nothing(
    source: int, targets: list[int], seeds: Any, error: type[Exception], message: str
) -> None:
    state = DecodeState.allocate(two_programs(), 4)
    state.admit(0)
    state.admit(3)
    before = snapshot(state)
    with pytest.raises(error, match=message):
        state.fork(source, targets, seeds=seeds)
    assert_unchanged(state, before)
    state.fork(0, [1, 2])


def test_a_free_slot_is_not_released_again() -> None:
    state = DecodeState.allocate(two_programs(), 1)
    with pytest.raises(ValueError, match="slot 0 is free already"):
        state.release(0)


@pytest.mark.parametrize(
    ("slots", "max_bias", "message"), [(0, 0, "num_slots must be"), (1, -1, "max_bias must be")]
)
def test_a_state_has_slots(slots: int, max_bias: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DecodeState.allocate(two_programs(), slots, max_bias=max_bias)


def test_check_raises_once_with_every_error_so_far() -> None:
    program = two_programs()
    state = DecodeState.allocate(program, 1)
    state.admit(0)
    state.check()
    sample_(torch.zeros(2, VOCAB), program, state, state_indices=torch.tensor([0, 7]))
    update_state_(state, torch.tensor([VOCAB]))
    state.program_ids[0] = 44
    sample_(torch.zeros(1, VOCAB), program, state)
    message = (
        "a slot past the table, or twice in one batch and a program past the table or removed and "
        "a token id past"
    )
    with pytest.raises(ValueError, match=message):
        state.check()
    state.check()


def test_padding_is_not_an_error() -> None:
    program = two_programs()
    state = DecodeState.allocate(program, 2)
    state.admit(0, -1)
    sample_(torch.zeros(3, VOCAB), program, state, state_indices=torch.tensor([-1, 0, 1]))
    state.check()


@pytest.mark.parametrize("ids", [[1.5], torch.tensor([True])], ids=["float", "bool"])
def test_token_ids_that_are_no_ints_are_refused(ids: Any) -> None:
    state = DecodeState.allocate(two_programs(), 1)
    with pytest.raises(TypeError, match="prompt_token_ids must be ints"):
        state.admit(0, prompt_token_ids=ids)
