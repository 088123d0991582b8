"""Random batches for the native kernels, given to them below the checks of the public functions.

Every tensor that has rows lies in a storage of its own whose other bytes are all ones: NaN, -1, set
bits. So a stray read shows in the results, a stray write in the storage; and where nothing follows
the last row, a read past it leaves the allocation, which AddressSanitizer sees.
"""

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from rnr_kernels import Sampling, compile_rules
from rnr_kernels.backends import native
from rnr_kernels.layout import ProgramTensors, StateTensors, num_words
from rnr_kernels.rules.kinds import (
    BanTokens,
    EosRamp,
    LogitRule,
    OnlyTokens,
    RuleSet,
    ScoreVector,
    TokenBias,
    UsedTokenPenalty,
)
from rnr_kernels.rules.program import RuleProgram
from rnr_kernels.state import DecodeState
from rnr_kernels.testing import assert_same_bits

Functions = Mapping[str, Callable[..., Any]]

KERNELS: dict[str, Functions] = {
    name: native.functions(index) for index, name in enumerate(native.instruction_sets())
}
"""The functions by instruction set, best first; none without the library."""

UNAVAILABLE = native.unavailable() or ""
"""Why there are none."""

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


# Storages


def whole(view: Tensor) -> Tensor:
    """Every element of the storage behind a view."""
    size = view.untyped_storage().nbytes() // view.element_size()
    return view.as_strided((size,), (1,), 0)


def copied(view: Tensor) -> Tensor:
    """The same layout in a copy of the whole storage."""
    return whole(view).clone().as_strided(view.shape, view.stride(), view.storage_offset())


def placed(values: Tensor, *, before: int = 0, gap: int = 0, after: int = 0) -> Tensor:
    """`values` [R] or [R, W] behind `before` elements, `gap` ones between rows, then `after`."""
    width = 1 if values.dim() == 1 else values.shape[1]
    stride, rows = width + gap, values.shape[0]
    size = before + max(rows - 1, 0) * stride + width * min(rows, 1) + after
    poison = torch.full((size * values.element_size(),), 0xFF, dtype=torch.uint8)
    strides = (stride,) if values.dim() == 1 else (stride, 1)
    view = poison.view(values.dtype).as_strided(values.shape, strides, before)
    return view.copy_(values)


def assert_rest_untouched(storage: Tensor, view: Tensor, what: str) -> None:
    """Outside the layout of `view`, a `placed` tensor, the storage still holds ones."""
    outside = torch.ones(storage.shape, dtype=torch.bool)
    outside.as_strided(view.shape, view.stride(), view.storage_offset()).fill_(False)
    assert bool((storage[outside].view(torch.uint8) == 0xFF).all()), f"{what}: written outside"


# Values


def chosen(generator: torch.Generator, values: list[float], *shape: int) -> Tensor:
    index = torch.randint(len(values), shape, generator=generator)
    return torch.tensor(values)[index]


def one_allowed(g: torch.Generator, n: int) -> Tensor:
    row = torch.full((n,), -math.inf)
    row[torch.randint(n, (), generator=g)] = 2.5
    return row


def random_bits(g: torch.Generator, n: int) -> Tensor:
    bits = torch.randint(-(2**31), 2**31, (n,), generator=g).int()
    return bits.view(torch.float32).nan_to_num(-1e-40, -math.inf, -math.inf)


ROW_KINDS: tuple[Callable[[torch.Generator, int], Tensor], ...] = (
    lambda g, n: 3 * torch.randn(n, generator=g),
    lambda g, n: 40 * torch.randn(n, generator=g),
    lambda g, n: torch.randn(n, generator=g).round(),
    lambda g, n: chosen(g, [0.25, -0.5], n),
    lambda g, n: torch.full((n,), -3.0),
    lambda g, n: chosen(g, [-0.0, 0.0], n),
    lambda g, n: chosen(g, [-math.inf, -math.inf, -math.inf, 0.0, 1.0, 2.0], n),
    lambda g, n: torch.full((n,), -math.inf),
    lambda g, n: 1e-41 * torch.randn(n, generator=g),
    lambda g, n: chosen(g, [3e38, -3e38, 2.9e38, 1.0, -math.inf], n),
    lambda g, n: 1e4 * torch.rand(n, generator=g).cumsum(0),
    one_allowed,
    random_bits,
)


