"""LM heads whose logits are computed some columns at a time, whatever multiplies."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Head:
    """One model's LM head."""

    weight: Tensor
    bias: Tensor | None
    logit_scale: float
    softcap: float

    def token_rows(self, token_ids: Tensor) -> Tensor:
        """int64: a row of the weight for each id, any where the id is none."""
        return token_ids.clamp(0, len(self.weight) - 1).long()

    def finish(self, products: Tensor, tokens: slice | Tensor) -> Tensor:
        """Logits of `tokens` from float32 products, in place, one operation after the other as in
        the reference."""
        if self.bias is not None:
            products.add_(self.bias[tokens].float())
        if self.logit_scale != 1.0:
            products.mul_(self.logit_scale)
        if self.softcap > 0:
            products.div_(self.softcap).tanh_().mul_(self.softcap)
        return products


def joined(chunks: Sequence[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    """The results of some rows after the other."""
    if len(chunks) == 1:
        return chunks[0]
    return tuple(torch.cat(parts) for parts in zip(*chunks, strict=True))
