"""RuleProgram: its tables, what shares a row, and changes in place."""

import copy
import gc
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch

from rnr_kernels import apply_rules_, compile_rules
from rnr_kernels.layout import NO_KNOT, TILE
from rnr_kernels.rules.kinds import BanTokens, EosRamp, RuleSet, ScoreVector, TokenBias
from rnr_kernels.rules.program import Capacity, RuleProgram
from rnr_kernels.state import DecodeState
from rnr_kernels.testing import assert_same_bits

ROOM = Capacity(programs=3, class_maps=2, classes=4, knots=3, class_tokens=8, score_vectors=1)


def bias(token: int, weight: float) -> RuleSet:
    return RuleSet([TokenBias({token: weight})])


def compiled(*rule_sets: RuleSet, vocab_size: int = 40) -> RuleProgram:
    return compile_rules(rule_sets, None, vocab_size, eos_token_ids=[1])


def scores(program: RuleProgram, program_id: int) -> list[float]:
    state = DecodeState.allocate(program, 1)
    state.admit(0, program_id)
    row = apply_rules_(torch.zeros(1, program.vocab_size), program, state)[0].tolist()
    state.release(0)
    return row


# Tables


def test_the_tables_of_a_program_in_literals() -> None:
    # V = 40: classes of one or two tokens are sparse, the ban of three (3 * 16 > 40) is dense.
    rules = RuleSet([TokenBias({5: 1.0, 3: 1.0, 39: 2.0}), BanTokens([8, 9, 10], steps=(2, 4))])
    tables = compiled(rules).tensors
    codes = torch.zeros(1, TILE, dtype=torch.uint8)
    codes[0, [3, 5]], codes[0, [8, 9, 10]], codes[0, 39] = 1, 2, 3
    assert_same_bits(tables.token_class, codes)
    assert tables.class_counts.tolist() == [[34, 2, 3, 1]]
    assert tables.class_offsets.tolist() == [[0, 0, 2, 2, 3]]
    assert tables.class_tokens.tolist() == [[3, 5, 39]]
    assert tables.block_flags.tolist() == [[1]]
    assert tables.knot_starts.tolist() == [[[NO_KNOT, 0, 2, 0], [NO_KNOT, NO_KNOT, 4, NO_KNOT]]]
    assert tables.knot_lines[0, 0, :, 0].tolist() == [0.0, 1.0, -torch.inf, 2.0]
    assert tables.knot_lines[0, 1, 2].tolist() == [0.0, 0.0]
    assert tables.program_table.tolist() == [[0, 0, -1, 1]]
    assert tables.score_vectors.shape == (0, 40)


def test_block_flags_mark_the_128_token_blocks_with_a_class() -> None:
    program = compiled(RuleSet([BanTokens([127, 256, 33 * 128])]), vocab_size=5000)
    assert program.tensors.block_flags.tolist() == [[0b101, 0b10]]
    assert program.tensors.token_class.shape == (1, 2 * TILE)


def test_a_class_is_sparse_below_a_sixteenth_of_the_vocabulary() -> None:
    sparse, dense = RuleSet([BanTokens(range(9))]), RuleSet([BanTokens(range(10))])
    tables = compiled(sparse, dense, vocab_size=160).tensors
    assert tables.class_offsets.tolist() == [[0, 0, 9], [0, 0, 0]]
    assert tables.class_tokens.tolist() == [list(range(9)), [0] * 9]


def test_rule_sets_that_differ_in_numbers_alone_share_a_class_map() -> None:
    rules = RuleSet([TokenBias({3: 1.0, 4: -2.0}), EosRamp(15.0)])
    program = compiled(rules, 0.5 * rules, bias(3, 1.0))
    assert program.tensors.program_table[:, 0].tolist() == [0, 0, 1]
    assert program.tensors.token_class.shape[0] == 2
    assert scores(program, 0)[3:5] == [1.0, -2.0]
    assert scores(program, 1)[3:5] == [0.5, -1.0]


