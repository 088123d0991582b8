"""The token-shift report: every token of an aligned model's responses in one file to look at.

A page for a browser, without a network: responses with each token coloured by its class, both
models' likeliest tokens on a click, filters, curves and shares. What is written in prompts and
responses is data of the page and never markup.
"""

import base64
import hashlib
import html
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rnr_kernels.analysis.columns import (
    NATS_BITS,
    TOP_BITS,
    Column,
    column,
    falling,
    json_column,
    nats,
)
from rnr_kernels.analysis.summary import (
    CURVES,
    PairSummary,
    ShareRow,
    share_rows,
    summarise,
)
from rnr_kernels.analysis.token_shift import CLASSES, LAST_RANKS, Share, TokenShift
from rnr_kernels.rules.kinds import TokenIds, as_token_ids

PAGE = Path(__file__).parent / "report_page"
SCRIPTS = (
    "columns.js", "words.js", "charts.js", "overview.js",
    "prompts.js", "response.js", "details.js", "main.js",
)  # fmt: skip
"""One script, in this order."""

CHUNK_PROMPTS = 16
"""Prompts whose top tokens are decoded together."""
DIFFERENT_RANKS = 0.05
"""The share of tokens at which rounding may change the aligned model's rank from table to table."""

Pieces = Mapping[int, str] | Callable[[int], str]
Places = NDArray[np.int64]


@dataclass(frozen=True)
class ReportPrompt:
    """What was asked."""

    instruction: str


@dataclass(frozen=True, eq=False)
class _Tokens:
    """The tokens that occur, most frequent first: small numbers for what is frequent."""

    ids: Places
    place: Places
    """The place of each id in `ids`."""


def write_report(
    path: Path,
    prompts: Sequence[ReportPrompt],
    shifts: Mapping[str, TokenShift],
    pieces: Pieces,
    *,
    title: str,
    aligned_name: str,
    eos_token_ids: TokenIds = (),
) -> None:
    """Writes the page for one aligned model and the bases it is compared with.

    `shifts` has a table by each base's name, all of the same responses; its `prompt` column counts
    in `prompts`. `pieces` gives the text of a token id, best as `Vocabulary(tokenizer).text` does:
    `tokenizer.decode([id])` of some tokenizers drops the space before a word. Top tokens are shown
    where the tables hold them; the aligned side is read from the first table. ValueError, before
    anything is written, for no tables, a prompt that is not there, positions that are not 0, 1, ...
    in each response, tables of other responses or of another aligned model, and a token without a
    text.
    """
    ordered = {name: _ordered(name, shift, len(prompts)) for name, shift in shifts.items()}
    _check_alike(ordered)
    summaries = summarise(ordered, eos_token_ids=eos_token_ids)
    tables = list(ordered.values())
    tokens = _tokens(tables)
    starts = np.searchsorted(tables[0].prompt, np.arange(len(prompts) + 1))
    facts = _facts(summaries, tokens, title, aligned_name) | {
        "eos": tokens.place[[i for i in as_token_ids(eos_token_ids) if i in tokens.ids]].tolist()
    }
    columns = [
        json_column("prompts", [prompt.instruction for prompt in prompts]),
        json_column("pieces", _texts(tokens, pieces)),
        column("ids", tokens.ids),
        column("starts", starts),
        *_aligned_columns(tables[0], tokens, starts),
    ]
    for number, table in enumerate(tables):
        columns += _base_columns(f"base{number}", table, tokens, starts)
    path.write_text(_page(title, facts, columns), encoding="utf-8")