def random_logits(generator: torch.Generator, rows: int, width: int) -> Tensor:
    """float32 [rows, width], each row of another kind, now and then with a NaN or +inf."""
    kinds = torch.randint(len(ROW_KINDS), (rows,), generator=generator).tolist()
    logits = torch.stack([ROW_KINDS[kind](generator, width) for kind in kinds])
    for row in logits:
        if torch.rand((), generator=generator) < 0.1:
            odd = chosen(generator, [math.nan, math.inf])
            row[torch.randint(width, (), generator=generator)] = odd
    return logits


def random_rules(values: random.Random, size: int) -> RuleSet:
    """One to four rules over a vocabulary of `size`."""

    def tokens(most: int) -> list[int]:
        return values.sample(range(size), values.randint(1, min(size, most)))

    def steps() -> tuple[int, int | None]:
        start = values.choice([0, 0, 1, 3, 900])
        return start, values.choice([None, start + 1, start + 4])

    def weights(most: int) -> dict[int, float]:
        levels = [values.uniform(-30, 30), values.uniform(-2, 2), -math.inf, 0.0]
        return {token: values.choice(levels) for token in tokens(most)}

    def scores() -> Tensor:
        found = torch.tensor([values.choice([0.0, -0.0, 0.5, -4.0]) for _ in range(size)])
        found[tokens(9)] = -math.inf
        return found

    kinds: list[Callable[[], LogitRule]] = [
        lambda: TokenBias(weights(40), steps()),
        lambda: TokenBias(dict.fromkeys(tokens(size), values.uniform(-3, 3)), steps()),
        lambda: BanTokens(tokens(size), steps()),
        lambda: OnlyTokens(tokens(size), steps()),
        lambda: EosRamp(
            values.uniform(-9, 20), over=values.randint(1, 9), force_at=values.choice([None, 5])
        ),
        lambda: ScoreVector(scores()),
    ]
    rules = [values.choice(kinds)() for _ in range(values.randint(1, 3))]
    if values.random() < 0.6:
        penalty = values.choice([1.5, -0.75, 40.0])
        rules.append(UsedTokenPenalty(penalty, values.choice(["response", "prompt+response"])))
    return RuleSet(rules)


def random_sampling(values: random.Random, size: int) -> Sampling:
    temperature = values.choice([0.0, 0.8, 1.0, 1e-4, 1e30, 10 ** values.uniform(-4, 3)])
    return Sampling(
        temperature=temperature,
        top_k=values.choice([0, 0, 1, 5, values.randint(1, size), size]),
        top_p=values.choice([1.0, 0.9, values.random() or 0.5, 1e-30, 1 - 2.0**-24, 2.0**-24]),
        min_p=values.choice([0.0, 0.0, 1.0, 1e-30, values.random()]),
        seed=values.randint(-(2**63), 2**63 - 1),
    )


def random_program(values: random.Random, size: int) -> RuleProgram:
    eos = sorted({0, size - 1, values.randrange(size)})
    while True:
        sets = [random_rules(values, size) for _ in range(values.randint(1, 3))]
        try:
            return compile_rules(sets, None, size, eos_token_ids=eos)
        except ValueError:  # rules that together allow no token
            continue


def random_state(values: random.Random, program: RuleProgram, slots: int) -> DecodeState:
    size, most = program.vocab_size, min(program.vocab_size, values.choice([0, 1, 7]))
    state = DecodeState.allocate(program, slots, max_bias=most)
    for slot in range(slots):
        program_id = values.randint(-1, program.num_programs - 1)
        biases = values.sample(range(size), values.randint(0, most)) if program_id >= 0 else []
        levels = [0.5, -0.0, -2.0, values.uniform(-20, 20), -math.inf]
        state.admit(
            slot,
            program_id,
            prompt_token_ids=[values.randrange(size) for _ in range(values.randint(0, 5))],
            output_token_ids=[values.randrange(size) for _ in range(values.randint(0, 40))],
            sampling=random_sampling(values, size),
            token_bias={token: values.choice(levels) for token in biases},
        )
    return state


# Batches


@dataclass(frozen=True)
class Batch:
    """What the ops are called with."""

    vocab_size: int
    logits: Tensor
    base_logits: Tensor
    token_ids: Tensor
    """int64 [R]: targets of the statistics."""
    committed: Tensor
    """int32 or int64 [R, L]: what `update_state_` appends."""
    counts: Tensor
    program: ProgramTensors
    state: StateTensors
    error: Tensor
    options: Mapping[str, Tensor]
    """The optional arguments of ops over rules."""

    def copy(self) -> "Batch":
        """The same layouts; what ops may write to, copied."""
        return replace(
            self,
            logits=copied(self.logits),
            state=StateTensors(*map(copied, self.state)),
            error=self.error.clone(),
        )

    def over_rules(self) -> tuple[Any, ...]:
        return self.logits, self.vocab_size, self.program, self.state, self.error

    def take(self, rows: list[int]) -> "Batch":
        """These rows, on the same state."""
        return replace(
            self,
            logits=self.logits[rows],
            base_logits=self.base_logits[rows],
            token_ids=self.token_ids[rows],
            committed=self.committed[rows],
            counts=self.counts[rows],
            options={name: value[rows] for name, value in self.options.items()},
        )


