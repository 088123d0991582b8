"""Plain LM heads: taken from the model, believed only where they make its logits."""

from typing import Any

import pytest
import torch
from test_teacher_forcing import TEXTS, tiny
from torch import nn

from rnr_kernels.forward import plain_head
from rnr_kernels.teacher_forcing import (
    ResponseHidden,
    ResponseLogits,
    response_logits,
    response_rows,
    row_shift_stats,
    row_stats,
)

SCALED: dict[str, dict[str, float]] = {
    "granite": {"logits_scaling": 4.0},
    "cohere": {"logit_scale": 0.25},
    "gemma2": {"final_logit_softcapping": 2.0},
}


def scaled(kind: str) -> Any:
    """A tiny model whose logits are far from what its weight alone makes of them."""
    more = {} if kind == "gemma2" else {"num_key_value_heads": 2}
    model = tiny(kind, hidden_size=16, intermediate_size=16, **more, **SCALED[kind])
    model.get_output_embeddings().weight.data *= 50
    return model


def assert_same_stats(model: Any, kind: type) -> None:
    """Of `response_rows`, which are of this kind, and of `response_logits`."""
    batches = [[2, 0], [3], [1]]
    for rows, logits in zip(
        response_rows(model, TEXTS, batches=batches),
        response_logits(model, TEXTS, batches=batches),
        strict=True,
    ):
        assert type(rows) is kind
        assert (rows.indices, rows.lengths) == (logits.indices, logits.lengths)
        assert rows.token_ids.tolist() == logits.token_ids.tolist()
        torch.testing.assert_close(rows.logits, logits.logits, rtol=1e-4, atol=1e-4)
        found, expected = row_stats(rows, top_k=3), row_stats(logits, top_k=3)
        for name in ("rank", "num_ties", "top_token_ids"):
            assert getattr(found, name).tolist() == getattr(expected, name).tolist()
        for name in ("logprob", "entropy", "top_logprobs"):
            torch.testing.assert_close(
                getattr(found, name), getattr(expected, name), rtol=1e-4, atol=1e-4
            )


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_a_plain_head_leaves_logits_to_the_statistics(kind: str) -> None:
    assert_same_stats(tiny(kind), ResponseHidden)


@pytest.mark.parametrize(
    ("kind", "scale", "softcap"),
    [("granite", 0.25, 0.0), ("cohere", 0.25, 0.0), ("gemma2", 1.0, 2.0)],
)
def test_scales_and_soft_caps_are_the_configs(kind: str, scale: float, softcap: float) -> None:
    model = scaled(kind)
    head = plain_head(model)
    assert head is not None and (head.logit_scale, head.softcap) == (scale, softcap)
    assert_same_stats(model, ResponseHidden)


@pytest.mark.parametrize(
    "claimed", [{"logit_scale": 0.5}, {"logits_scaling": 2.0}, {"final_logit_softcapping": 2.0}]
)
def test_a_config_that_is_not_followed_is_found_out(claimed: dict[str, float]) -> None:
    model = tiny("llama", **claimed)
    head = plain_head(model)
    assert head is not None and (head.logit_scale, head.softcap) != (1.0, 0.0)
    assert_same_stats(model, ResponseLogits)


def test_what_else_is_done_to_logits_is_found_out() -> None:
    model = tiny("llama")
    model.get_output_embeddings().register_forward_hook(lambda module, rows, output: output + 0.01)
    assert_same_stats(model, ResponseLogits)


class Doubled(nn.Linear):
    """A linear layer whose weight does not say all that it does."""

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(rows)


def test_other_heads_are_not_plain() -> None:
    model = tiny("llama")
    head = Doubled(16, 40, bias=False)
    head.weight.data.copy_(model.get_output_embeddings().weight)
    model.set_output_embeddings(head)
    assert plain_head(model) is None
    assert_same_stats(model, ResponseLogits)
    # Rounded logits tie where float32 ones do not.
    assert plain_head(tiny("llama").to(torch.bfloat16)) is None


def test_a_bias_is_part_of_the_head() -> None:
    model = tiny("llama")
    head = nn.Linear(16, 40)
    model.set_output_embeddings(head)
    found = plain_head(model)
    assert found is not None and found.bias is not None
    assert_same_stats(model, ResponseHidden)


def test_the_head_sees_the_first_rows_alone() -> None:
    model, seen = tiny("llama"), []
    model.get_output_embeddings().register_forward_hook(
        lambda module, inputs, output: seen.append(tuple(output.shape))
    )
    rows = list(response_rows(model, TEXTS, batches=[[2, 0], [3], [1]]))
    assert [len(each.token_ids) for each in rows] == [8, 1, 2]
    assert seen == [(1, 8, 40), (1, 0, 40), (1, 0, 40)]


def test_statistics_of_two_models_from_hidden_states_logits_or_one_of_each() -> None:
    aligned, base = tiny("llama"), tiny("gpt2")
    sides = [
        [next(read(model, TEXTS)) for read in (response_rows, response_logits)]
        for model in (aligned, base)
    ]
    expected = row_shift_stats(sides[0][1], sides[1][1])
    for one in sides[0]:
        for other in sides[1]:
            found = row_shift_stats(one, other)
            assert found.aligned.rank.tolist() == expected.aligned.rank.tolist()
            assert found.base.rank.tolist() == expected.base.rank.tolist()
            for name in ("kl_aligned_base", "kl_base_aligned"):
                torch.testing.assert_close(
                    getattr(found, name), getattr(expected, name), rtol=1e-4, atol=1e-5
                )
    assert float(expected.kl_aligned_base.min()) > 1e-4


def test_a_repeated_run_has_the_same_bits() -> None:
    model = tiny("llama")
    first, again = (
        torch.cat([row_stats(rows).logprob for rows in response_rows(model, TEXTS)])
        for _ in range(2)
    )
    assert first.tolist() == again.tolist()
