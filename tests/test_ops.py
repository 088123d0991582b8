"""The registered ops: schemas, opcheck, torch.compile, dtypes, strides and out=."""

import shutil
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.library import opcheck
from torch.utils._python_dispatch import TorchDispatchMode

from rnr_kernels import (
    Sampling,
    apply_rules_,
    linear_token_stats,
    rule_log_softmax,
    sample_,
    shift_stats,
    token_stats,
    update_state_,
)
from rnr_kernels.registration import MUTATES, overload
from rnr_kernels.rules.kinds import EosRamp, LogitRule, TokenBias, UsedTokenPenalty
from rnr_kernels.rules.program import RuleProgram
from rnr_kernels.state import DecodeState
from rnr_kernels.testing import admitted, assert_same_bits

VOCAB = 40
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def request(slots: int = 3) -> tuple[RuleProgram, DecodeState]:
    rules: list[LogitRule] = [
        EosRamp(4.0, over=3),
        TokenBias({3: 2.0, 30: -1.0}),
        UsedTokenPenalty(1.5),
    ]
    return admitted(
        rules, VOCAB, slots=slots, eos_token_ids=[2],
        output_token_ids=[5, 3], sampling=Sampling(0.9, top_p=0.8, seed=1),
    )  # fmt: skip


def random_logits(rows: int = 3, width: int = VOCAB, seed: int = 0) -> Tensor:
    return 3 * torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))


def registered(op: str) -> torch._ops.OpOverload:
    name, _, which = overload(op).partition(".")
    return getattr(getattr(torch.ops.rnr, name), which or "default")  # type: ignore[no-any-return]


# Registration


@pytest.mark.parametrize("op", MUTATES)
def test_schemas_take_a_plain_int_and_declare_what_is_written(op: str) -> None:
    schema = registered(op)._schema
    if not op.startswith("linear_"):
        assert " int vocab_size" in str(schema) or "(int vocab_size" in str(schema)
    assert "SymInt" not in str(schema)
    aliases = {argument.name: argument.alias_info for argument in schema.arguments}
    written = {name for name, alias in aliases.items() if alias is not None and alias.is_write}
    assert written == set(MUTATES[op])


def front() -> tuple[Any, ...]:
    program, state = request()
    return random_logits(), VOCAB, list(program.tensors), list(state.tensors), state.error


ROWS: dict[str, Any] = {
    "state_indices": torch.tensor([2, 0, 1]),
    "allowed_bitmask": torch.tensor([[-1, 7], [-2, 0], [0b1010, 1]], dtype=torch.int32),
    "row_offsets": torch.tensor([0, 1, 0], dtype=torch.int32),
    "draft_token_ids": torch.tensor([-1, 8, -1]),
}
TARGETS = torch.tensor([0, 39, 7])


def calls() -> list[Any]:
    hidden, weight = random_logits(3, 8), random_logits(VOCAB, 8, seed=1)
    base_hidden, base_weight = random_logits(3, 4), random_logits(VOCAB, 4, seed=2)
    bias = random_logits(1, VOCAB)[0]
    asked = {"return_logprob": True, "return_adjusted_logprob": True, "return_rank": True}
    _, _, _, state, error = front()
    return [
        ("apply_rules_", front(), {}),
        ("apply_rules_", front(), ROWS),
        ("rule_log_softmax", front(), {}),
        ("rule_log_softmax", front(), {**ROWS, "return_log_z": True}),
        ("rule_log_softmax_out", (*front(), torch.empty(3, VOCAB)), {}),
        ("rule_log_softmax_out", (*front(), torch.empty(3, VOCAB), torch.empty(3)), ROWS),
        ("sample_", front(), {}),
        ("sample_", front(), {"state_indices": ROWS["state_indices"], **asked}),
        ("sample_", front(), {**ROWS, **asked}),
        ("update_state_", (VOCAB, state, error, torch.tensor([[1, 2]] * 3)), {}),
        (
            "update_state_",
            (VOCAB, state, error, torch.tensor([[1, 2]] * 2)),
            {"counts": torch.tensor([1, 2]), "state_indices": torch.tensor([2, 0])},
        ),
        ("token_stats", (random_logits(), TARGETS, VOCAB), {}),
        ("token_stats", (random_logits(), TARGETS, VOCAB, 5), {}),
        ("shift_stats", (random_logits(), random_logits(seed=1), TARGETS, VOCAB, 2), {}),
        ("linear_token_stats", (hidden, weight, TARGETS), {}),
        ("linear_token_stats", (hidden, weight, TARGETS, bias, 0.5, 3.0, 2, True), {}),
        ("linear_shift_stats", (hidden, weight, base_hidden, base_weight, TARGETS), {"top_k": 2}),
    ]


