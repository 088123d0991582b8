"""CUDA's toolkit: its programs, and what other packages' compilers need to find of it.

A machine may have a part of it in the toolkit's folder and the rest in packages beside torch.
"""

import os
import re
import shutil
import sysconfig
from importlib.util import find_spec
from pathlib import Path

import torch

LIBRARIES = ("libcudart.so", "libcuda.so")


def program(name: str) -> str | None:
    """A program of the toolkit, on the PATH or beside the compiler that torch finds."""
    from torch.utils.cpp_extension import CUDA_HOME

    folders = [os.environ.get("PATH", os.defpath)]
    if CUDA_HOME:
        folders.append(str(Path(CUDA_HOME) / "bin"))
    return shutil.which(name, path=os.pathsep.join(folders))


def show_compilers(folder: Path) -> None:
    """Puts ninja, headers and libraries into the environment, behind what is there already.

    `folder` takes links to the libraries that torch has loaded: where a toolkit has none to link
    with, the linker finds those.
    """
    from torch.utils.cpp_extension import CUDA_HOME

    if CUDA_HOME:
        os.environ.setdefault("CUDA_HOME", CUDA_HOME)
    _append("PATH", sysconfig.get_path("scripts"))  # ninja stands beside Python's other commands
    spec = find_spec("nvidia")
    places = [Path(place) for place in (spec and spec.submodule_search_locations) or ()]
    for place in places:
        for header in sorted(place.glob("*/include/curand.h")):
            _append("CPLUS_INCLUDE_PATH", str(header.parent))
    torch.cuda.is_available()  # loads the driver
    maps = Path("/proc/self/maps")
    if maps.exists():
        folder.mkdir(parents=True, exist_ok=True)
        for name, path in loaded_libraries(maps.read_text()).items():
            if not (folder / name).exists():
                (folder / name).symlink_to(path)
        _append("LIBRARY_PATH", str(folder))


def loaded_libraries(maps: str) -> dict[str, str]:
    """By the names that a linker looks for: where /proc/self/maps has CUDA's libraries."""
    found = {
        name: re.search(rf"(/\S*/{re.escape(name)}[.0-9]*)$", maps, re.M) for name in LIBRARIES
    }
    return {name: match[1] for name, match in found.items() if match}


def _append(variable: str, path: str) -> None:
    known = os.environ.get(variable, "")
    if path not in known.split(os.pathsep):
        os.environ[variable] = os.pathsep.join(filter(None, [known, path]))
