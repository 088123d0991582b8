"""Selection of backends, and the promises that each of them keeps on the shared cases."""

import os
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from cpu_backends import ON_CPU
from torch import Tensor

from rnr_kernels import backends, compile_rules, reference, sample_, testing, token_stats
from rnr_kernels.backends import NATIVE, REFERENCE, Backend, native
from rnr_kernels.rules.kinds import RuleSet
from rnr_kernels.state import DecodeState
from rnr_kernels.testing import CASES, Case, assert_matches, assert_same_bits

cases = pytest.mark.parametrize("case", CASES, ids=str)


SETS = [
    Backend(f"native-{name}", native.functions(index), native.refuses)
    for index, name in enumerate(native.instruction_sets())
]
"""The native backend on each instruction set of this processor."""

TESTED = [*(SETS or [NATIVE]), *(other for other in ON_CPU if other is not NATIVE)]


@pytest.fixture(params=TESTED, ids=lambda backend: backend.name)
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    tested: Backend = request.param
    missing = tested is NATIVE and native.unavailable()
    if missing:
        pytest.skip(missing)
    monkeypatch.setattr(backends, "BACKENDS", (tested, REFERENCE))
    with backends.use(tested.name):
        yield tested.name


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


# The promises


@cases
def test_a_backend_gives_the_references_results(backend: str, case: Case) -> None:
    with backends.use("reference"):
        expected = testing.run(case.build())
    results = testing.run(case.build())
    assert_matches(results, expected)
    if backend == "reference":
        for name, value in expected.items():
            assert_same_bits(results[name], value, name)


@cases
def test_all_instruction_sets_give_the_same_bits(case: Case) -> None:
    if len(SETS) < 2:
        pytest.skip(native.unavailable() or f"one instruction set alone: {SETS[0].name}")
    results = []
    for tested in SETS:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(backends, "BACKENDS", (tested, REFERENCE))
            with backends.use(tested.name):
                results.append(testing.run(case.build()))
    for other in results[1:]:
        for name, value in results[0].items():
            assert_same_bits(other[name], value, name)


@cases
def test_only_logits_state_and_the_vocabularys_columns_are_written(
    backend: str, case: Case
) -> None:
    before, inputs = case.build(), case.build()
    testing.run(inputs)
    assert_same_bits(inputs.buffer[:, case.vocab_size :], before.buffer[:, case.vocab_size :])
    for name in ("base_logits", "token_ids", "hidden", "weight"):
        assert_same_bits(getattr(inputs, name), getattr(before, name), name)
    for name, value in before.row_options.items():
        assert_same_bits(inputs.row_options[name], value, name)
    for table, old in zip(inputs.program.tensors, before.program.tensors, strict=True):
        assert_same_bits(table, old)
    assert not torch.equal(inputs.logits, before.logits)


