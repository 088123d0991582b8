"""What is measured, and what is required of it: the one list for runs, results and the README."""

from dataclasses import dataclass
from typing import Literal

OURS = "rnr_kernels"
"""The name under which our side stands in a record; other names are peers'."""

ROWS = (1, 8, 32)
VOCAB_SIZES = (32_000, 128_256, 151_936)
LOGITS = ("random", "extended")
"""See inputs.make_logits."""

RULE_OPS = ("apply_rules_", "rule_log_softmax", "sample_ greedy", "sample_ filtered")
STATS_OPS = ("token_stats", "shift_stats")

Quantity = Literal[
    "times faster", "times the time", "ns an element", "us", "us more", "bytes", "% of a copy"
]
"""The last is the share of the bandwidth that a large copy within the device reaches."""

AT_LEAST: tuple[Quantity, ...] = ("times faster", "% of a copy")
"""The quantities of which more is better."""


@dataclass(frozen=True)
class Case:
    """One record of a results file, under the name `str(case)`."""

    op: str
    rows: int
    vocab_size: int
    logits: str = "random"

    def __str__(self) -> str:
        op = self.op.replace(",", "").replace("'", "").replace(" ", "-")
        return f"{op}-B{self.rows}-V{self.vocab_size}-{self.logits}"

    @property
    def label(self) -> str:
        """As a table names it."""
        return f"{self.op}, B = {self.rows}, V = {self.vocab_size:,}"


@dataclass(frozen=True)
class Bound:
    """What a case is required to reach: at least `limit` times faster, at most `limit` of others.

    `against` names peers of the case, of which the fastest counts. Without a limit nothing is
    required and the value is reported.
    """

    case: Case
    quantity: Quantity
    limit: float | None
    against: tuple[str, ...] = ()

    def holds(self, value: float) -> bool:
        """Whether a measured value is good enough."""
        if self.limit is None:
            return True
        return value >= self.limit if self.quantity in AT_LEAST else value <= self.limit


OP_CASES = tuple(
    Case(op, rows, vocab_size, logits)
    for op in (*RULE_OPS, *STATS_OPS)
    for rows in ROWS
    for vocab_size in VOCAB_SIZES
    for logits in LOGITS
)

BITMASK_CASES = tuple(Case("apply_rules_ with a grammar's bitmask", n, 128_256) for n in ROWS)
"""No rules; one token in a hundred is allowed."""

HIDDEN_SIZE = 1024
LINEAR_CASE = Case("linear_token_stats", 512, 128_256)

HOST_OPS = ("apply_rules_", "rule_log_softmax", "sample_ greedy", "token_stats")
NOTHING_TO_DO = 32
"""A vocabulary so small that a call's time is the host's."""
HOST_CASES = tuple(
    Case(f"host cost of {op}", 1, vocab_size)
    for op in HOST_OPS
    for vocab_size in (NOTHING_TO_DO, 32_000)
)

GENERATE_CASES = (
    *(Case("generate, greedy", rows, 32_000, "model") for rows in (1, 8)),
    *(Case("generate, top_p 0.9", rows, 32_000, "model") for rows in (8, 32)),
)

STEP_MEMORY_CASE = Case("tensors of a decode step", 8, 151_936)
STEP_PROCESS_CASE = Case("process growth in a decode step", 8, 151_936)
LINEAR_MEMORY_CASES = tuple(
    Case("process growth in linear_token_stats", rows, 128_256) for rows in (64, 512, 4096)
)
MEMORY_CASES = (STEP_MEMORY_CASE, STEP_PROCESS_CASE, *LINEAR_MEMORY_CASES)

CASES = (*OP_CASES, *BITMASK_CASES, LINEAR_CASE, *HOST_CASES, *GENERATE_CASES, *MEMORY_CASES)

COMPILED = ("torch.compile", "torch.compile max-autotune")
SCATTER = ("copy, two scatter_add_, log_softmax", "copy, scatter_add_, log_softmax")
PRODUCT = "the matrix product alone"
PLAIN = "generate without rules"
KERNEL = "the C++ op alone"
WARPERS = "Hugging Face warpers, softmax, multinomial"
LOG_SOFTMAX = "torch.log_softmax"
ARGMAX = "torch.argmax"
TWO_MASKS = "two dense masks added"
ONE_MASK = "one dense mask added"
BY_INDEX = "scatter_add_"
XGRAMMAR = "xgrammar"
EAGER = "eager"


def rearranged(name: str) -> str:
    """The name of a peer from operations that are fast on a CPU, as few would write it."""
    return f"{name}, rearranged by hand"


def _at_128k(op: str, rows: int) -> Case:
    return Case(op, rows, 128_256)


_BITMASK_BYTES = STEP_MEMORY_CASE.rows * STEP_MEMORY_CASE.vocab_size // 8
_TOKEN_ID_BYTES = 8 * STEP_MEMORY_CASE.rows
_LINEAR_BYTES = 64e6

BOUNDS = (
    *(
        bound
        for case in (_at_128k("rule_log_softmax", 1), _at_128k("rule_log_softmax", 8))
        for bound in (
            Bound(case, "times the time", 1.05, (LOG_SOFTMAX,)),
            Bound(case, "times faster", 2.0, SCATTER),
            Bound(case, "times faster", 2.5, COMPILED),
        )
    ),
    Bound(_at_128k("rule_log_softmax", 1), "ns an element", 0.30),
    Bound(_at_128k("apply_rules_", 8), "times faster", 15.0, (TWO_MASKS,)),
    Bound(_at_128k("apply_rules_", 8), "times faster", None, (ONE_MASK,)),
    Bound(_at_128k("apply_rules_", 8), "times faster", None, (BY_INDEX,)),
    Bound(_at_128k("sample_ greedy", 8), "times the time", 1.0, (ARGMAX,)),
    *(Bound(_at_128k("sample_ filtered", rows), "times faster", 50.0, (WARPERS,)) for rows in ROWS),
    Bound(_at_128k("token_stats", 8), "times faster", 10.0, (EAGER,)),
    Bound(_at_128k("token_stats", 8), "times faster", None, (rearranged(EAGER),)),
    Bound(_at_128k("token_stats", 8), "times faster", 4.0, COMPILED),
    Bound(_at_128k("token_stats", 8), "times faster", None, tuple(map(rearranged, COMPILED))),
    Bound(_at_128k("token_stats", 1), "ns an element", 0.20),
    Bound(LINEAR_CASE, "times the time", 1.10, (PRODUCT,)),
    *(
        Bound(case, "us", 5.0)
        if case.vocab_size == NOTHING_TO_DO
        else Bound(case, "us more", 5.0, (KERNEL,))
        for case in HOST_CASES
    ),
    *(
        Bound(case, "times the time", 1.0 if "greedy" in case.op else 0.6, (PLAIN,))
        for case in GENERATE_CASES
    ),
    Bound(STEP_MEMORY_CASE, "bytes", _TOKEN_ID_BYTES + _BITMASK_BYTES),
    Bound(STEP_PROCESS_CASE, "bytes", _TOKEN_ID_BYTES + _BITMASK_BYTES),
    *(Bound(case, "bytes", _LINEAR_BYTES) for case in LINEAR_MEMORY_CASES),
)
"""The project's figures to reach: one thread, float32, hewitt2024 and 300 used tokens a row."""