@pytest.mark.parametrize(
    ("op", "arguments", "options"),
    [pytest.param(*call, id=f"{call[0]}-{index}") for index, call in enumerate(calls())],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_opcheck(op: str, arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
    results = opcheck(registered(op), arguments, options)
    assert set(results.values()) == {"SUCCESS"}


def test_every_op_is_checked() -> None:
    assert {op for op, _, _ in calls()} == set(MUTATES)


# Who sees the op


class Seen(TorchDispatchMode):
    """Notes the ops of this project."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace.startswith("rnr"):
            self.names.append(str(func))
        return func(*args, **(kwargs or {}))


def test_modes_see_the_registered_op() -> None:
    program, state = request()
    with Seen() as seen:
        apply_rules_(random_logits(), program, state)
        rule_log_softmax(random_logits(), program, state, out=torch.empty(3, VOCAB))
        sample_(random_logits(), program, state)
        update_state_(state, TARGETS)
        token_stats(random_logits(), TARGETS)
    assert seen.names == [
        "rnr.apply_rules_.default",
        "rnr.rule_log_softmax.out",
        "rnr.sample_.default",
        "rnr.update_state_.default",
        "rnr.token_stats.default",
    ]


def test_fake_tensors_come_out_of_fake_tensors() -> None:
    program, state = request()
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        logits = mode.from_tensor(random_logits())
        drawn = sample_(logits, program, state, return_rank=True)
        assert drawn.logprob is None and isinstance(drawn.rank, FakeTensor)
        assert (drawn.rank.shape, drawn.rank.dtype) == ((3,), torch.int32)
    assert state.num_output_tokens.tolist() == [2, 2, 2]


@pytest.mark.filterwarnings("ignore:rnr.*autograd kernel was not registered:UserWarning")
def test_gradients_flow_through_the_reference() -> None:
    program, state = request()
    logits = random_logits().requires_grad_()
    logprobs = rule_log_softmax(logits, program, state)
    assert isinstance(logprobs, Tensor)
    logprobs[:, 7].sum().backward()  # type: ignore[no-untyped-call]
    expected = torch.nn.functional.one_hot(torch.tensor([7] * 3), VOCAB) - logprobs.exp()
    torch.testing.assert_close(logits.grad, expected.detach())
    with pytest.raises(RuntimeError, match="leaf Variable that requires grad"):
        apply_rules_(logits, program, state)
    with torch.no_grad():
        assert not sample_(logits, program, state).token_ids.requires_grad


# torch.compile


def both(function: Callable[..., Any]) -> tuple[Any, Any, list[list[Tensor]]]:
    """What eager and compiled calls return, each on its own state, and both states after."""
    results, states = [], []
    for compiled in (False, True):
        torch._dynamo.reset()
        run = torch.compile(function, fullgraph=True, backend="aot_eager") if compiled else function
        program, state = request()
        for seed in (1, 2):
            result = run(random_logits(seed=seed), program, state)
        results.append(result)
        states.append([*state.tensors, state.error])
    return results[0], results[1], states


@pytest.mark.parametrize(
    "function",
    [
        lambda logits, program, state: (apply_rules_(logits, program, state) * 2,),
        lambda logits, program, state: rule_log_softmax(logits, program, state, return_log_z=True),
        lambda logits, program, state: (rule_log_softmax(logits, program, state, out=logits),),
        lambda logits, program, state: sample_(logits, program, state, return_logprob=True)[:2],
        lambda logits, program, state: sample_(
            logits, program, state, state_indices=torch.tensor([2, 0, 1])
        )[:1],
        lambda logits, program, state: tuple(token_stats(logits + 1, torch.arange(3), top_k=2)),
        lambda logits, program, state: shift_stats(logits, logits * 2, torch.arange(3))[2:],
    ],
    ids=["apply", "log_softmax", "log_softmax_out", "sample", "sample_indices", "stats", "shift"],
)
def test_a_compiled_call_equals_an_eager_one(function: Callable[..., Any]) -> None:
    eager, compiled, (eager_state, compiled_state) = both(function)
    for value, expected in zip(compiled, eager, strict=True):
        assert_same_bits(value, expected)
    for value, expected in zip(compiled_state, eager_state, strict=True):
        assert_same_bits(value, expected)


@pytest.mark.skipif(
    not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="inductor needs a C++ compiler"
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_compiled_decode_step_with_inductor() -> None:
    def step(logits: Tensor, program: RuleProgram, state: DecodeState) -> Tensor:
        return sample_(logits.float() / 2, program, state).token_ids

    logits = random_logits().bfloat16()
    program, state = request()
    expected = [step(logits, program, state).tolist() for _ in range(3)]
    program, state = request()
    compiled = torch.compile(step, fullgraph=True)
    assert [compiled(logits, program, state).tolist() for _ in range(3)] == expected
    assert state.num_output_tokens.tolist() == [5, 5, 5]


# Dtypes, strides, out=


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_gives_the_float32_result_rounded_once(dtype: torch.dtype) -> None:
    logits = random_logits().to(dtype)
    program, state = request()
    in_float32 = apply_rules_(logits.float().clone(), program, state)
    expected = rule_log_softmax(logits.float(), program, state)
    assert isinstance(expected, Tensor)
    logprobs = rule_log_softmax(logits, program, state)
    assert isinstance(logprobs, Tensor)
    assert_same_bits(logprobs, expected)
    assert_same_bits(apply_rules_(logits.clone(), program, state), in_float32.to(dtype))
    stats = token_stats(logits, TARGETS, top_k=1)
    for name, value in token_stats(logits.float(), TARGETS, top_k=1)._asdict().items():
        assert_same_bits(getattr(stats, name), value, name)
    tokens = sample_(logits, program, state).token_ids
    program, state = request()
    assert_same_bits(tokens, sample_(logits.float(), program, state).token_ids)


@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_may_be_a_slice_of_a_wider_buffer(dtype: torch.dtype) -> None:
    dense = random_logits().to(dtype)
    buffer = torch.full((5, VOCAB + 13), torch.nan, dtype=dtype)
    logits = buffer[1:4, 6 : 6 + VOCAB]
    logits.copy_(dense)
    program, state = request()
    expected = rule_log_softmax(dense, program, state)
    assert isinstance(expected, Tensor)
    out_buffer = torch.full((5, VOCAB + 3), 7.5)
    out = out_buffer[1:4, 2 : 2 + VOCAB]
    assert rule_log_softmax(logits, program, state, out=out) is out
    assert_same_bits(out, expected)
    stats = token_stats(logits, TARGETS)
    assert_same_bits(stats.entropy, token_stats(dense, TARGETS).entropy)
    apply_rules_(logits, program, state)
    assert_same_bits(logits, apply_rules_(dense.clone(), program, state))
    logits.fill_(torch.nan)
    out.fill_(7.5)
    assert buffer.isnan().all()
    assert (out_buffer == 7.5).all()


@pytest.mark.parametrize("padding", [0, 9])
def test_out_may_be_the_logits_themselves(padding: int) -> None:
    logits = random_logits(width=VOCAB + padding)
    program, state = request()
    expected, log_z = rule_log_softmax(logits, program, state, return_log_z=True)
    asked = torch.empty(3)
    result = rule_log_softmax(logits, program, state, out=logits, log_z_out=asked)
    assert isinstance(result, tuple) and result[0] is logits and result[1] is asked
    assert_same_bits(logits, expected)
    assert_same_bits(asked, log_z)


def test_log_z_comes_with_out_when_asked_for() -> None:
    program, state = request()
    out = torch.empty(3, VOCAB)
    result = rule_log_softmax(random_logits(), program, state, out=out, return_log_z=True)
    assert isinstance(result, tuple) and result[0] is out
    expected = rule_log_softmax(random_logits(), program, state, return_log_z=True)
    assert_same_bits(result[1], expected[1])


def test_no_rows_are_fine() -> None:
    program, state = request()
    logits, none = torch.empty(0, VOCAB), torch.empty(0, dtype=torch.int64)
    assert apply_rules_(logits, program, state).shape == (0, VOCAB)
    logprobs, log_z = rule_log_softmax(logits, program, state, return_log_z=True)
    assert (logprobs.shape, log_z.shape) == ((0, VOCAB), (0,))
    assert sample_(logits, program, state).token_ids.shape == (0,)
    assert token_stats(logits, none, top_k=3).top_logprobs.shape == (0, 3)
    assert shift_stats(logits, logits, none).same_argmax.shape == (0,)
    head = torch.empty(0, 4), torch.zeros(VOCAB, 4)
    assert linear_token_stats(*head, none, top_k=3).top_token_ids.shape == (0, 3)
    update_state_(state, none)
    assert state.num_output_tokens.tolist() == [2, 2, 2]


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_indices_of_both_widths_are_equal(dtype: torch.dtype) -> None:
    program, state = request()
    options = {k: v.to(dtype) for k, v in ROWS.items() if k != "allowed_bitmask"}
    tokens = sample_(random_logits(), program, state, **options).token_ids
    wide = {k: v.long() for k, v in options.items()}
    assert_same_bits(tokens, sample_(random_logits(), program, state, **wide).token_ids)
    update_state_(state, TARGETS.to(dtype), options["row_offsets"])
    assert state.num_output_tokens.tolist() == [2, 3, 2]
