"""Which backend is the fastest, by device, op, dtype and vocabulary size, for the package's table:
python -m benchmarks.selection [--device cuda] [--merge RESULTS.json]

Times are geometric means over a small and a large batch, since the number of rows may not decide.
"""

import argparse
import json
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu import serving
from benchmarks.gpu.timing import Watch, watch_for
from benchmarks.inputs import Sequences, make_logits
from benchmarks.results import revision
from benchmarks.timing import settle_process
from benchmarks.workloads import Call
from rnr_kernels import (
    Sampling,
    apply_rules_,
    linear_shift_stats,
    linear_token_stats,
    rule_log_softmax,
    sample_,
    shift_stats,
    token_stats,
)
from rnr_kernels.backends import REFERENCE, figures

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
VOCAB_SIZES = (32_000, 128_256)
ROWS = {"cpu": (1, 8), "cuda": (1, 64)}
WIDTH = 256
"""Of hidden states: the product is the same library's on every backend."""
REPEATS = 15

Figures = dict[str, dict[str, dict[str, dict[str, float]]]]


def calls(logits: Tensor) -> Iterator[tuple[str, Call]]:
    """Every op that has a choice of backends, on the same rows."""
    rows = Sequences.start(logits, Sampling(temperature=0.8, top_k=50, top_p=0.9, seed=1))
    mine, base = logits.clone(), (logits.float() + 0.1).to(logits.dtype)
    targets = logits.argmax(1)
    vocab_size = logits.shape[1]
    hidden = torch.ones(len(logits), WIDTH, dtype=logits.dtype, device=logits.device)
    weight = torch.ones(vocab_size, WIDTH, dtype=logits.dtype, device=logits.device)

    def draw() -> None:
        rows.rewind()
        sample_(logits, rows.program, rows.state)

    yield "apply_rules_", lambda: apply_rules_(mine, rows.program, rows.state)
    yield "rule_log_softmax", lambda: rule_log_softmax(logits, rows.program, rows.state)
    yield "sample_", draw
    yield "token_stats", lambda: token_stats(logits, targets)
    yield "shift_stats", lambda: shift_stats(logits, base, targets)
    yield "linear_token_stats", lambda: linear_token_stats(hidden, weight, targets)
    yield (
        "linear_shift_stats",
        lambda: linear_shift_stats(hidden, weight, hidden, weight, targets),
    )


def seconds(watch: Watch, run: Call) -> float:
    """The median of some calls, after one that warms up."""
    watch.time(run)
    return statistics.median(watch.time(run) for _ in range(REPEATS))


def measure(device: torch.device) -> Figures:
    """Of every kernel that serves: by op, dtype, vocabulary size and backend, in seconds."""
    watch = watch_for(device)
    found: Figures = {}
    for dtype in DTYPES:
        for vocab_size in VOCAB_SIZES:
            times: dict[tuple[str, str], list[float]] = {}
            for num_rows in ROWS[device.type]:
                logits = make_logits("random", num_rows, vocab_size).to(device, dtype)
                for op, run in calls(logits):
                    for backend in serving.serving(device):
                        # The reference serves where no other does.
                        if backend is REFERENCE or op not in serving.served_ops(backend, device):
                            continue
                        with serving.preferring(backend):
                            times.setdefault((op, backend.name), []).append(seconds(watch, run))
            for (op, name), of_rows in times.items():
                by_dtype = found.setdefault(op, {}).setdefault(str(dtype).split(".")[1], {})
                by_size = by_dtype.setdefault(str(vocab_size), {})
                by_size[name] = float(f"{statistics.geometric_mean(of_rows):.3g}")
    return found


def merge(name: str, found: Figures, about: dict[str, Any], path: Path = figures.PATH) -> None:
    """Replaces one device's figures in the package's table."""
    table = json.loads(path.read_text(encoding="utf-8"))
    table["seconds"][name] = found
    table["measured"][name] = about
    path.write_text(json.dumps(table, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def main() -> None:
    """Measures this machine, or takes what a run on another one has measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--merge", type=Path, metavar="FILE", help="a results file of gpu-check")
    given = parser.parse_args()
    if given.merge is not None:
        stored = json.loads(given.merge.read_text(encoding="utf-8"))
        header = stored["header"]
        about = {name: header[name] for name in ("commit", "dirty", "date")}
        merge(header["gpu"], stored["selection"], about)
        return
    settle_process()
    device = torch.device(given.device)
    merge(figures.device_name(device), measure(device), revision())


if __name__ == "__main__":
    main()