def _ordered(name: str, shift: TokenShift, num_prompts: int) -> TokenShift:
    """Text after text, token after token."""
    if not len(shift):
        raise ValueError(f"the table of {name!r} has no tokens: there is nothing to report")
    order = np.lexsort((shift.position, shift.prompt))
    if not (order[1:] > order[:-1]).all():
        columns = {key: value[order] for key, value in vars(shift).items() if value is not None}
        shift = replace(shift, **columns)
    last = int(shift.prompt[-1])
    if last >= num_prompts or shift.prompt[0] < 0:
        raise ValueError(
            f"the table of {name!r} has tokens of prompt {last}, but there are {num_prompts} "
            "prompts, counted from 0"
        )
    first = np.searchsorted(shift.prompt, shift.prompt)
    if not (shift.position == np.arange(len(shift)) - first).all():
        raise ValueError(
            f"the table of {name!r} must have positions 0, 1, ... in each response: rows are "
            "missing or twice there"
        )
    return shift


def _check_alike(shifts: Mapping[str, TokenShift]) -> None:
    if not shifts:
        raise ValueError("there are no tables to report: pass at least one base's")
    (first_name, first), *others = shifts.items()
    for name, shift in others:
        if not (
            np.array_equal(first.prompt, shift.prompt)
            and np.array_equal(first.token_id, shift.token_id)
        ):
            raise ValueError(
                f"the tables of {first_name!r} and {name!r} hold other responses; a report "
                "compares bases at the same tokens"
            )
        different = float((first.rank != shift.rank).mean())
        if different > DIFFERENT_RANKS:
            raise ValueError(
                f"the tables of {first_name!r} and {name!r} are of other aligned models: their "
                f"ranks differ at {different:.0%} of the tokens"
            )


def _tokens(tables: Sequence[TokenShift]) -> _Tokens:
    held = [tables[0].token_id, tables[0].top_ids, *(table.base_top_ids for table in tables)]
    flat = [np.asarray(ids).reshape(-1) for ids in held if ids is not None]
    if any(ids.min(initial=0) < 0 for ids in flat):
        raise ValueError("token ids must not be negative")
    largest = max(int(ids.max(initial=0)) for ids in flat)
    counts = sum((np.bincount(ids, minlength=largest + 1) for ids in flat), np.zeros(1, np.int64))
    ids = np.argsort(-counts, kind="stable")[: int((counts > 0).sum())]
    place = np.zeros(largest + 1, np.int64)
    place[ids] = np.arange(len(ids))
    return _Tokens(ids, place)


def _texts(tokens: _Tokens, pieces: Pieces) -> list[str]:
    text_of = pieces if callable(pieces) else pieces.__getitem__
    try:
        return [text_of(token_id) for token_id in tokens.ids.tolist()]
    except KeyError as error:
        raise ValueError(f"pieces has no text for token {error.args[0]}") from None


def _aligned_columns(shift: TokenShift, tokens: _Tokens, starts: Places) -> Iterator[Column]:
    yield column("tokens", tokens.place[shift.token_id])
    yield column("aligned.rank", shift.rank)
    yield column("aligned.ties", shift.num_ties)
    yield column("aligned.logprob", nats(-shift.logprob))
    yield column("aligned.entropy", nats(shift.entropy))
    yield from _top_columns("aligned", shift.top_ids, shift.top_logprobs, tokens, starts)


def _base_columns(
    side: str, shift: TokenShift, tokens: _Tokens, starts: Places
) -> Iterator[Column]:
    yield column(f"{side}.rank", shift.base_rank)
    yield column(f"{side}.ties", shift.base_num_ties)
    yield column(f"{side}.logprob", nats(-shift.base_logprob))
    yield column(f"{side}.entropy", nats(shift.base_entropy))
    yield column(f"{side}.kl", nats(shift.kl_aligned_base))
    yield column(f"{side}.klback", nats(shift.kl_base_aligned))
    yield column(f"{side}.same", shift.same_argmax.astype(np.uint8))
    yield from _top_columns(side, shift.base_top_ids, shift.base_top_logprobs, tokens, starts)


