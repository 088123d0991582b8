"""What compile_rules costs: python benchmarks/compile_rules.py --tokenizer NAME_OR_FOLDER"""

import argparse
import statistics
import warnings
from time import perf_counter

from rnr_kernels import compile_rules, hewitt2024
from rnr_kernels.loading import EMBEDDED, load_tokenizer


def main() -> None:
    """Prints the first call and the median of the rest, in milliseconds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokenizer", default=EMBEDDED)
    parser.add_argument("--runs", type=int, default=30)
    arguments = parser.parse_args()
    tokenizer = load_tokenizer(arguments.tokenizer)
    warnings.simplefilter("ignore")  # forms that the tokenizer lacks
    times = []
    for _ in range(arguments.runs + 1):
        start = perf_counter()
        compile_rules([hewitt2024()], tokenizer, eos_token_ids=[0])
        times.append(1e3 * (perf_counter() - start))
    low, *_, high = statistics.quantiles(times[1:], n=5)
    print(
        f"{len(tokenizer):,} tokens: first {times[0]:.1f} ms, then median "
        f"{statistics.median(times[1:]):.1f} ms (20 % {low:.1f}, 80 % {high:.1f})"
    )


if __name__ == "__main__":
    main()
