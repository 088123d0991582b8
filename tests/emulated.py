"""The GPU's C++ kernels on an emulated GPU, as a backend for tests: a plugin, `pytest -p emulated`.

`make test-gpu-static` builds its library.
"""

from pathlib import Path

import cpu_backends
import torch

from rnr_kernels import backends
from rnr_kernels.backends import REFERENCE, Backend, native

LIBRARY = Path(__file__).parents[1] / "build" / "emulated" / "rnr_emulated.so"

CLUSTERS = (1, 2, 4, 8)
"""Blocks that may share a row."""

torch.ops.load_library(LIBRARY)


def functions(variant: int = 0) -> dict[str, object]:
    """With `variant` blocks a row where that may be chosen. What a GPU has not is the reference's,
    so that whole cases run."""
    ops = native.functions(variant, native.Library("rnr_emulated"))
    return REFERENCE.functions | {op: run for op, run in ops.items() if "linear" not in op}


EMULATED = Backend("emulated", functions(), lambda *call: None)

backends.BACKENDS = (*backends.BACKENDS, EMULATED)
cpu_backends.ON_CPU.append(EMULATED)