def _top_columns(
    side: str,
    ids: NDArray[np.int32] | None,
    logprobs: NDArray[np.float32] | None,
    tokens: _Tokens,
    starts: Places,
) -> Iterator[Column]:
    """The top tokens of some prompts at a time; none where the table holds none."""
    if ids is None or logprobs is None:
        return
    if ids.ndim != 2 or ids.shape != logprobs.shape or len(ids) != starts[-1]:
        raise ValueError(
            f"the top tokens of {side} must be [{starts[-1]}, k] ids and log-probabilities, got "
            f"{ids.shape} and {logprobs.shape}"
        )
    steps, places = falling(logprobs), tokens.place[ids]
    for chunk, first in enumerate(range(0, len(starts) - 1, CHUNK_PROMPTS)):
        rows = slice(starts[first], starts[min(first + CHUNK_PROMPTS, len(starts) - 1)])
        # Likeliest of all rows first, then the second of all: like beside like packs best.
        yield column(f"{side}.top.{chunk}", places[rows].T)
        yield column(f"{side}.steps.{chunk}", steps[rows].T)


def _facts(
    summaries: Sequence[PairSummary], tokens: _Tokens, title: str, aligned_name: str
) -> dict[str, Any]:
    """What the page is told in plain JSON."""
    first = summaries[0].shares
    return {
        "title": title,
        "aligned": aligned_name,
        "numTokens": first.num_tokens,
        "numPrompts": first.num_prompts,
        "classes": list(CLASSES),
        "lastRanks": list(LAST_RANKS),
        "natsBits": NATS_BITS,
        "topBits": TOP_BITS,
        "chunkPrompts": CHUNK_PROMPTS,
        "curves": dict(CURVES),
        "shares": [_share_row(row) for row in share_rows(summaries)],
        "bases": [
            {
                "name": summary.name,
                "curves": _curves(summary),
                "mostShifted": [
                    [int(tokens.place[each.token_id]), each.num_shifted, each.num_tokens]
                    for each in summary.most_shifted
                ],
            }
            for summary in summaries
        ],
    }


def _share_row(row: ShareRow) -> dict[str, Any]:
    shares: list[Share] = [getattr(row, name) for name in CLASSES]
    return {
        "title": row.title,
        "published": row.published,
        "shares": [_numbers([each.share, each.low, each.high]) for each in shares],
    }


def _curves(summary: PairSummary) -> dict[str, Any]:
    shown = summary.num_shown
    curves: dict[str, Any] = {"count": summary.curves.count[:shown].tolist()}
    for name in CURVES:
        band = summary.bands.get(name)
        curves[name] = {
            "mean": _numbers(getattr(summary.curves, name)[:shown]),
            "low": None if band is None else _numbers(band[0]),
            "high": None if band is None else _numbers(band[1]),
        }
    return curves


def _numbers(values: Any) -> list[float | None]:
    """Five significant digits; None for what JSON has no number for."""
    return [float(f"{x:.5g}") if np.isfinite(x) else None for x in np.asarray(values).tolist()]


def _page(title: str, facts: Mapping[str, Any], columns: Sequence[Column]) -> str:
    style = (PAGE / "report.css").read_text(encoding="utf-8")
    script = "\n".join((PAGE / name).read_text(encoding="utf-8") for name in SCRIPTS)
    values = {
        "title": html.escape(title),
        "style": style,
        "style_hash": _hash(style),
        "script": script,
        "script_hash": _hash(script),
        "facts": _json_in_script(facts),
        "columns": "\n".join(map(_element, columns)),
    }
    template = (PAGE / "report.html").read_text(encoding="utf-8")
    # In one pass: what a value holds is never looked at again.
    return re.sub(r"\{\{ (\w+) \}\}", lambda found: values[found[1]], template)


def _json_in_script(value: Any) -> str:
    """JSON in which nothing can end its script element or open a comment."""
    text = json.dumps(value, allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _element(column: Column) -> str:
    return (
        f'<script type="text/plain" id="column:{column.name}" data-kind="{column.kind}">'
        f"{column.text}</script>"
    )


def _hash(text: str) -> str:
    """As a content security policy names the only script, or style, that may be used."""
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")
