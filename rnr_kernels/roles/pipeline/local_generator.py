"""A local Hugging Face model as generator: our decode loop, in batches."""

from collections.abc import Sequence
from threading import Event
from typing import TYPE_CHECKING, Any

from rnr_kernels.generation import Completion, generate
from rnr_kernels.identity import rules_digest
from rnr_kernels.roles.constraint_cache import ConstraintCache
from rnr_kernels.roles.constraints import Constraint
from rnr_kernels.roles.pipeline.asks import RESPONSES, Ask, Reply
from rnr_kernels.rules.kinds import RuleSet
from rnr_kernels.sampling import GREEDY, Sampling
from rnr_kernels.templates import PromptTemplate, prompt_template

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

PROBE = ({"role": "system", "content": "a"}, {"role": "user", "content": "b"})
"""A chat such as every request is, to see that the template takes it."""


class LocalGenerator:
    """Decodes with `model`, `batch_size` requests at once.

    `rules` are in force for every reply, and for responses, where it is `constrained`, the
    constraints of the example's requirements. Every request draws from its own seed, so that
    replies do not depend on how requests fall into batches, as far as the model's own arithmetic
    does not. ValueError for a template that takes no system message.
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
        constrained: bool = True,
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
        self._constraints = (
            ConstraintCache(model, tokenizer, max_new_tokens) if constrained else None
        )

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
            "constrained": self._constraints is not None,
        }

    def replies(self, asks: list[Ask], stopped: Event) -> list[Reply]:
        """As `Generator.replies`; a prompt that does not fit is a reply without text.

        What cannot be constrained, as its constraint leaves no text or needs more tokens than there
        are, is decoded without, with a note that says so.
        """
        return self._replies(asks, [self._asked_constraint(ask) for ask in asks])

    def _asked_constraint(self, ask: Ask) -> Constraint | str | None:
        """Of a response; words for why there is none."""
        if self._constraints is None or ask.step not in RESPONSES:
            return None
        return self._constraints.of([each.requirement for each in ask.example.requirements])

    def _replies(
        self, asks: Sequence[Ask], constraints: Sequence[Constraint | str | None]
    ) -> list[Reply]:
        try:
            return self._decoded(asks, constraints)
        except ValueError as error:
            if len(asks) > 1:
                # One of them is to blame; which, is seen by asking one by one.
                return [
                    reply
                    for ask, constraint in zip(asks, constraints, strict=True)
                    for reply in self._replies([ask], [constraint])
                ]
            if isinstance(constraints[0], Constraint):
                return self._replies(asks, [str(error)])
            return [Reply("", str(error))]

    def _decoded(
        self, asks: Sequence[Ask], constraints: Sequence[Constraint | str | None]
    ) -> list[Reply]:
        made = [each if isinstance(each, Constraint) else None for each in constraints]
        completions = generate(
            self._model,
            self._tokenizer,
            [ask.messages for ask in asks],
            rules=[self._rules_with(each) for each in made],
            automata=[None if each is None else each.automaton for each in made],
            template=self._template,
            sampling=self._sampling,
            seeds=[ask.seed for ask in asks],
            max_new_tokens=self._max_new_tokens,
            batch_size=len(asks),
        )
        return [
            _reply(completion, f"not constrained: {each}" if isinstance(each, str) else "")
            for completion, each in zip(completions, constraints, strict=True)
        ]

    def _rules_with(self, constraint: Constraint | None) -> RuleSet | None:
        if constraint is None or not constraint.rules:
            return self._rules
        return constraint.rules if self._rules is None else self._rules + constraint.rules


def _reply(completion: Completion, note: str) -> Reply:
    return Reply(
        completion.text,
        is_cut=completion.finish_reason == "length",
        num_read=len(completion.prompt_token_ids),
        num_written=len(completion.token_ids),
        note=note,
    )
