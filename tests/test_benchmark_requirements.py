"""The benchmark of requirement checks: what it times, and what its table says."""

import json
import sys
from pathlib import Path

import pytest

from benchmarks import requirements
from benchmarks.requirements import LANGUAGE, report, seconds_by_kind


def test_every_response_is_checked_against_its_requirements() -> None:
    seconds = seconds_by_kind(["One.", "Two, three."] * 3, loose=True)
    assert sum(map(len, seconds.values())) == 6 * requirements.NUM_REQUIREMENTS


def test_the_table_leaves_languages_out_of_the_total(capsys: pytest.CaptureFixture[str]) -> None:
    report({"a:fast": [1e-6] * 3, "a:slow": [9.0, 1.0], LANGUAGE: [30.0]}, "strict")
    first, slow, fast, language = capsys.readouterr().out.splitlines()
    assert first == "strict: 10.00 s for 5 checks, 2000000.6 us a check; required 20 s: reached"
    assert slow.split() == ["a:slow", "5000000.0", "us,", "longest", "9,000,000"]
    assert fast.split()[0] == "a:fast" and language.endswith("30000000.0 us, not in the total")
    report({"a:slow": [21.0]}, "loose")
    assert "required 20 s: MISSED" in capsys.readouterr().out


def test_responses_are_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    record = {"instruction": "Say it.", "output": "It is so.", "generator": "x"}
    (tmp_path / "responses.json").write_text(json.dumps([record, record]))
    monkeypatch.setattr(requirements, "NUM_RESPONSES", 5)
    monkeypatch.setattr(sys, "argv", ["requirements", str(tmp_path / "responses.json")])
    requirements.main()
    out = capsys.readouterr().out
    assert out.startswith("5 responses (2 different, 9 characters on average) x 5 requirements")
    assert "\nstrict: " in out and "\nloose: " in out
