"""Statistics from hidden states on the native kernels: those of the LM head's logits."""

from typing import Any

import pytest
import torch
from native_batches import KERNELS, UNAVAILABLE, Functions
from native_statistics import DTYPES, assert_equal_stats, grouped, shift, token
from torch import Tensor

from rnr_kernels import reference
from rnr_kernels.backends import native_linear
from rnr_kernels.ops import TokenStats
from rnr_kernels.reference.statistics import head_logits

pytestmark = pytest.mark.skipif(not KERNELS, reason=UNAVAILABLE)


@pytest.fixture(params=KERNELS)
def kernels(request: pytest.FixtureRequest) -> Functions:
    return KERNELS[request.param]


HEADS: list[dict[str, Any]] = [
    {},
    {"logit_scale": 0.25},
    {"softcap": 5.0},
    {"bias": 1.0, "logit_scale": 0.5, "softcap": 8.0},
]


def head(vocab_size: int, rows: int, width: int = 17) -> tuple[Tensor, Tensor, Tensor]:
    """Small integers: exact products in any order of summation."""
    random = torch.Generator().manual_seed(vocab_size)
    hidden = torch.randint(-3, 4, (rows, width), generator=random).float()
    weight = torch.randint(-3, 4, (vocab_size, width), generator=random).float()
    return hidden, weight, torch.randint(0, vocab_size, (rows,), generator=random)


@pytest.mark.parametrize("invariant", [False, True])
@pytest.mark.parametrize("options", HEADS, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("vocab_size, rows", [(2, 1), (31, 0), (4096, 3), (9000, 7)])
def test_linear_stats_are_the_stats_of_the_heads_logits(
    monkeypatch: pytest.MonkeyPatch,
    vocab_size: int,
    rows: int,
    dtype: torch.dtype,
    options: dict[str, Any],
    invariant: bool,
) -> None:
    monkeypatch.setattr(native_linear, "ROWS", 4)
    monkeypatch.setattr(native_linear, "TARGETS", 2)
    hidden, weight, target = head(vocab_size, rows)
    hidden, weight = hidden.to(dtype), weight.to(dtype)
    target[1::5] = -100
    options = dict(options)
    if "bias" in options:
        options["bias"] = (torch.arange(vocab_size) % 5).to(dtype)
    defaults: dict[str, Any] = {"bias": None, "logit_scale": 1.0, "softcap": 0.0}
    logits = head_logits(hidden, weight, **(defaults | options))
    base = head_logits(-hidden, weight, **defaults)
    for kernels in KERNELS.values():
        stats = kernels["linear_token_stats"](
            hidden, weight, target, top_k=2, invariant=invariant, **options
        )
        assert_equal_stats(TokenStats(*stats), token(kernels, logits, target, top_k=2))
        both = kernels["linear_shift_stats"](
            hidden, weight, -hidden, weight, target, top_k=2, invariant=invariant, **options
        )
        assert_equal_stats(grouped(both), shift(kernels, logits, base, target, top_k=2))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("width", [64, 65])
def test_invariant_stats_depend_on_nothing_but_their_row(dtype: torch.dtype, width: int) -> None:
    random = torch.Generator().manual_seed(2)
    hidden = torch.randn(9, width, generator=random).to(dtype)
    weight = torch.randn(4301, width, generator=random).to(dtype)
    bias = torch.randn(4301, generator=random)
    target = torch.randint(0, 4301, (9,), generator=random)
    options: dict[str, Any] = {
        "bias": bias,
        "logit_scale": 0.3,
        "softcap": 9.0,
        "top_k": 2,
        "invariant": True,
    }
    best, *others = (k["linear_token_stats"] for k in KERNELS.values())
    together = TokenStats(*best(hidden, weight, target, **options))
    for other in others:
        assert_equal_stats(TokenStats(*other(hidden, weight, target, **options)), together)
    for rows in ([0], [8], [3, 4, 5, 6, 7], [5, 1, 8, 0, 2]):
        some = best(hidden[rows], weight, target[rows], **options)
        assert_equal_stats(TokenStats(*some), TokenStats(*(v[rows] for v in together)))
    columns = torch.empty(width, 4301, dtype=dtype).t().copy_(weight)
    assert_equal_stats(TokenStats(*best(hidden, columns, target, **options)), together)
    options.pop("invariant")
    expected = TokenStats(*reference.linear_token_stats(hidden, weight, target, **options))
    assert together.rank.tolist() == expected.rank.tolist()
    torch.testing.assert_close(together.entropy, expected.entropy, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(together.logprob, expected.logprob, rtol=1e-5, atol=1e-5)


def test_a_targets_own_column_never_counts(kernels: Functions) -> None:
    # Products that round: the target's logit may be rounded in another way than its column.
    random = torch.Generator().manual_seed(4)
    hidden, weight = torch.randn(70, 300, generator=random), torch.randn(50, 300, generator=random)
    target = (hidden @ weight.T).argmax(1)
    rank, num_ties, *_ = kernels["linear_token_stats"](hidden, weight, target)
    assert rank.tolist() == [1] * 70 and num_ties.tolist() == [0] * 70


def test_linear_stats_of_tensors_that_require_gradients(kernels: Functions) -> None:
    hidden, weight, target = head(40, 3)
    expected = kernels["linear_token_stats"](hidden, weight, target)
    stats = kernels["linear_token_stats"](hidden.requires_grad_(), weight, target)
    assert_equal_stats(TokenStats(*stats), TokenStats(*expected))


@pytest.mark.parametrize("invariant", [False, True])
def test_neither_torchs_defaults_nor_autocast_change_the_statistics(
    kernels: Functions, invariant: bool
) -> None:
    hidden, weight, ids = head(5000, 40)
    arguments = (hidden, weight, ids, None, 1.0, 0.0, 2, invariant)
    expected = TokenStats(*kernels["linear_token_stats"](*arguments))
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.autocast("cpu", torch.bfloat16), torch.device("meta"):
            results = TokenStats(*kernels["linear_token_stats"](*arguments))
    finally:
        torch.set_default_dtype(torch.float32)
    assert_equal_stats(results, expected)


def test_a_head_that_lies_by_columns_is_not_copied_whole(
    kernels: Functions, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden, weight, ids = head(9000, 5)
    by_columns = weight.T.contiguous().T
    largest = 0
    contiguous = Tensor.contiguous

    def noted(tensor: Tensor) -> Tensor:
        nonlocal largest
        largest = max(largest, len(tensor))
        return contiguous(tensor)

    monkeypatch.setattr(Tensor, "contiguous", noted)
    options = (None, 1.0, 0.0, 0, True)
    results = kernels["linear_token_stats"](hidden, by_columns, ids, *options)
    assert 0 < largest <= native_linear.TILE
    expected = kernels["linear_token_stats"](hidden, weight, ids, *options)
    assert_equal_stats(TokenStats(*results), TokenStats(*expected))
