"""Bitmasks over the vocabulary."""

import torch
from torch import Tensor

from rnr_kernels.layout import BITS, num_words


def pack_bits(mask: Tensor, words: int) -> Tensor:
    """Bool [R, V] to int32 [R, words]: bit v % 32 of word v // 32 is column v."""
    rows, columns = mask.shape
    padded = mask.new_zeros(rows, words * BITS)
    padded[:, :columns] = mask
    shifts = torch.arange(BITS, device=mask.device)
    return (padded.view(rows, words, BITS).long() << shifts).sum(-1).to(torch.int32)


def unpack_bits(bitmask: Tensor, vocab_size: int) -> Tensor:
    """Int32 [R, words] to bool [R, vocab_size]."""
    shifts = torch.arange(BITS, device=bitmask.device, dtype=torch.int32)
    bits = (bitmask[:, : num_words(vocab_size)].unsqueeze(-1) >> shifts) & 1
    return bits.flatten(1)[:, :vocab_size].bool()


def token_mask(token_ids: Tensor, keep: Tensor, vocab_size: int) -> Tensor:
    """Bool [R, vocab_size]: the kept `token_ids` [R, L] of each row; ids outside it set nothing."""
    inside = keep & (token_ids >= 0) & (token_ids < vocab_size)
    columns = torch.where(inside, token_ids, vocab_size).long()
    mask = torch.zeros(len(token_ids), vocab_size + 1, dtype=torch.bool, device=token_ids.device)
    return mask.scatter_(1, columns, True)[:, :vocab_size]
