"""GPU kernels on the CPU, Triton's in its interpreter (TRITON_INTERPRET=1), those in C++ on an
emulated GPU (-p emulated): random and hostile input, and one vocabulary as large as models have.
The tests in literal numbers run there too."""

import pytest
import torch
from cpu_backends import ON_CPU
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from native_batches import (
    DTYPES,
    Recipe,
    assert_stays_inside,
    hostile,
    run,
)

from rnr_kernels import backends, testing
from rnr_kernels.backends import NATIVE, REFERENCE, Backend
from rnr_kernels.testing import Case, assert_matches

# NumPy says so when infinities meet; on a GPU nobody does.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

TESTED = [backend for backend in ON_CPU if backend not in (NATIVE, REFERENCE)]

every_kernel = pytest.mark.parametrize("backend", TESTED, ids=lambda backend: backend.name)

few = settings(max_examples=40, deadline=None, derandomize=True, phases=[Phase.generate])
"""Both are slow: the same few examples each time, and no search for smaller ones."""

recipes = st.builds(
    Recipe,
    seed=st.integers(0, 2**32),
    vocab_size=st.one_of(st.integers(1, 300), st.sampled_from([31, 32, 33, 4095, 4096, 4097])),
    rows=st.integers(1, 3),
    dtype=st.sampled_from(DTYPES),
    padding=st.sampled_from([0, 1, 30]),
    before=st.sampled_from([0, 1, 3]),
    gap=st.sampled_from([0, 1, 7]),
    after=st.sampled_from([0, 5]),
    mask=st.sampled_from([None, "random", "set", "clear"]),
    drafts=st.booleans(),
    index_dtype=st.sampled_from([torch.int32, torch.int64]),
    huge=st.booleans(),
)


@every_kernel
@few
@given(recipe=recipes, top_k=st.sampled_from([0, 1, 4]))
def test_random_batches_give_the_references_results(
    backend: Backend, recipe: Recipe, top_k: int
) -> None:
    batch, top_k = recipe.build(), min(top_k, recipe.vocab_size)
    results = run(backend.functions, batch, top_k)
    assert_matches(results, run(REFERENCE.functions, batch, top_k))


@every_kernel
@few
@given(recipe=recipes, top_k=st.sampled_from([0, 3]))
def test_arbitrary_bits_lead_nowhere_outside(backend: Backend, recipe: Recipe, top_k: int) -> None:
    batch = hostile(recipe.build(), recipe.seed)
    assert_stays_inside(backend.functions, batch, top_k)


@every_kernel
def test_a_large_vocabulary_gives_the_references_results(backend: Backend) -> None:
    case = Case("v128256", 128_256, 6, padding=64)
    with backends.use("reference"):
        expected = testing.run(case.build())
    with backends.use(backend.name):
        assert_matches(testing.run(case.build()), expected)