STATS = ("rank", "num_ties", "logprob", "entropy", "top_token_ids", "top_logprobs")


def run(functions: Functions, batch: Batch, top_k: int = 0) -> dict[str, Tensor]:
    """Every op on copies of the batch, each on the state as it was: results by name."""
    results: dict[str, Tensor] = {}

    def keep(op: str, names: tuple[str, ...], values: tuple[Tensor, ...]) -> None:
        results.update((f"{op}.{n}", v) for n, v in zip(names, values, strict=True))

    copy = batch.copy()
    values = functions["rule_log_softmax"](*copy.over_rules(), **copy.options, return_log_z=True)
    keep("rule_log_softmax", ("logprobs", "log_z"), values)
    assert_same_bits(whole(copy.logits), whole(batch.logits), "rule_log_softmax's logits")
    written = [placed(torch.zeros_like(value), before=3, gap=2, after=5) for value in values]
    functions["rule_log_softmax_out"](*copy.over_rules(), *written, **copy.options)
    for value, view in zip(values, written, strict=True):
        assert_same_bits(view, value, "rule_log_softmax_out")
        assert_rest_untouched(whole(view), view, "rule_log_softmax_out")
    assert_same_bits(whole(copy.logits), whole(batch.logits), "rule_log_softmax_out's logits")

    flags = {"return_logprob": True, "return_adjusted_logprob": True, "return_rank": True}
    values = functions["sample_"](*copy.over_rules(), **copy.options, **flags)
    keep("sample_", ("token_ids", "logprob", "adjusted_logprob", "rank"), values)
    assert_same_bits(whole(copy.logits), whole(batch.logits), "sample_'s logits")
    keep("state.sampled", StateTensors._fields, tuple(map(whole, copy.state)))
    results["error.sampled"] = copy.error

    copy = batch.copy()
    functions["apply_rules_"](*copy.over_rules(), **copy.options)
    results["apply_rules_"] = whole(copy.logits)
    for table, before in zip(copy.state, batch.state, strict=True):
        assert_same_bits(whole(table), whole(before), "apply_rules_'s state")
    functions["update_state_"](
        batch.vocab_size, copy.state, copy.error, batch.committed, batch.counts,
        batch.options.get("state_indices"),
    )  # fmt: skip
    keep("state.updated", StateTensors._fields, tuple(map(whole, copy.state)))
    results["error.updated"] = copy.error

    size, targets = batch.vocab_size, batch.token_ids
    keep("token_stats", STATS, functions["token_stats"](batch.logits, targets, size, top_k))
    shift = functions["shift_stats"](batch.logits, batch.base_logits, targets, size, top_k)
    keep("shift_stats", STATS, shift[:6])
    keep("shift_stats.base", STATS, shift[6:12])
    keep("shift_stats", ("kl", "base_kl", "same_argmax"), shift[12:])
    return results


