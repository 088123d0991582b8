"""What is measured on a GPU, and what is required of it: the one list for runs, results and tables.

The times are required of an NVIDIA H200, on what a model says ("extended", see inputs.make_logits);
random logits are measured beside them.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from benchmarks import cases

COLD, WARM, EAGER, HOST, MEMORY = "cold", "warm", "eager", "host", "memory"
"""How a case is measured: a graph over inputs that together are larger than three L2 caches; a
graph over one input; calls without a graph; what a call costs the host alone; extra memory."""

HOW = {
    COLD: "graph, cold L2",
    WARM: "graph, warm L2",
    EAGER: "eager",
    HOST: "host's time of a call",
    MEMORY: "extra memory",
}

GREEDY, TEMPERATURE, FILTERED = "sample_ greedy", "sample_ temperature", "sample_ filtered"
LOGPROB = "sample_ temperature, log-probability"
LOG_SOFTMAX, APPLY, BITMASK = "rule_log_softmax", "apply_rules_", "apply_rules_ bitmask"
STATS, SHIFT, LINEAR = "token_stats", "shift_stats", "linear_token_stats"
SAMPLE_OPS = (GREEDY, TEMPERATURE, LOGPROB, FILTERED)

CHAIN = "the PyTorch chain"
"""Scores scattered into a float32 copy, temperature, filters, softmax and a draw: what Hugging Face
comes to with processors and warpers, without the synchronisation of torch.multinomial."""
COMPILED_CHAIN = "the PyTorch chain, torch.compile"
FLASHINFER = "FlashInfer sampling_from_logits"
FLASHINFER_FILTERED = "FlashInfer top_k_top_p_sampling_from_logits"
XGRAMMAR = cases.XGRAMMAR
LIGER = "Liger cross-entropy"
CROSS_ENTROPY = "torch cross_entropy"
CCE = "cut-cross-entropy"
PRODUCT = cases.PRODUCT

HIDDEN_SIZE = 4096
VOCAB_SIZE = 128_256
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
OTHER_VOCAB_SIZES = (32_000, 50_257, 151_936, 262_144)


@dataclass(frozen=True)
class Case(cases.Case):
    """One record of a GPU's results file."""

    logits: str = "extended"
    dtype: str = "bfloat16"
    how: str = COLD
    backend: str = ""
    """Whose time it is, where that is not the one that serves by default."""

    def __str__(self) -> str:
        parts = (super().__str__(), self.dtype, self.how, self.backend)
        return "-".join(part for part in parts if part)

    @property
    def label(self) -> str:
        parts = (super().label, self.dtype, HOW[self.how], self.backend)
        return ", ".join(part for part in parts if part)

    @property
    def served_op(self) -> str:
        """The op's name in the backends' tables."""
        return self.op.partition(" ")[0]


@dataclass(frozen=True)
class Bound(cases.Bound):
    """What a case on a GPU is required to reach."""

    case: Case


def _case(op: str, rows: int, dtype: str = "bfloat16") -> Case:
    return Case(op, rows, VOCAB_SIZE, dtype=dtype)


TIMES = (
    Bound(_case(TEMPERATURE, 1), "us", 6.0),
    Bound(_case(TEMPERATURE, 1, "float32"), "us", 6.0),
    Bound(_case(GREEDY, 64), "us", None),
    Bound(_case(TEMPERATURE, 64), "us", 10.0),
    Bound(_case(LOGPROB, 64), "us", None),
    Bound(_case(GREEDY, 512), "us", 42.0),
    Bound(_case(TEMPERATURE, 512), "us", 65.0),
    Bound(_case(LOGPROB, 512), "us", 75.0),
    Bound(_case(FILTERED, 1), "us", 9.0),
    Bound(_case(FILTERED, 64), "us", 15.0),
    Bound(_case(FILTERED, 512), "us", 90.0),
    Bound(_case(LOG_SOFTMAX, 512, "float32"), "us", 140.0),
    Bound(_case(APPLY, 512, "float32"), "us", 8.0),
    Bound(_case(APPLY, 512), "us", 8.0),
    Bound(_case(STATS, 16_384), "us", 1_100.0),
    Bound(_case(SHIFT, 8_192), "us", 1_100.0),
    Bound(_case(LINEAR, 64), "us", 275.0),
    Bound(_case(LINEAR, 1_024), "us", 1_650.0),
)

SHARES = (
    Bound(_case(LOG_SOFTMAX, 512, "float32"), "% of a copy", 87.0),
    Bound(_case(STATS, 16_384), "% of a copy", 90.0),
)

