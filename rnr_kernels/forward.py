"""Forward passes with a KV cache over any Hugging Face causal language model."""

import inspect
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from rnr_kernels.backends.heads import Head

if TYPE_CHECKING:
    from transformers import Cache, PreTrainedModel

LOGIT_SCALES = {"logit_scale": 1.0, "lm_head_multiplier": 1.0, "logits_scaling": -1.0}
"""Names in configs of what logits are multiplied with (Cohere, Falcon-H1), to this power: Granite
divides."""

SOFTCAPS = ("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap")
"""Names in configs of a cap * tanh(logits / cap) (Gemma, RecurrentGemma, xLSTM)."""


class ForwardPass:
    """The model's side of a decode loop: logits of the next token, then append the chosen one.

    `input_ids` [B, T] is left-padded (or [B, 0] with `inputs_embeds`); `model_kwargs` go to the
    model as in Hugging Face `generate`: attention_mask, past_key_values, inputs_embeds, ...
    `mask_length` is the width of an attention mask that was left out because it was all ones: where
    it is longer than the ids, they are only the tokens that `past_key_values` does not hold.
    A model that hands out no cache is run on all tokens at every step.
    """

    def __init__(
        self,
        model: "PreTrainedModel",
        input_ids: Tensor,
        *,
        mask_length: int | None = None,
        **model_kwargs: Any,
    ) -> None:
        self._model = cast(Any, model)
        self.input_ids = input_ids
        self._kwargs = {"use_cache": True, **model_kwargs}
        self._add_positions()
        if "logits_to_keep" not in self._kwargs and self._model._supports_logits_to_keep():
            self._kwargs["logits_to_keep"] = 1
        self._mask_length = mask_length
        self._is_first = True

    @property
    def past_key_values(self) -> "Cache | None":
        """The cache, None where the model keeps none under this name."""
        return self._kwargs.get("past_key_values")

    @torch.no_grad()
    def next_logits(self) -> Tensor:
        """Logits [B, V] of the next token, in the model's dtype: a view of the model's output."""
        inputs = self._model.prepare_inputs_for_generation(
            self.input_ids,
            next_sequence_length=self._new_tokens(),
            is_first_iteration=self._is_first,
            **self._kwargs,
        )
        outputs = self._model(**inputs, return_dict=True)
        self._kwargs = self._model._update_model_kwargs_for_generation(outputs, self._kwargs)
        if self._is_first and not _has_cache(outputs):
            self._kwargs["use_cache"] = False
        self._is_first = False
        logits: Tensor = outputs.logits[:, -1]
        return logits

    def append(self, token_ids: Tensor) -> None:
        """Appends one token a row, int64 [B]."""
        self.input_ids = torch.cat([self.input_ids, token_ids[:, None]], dim=1)

    def _add_positions(self) -> None:
        """Positions that do not count padding, for models that learned absolute ones."""
        mask = self._kwargs.get("attention_mask")
        takes_positions = "position_ids" in inspect.signature(self._model.forward).parameters
        if mask is not None and takes_positions and self._kwargs.get("position_ids") is None:
            self._kwargs["position_ids"] = (mask.long().cumsum(1) - 1).clamp(min=0)

    def _new_tokens(self) -> int | None:
        """How many of the last tokens the cache does not hold; None is all of them."""
        if not self._is_first:
            return 1 if self._kwargs["use_cache"] else None
        cache = self.past_key_values
        embeds, mask = self._kwargs.get("inputs_embeds"), self._kwargs.get("attention_mask")
        past = 0 if cache is None else int(cache.get_seq_length())
        if past == 0:
            return None
        if embeds is not None:
            return int(embeds.shape[1]) - past
        length = self.input_ids.shape[1]
        mask_length = self._mask_length if mask is None else mask.shape[1]
        # A mask longer than the ids says that the ids are the new tokens only.
        return length - past if mask_length in (None, length) else None


def context_window(model: "PreTrainedModel") -> int | None:
    """The most tokens the model can hold, None where its config does not say."""
    return config_window(model.config)


def config_window(config: Any) -> int | None:
    """The same from a model's config alone."""
    window = getattr(config.get_text_config(), "max_position_embeddings", None)
    return int(window) if window and window > 0 else None


def logits_width(model: "PreTrainedModel") -> int:
    """Columns of the model's logits, which may be more than the tokenizer has tokens."""
    width = getattr(model.get_output_embeddings(), "out_features", None)
    return int(width or model.config.get_text_config().vocab_size)


def plain_head(model: "PreTrainedModel") -> Head | None:
    """The LM head as `linear_token_stats` takes it, None where it is no linear layer in float32.

    Logits that a model rounds to bfloat16 are its own: ties and ranks of float32 ones would be
    others. Scale and soft cap are what the config has under known names, which a model need not
    follow: compare with its logits before you rely on them.
    """
    head: Any = model.get_output_embeddings()
    # Of a subclass (quantised, adapted, parametrised) the weight alone does not say what it does.
    if type(head) is not nn.Linear or head.weight.dtype != torch.float32 or head.weight.is_meta:
        return None
    config = model.config.get_text_config()
    scale = 1.0
    for name, power in LOGIT_SCALES.items():
        scale *= float(getattr(config, name, None) or 1.0) ** power
    caps = [float(getattr(config, name, None) or 0.0) for name in SOFTCAPS]
    bias = None if head.bias is None else head.bias.detach()
    return Head(head.weight.detach(), bias, scale, max(caps))


def _has_cache(outputs: Any) -> bool:
    from transformers.generation.utils import ALL_CACHE_NAMES

    return any(outputs.get(name) is not None for name in ALL_CACHE_NAMES)
