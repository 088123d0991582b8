"""Which backends the tests on this machine's CPU run on."""

import os

from rnr_kernels.backends import BACKENDS, TRITON

ON_CPU = [
    backend for backend in BACKENDS if backend is not TRITON or os.environ.get("TRITON_INTERPRET")
]
"""All that serve CPUs; in processes of their own (see `make test-gpu-static`) Triton's, where its
interpreter runs, and the GPU's C++ kernels, where the plugin `emulated` is loaded."""