def test_without_rule_sets_there_is_no_program() -> None:
    program = compile_rules([], None, 40)
    assert program.num_programs == 0
    with pytest.raises(ValueError, match=r"program id must be one of \[\]"):
        program.rules(0)


# Changes in place


def test_programs_are_added_and_removed_in_place() -> None:
    program = compile_rules([bias(3, 1.0)], None, 40, capacity=ROOM)
    places = [table.data_ptr() for table in program.tensors]
    vector = RuleSet([ScoreVector(torch.arange(40.0)), TokenBias({3: 1.0})])
    assert program.add(compiled(bias(5, 2.0), vector)) == [1, 2]
    assert program.num_programs == 3
    assert [scores(program, program_id)[3:6] for program_id in range(3)] == [
        [1.0, 0.0, 0.0],
        [0.0, 0.0, 2.0],
        [4.0, 4.0, 5.0],
    ]
    program.remove(1)
    assert program.num_programs == 2
    assert program.add(compiled(bias(6, 7.0))) == [1]
    assert scores(program, 1)[5:7] == [0.0, 7.0]
    assert [table.data_ptr() for table in program.tensors] == places


def test_a_freed_row_keeps_nothing_of_the_program_before() -> None:
    program = compile_rules([bias(0, 1.0)], None, 40, capacity=ROOM)
    crowded = RuleSet([TokenBias({1: 1.0, 2: 2.0, 3: 3.0}, steps=(1, 2)), BanTokens([4])])
    vector = RuleSet([ScoreVector(torch.arange(40.0))])
    with pytest.raises(ValueError, match="4 classes, 5 are needed"):
        program.add(compiled(crowded))
    program.add(compiled(RuleSet(crowded.rules[:1])))
    program.remove(1)
    assert program.add(compiled(vector)) == [1]
    program.remove(1)
    assert program.add(compiled(bias(9, 4.0))) == [1]
    fresh = compile_rules([bias(0, 1.0), bias(9, 4.0)], None, 40, capacity=ROOM)
    for name, table in fresh.tensors._asdict().items():
        held = getattr(program.tensors, name)
        if name not in ("class_tokens", "score_vectors"):
            assert_same_bits(held, table, name)
    assert scores(program, 1) == scores(fresh, 1)


def snapshot(program: RuleProgram) -> list[torch.Tensor]:
    return [table.clone() for table in program.tensors]


@pytest.mark.parametrize(
    ("added", "message"),
    [
        ([bias(t, 1.0) for t in (3, 3, 3)], "2 free programs, 3 are needed"),
        ([bias(4, 1.0), bias(5, 1.0)], "2 class_maps, 3 are needed"),
        ([RuleSet([TokenBias({t: float(t) for t in range(1, 5)})])], "4 classes, 5 are needed"),
        (
            [RuleSet([TokenBias({3: 1.0}, steps=(s, s + 1)) for s in (0, 4, 8)])],
            "3 knots, 6 are needed",
        ),
        ([RuleSet([ScoreVector(torch.zeros(40))])] * 2, "1 free score_vectors, 2 are needed"),
        ([RuleSet([TokenBias(dict.fromkeys((2 * i, 2 * i + 1), float(i))) for i in range(1, 6)])],
         "4 classes, 6 are needed"),
    ],
)  # fmt: skip
def test_a_full_table_is_an_error_and_nothing_changes(added: list[RuleSet], message: str) -> None:
    program = compile_rules([bias(3, 1.0)], None, 40, capacity=ROOM)
    before = snapshot(program)
    with pytest.raises(ValueError, match=message):
        program.add(compiled(*added))
    assert program.num_programs == 1
    for table, old in zip(program.tensors, before, strict=True):
        assert_same_bits(table, old)


def test_class_tokens_are_limited_too() -> None:
    program = compile_rules([bias(3, 1.0)], None, 400, capacity=ROOM)
    other = compiled(RuleSet([BanTokens(range(9))]), vocab_size=400)
    with pytest.raises(ValueError, match="room for 8 class_tokens, 9 are needed"):
        program.add(other)


