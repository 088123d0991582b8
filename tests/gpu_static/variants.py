"""After `warm_up`, no call of the same form makes Triton compile anything."""

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from recorder import Launch
from torch import Tensor

from rnr_kernels import backends, ops, warm_up
from rnr_kernels.backends import REFERENCE, TRITON, Backend
from rnr_kernels.rules.kinds import EosRamp, ScoreVector, TokenBias, UsedTokenPenalty
from rnr_kernels.rules.program import RuleProgram
from rnr_kernels.state import DecodeState
from rnr_kernels.testing import admitted
from rnr_kernels.warm_up import OPS

DTYPES = (torch.float32, torch.bfloat16)
BATCHES = (1, 2, 3, 16, 17, 64, 512)

FORMS: dict[str, tuple[str, ...]] = {
    "plain": OPS,
    "slots": (*OPS, "state_indices", "counts", "log_z", "logprob", "rank", "top_k"),
    "drafts": (
        *("apply_rules_", "rule_log_softmax", "sample_", "token_stats"),
        *("state_indices", "allowed_bitmask", "drafts", "int32_indices", "adjusted_logprob"),
    ),
}
"""Flags of servers that call in different ways."""


@pytest.fixture(autouse=True)
def on_triton(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Its kernels for the CPU's tensors, which nothing reads."""
    serving = Backend("triton", TRITON.functions, lambda *call: None)
    monkeypatch.setattr(backends, "BACKENDS", (serving, REFERENCE))
    backends._serving.cache_clear()
    with backends.use("triton"):
        yield
    backends._serving.cache_clear()


def program_of(vocab_size: int) -> RuleProgram:
    rules = [
        EosRamp(15.0, over=250),
        TokenBias({5: -4.0}),
        UsedTokenPenalty(1.5),
        ScoreVector(torch.zeros(vocab_size)),
    ]
    return admitted(rules, vocab_size, eos_token_ids=[2])[0]


def columns(rows: int, dtype: torch.dtype) -> Iterator[Tensor]:
    """Index tensors of many strides and offsets: padding rows, which may repeat."""
    for stride in (1, 2, 3, 16):
        for offset in (0, 1, 4):
            storage = torch.full((rows * stride + offset,), -1, dtype=dtype)
            yield storage[offset::stride][:rows]


def matrices(rows: int, width: int, dtype: torch.dtype) -> Iterator[Tensor]:
    """Rows of many strides and offsets."""
    for stride in (width, width + 1, width + 3, -(-width // 64) * 64, 2 * width + 16):
        for offset in (0, 1, 8, 16):
            storage = torch.empty(rows * stride + offset, dtype=dtype)
            yield storage.as_strided((rows, width), (stride, 1), offset)


class Server:
    """Calls of one form with everything else varied."""

    def __init__(self, program: RuleProgram, flags: tuple[str, ...]) -> None:
        self.program, self.flags = program, frozenset(flags)

    def index(self, values: Tensor, *flags: str) -> Tensor | None:
        return values if self.flags & {*flags} else None

    def serve(self, logits: Tensor, out: Tensor, mask: Tensor, index: Tensor, bias: int) -> None:
        rows, flags = len(logits), self.flags
        slots = rows if "state_indices" not in flags else (1, 16, rows)[bias % 3]
        state = DecodeState.allocate(self.program, slots, max_bias=bias)
        options: dict[str, Any] = {
            "state_indices": self.index(index, "state_indices"),
            "allowed_bitmask": self.index(mask, "allowed_bitmask"),
            "row_offsets": self.index(index, "drafts"),
            "draft_token_ids": self.index(index, "drafts"),
        }
        call = (logits, self.program, state)
        log_z = "log_z" in flags
        ops.apply_rules_(*call, **options)
        ops.rule_log_softmax(*call, **options, return_log_z=log_z)
        ops.rule_log_softmax(
            *call,
            **options,
            out=out,
            return_log_z=log_z,
            log_z_out=torch.zeros(3 * rows + 1)[1::3] if log_z else None,
        )
        names = ("logprob", "adjusted_logprob", "rank")
        ops.sample_(*call, **options, **{f"return_{name}": name in flags for name in names})
        if "update_state_" in flags:
            counts = self.index(index, "counts")
            tokens = index[:, None].expand(rows, bias + 1)
            for ids in (index, tokens):
                ops.update_state_(state, ids, counts, state_indices=options["state_indices"])

    def measure(self, logits: Tensor, base: Tensor, index: Tensor, top_k: int) -> None:
        options = {"top_k": top_k if "top_k" in self.flags else 0}
        size = self.program.vocab_size
        ops.token_stats(logits, index, vocab_size=size, **options)
        if "shift_stats" in self.flags:
            ops.shift_stats(logits, base, index, vocab_size=size, **options)
            ops.shift_stats(base, logits, index, vocab_size=size, **options)
        if "linear_token_stats" in self.flags and top_k == 1:
            hidden, weight = torch.zeros(len(index), 8), torch.zeros(size, 8)
            ops.linear_token_stats(hidden, weight, index, **options)
            ops.linear_shift_stats(hidden, weight, hidden, weight, index, **options)


def described(launches: list[Launch]) -> set[str]:
    found = {launch.key for launch in launches}
    launches.clear()
    return found


@pytest.mark.parametrize("vocab_size", [33, 9008])
@pytest.mark.parametrize("form", FORMS)
def test_nothing_is_compiled_after_the_warm_up(
    launches: list[Launch], form: str, vocab_size: int
) -> None:
    program, flags = program_of(vocab_size), FORMS[form]
    warm_up(program, DTYPES, flags=flags)
    known = described(launches)
    server = Server(program, flags)
    index_dtype = torch.int32 if "int32_indices" in flags else torch.int64
    for batch in BATCHES:
        indices = list(columns(batch, index_dtype))
        for dtype in DTYPES:
            width = vocab_size + batch % 3
            all_rows = list(matrices(batch, width, dtype))
            outs = list(matrices(batch, width, torch.float32))
            masks = list(matrices(batch, -(-vocab_size // 32), torch.int32))
            for turn, logits in enumerate(all_rows):
                index = indices[turn % len(indices)]
                server.serve(logits, outs[-turn - 1], masks[turn], index, bias=turn)
                server.measure(logits, all_rows[turn - 3], index, top_k=1 + turn % 16)
        assert described(launches) <= known, batch


def test_tables_are_put_together_with_their_sizes_once() -> None:
    from rnr_kernels.backends.triton.arguments import Program, State

    program = program_of(33)
    state = DecodeState.allocate(program, 2)
    for tuple_type, tables in ((Program, program.tensors), (State, state.tensors)):
        assert tuple_type.of(tables) is tuple_type.of(tables)
        assert tuple_type.of(list(tables))[0] is tables[0]
        other = copy.deepcopy(tables)
        assert tuple_type.of(other)[0] is other[0]
