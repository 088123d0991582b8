"""Win rates: how often one model's response is preferred to another's."""

from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from rnr_kernels.intervals import bootstrap_interval
from rnr_kernels.records import ModelOutput

TIE = 0.5
SHOWN_CHARACTERS = 60
"""Of an instruction, in errors."""


@dataclass(frozen=True)
class Pair:
    """The responses of A and of B to one instruction."""

    a: ModelOutput
    b: ModelOutput


@dataclass(frozen=True)
class Preference:
    """What a judge makes of a pair.

    `score` is A's: 1 a win, 0 a loss, 0.5 a tie, None where the judge came to no verdict.
    `reasons` are in the judge's words; without a verdict they say what went wrong.
    """

    score: float | None
    reasons: tuple[str, ...] = ()
    order_changed: bool = False
    """The verdict was another one when the responses changed places."""
    failures: int = 0
    """Requests to the judge that failed."""
    nonsense: int = 0
    """Replies of the judge without a verdict in them."""

    def __post_init__(self) -> None:
        if self.score is not None and not 0 <= self.score <= 1:
            raise ValueError(f"score must be from 0 to 1, or None, got {self.score}")


class Judge(Protocol):
    """Compares responses."""

    @property
    def name(self) -> str:
        """What tables and annotations call it."""

    def preferences(self, pairs: Sequence[Pair]) -> Iterator[Preference]:
        """One for each pair, in their order."""


def success_score(ours: bool, theirs: bool) -> float:
    """Success beats failure; two successes, and two failures, are a tie."""
    return TIE + (ours - theirs) / 2


@dataclass(frozen=True)
class SuccessJudge:
    """A response that succeeds beats one that fails, by `success_score`.

    `verdicts` gives "success" or the kind of failure for each response, as
    `rnr_kernels.models.exact_answers.exact_verdicts` does.
    """

    name: str
    verdicts: Callable[[Sequence[ModelOutput]], Sequence[str]]

    def preferences(self, pairs: Sequence[Pair]) -> Iterator[Preference]:
        of_a = self.verdicts([pair.a for pair in pairs])
        of_b = self.verdicts([pair.b for pair in pairs])
        for a, b in zip(of_a, of_b, strict=True):
            yield Preference(success_score(a == "success", b == "success"), (a, b))


@dataclass(frozen=True)
class Judged:
    """A pair with its preference."""

    pair: Pair
    preference: Preference


@dataclass(frozen=True)
class WinRate:
    """The share of prompts that A wins, a tie as half; prompts without a verdict do not count."""

    judge: str
    judged: tuple[Judged, ...]
    rate: float
    interval: tuple[float, float]
    """95 %, by bootstrap over prompts."""

    @property
    def scores(self) -> list[float | None]:
        """A's score on every prompt, as `win_rate_of` takes them."""
        return [each.preference.score for each in self.judged]

    @property
    def wins(self) -> int:
        """Prompts that A wins."""
        return sum(score is not None and score > TIE for score in self.scores)

    @property
    def ties(self) -> int:
        """Prompts on which neither is preferred."""
        return sum(score == TIE for score in self.scores)

    @property
    def losses(self) -> int:
        """Prompts that B wins."""
        return sum(score is not None and score < TIE for score in self.scores)

    @property
    def unjudged(self) -> int:
        """Prompts without a verdict."""
        return self.scores.count(None)

    @property
    def order_changes(self) -> int:
        """Ties that are none: the verdict changed with the order of the responses."""
        return sum(each.preference.order_changed for each in self.judged)

    @property
    def failures(self) -> int:
        """Requests to the judge that failed, those that a later try made good among them."""
        return sum(each.preference.failures for each in self.judged)

    @property
    def nonsense(self) -> int:
        """Replies without a verdict, those that a later try made good among them."""
        return sum(each.preference.nonsense for each in self.judged)


def win_rate(
    outputs_a: Sequence[ModelOutput],
    outputs_b: Sequence[ModelOutput],
    judge: Judge,
    *,
    on_judged: Callable[[Judged], None] | None = None,
) -> WinRate:
    """How often `judge` prefers A's response to B's.

    The two must answer the same instructions, in any order. `on_judged` is called with each pair in
    A's order as its verdict comes, so that a caller can show progress and keep what an interruption
    would lose. Raises ValueError for an instruction that one side lacks, and if no pair has a
    verdict.

    This is the plain rate. AlpacaEval's length-controlled one needs a regression over its own 805
    prompts: `alpaca_eval` computes it from the files of `rnr_kernels.tuning.alpaca_eval`.
    """
    pairs = paired(outputs_a, outputs_b)
    judged = []
    for pair, preference in zip(pairs, judge.preferences(pairs), strict=True):
        judged.append(Judged(pair, preference))
        if on_judged is not None:
            on_judged(judged[-1])
    if all(each.preference.score is None for each in judged):
        reasons = "; ".join(judged[-1].preference.reasons) or "no reason given"
        raise ValueError(f"the judge {judge.name} came to no verdict on any pair: {reasons}")
    rate, interval = win_rate_of([[each.preference.score for each in judged]])
    return WinRate(judge.name, tuple(judged), rate, interval)


def win_rate_of(
    scores: Sequence[Sequence[float | None]],
) -> tuple[float, tuple[float, float]]:
    """The mean of scores [seeds, prompts] and its 95 % interval over seeds and prompts.

    Each row comes from one pair of training seeds, with its prompts in the same order. A prompt
    without a verdict in any row is left out of all. Raises ValueError for rows of several lengths,
    and if no prompt is left.
    """
    lengths = sorted({len(row) for row in scores})
    if len(lengths) > 1:
        raise ValueError(f"every seed needs a score for the same prompts, got {lengths} scores")
    whole = [column for column in zip(*scores, strict=True) if None not in column]
    if not whole:
        raise ValueError("no prompt has a verdict from every seed; there is no win rate")
    table = list(zip(*whole, strict=True))
    mean = sum(sum(row) for row in table) / (len(table) * len(whole))
    return mean, bootstrap_interval(table)


def paired(outputs_a: Sequence[ModelOutput], outputs_b: Sequence[ModelOutput]) -> list[Pair]:
    """The responses to each instruction side by side, in A's order; repeated ones pair in order.

    Raises ValueError that names an instruction which one side answers less often than the other.
    """
    if not outputs_a and not outputs_b:
        raise ValueError("there are no responses to compare")
    of_a, of_b = (Counter(each.instruction for each in side) for side in (outputs_a, outputs_b))
    uneven = [text for text in of_a | of_b if of_a[text] != of_b[text]]
    if uneven:
        shown = uneven[0]
        if len(shown) > SHOWN_CHARACTERS:
            shown = shown[:SHOWN_CHARACTERS] + " ..."
        more = f" (and {len(uneven) - 1} more)" if len(uneven) > 1 else ""
        raise ValueError(
            f"A has {of_a[uneven[0]]} and B has {of_b[uneven[0]]} responses to {shown!r}{more}; "
            "both must answer the same instructions"
        )
    waiting: defaultdict[str, deque[ModelOutput]] = defaultdict(deque)
    for each in outputs_b:
        waiting[each.instruction].append(each)
    return [Pair(each, waiting[each.instruction].popleft()) for each in outputs_a]
