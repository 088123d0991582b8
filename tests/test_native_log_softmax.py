"""Accuracy of the native kernels' log-probabilities: no worse than twice torch's float32 error."""

import math
from collections.abc import Sequence

import pytest
import torch
from native_batches import KERNELS, UNAVAILABLE, Functions
from torch import Tensor

from rnr_kernels import Sampling
from rnr_kernels.reference.rules import adjust
from rnr_kernels.rules.kinds import (
    BanTokens,
    EosRamp,
    LogitRule,
    OnlyTokens,
    ScoreVector,
    TokenBias,
    UsedTokenPenalty,
)
from rnr_kernels.testing import admitted, assert_same_bits

pytestmark = pytest.mark.skipif(not KERNELS, reason=UNAVAILABLE)

UNIT = 2.0**-23
"""Relative size of float32's last place. Beside torch's own error, which can be exactly 0, a bound
allows it of the largest result, for rounding, and of 1, for the relative error of exponentials."""

SIZES = [1, 2, 15, 31, 255, 256, 257, 4095, 4096, 4097, 32000, 128256]


@pytest.fixture(params=KERNELS)
def kernels(request: pytest.FixtureRequest) -> Functions:
    return KERNELS[request.param]


def rows_of_every_kind(vocab_size: int) -> Tensor:
    """float32 [8, V]: normal, peaked, far from 0, tiny, tied, constant, nearly banned, spread."""
    random = torch.Generator().manual_seed(vocab_size)
    normal = torch.randn(8, vocab_size, generator=random)
    rows = 3 * normal
    rows[1, vocab_size // 2] += 30
    rows[2] += 1e4
    rows[3] = 1e-39 * normal[3]
    rows[4] = rows[4].round()
    rows[5] = -7.25
    rows[6, 1:] = -math.inf
    rows[7] *= 30
    return rows


class Call:
    """One batch under one rule set, and its float32 adjusted logits."""

    def __init__(self, logits: Tensor, rules: Sequence[LogitRule], sampling: Sampling) -> None:
        rows, vocab_size = logits.shape
        used = [(7 * i) % vocab_size for i in range(1, 12)]
        self.program, self.state = admitted(
            rules, vocab_size, slots=rows, eos_token_ids=[0], output_token_ids=used,
            sampling=sampling,
        )  # fmt: skip
        self.arguments = (
            logits, vocab_size, self.program.tensors, self.state.tensors, self.state.error
        )  # fmt: skip
        found = adjust(*self._as_lists(), None, None, None, None)
        self.adjusted, self.score = found.value, found.score

    def _as_lists(self) -> tuple[Tensor, int, list[Tensor], list[Tensor], Tensor]:
        logits, vocab_size, program, state, error = self.arguments
        return logits, vocab_size, list(program), list(state), error


def published(vocab_size: int) -> list[LogitRule]:
    return [
        EosRamp(15.0, over=250),
        TokenBias({vocab_size // 2: 1.0, vocab_size // 3: -4.0}),
        UsedTokenPenalty(1.5),
    ]


def assert_accurate(actual: Tensor, in_float32: Tensor, truth: Tensor, what: str) -> None:
    """Each row's largest error is at most twice that of float32 torch, plus the floor of UNIT."""
    assert torch.equal(actual.isfinite(), truth.isfinite()), what
    finite = truth.isfinite()

    def error(values: Tensor) -> Tensor:
        return torch.where(finite, (values.double() - truth).abs(), 0.0).flatten(1).amax(1)

    size = torch.where(finite, truth.abs(), 0.0).flatten(1).amax(1)
    excess = error(actual) - (2 * error(in_float32) + UNIT * (size + 1))
    assert (excess <= 0).all(), f"{what}: errors {error(actual)}, torch's {error(in_float32)}"


@pytest.mark.parametrize("vocab_size", SIZES)
def test_log_probabilities_are_as_accurate_as_torchs(kernels: Functions, vocab_size: int) -> None:
    call = Call(rows_of_every_kind(vocab_size), published(vocab_size), Sampling())
    result, log_z = kernels["rule_log_softmax"](*call.arguments, None, None, None, None, True)
    truth = call.adjusted.double().log_softmax(1)
    assert_accurate(result, call.adjusted.log_softmax(1), truth, "log_softmax")
    parts = [call.adjusted, call.arguments[0], call.score]
    true_parts = [part.double().logsumexp(1) for part in parts]
    parts_32 = [part.logsumexp(1) for part in parts]
    # The difference of large parts may have their errors, in float32 torch as here.
    true_z = true_parts[0] - true_parts[1] - true_parts[2]
    z_32 = parts_32[0] - parts_32[1] - parts_32[2]
    bound = 2 * (z_32 - true_z).abs() + UNIT * true_parts[0].abs().clamp(min=1.0)
    assert ((log_z - true_z).abs() <= bound).all(), (log_z - true_z, bound)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("vocab_size", [31, 257, 4097])
def test_16_bit_logits_lose_nothing(
    kernels: Functions, vocab_size: int, dtype: torch.dtype
) -> None:
    logits = rows_of_every_kind(vocab_size).to(dtype)
    call = Call(logits, published(vocab_size), Sampling())
    (result, _) = kernels["rule_log_softmax"](*call.arguments)
    truth = call.adjusted.double().log_softmax(1)
    assert_accurate(result, call.adjusted.log_softmax(1), truth, "log_softmax")


@pytest.mark.parametrize(
    "rules",
    [
        [TokenBias({3: 120.0})],
        [TokenBias({3: -120.0, 4000: -90.0})],
        [BanTokens([3, 5000])],
        [OnlyTokens([7, 4500])],
        [OnlyTokens([7]), TokenBias({7: -200.0})],
        [ScoreVector(torch.linspace(-150, 150, 6000)), UsedTokenPenalty(-60.0)],
    ],
    ids=["far up", "far down", "ban", "only", "only, far down", "vector"],
)
def test_scores_of_any_size_leave_log_z_accurate(
    kernels: Functions, rules: list[LogitRule]
) -> None:
    logits = rows_of_every_kind(6000)[[0, 1, 4, 7]]
    logits[:, 3] += 25.0
    call = Call(logits, rules, Sampling())
    result, log_z = kernels["rule_log_softmax"](*call.arguments, None, None, None, None, True)
    parts = [part.double().logsumexp(1) for part in (call.adjusted, logits, call.score)]
    torch.testing.assert_close(
        log_z.double(), parts[0] - parts[1] - parts[2], rtol=UNIT, atol=UNIT * 256
    )
    truth = call.adjusted.double().log_softmax(1)
    assert_accurate(result, call.adjusted.log_softmax(1), truth, "log_softmax")
    assert_same_bits(kernels["rule_log_softmax"](*call.arguments)[0], result, "without log_z")


@pytest.mark.parametrize("vocab_size", [1, 31, 257, 4097])
def test_the_result_may_take_the_logits_place(kernels: Functions, vocab_size: int) -> None:
    logits = rows_of_every_kind(vocab_size)
    call = Call(logits, published(vocab_size), Sampling())
    expected, _ = kernels["rule_log_softmax"](*call.arguments)
    kernels["rule_log_softmax_out"](*call.arguments, logits)
    assert_same_bits(logits, expected)


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(temperature=0.7, seed=1),
        Sampling(temperature=1.3, top_p=0.8, seed=2),
        Sampling(top_k=20, seed=3),
        Sampling(temperature=30.0, min_p=0.2, seed=4),
    ],
    ids=["temperature", "top_p", "top_k", "min_p"],
)
@pytest.mark.parametrize("vocab_size", [31, 4097, 32000])
def test_drawn_tokens_have_accurate_log_probabilities(
    kernels: Functions, vocab_size: int, sampling: Sampling
) -> None:
    logits = rows_of_every_kind(vocab_size)[[0, 1, 2, 4, 7]]
    call = Call(logits, published(vocab_size), sampling)
    token_ids, logprob, adjusted_logprob, _ = kernels["sample_"](
        *call.arguments, None, None, None, None, True, True, False
    )
    column = token_ids[:, None]
    truth = call.adjusted.double().log_softmax(1).gather(1, column)
    in_float32 = call.adjusted.log_softmax(1).gather(1, column)
    assert_accurate(adjusted_logprob[:, None], in_float32, truth, "adjusted_logprob")

    kept = call.adjusted.double() / sampling.temperature
    if sampling.top_k:
        kept[call.adjusted < call.adjusted.topk(sampling.top_k).values[:, -1:]] = -math.inf
    if sampling.min_p:
        threshold = call.state.tensors.sampling[:, 3:]
        kept[call.adjusted - call.adjusted.amax(1, keepdim=True) < threshold] = -math.inf
    if sampling.top_p < 1:
        ordered = kept.softmax(1).sort(1, descending=True)
        before = ordered.values.cumsum(1) - ordered.values
        dropped = torch.zeros_like(kept, dtype=torch.bool).scatter(
            1, ordered.indices, before >= sampling.top_p
        )
        # Ties stay together.
        lowest = kept.masked_fill(dropped, math.inf).amin(1, keepdim=True)
        kept[kept < lowest] = -math.inf
    truth = kept.log_softmax(1).gather(1, column)
    assert truth.isfinite().all()
    assert_accurate(
        logprob[:, None], kept.float().log_softmax(1).gather(1, column), truth, "logprob"
    )
