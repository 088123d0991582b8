"""The native kernels on random and on hostile input: the reference's results, and no byte outside.

`make test-sanitize` runs these with AddressSanitizer, which also sees what is only read.
"""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from native_batches import (
    DTYPES,
    KERNELS,
    UNAVAILABLE,
    Batch,
    Recipe,
    assert_stays_inside,
    hostile,
    run,
)
from torch import Tensor

from rnr_kernels.backends import REFERENCE
from rnr_kernels.layout import StateTensors
from rnr_kernels.testing import assert_matches, assert_same_bits

pytestmark = pytest.mark.skipif(not KERNELS, reason=UNAVAILABLE)

EDGES = [1, 2, 15, 16, 17, 31, 32, 33, 255, 256, 257, 4095, 4096, 4097, 8193, 9000]

recipes = st.builds(
    Recipe,
    seed=st.integers(0, 2**32),
    vocab_size=st.one_of(st.integers(1, 300), st.sampled_from(EDGES), st.integers(1, 9000)),
    rows=st.integers(1, 6),
    dtype=st.sampled_from(DTYPES),
    padding=st.sampled_from([0, 0, 1, 30]),
    before=st.sampled_from([0, 1, 3]),
    gap=st.sampled_from([0, 1, 7]),
    after=st.sampled_from([0, 0, 5]),
    mask=st.sampled_from([None, None, "random", "set", "clear"]),
    drafts=st.booleans(),
    index_dtype=st.sampled_from([torch.int32, torch.int64]),
    huge=st.booleans(),
)
top_ks = st.sampled_from([0, 1, 4, 64])


def assert_kernels_match(batch: Batch, top_k: int) -> None:
    """The best instruction set gives the reference's results, the others its bits."""
    expected = run(REFERENCE.functions, batch, top_k)
    first: dict[str, Tensor] = {}
    for functions in KERNELS.values():
        results = run(functions, batch, top_k)
        if not first:
            assert_matches(results, expected)
            first = results
        for name, value in results.items():
            assert_same_bits(value, first[name], name)


@settings(max_examples=150, deadline=None)
@given(recipe=recipes, top_k=top_ks)
def test_random_batches_give_the_references_results(recipe: Recipe, top_k: int) -> None:
    assert_kernels_match(recipe.build(), min(top_k, recipe.vocab_size))


@pytest.mark.parametrize("seed", range(3))
def test_large_vocabularies_give_the_references_results(seed: int) -> None:
    sizes, masks = (70_001, 128_256, 151_936), (None, "random", None)
    recipe = Recipe(seed, sizes[seed], 3, DTYPES[seed], mask=masks[seed], drafts=seed == 2)
    assert_kernels_match(recipe.build(), 5)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("vocab_size", [1, 15, 31, 33, 255, 257, 4095, 4097, 8209])
def test_rows_may_end_where_their_memory_ends(vocab_size: int, dtype: torch.dtype) -> None:
    # Nothing follows the last rows of logits, bitmask, score vectors, state and top tables.
    for seed in range(2):
        recipe = Recipe(seed, vocab_size, 2, dtype, mask="random", drafts=seed == 1)
        assert_kernels_match(recipe.build(), min(64, vocab_size))


@settings(max_examples=150, deadline=None)
@given(recipe=recipes, top_k=top_ks, embeds=st.booleans())
def test_arbitrary_bits_lead_nowhere_outside(recipe: Recipe, top_k: int, embeds: bool) -> None:
    batch = hostile(replace(recipe, huge=True).build(), recipe.seed)
    if not embeds:
        # Tables that end with their allocation.
        batch = replace(batch, state=StateTensors(*(table.clone() for table in batch.state)))
    for functions in KERNELS.values():
        assert_stays_inside(functions, batch, top_k, embeds)
