"""`warm_up` on the CPU; that nothing is compiled after it is tested in tests/gpu_static."""

from typing import Any

import pytest
import torch
from torch import Tensor

from rnr_kernels import backends, reference, warm_up
from rnr_kernels.backends import REFERENCE, Backend
from rnr_kernels.rules.kinds import TokenBias, UsedTokenPenalty
from rnr_kernels.rules.program import RuleProgram
from rnr_kernels.sampling import Sampling
from rnr_kernels.testing import admitted, assert_same_bits
from rnr_kernels.warm_up import OPS, OPTIONS

EVERYTHING = (*OPS, *OPTIONS)


def make_program(vocab_size: int = 40) -> RuleProgram:
    return admitted([TokenBias({3: 1.0}), UsedTokenPenalty(1.0)], vocab_size)[0]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, tuple[Any, ...]]]:
    """What reaches the backend: op and arguments."""
    found: list[tuple[str, tuple[Any, ...]]] = []

    def noting(op: str) -> Any:
        def call(*values: Any) -> Any:
            found.append((op, values))
            return getattr(reference, op)(*values)

        return call

    functions = {op: noting(op) for op in reference.__all__}
    noted = Backend("noted", functions, lambda *call: None)
    monkeypatch.setattr(backends, "BACKENDS", (noted, REFERENCE))
    return found


@pytest.mark.usefixtures("every_backend")
def test_nothing_is_left_behind() -> None:
    sampling = Sampling(temperature=0.8, seed=3)
    program, state = admitted([TokenBias({3: 1.0})], 40, slots=2, sampling=sampling)
    tables = [*program.tensors, *state.tensors, state.error]
    before, random = [table.clone() for table in tables], torch.random.get_rng_state()
    warm_up(program, (torch.float32, torch.bfloat16, torch.float16), flags=EVERYTHING)
    assert torch.equal(torch.random.get_rng_state(), random)
    for table, old in zip(tables, before, strict=True):
        assert_same_bits(table, old)
    assert list(program.states) == [state]


def test_flags_name_the_ops_and_their_form(calls: list[tuple[str, tuple[Any, ...]]]) -> None:
    program = make_program()
    with backends.use("noted"):
        warm_up(program)
        assert [op for op, _ in calls] == ["sample_", "sample_"]
        assert calls[0][1][5:] == (None, None, None, None, False, False, False)
        calls.clear()
        warm_up(program, (torch.bfloat16,), flags=["state_indices", "int32_indices", "rank"])
        values = calls[0][1]
        assert values[0].dtype == torch.bfloat16
        assert values[5].dtype == torch.int32
        assert values[6:] == (None, None, None, False, False, True)
        calls.clear()
        warm_up(program, flags=EVERYTHING)
        assert {op for op, _ in calls} == set(OPS)
        calls.clear()
        warm_up(program, flags=["update_state_", "counts"])
        assert [op for op, _ in calls] == ["update_state_"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("vocab_size", [1, 40, 64])
def test_rows_that_load_in_vectors_and_rows_that_do_not_are_met(
    calls: list[tuple[str, tuple[Any, ...]]], vocab_size: int, dtype: torch.dtype
) -> None:
    with backends.use("noted"):
        warm_up(make_program(), (dtype,), vocab_size, ["shift_stats"])

    def is_aligned(rows: Tensor) -> bool:
        return (rows.data_ptr() | rows.stride(0) * rows.element_size()) % 16 == 0

    aligned = [(is_aligned(values[0]), is_aligned(values[1])) for _, values in calls]
    assert aligned == [(True, True), (True, False), (False, True), (False, False)]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"flags": ["sample"]}, ValueError, r"flags must be among apply_rules_, .*, got 'sample'"),
        ({"flags": "rank"}, TypeError, r"collection of names, got 'rank'; pass \('rank',\)"),
        ({"flags": ["token_stats", "rank"]}, ValueError, r"flag 'rank' needs sample_ among"),
        ({"flags": ["counts"]}, ValueError, "flag 'counts' needs update_state_ among the flags"),
        ({"dtypes": torch.float32}, TypeError, r"pass \(torch.float32,\)"),
        ({"dtypes": [torch.float64]}, ValueError, "float16, got torch.float64"),
        ({"vocab_size": 0}, ValueError, "vocab_size must be at least 1, got 0"),
        ({"vocab_size": 2.5}, TypeError, "vocab_size"),
    ],
)
def test_what_cannot_be_is_said(
    arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        warm_up(make_program(), **arguments)


def test_it_needs_a_program() -> None:
    program: Any = None
    with pytest.raises(TypeError, match="program must be a RuleProgram, got NoneType"):
        warm_up(program)
