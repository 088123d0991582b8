"""Named cases and comparisons, shared by tests and benchmarks: the same inputs for every backend.

`CASES` name shapes, dtypes and oddities; `Case.build` makes the same tensors each time; `run` calls
every op on them; `assert_matches` compares two runs: tokens, ranks, counts, in-place logits and
state by their bits, other floats within a tolerance.
"""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch
from torch import Tensor

from rnr_kernels import ops
from rnr_kernels.layout import num_words
from rnr_kernels.rules.compiler import compile_rules
from rnr_kernels.rules.kinds import (
    BanTokens,
    EosRamp,
    LogitRule,
    OnlyTokens,
    RuleSet,
    ScoreVector,
    TokenBias,
    UsedTokenPenalty,
)
from rnr_kernels.rules.program import RuleProgram
from rnr_kernels.sampling import Sampling
from rnr_kernels.state import DecodeState

ABSOLUTE_TOLERANCE = 1e-5
RELATIVE_TOLERANCE = 1e-5
"""Of float results across backends. Within a backend the same call has the same bits."""

SENTINELS = 7
"""Columns behind every row's logits that no op may touch: rows are slices of a wider buffer."""

SAMPLING = (
    Sampling(temperature=0.8, top_k=5, top_p=0.9, seed=1),
    Sampling(temperature=0.0, seed=0),
    Sampling(seed=-2),
    Sampling(temperature=1.5, min_p=0.05, seed=3),
    Sampling(temperature=0.7, top_p=0.6, seed=2**40),
    Sampling(temperature=0.01, top_k=3, seed=5),
)


def assert_same_bits(actual: Tensor, expected: Tensor, what: str = "tensors") -> None:
    """Equal shapes, dtypes and bits: NaN payloads and the sign of zero count."""
    assert actual.shape == expected.shape, f"{what}: shape {actual.shape}, not {expected.shape}"
    assert actual.dtype == expected.dtype, f"{what}: dtype {actual.dtype}, not {expected.dtype}"
    width = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[actual.element_size()]
    differs = actual.contiguous().view(width) != expected.contiguous().view(width)
    assert not differs.any(), _difference(what, actual, expected, differs)


def assert_close(actual: Tensor, expected: Tensor, what: str = "tensors") -> None:
    """NaN and infinities in the same places, the rest within the tolerances."""
    assert actual.shape == expected.shape, f"{what}: shape {actual.shape}, not {expected.shape}"
    assert actual.dtype == expected.dtype, f"{what}: dtype {actual.dtype}, not {expected.dtype}"
    close = torch.isclose(
        actual, expected, rtol=RELATIVE_TOLERANCE, atol=ABSOLUTE_TOLERANCE, equal_nan=True
    )
    assert close.all(), _difference(what, actual, expected, ~close)


def _difference(what: str, actual: Tensor, expected: Tensor, differs: Tensor) -> str:
    first = tuple(differs.nonzero()[0].tolist())
    return (
        f"{what} differ in {int(differs.sum())} of {differs.numel()} places, first at {first}: "
        f"{actual[first].item()!r}, not {expected[first].item()!r}"
    )


def admitted(
    rules: Sequence[LogitRule],
    vocab_size: int,
    *,
    slots: int = 1,
    max_bias: int = 0,
    eos_token_ids: Sequence[int] = (),
    **request: Any,
) -> tuple[RuleProgram, DecodeState]:
    """One compiled rule set and a state whose slots all hold the same `request` (see `admit`)."""
    program = compile_rules(RuleSet(rules), None, vocab_size, eos_token_ids=eos_token_ids)
    state = DecodeState.allocate(program, slots, max_bias=max_bias)
    for slot in range(slots):
        state.admit(slot, **request)
    return program, state


@dataclass(frozen=True)
class Inputs:
    """What the ops are called with."""

    buffer: Tensor
    """[R, row_width + SENTINELS]; the logits are its first columns."""
    base_logits: Tensor
    token_ids: Tensor
    """int64 [R]; targets of the statistics, padding labels included."""
    hidden: Tensor
    weight: Tensor
    """Small integers, so that LM-head logits are exact in any order of summation."""
    program: RuleProgram
    state: DecodeState
    row_options: Mapping[str, Tensor]
    """state_indices, and where the case has them the other per-row arguments."""

    @property
    def logits(self) -> Tensor:
        """A view of the buffer."""
        return self.buffer[:, : self.buffer.shape[1] - SENTINELS]

    def take(self, rows: Sequence[int]) -> "Inputs":
        """Copies of these rows, on the same program and state."""
        index = torch.tensor(rows, device=self.buffer.device)
        return replace(
            self,
            buffer=self.buffer[index],
            base_logits=self.base_logits[index],
            token_ids=self.token_ids[index],
            hidden=self.hidden[index],
            row_options={name: value[index] for name, value in self.row_options.items()},
        )


