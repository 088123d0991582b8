"""What the ops and their peers are called with: logits, rules, running sequences."""

from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Any

import torch
from torch import Tensor

from rnr_kernels import (
    DecodeState,
    EosRamp,
    RuleProgram,
    RuleSet,
    Sampling,
    TokenBias,
    UsedTokenPenalty,
    compile_rules,
    hewitt2024,
)
from rnr_kernels.layout import StateTensors
from rnr_kernels.loading import EMBEDDED, EMBEDDED_PROMPTS, load_model, load_tokenizer
from rnr_kernels.records import read_instructions
from rnr_kernels.templates import prompt_template

EOS = 2
NUM_USED = 300
"""Response tokens of each sequence, all different."""

FILTERED = Sampling(temperature=0.8, top_k=50, top_p=0.9)

NUM_RECORDED = 32
STEPS_APART = 8

# What hewitt2024 names, in its order: the ids of Llama-2's vocabulary, and for larger ones those of
# a byte-level vocabulary with 131,072 tokens (Mistral's Tekken), most of them among the first few
# thousand as in any BPE.
RULE_TOKENS_32K = (
    29966, 529, 29989, 306, 29902, 1334, 5618, 881, 334, 448, 1678, 396, 444, 13, 29991,
)  # fmt: skip
RULE_TOKENS_131K = (
    1060, 1534, 1124, 1362, 1073, 2837, 7493, 2715, 1364, 1462, 1293, 2569, 24650, 1010, 1033,
)  # fmt: skip


def rules(vocab_size: int) -> RuleSet:
    """`hewitt2024()` by token ids, so that no tokenizer is needed; EOS is token 2."""
    ids: Any = range(3, 18)
    if vocab_size >= 32_000:
        ids = RULE_TOKENS_32K if vocab_size < 131_072 // 2 else RULE_TOKENS_131K
    by_id = [
        TokenBias(dict(zip(ids, rule.weights.values(), strict=True)))
        if isinstance(rule, TokenBias)
        else rule
        for rule in hewitt2024()
    ]
    return RuleSet(by_id, name="hewitt2024 by token ids")


def make_logits(kind: str, rows: int, vocab_size: int) -> Tensor:
    """float32 [rows, vocab_size], the same each time.

    "random" is normal with standard deviation 1: flat, the whole vocabulary in reach. "extended"
    is what the embedded model says while it writes: its 2,202 logits of a step, then as many more
    as the vocabulary needs along a line in log(rank) fitted to the lower half of the real ones, all
    in random order. Peaked like a language model's, but its tail is made up.
    """
    if kind == "random":
        random = torch.Generator().manual_seed(rows * vocab_size)
        return torch.randn(rows, vocab_size, generator=random)
    if kind == "extended":
        recorded = recorded_logits()[:rows]
        return torch.stack([extend(row, vocab_size, seed) for seed, row in enumerate(recorded)])
    raise ValueError(f"logits must be random or extended, got {kind!r}")


@cache
def recorded_logits() -> Tensor:
    """float32 [32, 2202]: every eighth step of the embedded model's greedy answers."""
    model: Any = load_model(EMBEDDED)
    tokenizer = load_tokenizer(EMBEDDED)
    template = prompt_template("tags")
    rows: list[Tensor] = []
    for instruction in read_instructions(EMBEDDED_PROMPTS):
        prompt = torch.tensor([template.encode(tokenizer, instruction)])
        answer = model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=8 * STEPS_APART,
            do_sample=False,
            output_logits=True,
            return_dict_in_generate=True,
        )
        rows += [step[0] for step in answer.logits[::STEPS_APART]]
        if len(rows) >= NUM_RECORDED:
            break
    return torch.stack(rows[:NUM_RECORDED]).float()


