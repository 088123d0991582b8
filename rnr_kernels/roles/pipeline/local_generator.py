"""A local Hugging Face model as generator: our decode loop, in batches."""

from dataclasses import replace
from threading import Event
from typing import TYPE_CHECKING, Any

from rnr_kernels.generation import Completion, generate
from rnr_kernels.identity import rules_digest
from rnr_kernels.roles.pipeline.asks import Ask, Reply
from rnr_kernels.rules.kinds import RuleSet
from rnr_kernels.sampling import GREEDY, Sampling
from rnr_kernels.templates import PromptTemplate, prompt_template

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

PROBE = ({"role": "system", "content": "a"}, {"role": "user", "content": "b"})
"""A chat such as every request is, to see that the template takes it."""


class LocalGenerator:
    """Decodes with `model`, `batch_size` requests at once.

    `rules` are in force for every reply. With a seed in `sampling`, each batch draws from the seed
    of its first request. Greedy replies do not depend on how requests fall into batches, as far as
    the model's own arithmetic does not. ValueError for a template that takes no system message.
    """

    in_flight = 1

    def __init__(
        self,
        model: "PreTrainedModel",
        tokenizer: "PreTrainedTokenizerBase",
        *,
        name: str,
        identity: dict[str, Any],
        rules: RuleSet | None = None,
        template: str | PromptTemplate = "chat",
        sampling: Sampling = GREEDY,
        max_new_tokens: int = 512,
        batch_size: int = 8,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        if isinstance(template, str):
            template = prompt_template(template)
        template.encode(tokenizer, PROBE)
        self._model = model
        self._tokenizer = tokenizer
        self.name = name
        self._identity = identity
        self._rules = rules
        self._template = template
        self._sampling = sampling
        self._max_new_tokens = max_new_tokens
        self.batch_size = batch_size

    def identity(self) -> dict[str, Any]:
        """The model's, with how it decodes."""
        return {
            "kind": "local",
            **self._identity,
            "template": self._template.name,
            "sampling": [
                self._sampling.temperature,
                self._sampling.top_k,
                self._sampling.top_p,
                self._sampling.min_p,
            ],
            "rules": None if self._rules is None else rules_digest(self._rules),
            "max_new_tokens": self._max_new_tokens,
        }

    def replies(self, asks: list[Ask], stopped: Event) -> list[Reply]:
        """As `Generator.replies`; a prompt that does not fit is a reply without text."""
        try:
            return self._decoded(asks)
        except ValueError as error:
            if len(asks) == 1:
                return [Reply("", str(error))]
        # One of them is to blame; which, is seen by asking one by one.
        return [reply for ask in asks for reply in self.replies([ask], stopped)]

    def _decoded(self, asks: list[Ask]) -> list[Reply]:
        sampling = self._sampling
        if sampling.temperature > 0:
            sampling = replace(sampling, seed=asks[0].seed)
        completions = generate(
            self._model,
            self._tokenizer,
            [ask.messages for ask in asks],
            rules=self._rules,
            template=self._template,
            sampling=sampling,
            max_new_tokens=self._max_new_tokens,
            batch_size=len(asks),
        )
        return [_reply(completion) for completion in completions]


def _reply(completion: Completion) -> Reply:
    return Reply(
        completion.text,
        is_cut=completion.finish_reason == "length",
        num_read=len(completion.prompt_token_ids),
        num_written=len(completion.token_ids),
    )
