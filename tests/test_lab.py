"""The tuning lab: a quick run from end to end, what it writes, and what it makes of its numbers."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rnr_kernels.lab import measures, published
from rnr_kernels.lab.run import PAGE, RESULTS, Lab, run_lab
from rnr_kernels.lab.study import FULL, QUICK, RULES, TWINS, Study
from rnr_kernels.lab.systems import Answers, Bench
from rnr_kernels.lab.tables import Estimate, percent, percent_of
from rnr_kernels.models.tasks import TASKS
from rnr_kernels.records import read_outputs


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    return run_lab(QUICK, tmp_path_factory.mktemp("lab") / "quick")


class _Page(HTMLParser):
    """Sections, addresses that a browser would fetch, and whether tags close."""

    def __init__(self) -> None:
        super().__init__()
        self.sections: list[str] = []
        self.addresses: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "section":
            self.sections.append(given["id"] or "")
        self.addresses += [v for k, v in attrs if k in ("src", "href") and v and v[:1] != "#"]
        if tag in ("section", "table", "tr", "svg", "ul"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in ("section", "table", "tr", "svg", "ul"):
            assert self.open.pop() == tag


def test_a_quick_run_writes_every_table_and_a_page_that_fetches_nothing(quick: Lab) -> None:
    keys = ["win-rates", "ablations", "ranking", "token-shift", "outside", "adapters"]
    assert [table.key for table in quick.tables] == keys
    page = _Page()
    page.feed(quick.page.read_text(encoding="utf-8"))
    assert page.sections == [*keys, "responses"]
    assert page.addresses == [] and page.open == []
    results = json.loads((quick.folder / RESULTS).read_text(encoding="utf-8"))
    assert results["study"]["seeds"] == [1]
    assert [table["key"] for table in results["tables"]] == keys
    rows = results["tables"][0]["rows"]
    assert rows["base"][2] == "2.4 / 4.7" and rows["response-tuned"][2] == "43.3 / 43.7"
    assert all(len(cells) == 3 for cells in rows.values())


def test_the_rules_answer_where_the_base_does_not(quick: Lab) -> None:
    rows = quick.tables[0].rows
    rules, base = rows["base x three rules"][1], rows["base"][1]
    assert isinstance(rules, Estimate) and isinstance(base, Estimate)
    assert rules.value > 80 and base.value < 10


def test_responses_are_files_that_win_rate_reads(quick: Lab) -> None:
    for name in ("instruction-1", "sums-1", "rules", "base"):
        outputs = read_outputs(quick.folder / "outputs" / f"{name}.jsonl")
        assert len(outputs) == QUICK.prompts and outputs[0].generator == name


def test_what_is_there_is_kept_and_a_models_markup_is_shown_as_text(
    quick: Lab, tmp_path: Path
) -> None:
    folder = tmp_path / "again"
    shutil.copytree(quick.folder, folder)
    file = folder / "outputs" / "base.jsonl"
    lines = file.read_text(encoding="utf-8").splitlines()
    record = json.loads(lines[0]) | {"output": "<script>alert('July')</script>"}
    file.write_text("\n".join([json.dumps(record), *lines[1:]]) + "\n", encoding="utf-8")
    said: list[str] = []
    run_lab(QUICK, folder, report=said.append)
    assert not [text for text in said if text.startswith(("tuning", "asking", "fitting"))]
    page = (folder / PAGE).read_text(encoding="utf-8")
    assert "&lt;script&gt;alert(&#39;July&#39;)&lt;/script&gt;" in page
    assert "<script" not in page


def test_a_folder_of_something_else_is_refused(quick: Lab, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds a lab run with another study"):
        run_lab(replace(QUICK, epochs=3), quick.folder)
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(ValueError, match="holds something that is no lab run"):
        run_lab(QUICK, tmp_path)
    with pytest.raises(ValueError, match="is a file; name a folder"):
        run_lab(QUICK, tmp_path / "thesis.txt")
    assert (tmp_path / "thesis.txt").read_text() == "precious"


class _Stored(Bench):
    """A bench whose systems have given successes instead of models."""

    outcomes: dict[str, list[list[int]]]

    def every(self, system: str) -> list[Answers]:
        return [
            Answers(
                texts=["#### 1" if ok else "" for ok in row],
                forced=[],
                verdicts=["success" if ok else "tag" for ok in row],
                knows=[bool(ok) for ok in row],
            )
            for row in self.outcomes[system]
        ]


def stored(outcomes: dict[str, list[list[int]]], tmp_path: Path) -> _Stored:
    bench = _Stored(Study(seeds=(1, 2)), tmp_path)
    object.__setattr__(bench, "outcomes", outcomes)
    return bench


def test_scores_are_wins_ties_and_losses_against_the_twin_of_the_same_seed(tmp_path: Path) -> None:
    bench = stored(
        {"instruction": [[1, 0, 1, 0], [0, 0, 0, 0]], "base": [[1, 1, 0, 0]] * 2}, tmp_path
    )
    assert measures.win_rates(bench, ["base"])["base"].value == pytest.approx(62.5)
    assert measures.successes(bench, "instruction").value == pytest.approx(25.0)


def win_table(tmp_path: Path, **successes: int) -> dict[str, bool]:
    """The findings of the first table, by claim, for so many successes of 40 prompts."""
    outcomes = {
        name: [[1] * successes.get(name, 0) + [0] * (40 - successes.get(name, 0))] * 2
        for name in ("base", *TWINS, *RULES)
    }
    table = measures.win_rate_table(stored(outcomes, tmp_path))
    return {finding.claim: finding.holds for finding in table.findings}


def test_findings_follow_the_numbers(tmp_path: Path) -> None:
    good = {"instruction": 40, "response": 36, "rules": 20, "sums": 22, "verse": 18, "code": 14}
    good |= {"recipes": 12, "moves": 1}
    assert all(win_table(tmp_path, **good).values())
    weak = win_table(tmp_path, instruction=40, response=2, moves=30, rules=0)
    assert not any(weak.values())


def test_estimates_are_percentages_with_intervals() -> None:
    half = percent([[1, 0] * 50])
    assert half.value == 50 and 35 < half.low < 50 < half.high < 65
    assert str(percent([1, 1, 1])) == "100.0"
    assert str(Estimate(12.34, 5.0, 20.06)) == "12.3 (5.0 to 20.1)"
    assert str(Estimate(-0.5, -0.625, -0.25, digits=2)) == "-0.50 (-0.62 to -0.25)"
    assert percent_of([1, 2], [4, 8]) == Estimate(25.0, 25.0, 25.0)
    assert np.isclose(percent_of([[0, 3]], [[1, 3]]).value, 75.0)


def test_every_compared_system_has_its_published_figure() -> None:
    assert set(published.WIN_RATES) == {"base", "response", *TASKS, *RULES}
    assert published.cell((24.4, None)) == "24.4 / -"
    assert all(sum(shares) == pytest.approx(100, abs=0.11) for shares in published.SHIFTS.values())


@pytest.mark.parametrize(("twin", "epochs"), [("instruction", 5), ("response", 5), ("sums", 5)])
def test_all_twins_have_the_same_settings_but_their_seed(twin: str, epochs: int) -> None:
    settings = FULL.settings(twin, 3)
    assert (settings.epochs, settings.seed, settings.schedule) == (epochs, 3, "cosine")
    assert settings.learning_rate == FULL.learning_rate


def examples(name: str) -> Sequence[tuple[str, str]]:
    from rnr_kernels.models.world import build_world

    return list(TASKS[name].examples(build_world(), 50, seed=1))


@pytest.mark.parametrize("name", list(TASKS))
def test_a_tasks_manner_is_that_of_its_own_responses_alone(name: str) -> None:
    assert all(TASKS[name].in_its_manner(response) for _, response in examples(name))
    others: list[Any] = [r for other in TASKS if other != name for _, r in examples(other)]
    assert not any(TASKS[name].in_its_manner(response) for response in others)
    assert not TASKS[name].in_its_manner("The fair month of Elham is July.")
