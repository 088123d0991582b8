"""Token shift of several pairs: class shares beside the published ones, curves, tokens."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rnr_kernels.analysis.published import SHIFTS
from rnr_kernels.analysis.token_shift import (
    CLASSES,
    ClassShares,
    PositionCurves,
    Share,
    ShiftedToken,
    TokenShift,
)
from rnr_kernels.intervals import mean_bands
from rnr_kernels.rules.kinds import TokenIds, as_token_ids

Floats = NDArray[np.float64]

CURVES: Mapping[str, str] = {
    "kl_aligned_base": "KL(aligned ‖ base), nats",
    "kl_base_aligned": "KL(base ‖ aligned), nats",
    "base_rank": "base rank",
    "base_probability": "base probability",
}
"""The curves of PositionCurves and what an axis calls them."""

MIN_RESPONSES = 20
"""At a position, for a mean to be shown; a fifth of the prompts where they are fewer than 100."""


@dataclass(frozen=True, eq=False)
class PairSummary:
    """One base's token shift in numbers."""

    name: str
    shares: ClassShares
    shares_without_eos: ClassShares | None
    """None where nothing is known to be EOS, or nothing else is there."""
    curves: PositionCurves
    bands: Mapping[str, tuple[Floats, Floats]]
    """By curve: its 95 % interval at each position. A curve with infinite values has none."""
    num_shown: int
    """Positions, from the first, that enough responses reach."""
    most_shifted: tuple[ShiftedToken, ...]


@dataclass(frozen=True)
class ShareRow:
    """A row of the table of shares."""

    title: str
    unshifted: Share
    marginal: Share
    shifted: Share
    published: bool
    """Published shares have no intervals: both ends are the share."""


def summarise(
    shifts: Mapping[str, TokenShift], *, eos_token_ids: TokenIds = (), most: int = 20
) -> tuple[PairSummary, ...]:
    """The summary of each pair, in order, naming `most` tokens. ValueError for a pair of none."""
    ends = as_token_ids(eos_token_ids)
    return tuple(_summary(name, shift, ends, most) for name, shift in shifts.items())


def share_rows(summaries: Sequence[PairSummary]) -> list[ShareRow]:
    """Each pair's shares, with EOS and without, and below them the published ones."""
    rows = []
    for each in summaries:
        rows.append(_row(each.name, each.shares))
        if each.shares_without_eos is not None:
            rows.append(_row(f"{each.name}, without EOS", each.shares_without_eos))
    return rows + [
        ShareRow(title, _published(first), _published(second), _published(third), published=True)
        for title, (first, second, third) in SHIFTS.items()
    ]


def share_table(
    summaries: Sequence[PairSummary], pieces: Mapping[int, str] | Callable[[int], str]
) -> str:
    """The shares and the most shifted tokens as Markdown; `pieces` gives the text of a token."""
    text_of = pieces if callable(pieces) else pieces.__getitem__
    lines = [f"| pair | {' | '.join(CLASSES)} |", "|---|" + "---:|" * len(CLASSES)]
    for row in share_rows(summaries):
        title = f"{row.title} (published)" if row.published else row.title
        cells = [_cell(getattr(row, name), row.published) for name in CLASSES]
        lines.append(f"| {_escaped(title)} | {' | '.join(cells)} |")
    for each in summaries:
        shown = [
            f"{text_of(t.token_id)!r} {t.num_shifted}/{t.num_tokens}" for t in each.most_shifted
        ]
        listed = ", ".join(shown) or "none"
        lines += ["", f"Most shifted tokens, {_escaped(each.name)}: {_escaped(listed)}."]
    return "\n".join(lines) + "\n"


def num_shown(curves: PositionCurves, num_prompts: int) -> int:
    """How many positions, from the first, have enough responses for a mean to be shown."""
    enough = min(MIN_RESPONSES, -(-num_prompts // 5))
    return int((curves.count >= enough).sum())


def _summary(name: str, shift: TokenShift, ends: tuple[int, ...], most: int) -> PairSummary:
    if not len(shift):
        raise ValueError(f"{name!r} has no tokens: nothing can be summarised")
    is_end = np.isin(shift.token_id, ends)
    without = None
    if is_end.any() and not is_end.all():
        without = shift.shares(with_eos=False, eos_token_ids=ends)
    shares, curves = shift.shares(), shift.by_position()
    shown = num_shown(curves, shares.num_prompts)
    return PairSummary(
        name, shares, without, curves, _bands(shift, shown), shown, shift.most_shifted(most)
    )


def _bands(shift: TokenShift, shown: int) -> dict[str, tuple[Floats, Floats]]:
    """Intervals of the curves up to the last position that is shown."""
    prompts, row = np.unique(shift.prompt, return_inverse=True)
    kept = shift.position < shown
    values = {
        "kl_aligned_base": shift.kl_aligned_base,
        "kl_base_aligned": shift.kl_base_aligned,
        "base_rank": shift.base_rank,
        "base_probability": np.exp(shift.base_logprob.astype(np.float64)),
    }
    bands = {}
    for curve, column in values.items():
        table = np.full((len(prompts), shown), np.nan)
        table[row[kept], shift.position[kept]] = column[kept]
        if not np.isinf(table).any():
            bands[curve] = mean_bands(table)
    return bands


def _row(title: str, shares: ClassShares) -> ShareRow:
    return ShareRow(title, shares.unshifted, shares.marginal, shares.shifted, published=False)


def _published(figure: float) -> Share:
    return Share(figure / 100, figure / 100, figure / 100)


def _cell(share: Share, published: bool) -> str:
    text = f"{100 * share.share:.1f}"
    return text if published else f"{text} ({100 * share.low:.1f} to {100 * share.high:.1f})"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")
