"""The page and the curves of a finished token-shift run."""

import unicodedata
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rnr_kernels.analysis.inputs import ShiftPrompt
from rnr_kernels.analysis.plots import write_curves
from rnr_kernels.analysis.report import ReportPrompt, write_report
from rnr_kernels.analysis.results import load_manifest, load_prompts, load_token_shift
from rnr_kernels.analysis.token_shift import TokenShift
from rnr_kernels.generation import response_text
from rnr_kernels.rules.vocabulary import Vocabulary

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PAGE = "report.html"
CURVES = "curves.svg"

CHECKED = 20
"""Responses of which one has to be read from its tokens."""


def write_run_report(out: Path, tokenizer: "PreTrainedTokenizerBase") -> Path:
    """Writes `report.html` and `curves.svg` into a run's folder; the page's path.

    `tokenizer` is that of the run's models. The whole table is in memory. ValueError for a run that
    is not finished, and for a tokenizer that reads other text from the responses.
    """
    manifest, prompts = load_manifest(out), load_prompts(out)
    _check_tokenizer(tokenizer, prompts, manifest.eos_token_ids)
    # Records that were skipped leave gaps in the indices.
    places = np.zeros(prompts[-1].index + 1, dtype=np.int64)
    places[[prompt.index for prompt in prompts]] = np.arange(len(prompts))
    shifts: dict[str, TokenShift] = {}
    for base, name in enumerate(manifest.bases):
        shift = load_token_shift(out, base)
        named = name if name not in shifts else f"{name} ({base + 1})"
        shifts[named] = replace(shift, prompt=places[shift.prompt])
    write_report(
        out / PAGE,
        [ReportPrompt(prompt.instruction) for prompt in prompts],
        shifts,
        Vocabulary.of(tokenizer).text,
        title="Token shift",
        aligned_name=manifest.aligned,
        eos_token_ids=manifest.eos_token_ids,
    )
    write_curves(shifts, out / CURVES)
    return out / PAGE


def _check_tokenizer(
    tokenizer: "PreTrainedTokenizerBase", prompts: Sequence[ShiftPrompt], ends: Sequence[int]
) -> None:
    """The letters of a response are in its tokens; what is between them a tokenizer may change."""
    told = [prompt for prompt in prompts if _letters(prompt.response or "")][:CHECKED]
    for prompt in told:
        token_ids = list(prompt.response_token_ids or ())
        if max(token_ids, default=0) < len(tokenizer):
            text = response_text(tokenizer, token_ids, ends)
            if _letters(text) == _letters(prompt.response or ""):
                return
    if not told:
        return
    raise ValueError(
        f"the tokenizer does not read the run's responses, as {told[0].response!r:.50}, from "
        "their tokens; name that of the run's models"
    )


def _letters(text: str) -> str:
    folded = unicodedata.normalize("NFKD", text).casefold()
    return "".join(character for character in folded if character.isalnum())
