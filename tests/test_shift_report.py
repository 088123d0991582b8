"""The report's file: what it holds, that data cannot leave its place, and what is refused."""

import base64
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from shift_tables import (
    EOS,
    PIECES,
    PROMPTS,
    large_table,
    small_table,
    write_large,
    write_small,
)
from test_shift_columns import unpacked

from rnr_kernels.analysis.columns import Column
from rnr_kernels.analysis.report import write_report


class _Report(HTMLParser):
    """Scripts by type and id, the policy, and addresses that a browser would fetch."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.style = self.policy = self.title = ""
        self.addresses: list[str] = []
        self._inside: str | None = None
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self._inside = tag
        self.addresses += [v for k, v in attrs if k in ("src", "href") and v and v[:1] != "#"]
        if tag == "script":
            self.scripts.append((given, ""))
        if given.get("http-equiv") == "Content-Security-Policy":
            self.policy = given["content"] or ""

    def handle_endtag(self, tag: str) -> None:
        self._inside = None

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            given, text = self.scripts[-1]
            self.scripts[-1] = (given, text + data)
        elif self._inside in ("style", "title"):
            setattr(self, self._inside, getattr(self, self._inside) + data)

    def columns(self) -> dict[str, Any]:
        return {
            (given["id"] or "").removeprefix("column:"): unpacked(
                Column("", given["data-kind"] or "", text)
            )
            for given, text in self.scripts
            if given["type"] == "text/plain"
        }

    def facts(self) -> Any:
        (text,) = (text for given, text in self.scripts if given["type"] == "application/json")
        return json.loads(text)

    def program(self) -> str:
        (text,) = (text for given, text in self.scripts if given["type"] == "module")
        return text


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> _Report:
    return _Report(write_small(tmp_path_factory.mktemp("report") / "report.html"))


def test_columns_are_the_tables(report: _Report) -> None:
    columns = report.columns()
    ids, pieces = columns["ids"].tolist(), columns["pieces"]
    assert columns["prompts"] == [prompt.instruction for prompt in PROMPTS]
    assert dict(zip(ids, pieces, strict=True)) == PIECES
    assert columns["starts"].tolist() == [0, 5, 9, 11]
    tokens = [ids[place] for place in columns["tokens"]]
    assert tokens == [2, 3, 900, 5, 0, 70, 71, 72, 31999, 2, 0]
    assert columns["base0.rank"].tolist() == [1, 2, 12, 1, 3, 1, 1, 4, 70000, 1, 5]
    assert columns["base1.rank"].tolist() == [1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 1]
    assert columns["base0.same"].tolist() == [1, 0, 0, 1, 0, 1, 1, 0, 0, 1, 0]
    assert columns["aligned.logprob"][2] == round(0.4700036 * 2**14)
    assert columns["base0.klback"].tolist()[1:3] == [4096, 2**32 - 1]
    top = columns["aligned.top.0"].reshape(3, 11)
    assert [ids[place] for place in top[:, 2]] == [900, 4, 3]
    assert columns["base0.steps.0"].reshape(3, 11)[:, 2].tolist() == [710, 710, 2129]


def test_facts_are_the_summary(report: _Report) -> None:
    facts = report.facts()
    assert (facts["title"], facts["aligned"]) == ("Small <report>", "Llama chat")
    assert (facts["numTokens"], facts["numPrompts"]) == (11, 3)
    assert [base["name"] for base in facts["bases"]] == ["Llama base", "other"]
    first = facts["bases"][0]
    assert first["curves"]["count"] == [3, 3, 2, 2, 1]
    assert first["curves"]["base_rank"]["mean"] == [1.0, 2.6667, 8.0, 35000.0, 3.0]
    assert first["curves"]["kl_base_aligned"]["mean"][1:3] == [0.25, None]
    assert first["curves"]["kl_base_aligned"]["low"] is None
    ids = report.columns()["ids"]
    shown = [(int(ids[token]), *counts) for token, *counts in first["mostShifted"]]
    assert shown == [(0, 1, 2), (72, 1, 1), (900, 1, 1), (31999, 1, 1)]
    assert [int(ids[token]) for token in facts["eos"]] == [EOS]
    titles = [row["title"] for row in facts["shares"]]
    assert titles[:2] == ["Llama base", "Llama base, without EOS"]
    assert facts["shares"][-1] == {
        "title": "Mistral-7B to its instruct model",
        "published": True,
        "shares": [[0.822] * 3, [0.125] * 3, [0.052] * 3],
    }


def test_text_of_models_is_never_markup(tmp_path: Path) -> None:
    hostile = "</title></script ><script>alert(1)</script><!-- <script {{ script }} &amp;"
    write_report(
        tmp_path / "report.html", PROMPTS, {hostile: small_table()}, lambda _: hostile,
        title=hostile, aligned_name=hostile,
    )  # fmt: skip
    report = _Report(tmp_path / "report.html")
    assert {given["type"] for given, _ in report.scripts} == {
        "application/json", "text/plain", "module",
    }  # fmt: skip
    assert report.title == hostile
    facts = report.facts()
    assert (facts["title"], facts["aligned"]) == (hostile, hostile)
    assert facts["bases"][0]["name"] == hostile
    assert set(report.columns()["pieces"]) == {hostile}
    inside = [text for given, text in report.scripts if given["type"] != "module"]
    assert not any("<" in text for text in inside)


def test_only_the_pages_own_script_and_style_may_run(report: _Report) -> None:
    for kind, text in (("script", report.program()), ("style", report.style)):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in report.policy
    assert report.policy.startswith("default-src 'none'")
    assert "require-trusted-types-for 'script'" in report.policy
    assert report.addresses == []


def test_the_script_writes_text_alone(report: _Report) -> None:
    words = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|\bfetch\b|https?:"
    found = re.findall(words, report.program().replace("http://www.w3.org/2000/svg", ""))
    assert found == []


def test_rows_may_come_in_any_order(tmp_path: Path) -> None:
    order = np.random.default_rng(0).permutation(11)
    plain = small_table()
    columns = {name: values[order] for name, values in vars(plain).items()}
    written = []
    for name, shift in (("plain", plain), ("shuffled", replace(plain, **columns))):
        path = tmp_path / f"{name}.html"
        write_report(path, PROMPTS, {"base": shift}, PIECES, title="Same", aligned_name="a")
        written.append(path.read_bytes())
    assert written[0] == written[1]


def test_top_tokens_may_be_missing(tmp_path: Path) -> None:
    none = dict.fromkeys(["top_ids", "top_logprobs", "base_top_ids", "base_top_logprobs"])
    columns = _Report(write_small(tmp_path / "report.html", **none)).columns()
    assert [name for name in columns if ".top." in name or ".steps." in name] == []
    assert 4 not in columns["ids"]  # of which only top tokens know


def test_chunks_hold_their_prompts(tmp_path: Path) -> None:
    shift = large_table(num_prompts=40, length=3, vocab_size=90000)
    columns = _Report(write_large(tmp_path / "report.html", shift, str)).columns()
    assert shift.top_ids is not None
    sizes = [columns[f"aligned.top.{chunk}"].size for chunk in range(3)]
    assert sizes == [16 * 3 * 10, 16 * 3 * 10, 8 * 3 * 10]
    third = columns["ids"][columns["aligned.top.2"].reshape(10, 24)]
    assert (third == shift.top_ids[96:].T).all()


def test_30_000_random_tokens_take_less_than_4_mb(tmp_path: Path) -> None:
    path = write_large(tmp_path / "report.html", large_table(100, 300), str)
    assert 2_000_000 < path.stat().st_size < 4_000_000


def write(tmp_path: Path, shifts: Any, pieces: Any = PIECES) -> None:
    write_report(tmp_path / "report.html", PROMPTS, shifts, pieces, title="t", aligned_name="a")


def bad_tables() -> list[tuple[Any, str]]:
    table, other = small_table(), small_table()
    token, rank = table.token_id.copy(), table.rank.copy()
    token[3], rank[:6] = 2, 2
    twice = table.position.copy()
    twice[2] = 1
    return [
        ({}, "there are no tables to report"),
        ({"x": replace(table, prompt=table.prompt + 1)}, "'x' has tokens of prompt 3, but there"),
        ({"x": replace(table, position=twice)}, "'x' must have positions 0, 1, ... in each"),
        ({"x": table, "y": replace(other, token_id=token)}, "'x' and 'y' hold other responses"),
        ({"x": table, "y": replace(other, rank=rank)}, "other aligned models.*55% of the tokens"),
        (
            {"x": replace(table, top_ids=np.zeros((11, 2), np.int32))},
            r"aligned must be \[11, k\] ids and log-probabilities, got \(11, 2\) and \(11, 3\)",
        ),
        ({"x": replace(table, entropy=np.full(11, np.nan, np.float32))}, "holds NaN"),
    ]


@pytest.mark.parametrize(("shifts", "message"), bad_tables())
def test_bad_tables_are_refused_and_nothing_is_written(
    shifts: Any, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        write(tmp_path, shifts)
    assert list(tmp_path.iterdir()) == []


def test_a_token_without_text_is_named(tmp_path: Path) -> None:
    pieces = {token_id: text for token_id, text in PIECES.items() if token_id != 72}
    with pytest.raises(ValueError, match="pieces has no text for token 72"):
        write(tmp_path, {"x": small_table()}, pieces)
