"""A thousand prompts and 300,000 tokens: the file's size, and the time until it can be used."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Page
from shift_tables import large_table, write_large

from rnr_kernels.analysis.token_shift import TokenShift

NUM_PROMPTS, LENGTH = 1000, 300
MAX_BYTES = 40_000_000
MAX_MS = 4000
"""Twice what is required of an idle machine."""


@pytest.fixture(scope="module")
def shift() -> TokenShift:
    return large_table(NUM_PROMPTS, LENGTH)


@pytest.fixture(scope="module")
def report(shift: TokenShift, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("large") / "report.html"
    return write_large(path, shift, lambda token_id: f" w{token_id}")


def test_a_large_report_is_small_enough_and_soon_ready(
    open_page: Callable[..., Page], report: Path, shift: TokenShift
) -> None:
    size = report.stat().st_size
    page = open_page(report)
    ready = page.evaluate("performance.getEntriesByName('interactive')[0].startTime")
    print(f"\n{len(shift):,} tokens: {size / 1e6:.1f} MB, interactive after {ready:.0f} ms")
    assert size < MAX_BYTES
    assert ready < MAX_MS
    assert page.locator(".prompt-row").count() < 40
    assert page.locator("#tokens .token").count() == LENGTH


def test_the_last_token_has_its_own_numbers(
    open_page: Callable[..., Page], report: Path, shift: TokenShift
) -> None:
    page = open_page(report)
    page.locator("#list").evaluate("node => { node.scrollTop = node.scrollHeight; }")
    page.click(f"#prompt-{NUM_PROMPTS - 1}")
    page.click(f"#tokens .token[data-position='{LENGTH - 1}']")
    page.wait_for_selector("#details:not([hidden])")
    rank = page.locator("[data-fact=rank] td").all_inner_texts()
    assert rank == ["1", f"{shift.base_rank[-1]:,}"]
    assert shift.base_top_ids is not None and shift.base_top_logprobs is not None
    shown = page.locator("#details .side1 tbody .mono").all_inner_texts()[:10]
    assert shown == [f"·w{token_id}" for token_id in shift.base_top_ids[-1]]
    chances = page.locator("#details .side1 tbody .chance").all_inner_texts()[:10]
    expected = 100 * np.exp(shift.base_top_logprobs[-1].astype(float))
    found = [float(text.removesuffix("%")) for text in chances]
    assert found == pytest.approx(expected.tolist(), rel=2e-3, abs=0.051)
