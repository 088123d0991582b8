"""Several pairs in one table in literal numbers, beside the published ones; figures for papers."""

from pathlib import Path

import numpy as np
import pytest
from shift_tables import EOS, OTHER_RANKS, PIECES, large_table, small_table

from rnr_kernels.analysis import published
from rnr_kernels.analysis.plots import write_curves
from rnr_kernels.analysis.summary import num_shown, share_rows, share_table, summarise
from rnr_kernels.analysis.token_shift import Share, ShiftedToken
from rnr_kernels.lab import published as of_the_lab

SHIFTS = {"base": small_table(), "other | base": small_table(OTHER_RANKS)}


def test_a_summary_in_literal_numbers() -> None:
    first, second = summarise(SHIFTS, eos_token_ids=EOS, most=2)
    assert first.name == "base" and second.name == "other | base"
    assert [first.shares.unshifted.share, first.shares.shifted.share] == [5 / 11, 4 / 11]
    assert first.shares_without_eos is not None
    assert first.shares_without_eos.num_tokens == 9
    assert first.shares_without_eos.shifted.share == 3 / 9
    assert first.most_shifted == (ShiftedToken(0, 1, 2), ShiftedToken(72, 1, 1))
    assert second.most_shifted == ()
    assert first.curves.base_rank.tolist() == [1, 8 / 3, 8, 35000.5, 3]
    assert first.num_shown == 5  # a fifth of three prompts is one
    assert set(first.bands) == {"kl_aligned_base", "base_rank", "base_probability"}
    low, high = first.bands["base_rank"]
    assert low[0] == high[0] == 1 and (low[4], high[4]) == (3, 3)
    assert (low[1], high[1]) == (1, 5)


def test_without_eos_there_is_nothing_to_leave_out() -> None:
    (summary,) = summarise({"base": SHIFTS["base"]})
    assert summary.shares_without_eos is None
    titles = [row.title for row in share_rows([summary])]
    assert titles == ["base", *published.SHIFTS]


def test_the_table_stands_beside_the_published_shares() -> None:
    summaries = summarise(SHIFTS, eos_token_ids=EOS)
    rows = share_rows(summaries)
    assert [row.published for row in rows] == [False] * 4 + [True] * 3
    assert rows[4].unshifted == Share(0.777, 0.777, 0.777)
    lines = share_table(summaries, PIECES).splitlines()
    assert lines[0] == "| pair | unshifted | marginal | shifted |"
    assert lines[2].startswith("| base | 45.5 (") and lines[2].endswith(") |")
    assert lines[4].startswith("| other \\| base | 90.9 (")
    assert lines[6] == "| Llama-2-7B to its chat model (published) | 77.7 | 14.5 | 7.8 |"
    assert "Most shifted tokens, base: '</s>' 1/2, '<!--' 1/1, ' July' 1/1, '' 1/1." in lines
    assert lines[-1] == "Most shifted tokens, other \\| base: none."


def test_published_figures_stand_in_one_place() -> None:
    assert of_the_lab.SHIFTS is published.SHIFTS
    assert of_the_lab.RANKING is published.RANKING


def test_a_curve_ends_where_few_responses_go_on() -> None:
    shift = large_table(num_prompts=30, length=4)
    kept = (shift.prompt < 25) | (shift.position < 2)
    kept &= (shift.prompt < 5) | (shift.position < 3)
    curves = type(shift)(**{name: column[kept] for name, column in vars(shift).items()})
    assert curves.by_position().count.tolist() == [30, 30, 25, 5]
    assert num_shown(curves.by_position(), 30) == 3  # a fifth of 30 is 6
    assert num_shown(curves.by_position(), 1000) == 3  # at least 20 of many


def test_a_pair_without_tokens_is_refused() -> None:
    shift = SHIFTS["base"]
    empty = type(shift)(**{name: column[:0] for name, column in vars(shift).items()})
    with pytest.raises(ValueError, match="'none' has no tokens"):
        summarise({"none": empty})


@pytest.mark.parametrize("name", ["curves.svg", "curves.png", "curves.pdf"])
def test_figures_are_the_same_each_time(tmp_path: Path, name: str) -> None:
    shifts = {"one": large_table(30, 6), "other": large_table(30, 5)}
    pictures = []
    for folder in ("first", "second"):
        (tmp_path / folder).mkdir()
        write_curves(shifts, tmp_path / folder / name)
        pictures.append((tmp_path / folder / name).read_bytes())
    assert pictures[0] == pictures[1]
    assert len(pictures[0]) > 5000


def test_a_figure_names_pairs_and_axes(tmp_path: Path) -> None:
    write_curves({"my pair": large_table(30, 6)}, tmp_path / "curves.svg")
    text = (tmp_path / "curves.svg").read_text(encoding="utf-8")
    for words in ("my pair", "base rank", "base probability", "KL(aligned ‖ base), nats"):
        assert words in text


def test_other_figures_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"path must end in \.png, .*, got 'curves\.bmp'"):
        write_curves(SHIFTS, tmp_path / "curves.bmp")
    with pytest.raises(ValueError, match="there are no pairs"):
        write_curves({}, tmp_path / "curves.svg")
    assert np.array_equal(list(tmp_path.iterdir()), [])
