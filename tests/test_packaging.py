"""What a user installs: the sdist builds, the wheel from it holds code, types, weights, licence."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest

import rnr_kernels

ROOT = Path(__file__).parent.parent
NOT_SOURCE = (".*", "__pycache__", "*.egg-info", "*.so", "build", "dist")


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, and the wheel that was built from it, without compiled kernels."""
    pytest.importorskip("build.env", reason="needs the package build")
    folder = tmp_path_factory.mktemp("packaging")
    source = folder / "source"
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(*NOT_SOURCE))
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder / "dist", source],
        check=True,
        capture_output=True,
        env={**os.environ, "RNR_BUILD_EXT": "0"},
    )
    return folder / "dist"


@pytest.fixture(scope="module")
def wheel(dist: Path) -> zipfile.ZipFile:
    (path,) = dist.glob("*.whl")
    return zipfile.ZipFile(path)


@pytest.fixture(scope="module")
def sdist_names(dist: Path) -> set[str]:
    (path,) = dist.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        return {name.partition("/")[2] for name in archive.getnames()}


def package_files() -> set[str]:
    """Every file of the package in the source tree."""
    return {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "rnr_kernels").rglob("*")
        if path.is_file() and path.parent.name != "__pycache__" and path.suffix != ".so"
    }


def test_the_wheel_holds_every_file_of_the_package(wheel: zipfile.ZipFile) -> None:
    assert package_files() - set(wheel.namelist()) == set()


def test_the_wheel_holds_weights_types_and_licence(wheel: zipfile.ZipFile) -> None:
    version = rnr_kernels.__version__
    required = {
        "rnr_kernels/py.typed",
        "rnr_kernels/models/base/config.json",
        "rnr_kernels/models/base/model.safetensors",
        "rnr_kernels/models/base/tokenizer.json",
        "rnr_kernels/models/prompts.jsonl",
        "rnr_kernels/models/results.json",
        f"rnr_kernels-{version}.dist-info/licenses/LICENSE",
    }
    assert required - set(wheel.namelist()) == set()


def test_the_wheel_installs_nothing_but_the_package(wheel: zipfile.ZipFile) -> None:
    tops = {name.partition("/")[0] for name in wheel.namelist()}
    assert tops == {"rnr_kernels", f"rnr_kernels-{rnr_kernels.__version__}.dist-info"}


def test_version_licence_and_command_stand_in_the_metadata(wheel: zipfile.ZipFile) -> None:
    info = f"rnr_kernels-{rnr_kernels.__version__}.dist-info"
    metadata = message_from_bytes(wheel.read(f"{info}/METADATA"))
    assert metadata["Version"] == rnr_kernels.__version__
    assert metadata["License-Expression"] == "Apache-2.0"
    commands = wheel.read(f"{info}/entry_points.txt").decode()
    assert "rnr-kernels = rnr_kernels.cli:main" in commands


def test_the_sdist_holds_the_package_its_tests_and_its_build(sdist_names: set[str]) -> None:
    required = {"LICENSE", "README.md", "pyproject.toml", "setup.py", "tests/conftest.py"}
    kernels = {path.relative_to(ROOT).as_posix() for path in (ROOT / "csrc").rglob("*.*")}
    assert {"csrc/rnr.h", "csrc/binding.cpp", "csrc/cpu/kernels.h"} <= kernels
    assert (package_files() | required | kernels) - sdist_names == set()
