"""Results files: records of one machine and one commit, without any host's name."""

import json
import os
import platform
import re
import subprocess
from collections.abc import Mapping
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from rnr_kernels import backends
from rnr_kernels.backends import native

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results"

Record = dict[str, Any]


def header() -> dict[str, Any]:
    """What the figures of this process hold for."""
    return {
        "processor": processor(),
        "served_by": _served_by(),
        "instruction_set": (native.instruction_sets() or ["none: the reference serves"])[0],
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": installed("transformers"),
        **revision(),
    }


def revision() -> dict[str, Any]:
    """The commit, whether the sources differ from it, and the date."""
    status = _git("status", "--porcelain", "--", ".", ":!README.md", ":!benchmarks/results")
    return {
        "commit": _git("rev-parse", "HEAD") or "unknown",
        "dirty": status is None or status != "",
        "date": date.today().isoformat(),
    }


def _served_by() -> str:
    """The module that holds our side's functions."""
    return backends.find("sample_", torch.device("cpu"), torch.float32, 128_256).__module__


def processor() -> str:
    """The processor's name, with family and model where its maker sells several under one."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    found: dict[str, str] = dict(
        re.findall(r"^(model name|cpu family|model)\s*:\s*(.+)$", text, re.MULTILINE)
    )
    name = found.get("model name", platform.machine())
    if {"cpu family", "model"} <= found.keys():
        name += f" (family {found['cpu family']}, model {found['model']})"
    return name


def machine(about: Mapping[str, Any]) -> str:
    """The name of a machine's results file."""
    words = f"{about['processor']} {about['cores']} cores {about['instruction_set'].split(':')[0]}"
    return slug(words)


def slug(words: str) -> str:
    """A file's name from words."""
    return re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-")


def write(records: Mapping[str, Record], folder: Path = RESULTS) -> Path:
    """Writes records under this machine's name, beside those that it has of the same commit."""
    about = header()
    path = folder / f"{machine(about)}.json"
    kept: dict[str, Record] = {}
    if path.exists():
        stored = json.loads(path.read_text())
        if stored["header"] | {"date": about["date"]} == about:
            kept = stored["records"]
    return save(path, about, kept | dict(records))


def save(path: Path, about: Mapping[str, Any], records: Mapping[str, Record], **more: Any) -> Path:
    """A results file, its folder too; `more` are sections beside header and records."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"header": about, **more, "records": records}, indent=1) + "\n")
    return path


def read(folder: Path = RESULTS) -> list[dict[str, Any]]:
    """Every machine's results, by file name."""
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]


def installed(package: str) -> str:
    """A package's version, or that there is none."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _git(*arguments: str) -> str | None:
    """None where there is no git, or no repository."""
    try:
        run = subprocess.run(
            ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return run.stdout.strip()