HOST_TIMES = tuple(
    Bound(replace(_case(TEMPERATURE, 1), how=HOST, backend=backend), "us", limit)
    for backend, limit in (("native", 8.0), ("triton", 15.0))
)

EXTRA_MEMORY = tuple(
    Bound(replace(_case(LINEAR, rows), how=MEMORY), "bytes", 100e6) for rows in (64, 1_024, 8_192)
)

BESIDE = (
    Bound(_case(LOG_SOFTMAX, 512, "float32"), "times faster", 1.3, cases.COMPILED),
    Bound(_case(TEMPERATURE, 64), "times faster", None, (COMPILED_CHAIN,)),
    Bound(_case(BITMASK, 512), "times faster", None, (XGRAMMAR,)),
    Bound(_case(STATS, 16_384), "times faster", None, cases.COMPILED),
    Bound(_case(STATS, 16_384), "times faster", None, (LIGER,)),
    Bound(_case(STATS, 16_384), "times faster", None, (CROSS_ENTROPY,)),
    Bound(_case(LINEAR, 64), "times faster", None, (CCE,)),
    Bound(_case(LINEAR, 1_024), "times faster", None, (CCE,)),
    Bound(_case(LINEAR, 1_024), "times the time", None, (PRODUCT,)),
)
"""Peers of single cases. Liger and cut-cross-entropy give the log-probability alone."""

SWEEPS = tuple(
    tuple(Bound(_case(op, rows), "times faster", limit, (peer,)) for rows in ROWS)
    for op, peer, limit in (
        (TEMPERATURE, FLASHINFER, 2.0),
        (TEMPERATURE, CHAIN, 4.0),
        (FILTERED, FLASHINFER_FILTERED, 2.0),
        (FILTERED, CHAIN, 4.0),
    )
)
"""What holds for every number of rows; of each the worst stands in a table."""

SINGLE = (*TIMES, *SHARES, *HOST_TIMES, *EXTRA_MEMORY, *BESIDE)

_CORNERS = (COLD, WARM, EAGER)


def _plan() -> tuple[Case, ...]:
    required = dict.fromkeys(bound.case for bound in SINGLE)
    found: list[Case] = []
    for case in required:
        # Inputs of gigabytes are cold whatever one does.
        modes = (COLD,) if case.op in (STATS, SHIFT, LINEAR) else _CORNERS
        found += [replace(case, how=how) for how in modes] if case.how == COLD else [case]
    found += [bound.case for sweep in SWEEPS for bound in sweep]
    found += [replace(case, logits="random") for case in required if case.how == COLD]
    found += [
        Case(op, 64, vocab_size, dtype=dtype)
        for vocab_size in OTHER_VOCAB_SIZES
        for op, dtype in ((TEMPERATURE, "bfloat16"), (FILTERED, "bfloat16"), (STATS, "bfloat16"))
    ]
    found += [replace(bound.case, how=WARM) for sweep in (SWEEPS[0], SWEEPS[2]) for bound in sweep]
    found += [Case(LOG_SOFTMAX, 64, v, dtype="float32") for v in (VOCAB_SIZE, *OTHER_VOCAB_SIZES)]
    return tuple(dict.fromkeys(found))


PLAN = _plan()
"""In order of importance: what a run's time does not reach is left out."""


@dataclass(frozen=True)
class Selection:
    """What one run measures, and what it is held to."""

    plan: tuple[Case, ...]
    single: tuple[Bound, ...]
    sweeps: tuple[tuple[Bound, ...], ...]

    @classmethod
    def everything(cls) -> "Selection":
        return cls(PLAN, SINGLE, SWEEPS)

    @classmethod
    def quick(cls) -> "Selection":
        """The cases of a bound, of every sweep the first two."""
        kept = {bound.case for bound in SINGLE}
        kept |= {bound.case for sweep in SWEEPS for bound in sweep[:2]}
        return cls(tuple(c for c in PLAN if c in kept), SINGLE, tuple(s[:2] for s in SWEEPS))

    def scaled(self, scale: Callable[[Case], Case]) -> "Selection":
        """The same with other cases in place of its own."""

        def bound(of: Bound) -> Bound:
            return replace(of, case=scale(of.case))

        return Selection(
            tuple(dict.fromkeys(map(scale, self.plan))),
            tuple(map(bound, self.single)),
            tuple(tuple(map(bound, sweep)) for sweep in self.sweeps),
        )


def small(case: Case) -> Case:
    """What a CPU does in no time, to see that all of a run works."""
    return replace(case, rows=min(case.rows, 4), vocab_size=min(case.vocab_size, 640))
