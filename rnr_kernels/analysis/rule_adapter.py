"""A base model with rules multiplied in, teacher forced: its logits before each response token."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from rnr_kernels.forward import logits_width
from rnr_kernels.generation import end_token_ids
from rnr_kernels.ops import apply_rules_
from rnr_kernels.rules.compiler import compile_rules
from rnr_kernels.rules.kinds import RuleSet
from rnr_kernels.rules.program import RuleProgram
from rnr_kernels.rules.scope import find_used_from
from rnr_kernels.teacher_forcing import Forced, draft_rows

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class RuleAdapter:
    """p_base * p_rules / Z (Hewitt et al. 2024, section 6) where a model is expected."""

    model: "PreTrainedModel"
    rules: RuleSet
    tokenizer: "PreTrainedTokenizerBase"

    @cached_property
    def program(self) -> RuleProgram:
        """The rules as `generate` compiles them for this model."""
        model = self.model
        eos = end_token_ids(model, self.tokenizer)
        width = logits_width(model)
        return compile_rules(
            self.rules, self.tokenizer, width, eos_token_ids=eos, device=model.device
        )

    def adjusted(self, logits: Tensor, texts: Sequence[Forced]) -> Tensor:
        """The adjusted logits of all responses, float32 [N, V]; `logits` [N, V] keep their bits.

        Rows are those of `response_logits`, text after text: row t of a text is adjusted as at the
        step when its first t response tokens had been chosen.
        """
        starts = [
            find_used_from(self.rules, self.tokenizer, text.prompt_token_ids) for text in texts
        ]
        rows = draft_rows(self.program, texts, starts)
        result = apply_rules_(
            logits.to(torch.float32, copy=True),
            self.program,
            rows.state,
            state_indices=rows.state_indices,
            row_offsets=rows.row_offsets,
            draft_token_ids=rows.draft_token_ids,
        )
        rows.state.check()
        return result
