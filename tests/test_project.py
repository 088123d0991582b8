"""How the project is laid out: imports go down only, files stay small, the root stays light."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "rnr_kernels"

# Lowest first. A module imports its own part and the levels below, never a neighbour.
LEVELS: tuple[tuple[str, ...], ...] = (
    ("durable", "layout", "prompt_files"),
    ("reference",),
    ("sampling",),
    ("rules",),
    ("state",),
    ("backends",),
    ("automata", "registration"),
    ("checks",),
    ("ops",),
    ("explain", "forward", "templates", "warm_up"),
    ("generation", "intervals", "teacher_forcing"),
    ("endpoint", "loading", "records"),
    ("identity",),
    ("analysis", "integrations", "models", "roles", "testing", "tuning"),
    ("__init__",),
    ("lab",),
    ("cli",),
)
LEVEL_OF = {part: level for level, parts in enumerate(LEVELS) for part in parts}

MAX_LINES = 450
SOURCE_SUFFIXES = {".cpp", ".css", ".cu", ".cuh", ".h", ".html", ".js", ".py"}

READS_ENVIRONMENT = {PACKAGE / "backends" / "__init__.py"}
ENVIRONMENT = {
    "RNR_BACKEND",
    "RNR_BUILD_EXT",
    "RNR_CUDA",
    "RNR_REQUIRE_BACKENDS",
    "RNR_TEST_DATA",
}


def modules(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def sources() -> list[Path]:
    folders = (ROOT / name for name in ("benchmarks", "csrc", "rnr_kernels", "tests"))
    return [p for folder in folders for p in folder.rglob("*") if p.suffix in SOURCE_SUFFIXES]


def part_of(path: Path) -> str:
    """The module or package right under rnr_kernels that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_modules(source: str) -> Iterator[str]:
    """Every import anywhere in a module, as dotted names; `from x import y` gives x.y."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            # A relative import would pass unseen: it comes out as a name that no level holds.
            base = node.module or "" if node.level == 0 else "rnr_kernels.<relative>"
            yield from (f"{base}.{alias.name}" for alias in node.names)


def wrong_arrows(part: str, source: str) -> list[str]:
    """The imports of a module in `part` that do not go down."""
    wrong = []
    for name in imported_modules(source):
        package, *rest = name.split(".")
        if package != "rnr_kernels":
            continue
        names_a_part = rest and (rest[0] in LEVEL_OF or len(rest) > 1)
        target = rest[0] if names_a_part else "__init__"
        if target != part and LEVEL_OF.get(target, len(LEVELS)) >= LEVEL_OF[part]:
            wrong.append(f"{part} -> {target}")
    return wrong


@pytest.mark.parametrize(
    ("part", "source", "expected"),
    [
        ("ops", "from rnr_kernels.rules.program import RuleProgram", []),
        ("rules", "from rnr_kernels.rules.kinds import RuleSet", []),
        ("rules", "from rnr_kernels import ops", ["rules -> ops"]),
        ("rules", "import rnr_kernels.ops", ["rules -> ops"]),
        ("ops", "def f():\n    from rnr_kernels import sample_", ["ops -> __init__"]),
        ("roles", "from rnr_kernels.analysis.report import x", ["roles -> analysis"]),
        ("state", "from . import layout", ["state -> <relative>"]),
        ("cli", "from rnr_kernels import __version__", []),
        ("layout", "import rnr_kernels_other, torch", []),
    ],
)
def test_the_import_reader_tells_down_from_up(part: str, source: str, expected: list[str]) -> None:
    assert wrong_arrows(part, source) == expected


def test_every_part_of_the_package_has_a_level() -> None:
    assert {part_of(path) for path in modules("rnr_kernels")} - LEVEL_OF.keys() == set()


def test_imports_go_down_only() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}: {arrow}"
        for path in modules("rnr_kernels")
        for arrow in wrong_arrows(part_of(path), path.read_text(encoding="utf-8"))
    ]
    assert wrong == []


@pytest.mark.parametrize("part", ["layout", "reference", "sampling"])
def test_the_semantics_need_only_torch(part: str) -> None:
    files = [path for path in modules("rnr_kernels") if part_of(path) == part]
    names = {n for path in files for n in imported_modules(path.read_text(encoding="utf-8"))}
    packages = {name.partition(".")[0] for name in names} - sys.stdlib_module_names
    assert packages <= {"rnr_kernels", "torch"}


def test_importing_the_package_loads_nothing_that_torch_has_not_loaded() -> None:
    code = (
        "import sys, torch; before = set(sys.modules); import rnr_kernels; "
        "print(*{name.partition('.')[0] for name in set(sys.modules) - before})"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert set(run.stdout.split()) - sys.stdlib_module_names == {"rnr_kernels"}


def test_sources_stay_small() -> None:
    lines = {p: len(p.read_text(encoding="utf-8").splitlines()) for p in sources()}
    assert {str(p.relative_to(ROOT)): n for p, n in lines.items() if n > MAX_LINES} == {}


def test_no_file_is_a_drawer_for_odds_and_ends() -> None:
    drawers = {"common", "helpers", "misc", "util", "utils"}
    assert [str(path.relative_to(ROOT)) for path in sources() if path.stem in drawers] == []


def test_the_environment_is_read_in_one_module() -> None:
    words = ("environ", "getenv")
    readers = {
        path
        for path in sources()
        if path.is_relative_to(PACKAGE) or path.is_relative_to(ROOT / "csrc")
        if any(word in path.read_text(encoding="utf-8") for word in words)
    }
    assert readers - READS_ENVIRONMENT == set()


def test_no_environment_variable_beyond_the_documented_ones() -> None:
    names: set[str] = set()
    for path in [*modules("rnr_kernels", "tests", "benchmarks"), ROOT / "setup.py"]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call | ast.Subscript) and "env" in ast.unparse(node):
                constants = (n.value for n in ast.walk(node) if isinstance(n, ast.Constant))
                names |= {str(value) for value in constants if str(value).startswith("RNR_")}
    assert names - ENVIRONMENT == set()
