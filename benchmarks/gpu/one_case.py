"""One shared case on one backend, in a process of its own: python -m benchmarks.gpu.one_case

For compute-sanitizer, under which a whole run would take hours, and to fill Triton's cache with
several processes at a time.
"""

import argparse

import torch

from benchmarks.gpu import serving
from rnr_kernels import backends, testing
from rnr_kernels.testing import CASES


def main() -> None:
    """Runs every op once; the results are looked at elsewhere."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", required=True)
    parser.add_argument("--case", choices=[str(case) for case in CASES], required=True)
    parser.add_argument("--device", default="cuda")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    case = next(case for case in CASES if str(case) == arguments.case)
    with serving.preferring(backends.named(arguments.backend)):
        testing.run(case.build(device))
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    print(f"{arguments.backend} ran {case}")


if __name__ == "__main__":
    main()
