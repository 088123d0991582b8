"""Triton's kernels, compiled ahead of time for GPUs that need not be there."""

import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from recorder import Launch, triton
from torch import Tensor

from rnr_kernels.backends import TRITON
from rnr_kernels.rules.kinds import EosRamp, LogitRule, ScoreVector, TokenBias, UsedTokenPenalty
from rnr_kernels.sampling import Sampling
from rnr_kernels.testing import admitted

CAPABILITIES = (80, 90, 100)
MAX_SHARED = 100 * 1024
MAX_REGISTERS = 128
MAX_SPILLS = 4
"""Only where a kernel does everything at once: drafts, masks, biases, vectors, filters."""
VOCAB_SIZE, ROWS = 128_256, 4


def rules_call(logits: Tensor, *, drafts: bool = False) -> tuple[Any, ...]:
    """Arguments with every kind of table."""
    rules: list[LogitRule] = [
        EosRamp(15.0, over=250),
        TokenBias({5: -4.0, 9000: 1.0}),
        UsedTokenPenalty(1.5),
        ScoreVector(torch.zeros(VOCAB_SIZE)),
    ]
    sampling = Sampling(temperature=0.8, top_k=50, top_p=0.9, seed=1)
    program, state = admitted(
        rules, VOCAB_SIZE, slots=ROWS, max_bias=300, eos_token_ids=[2], sampling=sampling
    )
    index = torch.arange(ROWS) if drafts else None
    mask = torch.zeros(ROWS, -(-VOCAB_SIZE // 32), dtype=torch.int32) if drafts else None
    return (
        logits, VOCAB_SIZE, program.tensors, state.tensors, state.error, index, mask, index, index,
    )  # fmt: skip


def make_logits(dtype: torch.dtype, is_aligned: bool) -> Tensor:
    width = VOCAB_SIZE if is_aligned else VOCAB_SIZE + 1
    return torch.zeros(ROWS, width, dtype=dtype)


def call_everything(dtype: torch.dtype, is_aligned: bool, drafts: bool) -> None:
    """Each op of the backend, on CPU tensors that nothing reads."""
    ops: dict[str, Callable[..., Any]] = TRITON.functions
    logits, token_ids = make_logits(dtype, is_aligned), torch.zeros(ROWS, dtype=torch.int64)
    call = rules_call(logits, drafts=drafts)
    ops["apply_rules_"](*call)
    ops["rule_log_softmax"](*call, True)
    ops["sample_"](*call)
    if not drafts:
        ops["sample_"](*call, True, True, True)
        ops["update_state_"](VOCAB_SIZE, call[3], call[4], token_ids[:, None], token_ids, token_ids)
        ops["token_stats"](logits, token_ids, VOCAB_SIZE, 4)
        ops["shift_stats"](logits, logits, token_ids, VOCAB_SIZE, 0)
        ops["linear_token_stats"](torch.zeros(ROWS, 16), torch.zeros(9000, 16), token_ids)


@cache
def cuobjdump() -> Path:
    return Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"


@dataclass(frozen=True)
class Usage:
    registers: int
    shared: int
    sass: str

    @property
    def spills(self) -> int:
        """Instructions that read or write local memory."""
        return len(re.findall(r"\b(?:LDL|STL)\b", self.sass))

    @classmethod
    def of(cls, launch: Launch, capability: int, folder: Path) -> "Usage":
        """Compiles it and reads what came out."""
        path = folder / f"{launch}.cubin"
        path.write_bytes(launch.compiled(capability).asm["cubin"])

        def dump(option: str) -> str:
            command = [cuobjdump(), option, path]
            return subprocess.run(command, capture_output=True, text=True, check=True).stdout

        usage = dump("-res-usage")

        def number(name: str) -> int:
            (found,) = re.findall(rf"{name}:(\d+)", usage)
            return int(found)

        return cls(number("REG"), number("SHARED"), dump("-sass"))


VARIANTS = [
    pytest.param(torch.float32, True, False, id="fp32"),
    pytest.param(torch.bfloat16, True, False, id="bf16"),
    pytest.param(torch.bfloat16, False, True, id="bf16-unaligned-drafts"),
]


@pytest.mark.parametrize("capability", CAPABILITIES)
@pytest.mark.parametrize(("dtype", "is_aligned", "drafts"), VARIANTS)
def test_kernels_keep_to_registers(
    launches: list[Launch],
    tmp_path: Path,
    dtype: torch.dtype,
    is_aligned: bool,
    drafts: bool,
    capability: int,
) -> None:
    call_everything(dtype, is_aligned, drafts)
    wrong = []
    for launch in launches:
        usage = Usage.of(launch, capability, tmp_path)
        if usage.spills > (MAX_SPILLS if drafts else 0) or usage.registers > MAX_REGISTERS:
            wrong.append(f"{launch}: {usage.registers} registers, {usage.spills} spilled")
        assert usage.shared <= MAX_SHARED, launch
    assert wrong == [], "\n".join(wrong)


READS_ALL = ("_sum_kernel", "_write_kernel", "_scan_kernel", "_choose_kernel", "token_kernel")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_aligned_rows_are_read_sixteen_bytes_at_a_time(
    launches: list[Launch], tmp_path: Path, dtype: torch.dtype
) -> None:
    call_everything(dtype, True, False)
    seen = set()
    for launch in launches:
        if str(launch) in READS_ALL and str(launch) not in seen:
            seen.add(str(launch))
            sass = Usage.of(launch, 90, tmp_path).sass
            assert "LDG.E.128" in sass, launch
    assert seen == set(READS_ALL)


def test_one_row_of_one_tile_without_any_rule_compiles(
    launches: list[Launch], tmp_path: Path
) -> None:
    # Sizes of 1 become constants, and tables may be empty.
    program, state = admitted([], 33)
    logits, token_ids = torch.zeros(1, 33, dtype=torch.float16), torch.zeros(1, dtype=torch.int64)
    call = (logits, 33, program.tensors, state.tensors, state.error)
    ops: dict[str, Callable[..., Any]] = TRITON.functions
    ops["apply_rules_"](*call)
    ops["rule_log_softmax"](*call)
    ops["sample_"](*call, token_ids, None, None, None, True, True, True)
    ops["update_state_"](33, state.tensors, state.error, token_ids[:, None])
    ops["token_stats"](logits, token_ids, 33, 1)
    ops["shift_stats"](logits, logits, token_ids, 33, 1)
    names = {str(launch) for launch in launches}
    assert len(names) == 11
    for launch in launches:
        assert Usage.of(launch, 90, tmp_path).registers > 0


def summed_layouts(launch: Launch) -> list[str]:
    """The types of what is reduced or scanned, in order, with their layouts written out."""
    code = launch.compiled(90).asm["ttgir"]
    layouts = dict(re.findall(r"^(#\w+) = (#ttg\..*)$", code, re.MULTILINE))
    found = re.findall(r'"tt\.(?:reduce|scan)"\(.*?\}\) : \((.*?)\) ->', code, re.DOTALL)
    return [re.sub(r"#\w+", lambda name: layouts.get(name[0], name[0]), types) for types in found]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_sums_have_one_order_wherever_a_row_begins(
    launches: list[Launch], dtype: torch.dtype
) -> None:
    call_everything(dtype, True, False)
    aligned = list(launches)
    launches.clear()
    call_everything(dtype, False, False)
    num_sums, num_pairs = 0, 0
    for one, other in zip(aligned, launches, strict=True):
        assert str(one) == str(other)
        # The largest of integers are the same in any order.
        if one.key != other.key and str(one) != "largest_kernel":
            assert summed_layouts(one) == summed_layouts(other), one
            num_sums, num_pairs = num_sums + len(summed_layouts(one)), num_pairs + 1
    assert (num_sums, num_pairs) > (100, 8)


@pytest.mark.parametrize("drafts", [False, True])
def test_rows_that_are_not_aligned_are_not_taken_for_it(
    launches: list[Launch], drafts: bool
) -> None:
    call_everything(torch.float32, False, drafts)
    hinted = {str(one) for one in launches if " = dense<16>" in one.compiled(90).asm["ttir"]}
    # The parts of a product are float32 rows of COLUMNS, or of the rest.
    assert hinted <= {"token_kernel"}
    launches.clear()
    call_everything(torch.float32, True, drafts)
    hinted = {str(one) for one in launches if " = dense<16>" in one.compiled(90).asm["ttir"]}
    assert hinted >= set(READS_ALL) - ({"token_kernel"} if drafts else set())