@dataclass(frozen=True)
class Recipe:
    """How to build a batch; equal recipes build equal ones."""

    seed: int
    vocab_size: int
    rows: int
    dtype: torch.dtype = torch.float32
    padding: int = 0
    """Columns past the vocabulary."""
    before: int = 0
    """Elements before each tensor, between its rows and after it."""
    gap: int = 0
    after: int = 0
    mask: str | None = None
    """Random, all set or all clear bits in an `allowed_bitmask`; None: no mask."""
    drafts: bool = False
    index_dtype: torch.dtype = torch.int64
    huge: bool = False
    """Indices, ids, offsets and counts of all magnitudes."""

    def build(self) -> Batch:
        values = random.Random(self.seed)
        generator = torch.Generator().manual_seed(self.seed)
        size, rows = self.vocab_size, self.rows
        program = random_program(values, size)
        state = random_state(values, program, rows)

        def spread(tensor: Tensor) -> Tensor:
            return placed(tensor, before=self.before, gap=self.gap, after=self.after)

        def logits() -> Tensor:
            return spread(random_logits(generator, rows, size + self.padding).to(self.dtype))

        def column(low: int, high: int, *shape: int) -> Tensor:
            found = torch.randint(low, high, (rows, *shape), generator=generator)
            if self.huge:
                bits = torch.iinfo(self.index_dtype).bits
                ends = [2 ** (bits - 1) - 1, -(2 ** (bits - 1)), -1, size, size - 1, 2**31 - 1, 99]
                odd = torch.tensor(ends)[torch.randint(len(ends), found.shape, generator=generator)]
                found = torch.where(torch.rand(found.shape, generator=generator) < 0.4, odd, found)
            return spread(found.to(self.index_dtype))

        index = torch.randperm(rows, generator=generator)
        index[torch.rand(rows, generator=generator) < 0.15] = -1
        index[torch.rand(rows, generator=generator) < 0.1] = rows + 3
        options = {"state_indices": spread(index.to(self.index_dtype))}
        if self.drafts or self.huge:
            options["state_indices"] = column(-1, rows)
        if self.drafts:
            options["row_offsets"] = column(0, 5)
            options["draft_token_ids"] = column(-1, size)
        if self.mask is not None:
            ends = {"set": (-1, 0), "clear": (0, 1), "random": (-(2**31), 2**31)}[self.mask]
            words = torch.randint(*ends, (rows, num_words(size)), generator=generator)
            options["allowed_bitmask"] = spread(words.int())
        return Batch(
            vocab_size=size,
            logits=logits(),
            base_logits=logits(),
            token_ids=column(-1, size + 1),
            committed=column(-1, size + 1, values.randint(0, 4)),
            counts=column(-1, 5),
            program=program.tensors,
            state=StateTensors(*map(torch.clone, state.tensors)),
            error=state.error,
            options=options,
        )


def hostile(batch: Batch, seed: int) -> Batch:
    """The same with a state of arbitrary bits, in the middle of larger storages."""
    generator = torch.Generator().manual_seed(seed)
    size = batch.vocab_size

    def ints(shape: torch.Size, ends: list[int]) -> Tensor:
        found = torch.randint(-(2**31), 2**31, shape, generator=generator)
        some = torch.tensor(ends)[torch.randint(len(ends), shape, generator=generator)]
        return torch.where(torch.rand(shape, generator=generator) < 0.7, some, found).int()

    def floats(shape: torch.Size) -> Tensor:
        bits = ints(shape, [0]).view(torch.float32)
        some = chosen(
            generator, [math.nan, math.inf, -math.inf, 0.0, -0.0, 1e-45, 0.5, -1, 1e38], *shape
        )
        return torch.where(torch.rand(shape, generator=generator) < 0.7, some, bits)

    ends = [-1, 0, 1, 2, size - 1, size, 2**31 - 1, -(2**31)]
    old = batch.state
    state = StateTensors(
        slot_params=ints(old.slot_params.shape, ends),
        used_bitmask=ints(old.used_bitmask.shape, [0, -1]),
        bias_token_ids=ints(old.bias_token_ids.shape, ends),
        bias_values=floats(old.bias_values.shape),
        sampling=floats(old.sampling.shape),
        rng=torch.randint(-(2**63), 2**63 - 1, old.rng.shape, generator=generator),
    )
    return replace(batch, state=StateTensors(*(placed(t, before=16, after=16) for t in state)))


def assert_stays_inside(
    functions: Functions, batch: Batch, top_k: int, embeds: bool = True
) -> None:
    """Runs a hostile batch: ids and ranks lie in the vocabulary, tables keep their bits, nothing
    outside of rows is written, beside the state too where it `embeds` in larger storages."""
    size, tables = batch.vocab_size, [copied(table) for table in batch.program]
    results = run(functions, batch, min(top_k, size))
    for name in ("sample_.token_ids", "token_stats.top_token_ids", "shift_stats.top_token_ids"):
        assert bool(((results[name] >= -1) & (results[name] < size)).all()), name
    for name in ("sample_.rank", "token_stats.rank", "shift_stats.rank"):
        assert bool(((results[name] >= 0) & (results[name] <= size)).all()), name
    assert_rest_untouched(results["apply_rules_"], batch.logits, "apply_rules_")
    for name, before in zip(StateTensors._fields, batch.state, strict=True):
        for op in ("sampled", "updated"):
            after = results[f"state.{op}.{name}"]
            if embeds:
                assert_rest_untouched(after, before, f"{name} {op}")
            if name not in ("slot_params", "used_bitmask", "rng"):
                assert_same_bits(after, whole(before), name)
    for table, kept in zip(batch.program, tables, strict=True):
        assert_same_bits(table, kept)
