"""Whether the kernels are right on a GPU, and how fast: `make gpu-check`."""
