"""A row has the same bits alone, in a batch of 512, and in batches between."""

from collections.abc import Iterator, Sequence
from functools import partial

import torch
from torch import Tensor

from benchmarks.gpu import serving
from benchmarks.gpu.checks import Check
from rnr_kernels import testing
from rnr_kernels.backends import Backend
from rnr_kernels.testing import Case, Inputs, assert_same_bits

ROWS = 512
PARTS = (
    *((start, 1) for start in (0, 200, 511)),
    *((start, size) for start, size in ((300, 2), (77, 3), (504, 8), (100, 64), (383, 129))),
)
"""First row and number of rows of what is compared with the whole batch."""

FEW_ROWS = 12
FEW_PARTS = ((0, 1), (11, 1), (4, 2), (5, 3), (3, 8))

SHAPES = (
    (50_257, 0, torch.bfloat16),  # rows that no 16-byte load is aligned to
    (50_257, 0, torch.float32),
    (128_256, 1, torch.bfloat16),  # with the sentinels, rows of a multiple of 16 bytes
)
SMALL_SHAPES = ((1000, 0, torch.bfloat16), (4097, 7, torch.float32))


def checks(device: torch.device, seed: int, quick: bool) -> Iterator[Check]:
    for backend in serving.serving(device):
        for vocab_size, padding, dtype in SMALL_SHAPES if quick else SHAPES:
            rows = FEW_ROWS if device.type == "cpu" else ROWS
            name = str(dtype).removeprefix("torch.")
            case = Case(f"invariance-{vocab_size}-{name}-{seed}", vocab_size, rows, padding, dtype)
            subject = f"{backend.name}, V = {vocab_size:,}, {name}"
            yield Check("batch invariance", subject, partial(check, backend, case, device))


def check(backend: Backend, case: Case, device: torch.device) -> str:
    """Every op, on the whole batch and on parts of it from the same state."""
    inputs = case.build(device)
    saved = [table.clone() for table in inputs.state.tensors]

    def run(rows: Sequence[int]) -> dict[str, Tensor]:
        for table, before in zip(inputs.state.tensors, saved, strict=True):
            table.copy_(before)
        results = testing.run(inputs.take(rows))
        # The state's tables stay where they are, and the next run writes to them.
        return {name: value.clone() for name, value in results.items()}

    parts = PARTS if case.rows == ROWS else FEW_PARTS
    with serving.preferring(backend):
        whole = run(range(case.rows))
        for start, size in parts:
            rows = list(range(start, start + size))
            _compare(run(rows), whole, rows, inputs)
    return f"{len(parts)} parts of {case.rows} rows"


def _compare(
    part: dict[str, Tensor], whole: dict[str, Tensor], rows: list[int], inputs: Inputs
) -> None:
    slots = inputs.row_options["state_indices"][rows].long()
    for name, value in part.items():
        is_state = name.startswith("state.")
        found = value[slots] if is_state else value
        expected = whole[name][slots if is_state else rows]
        what = f"{name} of rows {rows[0]} to {rows[-1]}, alone and among all,"
        assert_same_bits(found, expected, what)
