"""What a token-shift run is asked for, and the models that it names."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rnr_kernels.forward import config_window
from rnr_kernels.loading import (
    DTYPES,
    EMBEDDED,
    EMBEDDED_PROMPTS,
    as_device,
    display_name,
    end_token_ids_of,
    load_config,
    load_tokenizer,
)
from rnr_kernels.rules.files import find_rules
from rnr_kernels.rules.kinds import RuleSet
from rnr_kernels.rules.vocabulary import Vocabulary
from rnr_kernels.teacher_forcing import BATCH_TOKENS
from rnr_kernels.templates import PromptTemplate, prompt_template

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

RULES_PREFIX = "rules:"
ALIGNED = "embedded:response"
MAX_TOP_K = 10


@dataclass(frozen=True)
class ShiftSettings:
    """One run: an aligned side, its bases, prompts. ValueError for what no run can be."""

    aligned: str = ALIGNED
    """A model; or `rules:` and a preset or rule file: the first base with these rules."""
    bases: tuple[str, ...] = (EMBEDDED,)
    prompts: str | Path = EMBEDDED_PROMPTS
    limit: int | None = None
    """Only the first records."""
    template: str = "tags"
    base_template: str | None = None
    """Of the bases' prompts; None: they see the aligned side's."""
    top_k: int = MAX_TOP_K
    """How many of both sides' likeliest tokens are kept."""
    max_new_tokens: int = 512
    """Of responses that are decoded."""
    batch_tokens: int = BATCH_TOKENS
    """Tokens in a forward pass, padding included."""
    device: str | None = None
    dtype: str | None = None

    def __post_init__(self) -> None:
        if not self.bases:
            raise ValueError("a run needs at least one base to compare with")
        if not 0 <= self.top_k <= MAX_TOP_K:
            raise ValueError(f"top_k must be 0 to {MAX_TOP_K}, got {self.top_k}")
        for name in ("max_new_tokens", "batch_tokens", "limit"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if self.dtype is not None and self.dtype not in DTYPES:
            raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {self.dtype!r}")

    @cached_property
    def rules(self) -> RuleSet | None:
        """The aligned side's, None where it is a model."""
        if not self.aligned.startswith(RULES_PREFIX):
            return None
        return find_rules(self.aligned.removeprefix(RULES_PREFIX))

    @property
    def aligned_model(self) -> str:
        """The aligned side's model by name: with rules, the first base."""
        return self.aligned if self.rules is None else self.bases[0]

    @property
    def aligned_name(self) -> str:
        """What tables call the aligned side."""
        name = display_name(self.aligned_model)
        return name if self.rules is None else f"{name} x {self.rules.name}"

    @property
    def models(self) -> tuple[str, ...]:
        """All models by name, each once, the aligned side's first."""
        return tuple(dict.fromkeys((self.aligned_model, *self.bases)))

    @property
    def device_type(self) -> str:
        """cpu, cuda, ... ValueError for a device that is not there."""
        return as_device(self.device).type

    @property
    def templates(self) -> tuple[PromptTemplate, PromptTemplate | None]:
        """The aligned side's and the bases' own."""
        other = None if self.base_template is None else prompt_template(self.base_template)
        return prompt_template(self.template), other

    def eos_token_ids(self, tokenizer: "PreTrainedTokenizerBase") -> tuple[int, ...]:
        """What ends a response of the aligned side."""
        named = end_token_ids_of(self.aligned_model)
        return tuple(Vocabulary.of(tokenizer).eos_token_ids if named is None else named)


def common_tokenizer(settings: ShiftSettings) -> "PreTrainedTokenizerBase":
    """The aligned side's tokenizer. ValueError that says where a base's differs."""
    first, *others = settings.models
    tokenizer = load_tokenizer(first)
    for other in others:
        check_same_tokens(first, tokenizer, other, load_tokenizer(other))
    return tokenizer


def check_same_tokens(
    name: str,
    tokenizer: "PreTrainedTokenizerBase",
    other_name: str,
    other: "PreTrainedTokenizerBase",
) -> None:
    """ValueError that names the first id which is not the same piece for both."""
    pieces, others = (
        {token_id: piece for piece, token_id in each.get_vocab().items()}
        for each in (tokenizer, other)
    )
    for token_id in sorted(pieces.keys() | others.keys()):
        if pieces.get(token_id) != others.get(token_id):
            raise ValueError(
                f"the tokenizers of {name} ({len(pieces)} tokens) and {other_name} ({len(others)}) "
                f"differ: id {token_id} is {_piece(pieces.get(token_id))} there and "
                f"{_piece(others.get(token_id))} here; compare a model with the base that it was "
                "made from"
            )


def _piece(piece: str | None) -> str:
    return "no token" if piece is None else repr(piece)


def smallest_of(settings: ShiftSettings) -> tuple[int | None, int]:
    """The smallest window and vocabulary of the models, from their configs alone."""
    configs: list[Any] = [load_config(name) for name in settings.models]
    windows = [window for config in configs if (window := config_window(config)) is not None]
    sizes = [int(config.get_text_config().vocab_size) for config in configs]
    return min(windows, default=None), min(sizes)
