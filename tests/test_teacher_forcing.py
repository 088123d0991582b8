"""Teacher forcing: the logits before each response token, whatever the batch, and bad input."""

from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from rnr_kernels.loading import EMBEDDED, load_model, load_tokenizer
from rnr_kernels.teacher_forcing import Forced, force, length_buckets, response_logits
from rnr_kernels.templates import TEMPLATES

KINDS: dict[str, dict[str, Any]] = {
    "llama": {"num_key_value_heads": 2, "hidden_size": 16, "intermediate_size": 16},
    "gpt2": {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 24},
    "gemma2": {
        "hidden_size": 16, "intermediate_size": 16, "num_key_value_heads": 1, "head_dim": 8,
        "final_logit_softcapping": 2.0,
    },
    "cohere": {"num_key_value_heads": 2, "hidden_size": 16, "intermediate_size": 16},
}  # fmt: skip


def tiny(kind: str, **options: Any) -> Any:
    """A model of a kind with random weights, 40 tokens, and a window of 24."""
    common: dict[str, Any] = {"vocab_size": 40, "bos_token_id": 1, "eos_token_id": 2}
    if kind != "gpt2":
        common |= {
            "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 24,
            "pad_token_id": 0,
        }  # fmt: skip
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **(common | KINDS.get(kind, {}) | options))
    return AutoModelForCausalLM.from_config(config).eval()


TEXTS = [
    Forced((1, 5, 6), (7, 8, 2)),
    Forced((1,), (9, 2)),
    Forced((1, 5, 6, 11, 12, 13, 14), (15, 16, 17, 18, 2)),
    Forced((1, 30), (31,)),
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch_tokens", [1, 20, 8192])
def test_rows_are_the_models_own_logits_before_each_response_token(
    kind: str, batch_tokens: int
) -> None:
    model = tiny(kind)
    seen = []
    for batch in response_logits(model, TEXTS, batch_tokens=batch_tokens):
        rows = batch.logits.split(batch.lengths)
        tokens = batch.token_ids.split(batch.lengths)
        for index, logits, token_ids in zip(batch.indices, rows, tokens, strict=True):
            text = TEXTS[index]
            assert tuple(token_ids.tolist()) == text.response_token_ids
            whole = torch.tensor([[*text.prompt_token_ids, *text.response_token_ids]])
            with torch.no_grad():
                alone = model(input_ids=whole).logits[0, len(text.prompt_token_ids) - 1 : -1]
            torch.testing.assert_close(logits, alone, rtol=1e-5, atol=1e-5)
            seen.append(index)
    assert sorted(seen) == [0, 1, 2, 3]
    assert not model.get_output_embeddings()._forward_pre_hooks


def test_batches_are_of_similar_length_and_within_the_budget() -> None:
    lengths = [5, 100, 6, 5, 7, 90, 300]
    buckets = length_buckets(lengths, 200)
    assert buckets == [[0, 3, 2, 4], [5, 1], [6]]
    assert length_buckets([], 10) == []


def test_given_batches_are_taken_as_they_are() -> None:
    batches = list(response_logits(tiny("llama"), TEXTS, batches=[[2, 0], [3], [1]]))
    assert [batch.indices for batch in batches] == [[2, 0], [3], [1]]
    assert [batch.lengths for batch in batches] == [[5, 3], [1], [2]]
    assert batches[0].token_ids.tolist() == [15, 16, 17, 18, 2, 7, 8, 2]


def test_the_embedded_model_knows_its_corpus_better_than_chance() -> None:
    model, tokenizer = load_model(EMBEDDED, device="cpu"), load_tokenizer(EMBEDDED)
    text = force(
        tokenizer, TEMPLATES["tags"], "What is the fair month of Elham?",
        "The fair month of Elham is July.", end=tokenizer.eos_token_id,
    )  # fmt: skip
    assert text.response_token_ids[-1] == tokenizer.eos_token_id
    (batch,) = response_logits(model, [text])
    logprobs = batch.logits.log_softmax(-1).gather(1, batch.token_ids[:, None])
    # After the first word, all of it but the end is what the base model would say too.
    assert float(logprobs[1:-1].mean()) > -0.5


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ([], "there are no texts to score"),
        ([Forced((), (3,))], "text 1: its prompt is empty"),
        ([TEXTS[0], Forced((1,), ())], "text 2: its response is empty"),
        ([Forced((1,), (40,))], "text 1: its response has token 40, the model knows 40"),
        ([Forced((1,) * 20, (3,) * 5)], "response have 25 tokens, the model's window is 24"),
    ],
)  # fmt: skip
def test_bad_texts_are_named_before_anything_runs(texts: list[Forced], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        response_logits(tiny("llama"), texts)