def extend(row: Tensor, vocab_size: int, seed: int) -> Tensor:
    """float32 [vocab_size] from float32 [n]: see `make_logits`; the largest ones if n is larger."""
    ordered = row.sort(descending=True).values[:vocab_size]
    num_real = len(ordered)
    log_ranks = torch.arange(1, vocab_size + 1, dtype=torch.float64).log()
    x, y = log_ranks[num_real // 2 : num_real], ordered[num_real // 2 :].double()
    slope = ((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum()
    tail = y[-1] + slope * (log_ranks[num_real:] - log_ranks[num_real - 1])
    order = torch.randperm(vocab_size, generator=torch.Generator().manual_seed(seed))
    return torch.cat([ordered, tail.float()])[order]


Scores = tuple[Tensor, Tensor]
"""Token ids int64 [R, n] and what is added to each, float32 [R, n]."""


@dataclass(frozen=True, eq=False)
class Sequences:
    """Running sequences, one a row, and what the rules add to them as dense rows and lists."""

    program: RuleProgram
    state: DecodeState
    scores: tuple[Scores, Scores]
    """Of the tokens that rules name, and of the used tokens."""
    saved: StateTensors

    @classmethod
    def start(
        cls,
        logits: Tensor,
        sampling: Sampling,
        *,
        has_rules: bool = True,
        device: torch.device | None = None,
    ) -> "Sequences":
        """One for each row of logits [R, V], on a device (default: theirs).

        Each has used NUM_USED different tokens, or half the vocabulary if that is small.
        """
        rows, vocab_size = logits.shape
        device = device or logits.device
        program = compile_rules(
            rules(vocab_size), None, vocab_size, eos_token_ids=EOS, device=device
        )
        state = DecodeState.allocate(program, rows)
        random = torch.Generator().manual_seed(1)
        num_used = min(NUM_USED, vocab_size // 2)
        used = [torch.randperm(vocab_size, generator=random)[:num_used] for _ in range(rows)]
        for slot, token_ids in enumerate(used):
            state.admit(
                slot,
                0 if has_rules else -1,
                output_token_ids=token_ids,
                sampling=replace(sampling, seed=slot),
            )
        weights, penalty = _weights(rules(vocab_size), num_used)
        named = torch.tensor([list(weights)], device=device).repeat(rows, 1)
        added = torch.tensor([list(weights.values())], device=device).repeat(rows, 1)
        used_ids = torch.stack(used).to(device)
        return cls(
            program=program,
            state=state,
            scores=(
                (named, added),
                (used_ids, torch.full_like(used_ids, -penalty, dtype=torch.float32)),
            ),
            saved=StateTensors(*(table.clone() for table in state.tensors)),
        )

    @property
    def all_scores(self) -> Scores:
        """Both lists in one."""
        (named, weights), (used, penalties) = self.scores
        return torch.cat([named, used], 1), torch.cat([weights, penalties], 1)

    @cached_property
    def rule_row(self) -> Tensor:
        """float32 [V]: what every row has in common."""
        named, weights = self.scores[0]
        row = torch.zeros(self.program.vocab_size, device=named.device)
        return row.scatter_(0, named[0], weights[0])

    @cached_property
    def used_mask(self) -> Tensor:
        """float32 [R, V]: minus the penalty at used tokens."""
        used, penalties = self.scores[1]
        mask = torch.zeros(len(used), self.program.vocab_size, device=used.device)
        return mask.scatter_(1, used, penalties)

    def rewind(self) -> None:
        """The state as it was at the start."""
        for table, saved in zip(self.state.tensors, self.saved, strict=True):
            table.copy_(saved)


def _weights(rules: RuleSet, num_tokens: int) -> tuple[dict[int, float], float]:
    """What is added to named tokens after `num_tokens`, and the penalty on used ones."""
    weights: dict[int, float] = {}
    penalty = 0.0
    for rule in rules:
        if isinstance(rule, TokenBias):
            weights |= {int(token): weight for token, weight in rule.weights.items()}
        elif isinstance(rule, EosRamp):
            weights[EOS] = rule.weight * num_tokens / rule.over
        elif isinstance(rule, UsedTokenPenalty):
            penalty = rule.penalty
    return weights, penalty
