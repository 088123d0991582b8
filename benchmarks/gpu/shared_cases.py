"""Every op of every backend against the reference on the CPU, on fresh random inputs."""

from collections.abc import Iterator
from dataclasses import replace
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu import serving
from benchmarks.gpu.checks import Check, poisoned
from rnr_kernels import backends, rule_log_softmax, testing
from rnr_kernels.backends import Backend
from rnr_kernels.testing import CASES, SENTINELS, Case, assert_matches, assert_same_bits

LARGE = (
    Case("v50257-bf16", 50_257, 6, dtype=torch.bfloat16),
    Case("v128256-odd-masked-bf16", 128_256, 8, 1, torch.bfloat16, odd=True, masked=True),
    Case("v151936-drafts", 151_936, 6, padding=1, drafts=True),
    Case("v262144-fp16", 262_144, 5, padding=1, dtype=torch.float16),
)
"""Rows with and without 16-byte alignment."""


def fresh(cases: tuple[Case, ...], seed: int) -> list[Case]:
    """The same shapes with other inputs: a case draws them from its name."""
    return [replace(case, name=f"{case.name}-seed{seed}") for case in cases]


def checks(device: torch.device, seed: int, quick: bool) -> Iterator[Check]:
    """A case's expected results are kept for all backends."""
    for case in fresh(CASES if quick else CASES + LARGE, seed):
        for backend in serving.serving(device):
            run = partial(check_case, backend, case, device)
            yield Check("the reference's results", f"{backend.name}, {case}", run)
    for backend in serving.serving(device):
        for case in fresh((CASES[2], CASES[4], CASES[6]), seed):
            run = partial(check_out, backend, case, device)
            yield Check("poisoned out=", f"{backend.name}, {case}", run)


@cache
def expected(case: Case) -> dict[str, Tensor]:
    """By the reference on the CPU."""
    with backends.use("reference"):
        return testing.run(case.build())


def check_case(backend: Backend, case: Case, device: torch.device) -> str:
    """Tokens, ranks, counts, state and in-place logits by their bits, floats within a tolerance."""
    inputs = case.build(device)
    with serving.preferring(backend), poisoned(device):
        results = testing.run(inputs)
    assert_matches(results, expected(case))
    served = serving.served_ops(backend, device)
    return f"served {len(served)} ops"


def check_out(backend: Backend, case: Case, device: torch.device) -> str:
    """What is written to given tensors has the bits of new ones, and nothing stands beside it."""
    inputs = case.build(device)
    options: dict[str, Any] = {"return_log_z": True, **inputs.row_options}
    run = partial(rule_log_softmax, inputs.logits, inputs.program, inputs.state, **options)
    rows, width = inputs.logits.shape
    buffer = torch.full((rows, width + SENTINELS), torch.nan, device=device)
    behind = buffer[:, width:]
    behind.fill_(-12345.0)
    log_z_out = torch.full((rows,), torch.nan, device=device)
    with serving.preferring(backend), poisoned(device):
        new, log_z = run()
        run(out=buffer[:, :width], log_z_out=log_z_out)
    assert_same_bits(buffer[:, :width], new, "out")
    assert_same_bits(log_z_out, log_z, "log_z_out")
    assert bool((behind == -12345.0).all()), "columns behind out were written"
    return f"{rows} rows"
