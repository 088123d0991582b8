"""The benchmark of token shift: peers find what ours does, the table says what is missed."""

import numpy as np
import pytest
import torch
from tiny_llama import BOS, EOS, make_llama

from benchmarks.analyses import batched, batches_of, check, compared, published, report
from rnr_kernels.analysis.token_shift import token_shift
from rnr_kernels.teacher_forcing import Forced

TEXTS = [Forced((BOS, 40, 41), (50, 51, EOS)), Forced((BOS,), (7, 300))]


def test_peers_find_what_token_shift_does() -> None:
    aligned, base = make_llama(0), make_llama(1)
    shift = token_shift(aligned, base, TEXTS)
    columns = [shift.base_rank, shift.kl_aligned_base, shift.kl_base_aligned]
    check("published", columns, published(aligned, base, TEXTS))
    batches, buckets = batches_of(TEXTS)
    assert buckets == [[1, 0]]
    rows = [3, 4, 0, 1, 2]
    check("batched", [column[rows] for column in columns], batched(aligned, base, batches))
    with pytest.raises(SystemExit, match="batched finds other results"):
        check("batched", columns, batched(aligned, base, batches))


def test_ranks_and_divergences_in_literal_numbers() -> None:
    logits = torch.tensor([[0.5, 0.25, 0.25]]).log()
    base_logits = torch.tensor([[0.25, 0.5, 0.25]]).log()
    ranks, kl, base_kl = compared(logits, base_logits, torch.tensor([1]))
    assert ranks.tolist() == [1]
    assert kl.tolist() == pytest.approx([np.log(2) / 4])
    assert base_kl.tolist() == pytest.approx([np.log(2) / 4])


def test_the_table_says_what_is_reached(capsys: pytest.CaptureFixture[str]) -> None:
    seconds = {"ours": 1e-4, "bare": 0.7e-4, "transformers": 2e-4, "rules": 1e-4}
    report({**seconds, "published": 49e-4, "published, one thread": 60e-4}, 2)
    lines = capsys.readouterr().out.splitlines()
    ends = [line.split("  ")[-1].strip() for line in lines[2:]]
    assert ends == ["80 %: MISSED", "2x: reached", "", "50x: MISSED", "50x: reached"]
    assert "10,000" in lines[1] and "70 % of ours" in lines[2] and "49.0x as fast" in lines[5]
