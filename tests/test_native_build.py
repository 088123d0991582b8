"""How the compiled kernels are built, what the library needs, and what happens without it.

Most tests hand setup.py a compiler that only notes how it was called.
"""

import os
import platform
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

from rnr_kernels import layout
from rnr_kernels.backends import native

ROOT = Path(__file__).parent.parent
NOT_SOURCE = (".*", "__pycache__", "*.egg-info", "*.so", "benchmarks", "build", "dist", "tests")

COMPILER = """#!/bin/sh
echo "$@" >> "$(dirname "$0")/calls"
while [ $# -gt 0 ]; do
  case $1 in
    -o) out=$2 ;;
    -MF) dependencies=$2 ;;
    -c) source=$2 ;;
  esac
  shift
done
echo compiled > "$out"
[ -z "$dependencies" ] || echo "$out: $source csrc/rnr.h" > "$dependencies"
"""

needs_ninja = pytest.mark.skipif(
    shutil.which("ninja") is None and not Path(sys.executable).with_name("ninja").exists(),
    reason="needs ninja",
)
needs_library = pytest.mark.skipif(
    native.unavailable() is not None, reason=native.unavailable() or ""
)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A copy of what the package is built from, beside a compiler that does nothing."""
    copy = tmp_path / "source"
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(*NOT_SOURCE))
    compiler = tmp_path / "compiler"
    compiler.write_text(COMPILER)
    compiler.chmod(0o755)
    return copy


def build(source: Path, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs setup.py with the compiler that does nothing, unless CXX is given."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("RNR_", "CXX", "LDF"))}
    return subprocess.run(
        [sys.executable, "-W", "ignore", "setup.py", "--quiet", *(command or ("build_ext", "-i"))],
        cwd=source,
        env={**inherited, "CXX": str(source.parent / "compiler"), **environment},
        capture_output=True,
        text=True,
    )


def calls(source: Path) -> list[str]:
    """The compiler's arguments, call by call, since they were last asked for."""
    log = source.parent / "calls"
    found = log.read_text().splitlines() if log.exists() else []
    log.unlink(missing_ok=True)
    return found


def wheel(source: Path) -> Path:
    (path,) = (source / "dist").glob("*.whl")
    return path


# Compiling


@needs_ninja
def test_the_wheel_serves_any_python_on_this_platform(source: Path) -> None:
    built = build(source, "bdist_wheel")
    assert built.returncode == 0, built.stderr
    assert re.fullmatch(r"rnr_kernels-[\d.]+-cp311-abi3-\w+\.whl", wheel(source).name)
    names = zipfile.ZipFile(wheel(source)).namelist()
    assert [name for name in names if name.endswith(".so")] == ["rnr_kernels/_C.abi3.so"]


@needs_ninja
def test_each_instruction_set_has_its_own_flags(source: Path) -> None:
    assert build(source, CXXFLAGS="-O1 -g", LDFLAGS="-fsanitize=address").returncode == 0
    *compiled, linked = calls(source)
    plainest = "neon" if platform.machine() in ("aarch64", "arm64") else "portable"
    by_set = {
        name: [call for call in compiled if f"-DRNR_ISA={name} " in call]
        for name in (plainest, "avx2", "avx512")
    }
    assert len({len(found) for found in by_set.values() if found}) == 1 <= len(by_set[plainest])
    assert not any("-mavx" in call for call in by_set[plainest])
    assert all("-mavx2 -mfma" in call and "avx512" not in call[:999].split("RNR_ISA")[0]
               for call in by_set["avx2"])  # fmt: skip
    assert all("-mavx2" in call and "-mavx512bw" in call for call in by_set["avx512"])
    for call in compiled:
        knows_torch = "csrc/binding" in call
        assert ("TORCH_TARGET_VERSION=0x020b000000000000ULL" in call) == knows_torch
        assert "-ffp-contract=off" in call and "-O1 -g" in call and "-fsanitize" not in call
    assert linked.startswith("-std=") and " -shared " in linked and "-fsanitize=address" in linked
    assert linked.index(f"{plainest}/sample.o") == min(
        linked.index(f"{name}/sample.o") for name, found in by_set.items() if found
    )


@needs_ninja
def test_only_what_has_changed_is_compiled_again(source: Path) -> None:
    assert build(source).returncode == 0
    first = calls(source)
    assert (source / "rnr_kernels" / "_C.abi3.so").read_text() == "compiled\n"
    assert build(source).returncode == 0
    assert calls(source) == []

    newer = max(path.stat().st_mtime for path in source.rglob("*")) + 10
    os.utime(source / "csrc" / "cpu" / "sample.cpp", (newer, newer))
    assert build(source).returncode == 0
    again = calls(source)
    assert len(again) == sum("csrc/cpu/sample.cpp" in call for call in first) + 1
    assert all("csrc/cpu/sample.cpp" in call for call in again[:-1])

    os.utime(source / "csrc" / "rnr.h", (newer, newer))
    assert build(source).returncode == 0
    assert len(calls(source)) == len(first)


