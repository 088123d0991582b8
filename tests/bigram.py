"""A model whose next token depends on the last one alone, and texts scored one at a time."""

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn


class Bigram(nn.Module):
    """Has what teacher forcing asks of a causal language model; `table` [V, V] are its logits."""

    def __init__(self, table: Tensor, *, window: int | None = None) -> None:
        super().__init__()
        size = len(table)
        self.embeddings: nn.Embedding = nn.Embedding.from_pretrained(table)
        self.head = nn.Linear(size, size, bias=False)
        self.head.weight.data.copy_(torch.eye(size))
        text_config = SimpleNamespace(max_position_embeddings=window, vocab_size=size)
        self.config = SimpleNamespace(get_text_config=lambda: text_config)
        self.device = torch.device("cpu")

    def get_input_embeddings(self) -> nn.Embedding:
        return self.embeddings

    def get_output_embeddings(self) -> nn.Linear:
        return self.head

    def forward(self, input_ids: Tensor, **_: Any) -> SimpleNamespace:
        return SimpleNamespace(logits=self.head(self.embeddings(input_ids)))


def bigram(
    vocab_size: int, rows: Mapping[int, Mapping[int, float]], *, window: int | None = None
) -> Any:
    """A Bigram: `rows[last][next]` are probabilities, the other tokens of a row share the rest."""
    table = torch.full((vocab_size, vocab_size), 1 / vocab_size)
    for last, row in rows.items():
        if len(row) < vocab_size:
            table[last] = (1 - sum(row.values())) / (vocab_size - len(row))
        for token, probability in row.items():
            table[last, token] = probability
    return Bigram(table.log(), window=window)


@torch.no_grad()
def logits_alone(model: Any, prompt: Sequence[int], response: Sequence[int]) -> Tensor:
    """Logits float64 [response, V] before each response token, by a forward pass of this text."""
    logits: Tensor = model(input_ids=torch.tensor([[*prompt, *response]])).logits[0]
    return logits[len(prompt) - 1 : -1].double()


def log_probability(model: Any, prompt: Sequence[int], response: Sequence[int]) -> float:
    """log p(response | prompt) in nats, in float64."""
    logprobs = logits_alone(model, prompt, response).log_softmax(-1)
    return sum(float(logprobs[step, token]) for step, token in enumerate(response))
