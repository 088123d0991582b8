"""What `rnr_kernels.roles` offers, and what the README says of it."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from role_builds import built_by_templates

from rnr_kernels import roles

ROOT = Path(__file__).parents[1]


def test_public_names_are_there_and_load_no_heavy_package() -> None:
    code = (
        "import sys, torch, numpy.random; before = set(sys.modules)\n"
        "import rnr_kernels.roles.pass_rate\n"
        "from rnr_kernels.roles import Requirement, build_dataset, pass_rate\n"
        "assert callable(build_dataset) and callable(pass_rate)\n"
        "print(*{name.partition('.')[0] for name in set(sys.modules) - before})"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert set(run.stdout.split()) - sys.stdlib_module_names == {"numpy", "rnr_kernels"}
    assert [name for name in roles.__all__ if not hasattr(roles, name)] == []


def test_the_readmes_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    section = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Roles and rules\n")[2]
    code = section.partition("```python\n")[2].partition("```")[0]
    built_by_templates(tmp_path)
    (tmp_path / "out").rename(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(code, names)
    assert "5 words" in names["text"]
    assert not names["verdict"] and names["verdict"].reason == "6 words, not less than 5"
    assert names["loose"] and len(names["others"]) == len(names["reasons"]) == 4
    assert names["found"].strict.value == 1.0