def test_programs_of_another_vocabulary_are_refused() -> None:
    with pytest.raises(ValueError, match="compiled for vocab_size=40, got 41"):
        compiled(bias(1, 1.0)).add(compiled(bias(1, 1.0), vocab_size=41))


def test_a_program_in_use_is_not_removed() -> None:
    program = compiled(bias(1, 1.0), bias(2, 1.0))
    state = DecodeState.allocate(program, 3)
    state.admit(0, 1)
    state.fork(0, [2])
    with pytest.raises(ValueError, match="program 1 is used by 2 live slots"):
        program.remove(1)
    state.release(0)
    state.release(2)
    program.remove(1)
    with pytest.raises(ValueError, match=r"program id must be one of \[0\] .* got 1"):
        program.remove(1)


def test_a_state_that_is_gone_uses_no_program() -> None:
    program = compiled(bias(1, 1.0), bias(2, 1.0))
    state = DecodeState.from_token_ids(program, [[3], [4]], program_ids=[1, 0])
    other = DecodeState.from_token_ids(program, [[5]], program_ids=[1])
    with pytest.raises(ValueError, match="program 1 is used by 2 live slots"):
        program.remove(1)
    del state
    gc.collect()
    with pytest.raises(ValueError, match="program 1 is used by 1 live slots"):
        program.remove(1)
    program.remove(0)
    other.release(0)
    program.remove(1)


COPIES = [copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))]


@pytest.mark.parametrize("copied", COPIES, ids=["deepcopy", "pickle"])
def test_a_copied_program_is_its_own_and_no_state_is_on_it(copied: Callable[[Any], Any]) -> None:
    program = compiled(bias(1, 1.0), bias(2, 1.0))
    state = DecodeState.from_token_ids(program, [[3]])
    other: RuleProgram = copied(program)
    assert scores(other, 1) == scores(program, 1)
    other.remove(0)
    assert (program.num_programs, other.num_programs) == (2, 1)
    with pytest.raises(ValueError, match="program 0 is used by 1 live slots"):
        program.remove(0)
    state.release(0)


@pytest.mark.parametrize("copied", COPIES, ids=["deepcopy", "pickle"])
def test_a_copied_state_is_on_the_copied_program(copied: Callable[[Any], Any]) -> None:
    program = compiled(bias(1, 1.0), bias(2, 1.0))
    state = DecodeState.from_token_ids(program, [[3]], program_ids=[1])
    other: DecodeState = copied(state)
    assert other.program is not program
    assert len({state, other}) == 2
    for table, expected in zip(other.tensors, state.tensors, strict=True):
        assert_same_bits(table, expected)
    state.release(0)
    program.remove(1)
    with pytest.raises(ValueError, match="program 1 is used by 1 live slots"):
        other.program.remove(1)
    other.release(0)
    other.program.remove(1)


@pytest.mark.parametrize(
    ("field", "value"), [("programs", 0), ("class_maps", 0), ("classes", 0), ("knots", -1)]
)
def test_a_capacity_must_be_positive(field: str, value: int) -> None:
    numbers = {**ROOM.__dict__, field: value}
    with pytest.raises(ValueError, match=f"capacity {field} must be at least 1, got {value}"):
        RuleProgram.allocate(40, Capacity(**numbers))


def test_a_class_map_has_256_codes() -> None:
    with pytest.raises(ValueError, match="capacity classes must be at most 256, got 257"):
        RuleProgram.allocate(40, Capacity(1, 1, 257, 1, 0, 0))
    assert RuleProgram.allocate(40, Capacity(1, 1, 256, 1, 0, 0)).num_programs == 0


def test_a_copy_on_another_device_is_its_own() -> None:
    program = compile_rules([bias(3, 1.0)], None, 40, capacity=ROOM)
    copy = program.to("cpu")
    copy.add(compiled(bias(3, 2.0)))
    assert (program.num_programs, copy.num_programs) == (1, 2)
    assert program.tensors.program_table[1].tolist() == [0, 0, 0, 0]
    assert scores(copy, 0) == scores(program, 0)
