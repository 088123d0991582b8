"""The GPU's C++ kernels on an emulated GPU: results that no launch may change, and filters."""

import subprocess
from itertools import pairwise

import pytest
import torch
from emulated import CLUSTERS, LIBRARY, functions
from native_batches import DTYPES, Recipe, run

from rnr_kernels import Sampling
from rnr_kernels.backends import REFERENCE
from rnr_kernels.layout import TILE
from rnr_kernels.testing import admitted, assert_same_bits


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("drafts", [False, True])
def test_blocks_that_share_a_row_change_no_bit(dtype: torch.dtype, drafts: bool) -> None:
    recipe = Recipe(
        seed=3, vocab_size=9 * TILE + 5, rows=4, dtype=dtype, padding=1, before=1, gap=3, after=1,
        mask="random", drafts=drafts, index_dtype=torch.int64, huge=False,
    )  # fmt: skip
    results = [run(functions(cluster), recipe.build(), 4) for cluster in CLUSTERS]
    for one, other in pairwise(results):
        for name, value in one.items():
            assert_same_bits(other[name], value, name)


def test_sums_of_weights_are_those_of_the_definition() -> None:
    run = subprocess.run(LIBRARY.with_name("weights"), capture_output=True, text=True)
    assert run.returncode == 0, run.stdout


VOCAB_SIZE = 5 * TILE + 100

FLAT = torch.zeros(VOCAB_SIZE)
TIED = torch.arange(VOCAB_SIZE) % 3 * 1.0
SHARP = 6 * torch.randn(VOCAB_SIZE, generator=torch.Generator().manual_seed(1))
MILD = torch.randn(VOCAB_SIZE, generator=torch.Generator().manual_seed(2))
ZEROS = torch.tensor([0.0, -0.0]).repeat(VOCAB_SIZE // 2)

FILTERS = (
    Sampling(seed=1, top_k=50, top_p=0.9),
    Sampling(seed=2, top_k=3000),
    Sampling(seed=3, top_p=0.3),
    Sampling(seed=4, top_p=0.999, temperature=2.0),
    Sampling(seed=5, top_k=700, top_p=0.5, min_p=0.001),
    Sampling(seed=6, top_k=1),
    Sampling(seed=7, min_p=0.2),
)


@pytest.mark.parametrize("filters", FILTERS, ids=str)
@pytest.mark.parametrize("cluster", CLUSTERS)
def test_filters_by_candidates_and_by_passes(filters: Sampling, cluster: int) -> None:
    logits = torch.stack([FLAT, TIED, SHARP, MILD, ZEROS])
    results = []
    for ops in (functions(cluster), REFERENCE.functions):
        program, state = admitted([], VOCAB_SIZE, slots=len(logits), sampling=filters)
        tokens = []
        for _ in range(4):
            token, logprob, *_ = ops["sample_"](
                logits, VOCAB_SIZE, program.tensors, state.tensors, state.error,
                return_logprob=True,
            )  # fmt: skip
            tokens.append(token)
        results.append((torch.stack(tokens), logprob))
    (tokens, logprob), (expected, expected_logprob) = results
    assert tokens.tolist() == expected.tolist()
    torch.testing.assert_close(logprob, expected_logprob, rtol=1e-5, atol=1e-5)
