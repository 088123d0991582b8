"""What `import rnr_kernels` adds to `import torch`: python benchmarks/import_time.py"""

import argparse
import statistics
import subprocess
import sys

CODE = """
from time import perf_counter
start = perf_counter()
import torch
between = perf_counter()
import rnr_kernels
print(between - start, perf_counter() - between)
"""


def measure(runs: int) -> list[tuple[float, float]]:
    """Milliseconds for torch and for rnr_kernels in fresh interpreters, after one warm-up."""
    times = []
    for _ in range(runs + 1):
        # -E: with bytecode cached, as in ordinary use, whatever the environment says.
        output = subprocess.check_output([sys.executable, "-E", "-c", CODE], text=True)
        torch_s, package_s = map(float, output.split())
        times.append((1e3 * torch_s, 1e3 * package_s))
    return times[1:]


def main() -> None:
    """Prints median and 20th and 80th percentile."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=15)
    times = measure(parser.parse_args().runs)
    for name, column in zip(("torch", "rnr_kernels"), zip(*times, strict=True), strict=True):
        low, *_, high = statistics.quantiles(column, n=5)
        median = statistics.median(column)
        print(f"{name:12} {median:7.1f} ms  (20 % {low:.1f}, 80 % {high:.1f})")


if __name__ == "__main__":
    main()
