"""Rules inside Hugging Face `generate`: as a logits processor, or as the whole decode loop."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import torch
from torch import Tensor

from rnr_kernels.automata.masks import Automata
from rnr_kernels.forward import logits_width
from rnr_kernels.generation import end_token_ids
from rnr_kernels.integrations.batch_rules import BatchRules, Rules
from rnr_kernels.integrations.prompts import Prompts, spread
from rnr_kernels.integrations.response_masks import ResponseMasks
from rnr_kernels.ops import apply_rules_, update_state_
from rnr_kernels.rules.kinds import TokenIds, as_token_ids
from rnr_kernels.state import DecodeState

try:
    from transformers import LogitsProcessor
except ImportError as error:
    raise ImportError("this needs transformers: pip install 'rnr-kernels[transformers]'") from error

from rnr_kernels.integrations.huggingface_generate import generate

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["RuleLogitsProcessor", "generate"]


class _Located(NamedTuple):
    """Prompts and where used tokens start in them: a pure function's last value, kept."""

    ids: Tensor
    used_from: Tensor


class RuleLogitsProcessor(LogitsProcessor):
    """Adds rule scores to logits, for `model.generate(..., logits_processor=[processor])`.

    `rules` is a RuleSet, a preset's name or a rule file, or a list of these, one a prompt (None: no
    rules). `prompt_length`, an int or an int tensor [P], is the column of `input_ids` where each
    response starts: `input_ids.shape[1]` of a left-padded batch, 0 for `inputs_embeds` alone;
    `for_generate` fills it in. `eos_token_ids` (default: the tokenizer's) are what an EosRamp acts
    on. Rules with the scope "prompt+response" also want `attention_mask` [P, prompt_length], since
    padding is no used token, and take `used_from`, an int or one a prompt: a position in the
    prompt without its padding (default: what the rule's locator finds, else 0). `vocab_size`
    (default: all columns) is the number of logits that count. `automata`, one or one a prompt, keep
    responses within a language and, given `max_new_tokens`, end them within it; it must be what
    `generate` is given.

    A call sees nothing but its two arguments, so beams, rollback in assisted decoding and reuse are
    safe; an assistant must have the same tokenizer. With n rows a prompt, row r belongs to prompt
    r // n. Padding after a row's EOS counts like other tokens: nothing is chosen there any more.
    Scores keep their dtype and are copied, because `generate` hands out the same tensor as
    `output_logits`; `inplace=True` saves the copy.
    """

    supports_continuous_batching = False

    def __init__(
        self,
        rules: Rules | Sequence[Rules | None],
        tokenizer: "PreTrainedTokenizerBase | None",
        prompt_length: int | Tensor,
        *,
        eos_token_ids: TokenIds | None = None,
        attention_mask: Tensor | None = None,
        used_from: int | Sequence[int] | None = None,
        vocab_size: int | None = None,
        automata: Automata = None,
        max_new_tokens: int | None = None,
        inplace: bool = False,
    ) -> None:
        self._rules = BatchRules(rules, tokenizer)
        prompts = Prompts.of(prompt_length, attention_mask, used_from)
        counts = {"rules": len(self._rules), **prompts.counts()}
        self._masks = None if automata is None else ResponseMasks(automata, max_new_tokens)
        if self._masks is not None:
            counts["automata"] = len(self._masks)
        _check_equally_many(counts)
        self._prompts = {prompts.starts.device: prompts}
        self._prompt_length = prompts.length
        self._eos_token_ids = None if eos_token_ids is None else as_token_ids(eos_token_ids)
        self._vocab_size = vocab_size
        self._inplace = inplace
        self._last_located: _Located | None = None

    @classmethod
    def for_generate(
        cls,
        rules: Rules | Sequence[Rules | None],
        tokenizer: "PreTrainedTokenizerBase",
        model: "PreTrainedModel",
        inputs: Mapping[str, Any],
        *,
        used_from: int | Sequence[int] | None = None,
        automata: Automata = None,
        max_new_tokens: int | None = None,
        inplace: bool = False,
    ) -> Self:
        """The processor for `model.generate(**inputs, logits_processor=[...])`.

        Takes prompts and padding from `inputs` and the EOS ids from the model's generation config,
        and compiles the rules for the model's logits, so that a mistake in them, or in automata,
        shows here.
        """
        if not isinstance(inputs, Mapping) or not {"input_ids", "inputs_embeds"} & set(inputs):
            raise ValueError(
                "inputs must be a mapping with input_ids or inputs_embeds, as a tokenizer returns "
                f"with return_tensors='pt', got {type(inputs).__name__}"
            )
        if model.config.is_encoder_decoder:
            raise ValueError(
                "for_generate is for decoder-only models; responses of an encoder-decoder model "
                "start behind its decoder's first tokens, so pass prompt_length to the class"
            )
        batch = BatchRules(rules, tokenizer)
        input_ids, mask = inputs.get("input_ids"), inputs.get("attention_mask")
        length = 0 if input_ids is None else input_ids.shape[1]
        if mask is not None:
            # With a cache the mask also covers what the cache holds; embeddings have no ids.
            mask = mask[:, mask.shape[1] - length :]
        if used_from is None and batch.has_locator and input_ids is not None:
            prompts = Prompts.of(length, mask, None).to(input_ids.device).spread(len(input_ids))
            used_from = batch.locate(prompts.token_ids(input_ids))
        eos_token_ids = end_token_ids(model, tokenizer)
        processor = cls(
            batch.rule_sets,
            tokenizer,
            length,
            eos_token_ids=eos_token_ids,
            attention_mask=mask,
            used_from=used_from,
            automata=automata,
            max_new_tokens=max_new_tokens,
            inplace=inplace,
        )
        processor._rules.compiled(logits_width(model), eos_token_ids, model.device)
        if processor._masks is not None:
            processor._masks.check(logits_width(model), eos_token_ids)
        return processor

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Scores [B, V] with the rules' scores added, from `input_ids` int [B, T]."""
        self._check_call(input_ids, scores)
        num_rows, width = scores.shape
        vocab_size = width if self._vocab_size is None else self._vocab_size
        compiled = self._rules.compiled(vocab_size, self._eos_token_ids, scores.device)
        prompts = self._prompts_on(scores.device).spread(num_rows)
        state = DecodeState.allocate(compiled.program, num_rows)
        if self._rules.counts_used:
            update_state_(state, self._used_tokens(input_ids, prompts))
        state.program_ids.copy_(spread(compiled.program_ids, num_rows))
        state.num_output_tokens.copy_(input_ids.shape[1] - prompts.starts)
        adjusted = scores
        if not self._inplace:
            # Assisted decoding hands over strided rows.
            adjusted = scores.clone(memory_format=torch.contiguous_format)
        allowed = self._allowed(input_ids, prompts, vocab_size, scores.device)
        return apply_rules_(adjusted, compiled.program, state, allowed_bitmask=allowed)

    def _allowed(
        self, input_ids: Tensor, prompts: Prompts, vocab_size: int, device: torch.device
    ) -> Tensor | None:
        """The mask of each row; None without automata."""
        if self._masks is None:
            return None
        self._masks.check(vocab_size, self._eos_token_ids)
        rows = zip(input_ids.tolist(), prompts.starts.tolist(), strict=True)
        return self._masks.of([row[start:] for row, start in rows], vocab_size, device)

    def _used_tokens(self, input_ids: Tensor, prompts: Prompts) -> Tensor:
        """int [B, T]: the tokens that count as used, -1 in place of others."""
        columns = torch.arange(input_ids.shape[1], device=input_ids.device)
        counted = columns >= prompts.starts[:, None]
        if any(self._rules.counts_prompt):
            counts = torch.tensor(self._rules.counts_prompt, device=input_ids.device)
            tokens = prompts.tokens(input_ids)
            used_from = self._used_from(input_ids, prompts)[:, None]
            used = tokens & (tokens.cumsum(1) - 1 >= used_from)
            counted[:, : prompts.length] |= used & spread(counts, len(used))[:, None]
        return torch.where(counted, input_ids, -1)

    def _used_from(self, input_ids: Tensor, prompts: Prompts) -> Tensor:
        """int64 [B]: where used tokens start in each prompt, counted without padding."""
        if prompts.used_from is not None:
            return prompts.used_from
        if not self._rules.has_locator:
            return torch.zeros_like(prompts.starts)
        ids = input_ids[:, : prompts.length]
        last = self._last_located
        if last is None or last.ids.device != ids.device or not torch.equal(last.ids, ids):
            found = self._rules.locate(prompts.token_ids(input_ids))
            last = _Located(ids.clone(), torch.tensor(found, device=ids.device))
            self._last_located = last
        return last.used_from

    def _prompts_on(self, device: torch.device) -> Prompts:
        if device not in self._prompts:
            self._prompts[device] = next(iter(self._prompts.values())).to(device)
        return self._prompts[device]

    def _check_call(self, input_ids: Tensor, scores: Tensor) -> None:
        if input_ids.dim() == 1:
            raise ValueError(
                "input_ids must be [B, T], got one dimension: continuous batching does not show a "
                "processor what was generated, so rules cannot run there; use generate"
            )
        if scores.dim() != 2 or len(scores) != len(input_ids):
            raise ValueError(
                f"scores must be [B, V] with B = {len(input_ids)}, got {list(scores.shape)}"
            )
        if input_ids.shape[1] < self._prompt_length:
            raise ValueError(
                f"input_ids must hold the prompt of {self._prompt_length} tokens, got "
                f"{input_ids.shape[1]}; make a processor with this prompt's prompt_length"
            )


def _check_equally_many(counts: Mapping[str, int]) -> None:
    """Arguments with one value a prompt must agree on how many prompts there are."""
    several = {name: count for name, count in counts.items() if count != 1}
    if len(set(several.values())) > 1:
        got = ", ".join(f"{name} {count}" for name, count in several.items())
        raise ValueError(f"arguments with one value a prompt must be equally long, got {got}")
