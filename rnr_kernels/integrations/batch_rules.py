"""The rules of a batch of prompts: one rule set for all prompts, or one for each."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor

from rnr_kernels.integrations.prompts import rows_a_prompt
from rnr_kernels.rules.compiler import compile_rules
from rnr_kernels.rules.files import find_rules
from rnr_kernels.rules.kinds import RuleSet, UsedTokenPenalty
from rnr_kernels.rules.program import RuleProgram
from rnr_kernels.rules.scope import find_used_from
from rnr_kernels.rules.vocabulary import Vocabulary

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Rules: TypeAlias = RuleSet | str | os.PathLike[str]
"""A rule set, a preset's name, or a rule file's path."""

NO_RULES = -1


@dataclass(frozen=True, eq=False)
class CompiledRules:
    program: RuleProgram
    program_ids: Tensor
    """int32 [P], on the program's device; NO_RULES where a prompt has none."""


class BatchRules:
    """Rule sets by prompt, compiled once for each vocabulary size, set of EOS ids and device.

    P, the number of prompts, is 1 when all prompts share the rules. Where a batch has n rows a
    prompt (several sequences each, beams), row r belongs to prompt r // n.
    """

    def __init__(
        self,
        rules: Rules | Sequence[Rules | None],
        tokenizer: "PreTrainedTokenizerBase | None",
    ) -> None:
        listed: Sequence[Any] = rules if isinstance(rules, list | tuple) else [rules]
        if not listed:
            raise ValueError("rules must hold one rule set for each prompt, got an empty list")
        self.rule_sets = tuple(None if item is None else _rule_set(item) for item in listed)
        self.tokenizer = tokenizer
        penalties = [_penalty(item) for item in self.rule_sets]
        self.counts_used = any(penalty is not None for penalty in penalties)
        self.counts_prompt = [p is not None and p.scope == "prompt+response" for p in penalties]
        """Of each prompt, whether its tokens count as used."""
        self.has_locator = any(p is not None and p.after is not None for p in penalties)
        if self.has_locator and tokenizer is None:
            raise ValueError("a UsedTokenPenalty with after= needs a tokenizer to find the text")
        self._compiled: dict[tuple[int, tuple[int, ...] | None, torch.device], CompiledRules] = {}

    def __len__(self) -> int:
        return len(self.rule_sets)

    def compiled(
        self, vocab_size: int, eos_token_ids: Sequence[int] | None, device: torch.device
    ) -> CompiledRules:
        """The program of these rules. ValueError as from `compile_rules`."""
        key = (vocab_size, None if eos_token_ids is None else tuple(eos_token_ids), device)
        found = self._compiled.get(key)
        if found is None:
            distinct = list(dict.fromkeys(item for item in self.rule_sets if item is not None))
            program = compile_rules(
                distinct, self.tokenizer, vocab_size, eos_token_ids=eos_token_ids, device=device
            )
            ids = [NO_RULES if s is None else distinct.index(s) for s in self.rule_sets]
            program_ids = torch.tensor(ids, dtype=torch.int32, device=device)
            found = self._compiled[key] = CompiledRules(program, program_ids)
        return found

    def locate(self, prompts: Sequence[Sequence[int]]) -> list[int]:
        """Where each row's rules start to look in its prompt, given without padding."""
        if self._vocabulary is None or not self.has_locator:
            return [0] * len(prompts)
        rows = rows_a_prompt(len(prompts), len(self))
        rules_of_rows = (self.rule_sets[row // rows] or RuleSet() for row in range(len(prompts)))
        return [
            find_used_from(rules, self._vocabulary, prompt)
            for rules, prompt in zip(rules_of_rows, prompts, strict=True)
        ]

    @cached_property
    def _vocabulary(self) -> Vocabulary | None:
        return None if self.tokenizer is None else Vocabulary.of(self.tokenizer)


def _rule_set(rules: object) -> RuleSet:
    if isinstance(rules, RuleSet):
        return rules
    if not isinstance(rules, str | os.PathLike):
        raise TypeError(
            "rules must be a RuleSet, a preset's name, a rule file, or a list of these with one "
            f"for each prompt (None: no rules), got {type(rules).__name__}"
        )
    return find_rules(rules)


def _penalty(rules: RuleSet | None) -> UsedTokenPenalty | None:
    return next((rule for rule in rules or () if isinstance(rule, UsedTokenPenalty)), None)