def in_order(results: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The rows of several runs in one; the state as the last run left it."""
    joined = {name: torch.cat([result[name] for result in results]) for name in results[0]}
    return joined | {k: v for k, v in results[-1].items() if k.startswith("state.")}


@pytest.mark.parametrize("case", [c for c in CASES if not c.drafts], ids=str)
def test_a_row_has_the_same_bits_alone_and_in_a_batch(backend: str, case: Case) -> None:
    expected = testing.run(case.build())
    inputs = case.build()
    alone = in_order([testing.run(inputs.take([row])) for row in range(case.rows)])
    for name, value in expected.items():
        assert_same_bits(alone[name], value, name)


@pytest.mark.parametrize("case", [c for c in CASES if not c.drafts], ids=str)
def test_a_row_has_the_same_bits_in_every_position(backend: str, case: Case) -> None:
    expected = testing.run(case.build())
    order = [*range(1, case.rows, 2), *range(0, case.rows, 2)]
    permuted = testing.run(case.build().take(order))
    for name, value in expected.items():
        rows = value if name.startswith("state.") else value[order]
        assert_same_bits(permuted[name], rows, name)


@pytest.mark.parametrize("case", [c for c in CASES if c.vocab_size == 4097], ids=str)
def test_results_do_not_depend_on_the_number_of_threads(
    backend: str, case: Case, threads: Callable[[int], None]
) -> None:
    threads(1)
    expected = testing.run(case.build())
    threads(2)
    for name, value in testing.run(case.build()).items():
        assert_same_bits(value, expected[name], name)


# The cases themselves


def test_the_cases_meet_what_they_are_there_for() -> None:
    assert {case.vocab_size for case in CASES} == {31, 33, 1000, 4097, 32000}
    assert {case.dtype for case in CASES} == {torch.float32, torch.bfloat16, torch.float16}
    inputs = next(case for case in CASES if case.odd).build()
    program_ids = set(inputs.state.program_ids.tolist())
    assert program_ids == {-1, *range(inputs.program.num_programs)}
    tables = inputs.program.tensors
    assert tables.program_table[0, 0] == tables.program_table[4, 0] != tables.program_table[1, 0]
    assert (tables.class_offsets[:, -1] < tables.class_counts[:, 1:].sum(1)).any()
    results = testing.run(inputs)
    tokens = results["sample_.token_ids"]
    assert (tokens == -1).any() and (tokens >= 0).any()


def changed(op: str, change: Callable[[Any], Any]) -> Backend:
    """The reference with one op whose results `change` spoils."""

    def wrong(*arguments: Any) -> Any:
        return change(getattr(reference, op)(*arguments))

    return Backend("wrong", {**REFERENCE.functions, op: wrong}, REFERENCE.refuses)


@pytest.mark.parametrize(
    ("op", "change"),
    [
        ("sample_", lambda result: (result[0].clamp(max=24), *result[1:])),
        ("sample_", lambda result: (*result[:3], result[3] + 1)),
        ("rule_log_softmax", lambda result: (result[0] * (1 + 1e-4), result[1])),
        ("rule_log_softmax", lambda result: (result[0].nan_to_num(0.0, neginf=-9.0), result[1])),
        ("token_stats", lambda result: (result[0], result[1] + 1, *result[2:])),
        ("shift_stats", lambda result: (*result[:-1], ~result[-1])),
        ("linear_token_stats", lambda result: (*result[:4], result[4].flip(1), result[5])),
    ],
)
def test_a_wrong_backend_is_caught(
    op: str, change: Callable[[Any], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    case = CASES[2]
    with backends.use("reference"):
        expected = testing.run(case.build())
    monkeypatch.setattr(backends, "BACKENDS", (changed(op, change), REFERENCE))
    with backends.use("wrong"), pytest.raises(AssertionError, match=op):
        assert_matches(testing.run(case.build()), expected)


@pytest.mark.parametrize(
    ("actual", "expected"),
    [
        (torch.tensor([0.0]), torch.tensor([-0.0])),
        (torch.tensor([1.0]), torch.tensor([1.0 + 2.0**-23])),
        (torch.tensor([1.0]), torch.tensor([1.0]).bfloat16()),
        (torch.tensor([1]), torch.tensor([[1]])),
        (torch.tensor([0x7FC00000]).int().view(torch.float32),
         torch.tensor([0x7FC00001]).int().view(torch.float32)),
    ],
)  # fmt: skip
def test_bits_that_differ_are_told_apart(actual: Tensor, expected: Tensor) -> None:
    assert_same_bits(expected, expected.clone())
    with pytest.raises(AssertionError):
        assert_same_bits(actual, expected)


# Selection


def calls_of(name: str, calls: list[str], refuses: set[str]) -> Backend:
    """A backend that notes its calls and serves token_stats alone."""

    def serve(*arguments: Any) -> Any:
        calls.append(name)
        return reference.token_stats(*arguments)

    def reason(op: str, device: torch.device, dtype: torch.dtype, vocab_size: int) -> str | None:
        for what in (op, device.type, str(dtype), str(vocab_size)):
            if what in refuses:
                return f"no {what}"
        return None

    return Backend(name, {"token_stats": serve}, reason)


@pytest.fixture
def three(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Backends first, second and reference; the list fills with the names that served."""
    calls: list[str] = []
    first = calls_of("first", calls, refuses={"torch.bfloat16", "7"})
    second = calls_of("second", calls, refuses=set())
    monkeypatch.setattr(backends, "BACKENDS", (first, second, REFERENCE))
    monkeypatch.setattr(backends, "default_name", lambda: None)
    return calls


def stats(vocab_size: int = 5, dtype: torch.dtype = torch.float32, rows: int = 1) -> None:
    token_stats(torch.zeros(rows, vocab_size, dtype=dtype), torch.zeros(rows, dtype=torch.int64))


def test_the_first_backend_that_does_not_refuse_serves(three: list[str]) -> None:
    stats()
    stats(dtype=torch.bfloat16)
    stats(vocab_size=7)
    assert three == ["first", "second", "second"]


def test_the_number_of_rows_never_decides(three: list[str]) -> None:
    for rows in (0, 1, 2, 600):
        stats(rows=rows)
    assert three == ["first"] * 4


def test_an_op_that_no_other_backend_has_runs_on_the_reference(three: list[str]) -> None:
    program = compile_rules(RuleSet([]), None, 5)
    state = DecodeState.allocate(program, 1)
    sample_(torch.zeros(1, 5), program, state)
    assert three == []


def test_a_backend_is_chosen_by_name(three: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    with backends.use("second"):
        stats()
        with backends.use("first"):
            stats()
        stats()
    monkeypatch.setattr(backends, "default_name", lambda: "second")
    stats()
    with backends.use("first"):
        stats()
    assert three == ["second", "first", "second", "second", "first"]


def test_the_choice_ends_with_the_block_even_after_an_error(three: list[str]) -> None:
    with pytest.raises(KeyError), backends.use("second"):
        raise KeyError
    stats()
    assert three == ["first"]


def test_a_named_backend_that_cannot_serve_is_an_error(
    three: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with backends.use("first"):
        with pytest.raises(ValueError, match="'first' does not serve token_stats here: no 7"):
            stats(vocab_size=7)
        program = compile_rules(RuleSet([]), None, 5)
        state = DecodeState.allocate(program, 1)
        with pytest.raises(ValueError, match="does not serve sample_ here: it has no sample_"):
            sample_(torch.zeros(1, 5), program, state)
    with pytest.raises(ValueError, match="one of first, second, reference, got 'third'"):
        backends.use("third").__enter__()
    monkeypatch.setattr(backends, "default_name", lambda: "third")
    with pytest.raises(ValueError, match="got 'third'; see RNR_BACKEND"):
        stats()


def test_the_environment_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    backends.default_name.cache_clear()
    try:
        monkeypatch.setenv("RNR_BACKEND", "second")
        assert backends.default_name() == "second"
        monkeypatch.setenv("RNR_BACKEND", "")
        assert backends.default_name() == "second"
        backends.default_name.cache_clear()
        assert backends.default_name() is None
    finally:
        backends.default_name.cache_clear()


def test_the_table_is_asked_once_for_each_kind_of_call(
    three: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, int]] = []

    def refuses(op: str, device: torch.device, dtype: torch.dtype, vocab_size: int) -> None:
        asked.append((op, vocab_size))

    only = Backend("only", REFERENCE.functions, refuses)
    monkeypatch.setattr(backends, "BACKENDS", (only, REFERENCE))
    for vocab_size in (5, 5, 6, 5):
        stats(vocab_size)
    assert asked == [("token_stats", 5), ("token_stats", 6)]


def test_missing_kernels_are_one_warning_and_none_where_the_reference_was_chosen(
    three: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native, "unavailable", lambda: "they are missing; install them")
    monkeypatch.setattr(backends, "BACKENDS", (NATIVE, REFERENCE))
    backends._warn_of_the_reference.cache_clear()
    backends._serving.cache_clear()
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            with backends.use("reference"):
                stats(8)
            assert caught == []
            for vocab_size in (8, 9, 9):
                stats(vocab_size)
        (warning,) = caught
        assert str(warning.message) == (
            "rnr_kernels runs on its slow reference, because they are missing; install them"
        )
        assert warning.filename == __file__
        with backends.use("native"), pytest.raises(ValueError, match="here: they are missing"):
            stats(8)
    finally:
        backends._warn_of_the_reference.cache_clear()
        backends._serving.cache_clear()


def test_the_backends_that_must_be_there_are() -> None:
    required = [name for name in os.environ.get("RNR_REQUIRE_BACKENDS", "").split(",") if name]
    if not required:
        pytest.skip("RNR_REQUIRE_BACKENDS names none")
    cpu = torch.device("cpu")
    for name in required:
        with backends.use(name):
            assert callable(backends.find("sample_", cpu, torch.float32, 32))


NOT_META = "it serves CPUs and NVIDIA GPUs, not meta"


@pytest.mark.parametrize("op", NATIVE.functions)
def test_the_native_backend_serves_the_cpu_and_the_logits_dtypes(op: str) -> None:
    if native.unavailable():
        pytest.skip(native.unavailable() or "")
    cpu, meta = torch.device("cpu"), torch.device("meta")
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        assert backends.refusal(NATIVE, op, cpu, dtype, 128_256) is None
        assert backends.find(op, cpu, dtype, 128_256) is NATIVE.functions[op]
    assert backends.refusal(NATIVE, op, meta, torch.float32, 32) == NOT_META
    assert backends.find(op, meta, torch.float32, 32) is REFERENCE.functions[op]


def test_the_reference_serves_every_op() -> None:
    assert set(REFERENCE.functions) == set(reference.__all__)
    assert backends.BACKENDS[-1] is REFERENCE