@dataclass(frozen=True)
class Case:
    """One batch: its rows meet every program of `_program` and every entry of SAMPLING in turn."""

    name: str
    vocab_size: int
    rows: int
    padding: int = 0
    """Columns past the vocabulary, filled with NaN."""
    dtype: torch.dtype = torch.float32
    odd: bool = False
    """Rows with NaN, +inf and -inf, rows of -inf alone, padding rows, a slot past the table."""
    masked: bool = False
    """With an `allowed_bitmask`."""
    drafts: bool = False
    """Each slot has three rows: its next token and two drafts."""

    def __str__(self) -> str:
        return self.name

    def build(self, device: torch.device | str = "cpu") -> Inputs:
        """The case's tensors: equal ones each time, on any device."""
        random = torch.Generator().manual_seed(zlib.crc32(self.name.encode()))
        rows, vocab_size = self.rows, self.vocab_size

        def normal(*shape: int) -> Tensor:
            return torch.randn(shape, generator=random)

        def integers(low: int, high: int, *shape: int) -> Tensor:
            return torch.randint(low, high, shape, generator=random)

        logits = 3 * normal(rows, vocab_size)
        logits[rows // 2] *= 20
        base_logits = logits + normal(rows, vocab_size)
        token_ids = integers(0, vocab_size, rows)
        rows_a_slot = 3 if self.drafts else 1
        state_indices = torch.arange(rows - 1, -1, -1) // rows_a_slot
        if self.odd:
            logits[0, 3], logits[1, 0], logits[2] = torch.nan, torch.inf, -torch.inf
            logits[3, ::3] = -torch.inf
            base_logits[3, 1::3] = -torch.inf
            base_logits[4, -1] = torch.nan
            token_ids[1], token_ids[4], token_ids[5] = -100, vocab_size, 0
            state_indices[5], state_indices[6] = -1, rows + 2
        options = {"state_indices": state_indices}
        if self.drafts:
            options["row_offsets"] = torch.arange(rows) % 3
            drafts = integers(0, vocab_size, rows)
            options["draft_token_ids"] = torch.where(options["row_offsets"] == 0, -1, drafts)
        if self.masked:
            mask = integers(-(2**31), 2**31, rows, num_words(vocab_size)).int()
            mask[:, 0] |= 1 << 2
            options["allowed_bitmask"] = mask

        width = vocab_size + self.padding
        buffer = torch.full((rows, width + SENTINELS), torch.nan)
        buffer[:, :vocab_size] = logits
        base = torch.full((rows, width), torch.nan)
        base[:, :vocab_size] = base_logits
        program = _program(vocab_size, str(device))
        return Inputs(
            buffer=buffer.to(device, self.dtype),
            base_logits=base.to(device, self.dtype),
            token_ids=token_ids.to(device),
            hidden=integers(-3, 4, rows, 16).to(device, self.dtype),
            weight=integers(-3, 4, vocab_size, 16).to(device, self.dtype),
            program=program,
            state=_state(program, rows),
            row_options={name: value.to(device) for name, value in options.items()},
        )


@cache
def _program(vocab_size: int, device: str) -> RuleProgram:
    """Sparse and dense classes, schedules, both scopes, a score vector, two that share a map."""
    random = torch.Generator().manual_seed(vocab_size)
    scores = torch.randn(vocab_size, generator=random)
    scores[::5] = -torch.inf
    scores[2] = 0.0
    published = RuleSet(
        [
            EosRamp(15.0, over=250),
            TokenBias({5: -4.0, 6: -3.0, 7: 1.0, vocab_size - 2: 1.0}),
            UsedTokenPenalty(1.5),
        ]
    )
    kinds: list[list[LogitRule]] = [
        [OnlyTokens([2, *range(0, vocab_size, 2)], steps=(0, 6)), EosRamp(3.0, over=7, force_at=9)],
        [ScoreVector(scores), UsedTokenPenalty(0.7, scope="prompt+response")],
        [
            BanTokens(list(range(3, vocab_size, 3)), steps=(1, 4)),
            TokenBias({token: 0.1 for token in range(0, vocab_size, 4)}, steps=(2, None)),
            TokenBias({4: -0.3}, steps=(0, 1)),
        ],
    ]
    sets = [published, *map(RuleSet, kinds), 0.5 * published]
    return compile_rules(sets, None, vocab_size, eos_token_ids=[2, vocab_size - 1], device=device)


def _state(program: RuleProgram, slots: int) -> DecodeState:
    """A live request in every slot, each with another program, length and sampling."""
    vocab_size = program.vocab_size
    state = DecodeState.allocate(program, slots, max_bias=3)
    for slot in range(slots):
        program_id = slot % (program.num_programs + 1) - 1
        biases = {slot % vocab_size: 0.5, 2: -0.25, vocab_size - 1: 1.5}
        state.admit(
            slot,
            program_id,
            prompt_token_ids=[slot, 1, 9, 30],
            used_from=1,
            output_token_ids=[(7 * slot + 5 * i) % vocab_size for i in range(2 * slot)],
            sampling=SAMPLING[slot % len(SAMPLING)],
            token_bias=biases if slot % 2 and program_id >= 0 else None,
        )
    return state


CASES = (
    Case("v31", 31, 7),
    Case("v31-masked", 31, 8, padding=1, dtype=torch.float16, masked=True),
    Case("v33-odd-bf16", 33, 8, padding=5, dtype=torch.bfloat16, odd=True),
    Case("v33-drafts", 33, 9, padding=31, drafts=True),
    Case("v1000-odd-masked", 1000, 9, padding=24, odd=True, masked=True),
    Case("v1000-drafts-bf16", 1000, 9, dtype=torch.bfloat16, drafts=True),
    Case("v4097-odd", 4097, 8, padding=1, odd=True),
    Case("v4097-drafts-masked-fp16", 4097, 6, dtype=torch.float16, drafts=True, masked=True),
    Case("v32000-bf16", 32000, 6, dtype=torch.bfloat16),
    Case("v32000-odd", 32000, 7, padding=64, odd=True),
)


def run(inputs: Inputs) -> dict[str, Tensor]:
    """Every op once on the backend in use; results by name, those of "state." one row a slot.

    Writes to the inputs' logits and state.
    """
    logits, program, state = inputs.logits, inputs.program, inputs.state
    rows: dict[str, Any] = dict(inputs.row_options)
    results: dict[str, Tensor] = {}

    def keep(op: str, values: Any) -> None:
        results.update((f"{op}.{name}", value) for name, value in values._asdict().items())

    logprobs, log_z = ops.rule_log_softmax(logits, program, state, return_log_z=True, **rows)
    results["rule_log_softmax"], results["log_z"] = logprobs, log_z
    size = program.vocab_size
    keep("token_stats", ops.token_stats(logits, inputs.token_ids, vocab_size=size, top_k=4))
    shift = ops.shift_stats(logits, inputs.base_logits, inputs.token_ids, vocab_size=size, top_k=2)
    results["shift_stats.same_argmax"] = shift.same_argmax
    results["shift_stats.kl_aligned_base"] = shift.kl_aligned_base
    results["shift_stats.kl_base_aligned"] = shift.kl_base_aligned
    keep("shift_stats.base", shift.base)
    linear = ops.linear_token_stats(
        inputs.hidden, inputs.weight, inputs.token_ids, logit_scale=0.25, top_k=4, invariant=True
    )
    keep("linear_token_stats", linear)
    drawn = ops.sample_(
        logits,
        program,
        state,
        return_logprob=True,
        return_adjusted_logprob=True,
        return_rank=True,
        **rows,
    )
    keep("sample_", drawn)
    if "row_offsets" not in rows:
        ops.update_state_(state, inputs.token_ids, state_indices=rows["state_indices"])
    keep("state", state.tensors)
    ops.apply_rules_(logits, program, state, **rows)
    results["apply_rules_"] = inputs.buffer
    return results


def assert_matches(actual: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Two runs of one case on different backends."""
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        exact = not value.is_floating_point() or name.startswith(("apply_rules_", "state."))
        (assert_same_bits if exact else assert_close)(actual[name].cpu(), value.cpu(), name)
