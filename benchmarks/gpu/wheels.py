"""Peers of other packages from the wheels that `make gpu-peers` has fetched, where no network is.

`python -m benchmarks.gpu.wheels FOLDER` compiles FlashInfer's samplers, installed in that folder.
"""

import argparse
import os
import sys
from pathlib import Path

from benchmarks.gpu import cases as gpu
from benchmarks.gpu import toolkit
from benchmarks.gpu.subprocesses import Started, finish, last_line, run, start
from benchmarks.results import ROOT

FETCHED = ROOT / ".gpu-peers"
INSTALL_SECONDS = 90.0
OF_FLASHINFER = (gpu.FLASHINFER, gpu.FLASHINFER_FILTERED)


def install(target: Path) -> str | None:
    """Installs all wheels into a folder behind everything else on the path; the reason if not."""
    wheels = sorted(str(path) for path in FETCHED.glob("*.whl"))
    if not wheels:
        return f"there are no wheels in {FETCHED.name}; make gpu-peers fetches them"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"]
    command += ["--no-compile", "--disable-pip-version-check", "--target", str(target)]
    reason = None
    if run([*command, *wheels], INSTALL_SECONDS).status != 0:
        # One that does not fit this Python must not keep the others out.
        for wheel in wheels:
            found = run([*command, wheel], INSTALL_SECONDS)
            if found.status != 0:
                reason = f"{Path(wheel).name}: {last_line(found.output)}"
    use(target)
    return reason


def use(target: Path) -> None:
    """Puts a folder at the end of the path, and what FlashInfer compiles into it."""
    sys.path.append(str(target))
    os.environ.setdefault("FLASHINFER_WORKSPACE_BASE", str(target))
    toolkit.show_compilers(target / "lib")


def start_compiling(target: Path) -> Started:
    """FlashInfer's samplers, in the background."""
    return start([sys.executable, "-m", "benchmarks.gpu.wheels", str(target)])


def missing_peers(compiling: Started | None, seconds: float) -> dict[str, str]:
    """Waits for FlashInfer at the most so long; why its samplers cannot be measured."""
    if compiling is None:
        return {}
    found = finish(compiling, seconds)
    if found.status == 0:
        return {}
    reason = last_line(found.output)
    if found.status is None:
        reason = f"it was still compiling after {seconds:.0f} s more"
    return dict.fromkeys(OF_FLASHINFER, reason[:200])


def main() -> None:
    """Compiles."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", type=Path)
    use(parser.parse_args().target)
    from flashinfer.sampling import get_sampling_module

    get_sampling_module()
    print("FlashInfer's samplers are compiled")


if __name__ == "__main__":
    main()