@needs_ninja
def test_an_error_of_the_compiler_is_an_error(source: Path) -> None:
    (source.parent / "compiler").write_text("#!/bin/sh\nexit 1\n")
    failed = build(source)
    assert failed.returncode != 0
    assert "the kernels do not compile; RNR_BUILD_EXT=0 installs" in failed.stderr


@needs_ninja
def test_without_a_compiler_one_line_says_so(source: Path) -> None:
    skipped = build(source, CXX="/nowhere/c++")
    assert skipped.returncode == 0
    assert skipped.stdout == (
        "rnr_kernels: without compiled kernels, the reference will serve: "
        "there is no C++ compiler (g++ or clang++, or what CXX names)\n"
    )
    assert not list(source.rglob("*.so"))
    required = build(source, CXX="/nowhere/c++", RNR_BUILD_EXT="1")
    assert required.returncode != 0
    assert "RNR_BUILD_EXT=1, but there is no C++ compiler" in required.stderr


def test_only_the_binding_includes_torch() -> None:
    files = [path for path in (ROOT / "csrc").rglob("*") if path.suffix in {".cpp", ".h"}]
    know_torch = {path.name for path in files if "<torch/" in path.read_text(encoding="utf-8")}
    assert know_torch == {"binding.h"}
    includes = re.findall(r"<torch/.*>", (ROOT / "csrc" / "binding.h").read_text(encoding="utf-8"))
    assert includes and all(name.startswith("<torch/csrc/stable/") for name in includes)


# The library


@needs_library
def test_the_library_needs_nothing_of_torch_but_its_stable_interface() -> None:
    nm = shutil.which("nm")
    if nm is None:
        pytest.skip("needs nm")
    (library,) = (ROOT / "rnr_kernels").glob("_C*.so")
    assert library.name.endswith(".abi3.so")
    run = subprocess.run(
        [nm, "-D", "--undefined-only", library], capture_output=True, text=True, check=True
    )
    # Symbols of the C and C++ libraries carry versions.
    needed = {line.split()[-1] for line in run.stdout.splitlines() if line.split()[0] == "U"}
    unversioned = {name for name in needed if "@" not in name}
    assert {name for name in unversioned if not re.match(r"(aoti_)?torch_", name)} == set()
    assert "torch_parallel_for" in unversioned


@needs_library
def test_both_sides_of_the_binding_state_the_same_constants() -> None:
    assert torch.ops.rnr_C.constants() == list(layout.SHARED_CONSTANTS)
    assert (layout.TILE, layout.FLAG_BLOCK, layout.ERROR_TOKEN) == (4096, 128, 4)


@needs_library
def test_the_last_instruction_set_runs_everywhere() -> None:
    names = native.instruction_sets()
    assert names[-1] in ("portable", "neon")
    assert names[:-1] == [name for name in ("avx512", "avx2") if name in names]


@needs_library
def test_the_library_is_loaded_on_first_use() -> None:
    code = (
        "import torch, rnr_kernels; print(len(torch.ops.loaded_libraries)); "
        "rnr_kernels.token_stats(torch.zeros(1, 3), torch.tensor([0])); "
        "print(*torch.ops.loaded_libraries)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    before, after = run.stdout.splitlines()
    assert before == "0"
    assert after.endswith(".abi3.so")


# Without it


def test_without_kernels_the_wheel_is_pure_and_the_reference_serves(source: Path) -> None:
    built = build(source, "bdist_wheel", RNR_BUILD_EXT="0")
    assert built.returncode == 0, built.stderr
    assert built.stdout.startswith("rnr_kernels: without compiled kernels, the reference will")
    assert wheel(source).name.endswith("-py3-none-any.whl")
    installed = source.parent / "installed"
    zipfile.ZipFile(wheel(source)).extractall(installed)
    code = (
        "import torch; from rnr_kernels import token_stats; "
        "ask = lambda n: token_stats(torch.arange(n)[None].float(), torch.tensor([1])).rank; "
        "print(ask(3), ask(4), ask(4))"
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("RNR_", "PYTHON"))}
    for choice, warned in (("", 1), ("reference", 0)):
        run = subprocess.run(
            [sys.executable, "-c", code],
            cwd=installed,
            env={**environment, "RNR_BACKEND": choice},
            capture_output=True,
            text=True,
            check=True,
        )
        assert run.stdout == (
            "tensor([2], dtype=torch.int32) tensor([3], dtype=torch.int32) "
            "tensor([3], dtype=torch.int32)\n"
        )
        message = "rnr_kernels runs on its slow reference, because the compiled kernels are missing"
        assert run.stderr.count(message) == warned
        assert run.stderr.count("Warning") == warned
