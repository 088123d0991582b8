"""One batch of a token-shift run after the other: decode what has no response, compare, store."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from rnr_kernels.analysis.inputs import ShiftPrompt
from rnr_kernels.analysis.rule_adapter import RuleAdapter
from rnr_kernels.analysis.settings import ShiftSettings, common_tokenizer, smallest_of
from rnr_kernels.analysis.shards import write_prompts, write_shift
from rnr_kernels.analysis.store import ShiftStore, num_response_tokens, without_response
from rnr_kernels.analysis.token_shift import aligned_rows, check_same_width, compare_rows
from rnr_kernels.generation import Completion, LogitsError, generate, response_text
from rnr_kernels.loading import load_model
from rnr_kernels.teacher_forcing import Forced, ResponseRows, response_logits, response_rows

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Count = Callable[[int], None]
"""Told how many tokens were decoded or compared."""


class BatchWorker:
    """Holds a run's models, and does its batches in any order."""

    def __init__(self, settings: ShiftSettings, store: ShiftStore) -> None:
        """Loads the models. ValueError for different vocabulary sizes, or unfit rules."""
        self._settings = settings
        self._store = store
        self._folder = store.folder
        self._tokenizer = common_tokenizer(settings)
        self._window = smallest_of(settings)[0]
        models = {
            name: load_model(name, device=settings.device, dtype=settings.dtype)
            for name in settings.models
        }
        self._model: PreTrainedModel = models[settings.aligned_model]
        self._bases = [models[name] for name in settings.bases]
        for base in self._bases:
            check_same_width(self._model, base)
        self._aligned: PreTrainedModel | RuleAdapter = self._model
        if settings.rules is not None:
            self._aligned = RuleAdapter(self._model, settings.rules, self._tokenizer)
            _ = self._aligned.program  # compiled, or refused, before the first batch

    def run(self, batch: int, count: Count = lambda tokens: None) -> int:
        """Does what is missing of a batch, and returns how many response tokens it has.

        ValueError that names the prompt for logits that are no numbers, OSError in words for a file
        that cannot be written.
        """
        prompts = self._store.prompts(batch)
        if prompts is None:
            missing = without_response(self._store.planned(batch))
            decoded = list(self._decode(missing, count))
            write_prompts(self._folder.responses(batch), iter([decoded]))
            prompts = self._store.prompts(batch)
        assert prompts is not None
        self._compare(batch, prompts, count)
        return num_response_tokens(prompts)

    def _decode(self, prompts: Sequence[ShiftPrompt], count: Count) -> Iterator[ShiftPrompt]:
        seen = 0

        def on_step(running: Sequence[Completion]) -> None:
            nonlocal seen
            before, seen = seen, sum(len(completion.token_ids) for completion in running)
            count(seen - before)

        completions = generate(
            self._model,
            self._tokenizer,
            [prompt.instruction for prompt in prompts],
            rules=self._settings.rules,
            template=self._settings.templates[0],
            max_new_tokens=self._settings.max_new_tokens,
            batch_size=len(prompts),
            on_step=on_step,
        )
        try:
            for prompt, completion in zip(prompts, completions, strict=True):
                yield self._decoded(prompt, completion)
        except LogitsError as error:
            raise LogitsError(prompts[error.index].index, error.num_tokens) from None

    def _decoded(self, prompt: ShiftPrompt, completion: Completion) -> ShiftPrompt:
        """The response as far as the smallest window of all models holds it."""
        token_ids, text, reason = completion.token_ids, completion.text, completion.finish_reason
        if self._window is not None:
            longest = max(len(prompt.prompt_token_ids), len(prompt.base_prompt_token_ids))
            room = self._window - longest
            if len(token_ids) > room:
                token_ids, reason = token_ids[:room], "length"
                text = response_text(self._tokenizer, token_ids, self._store.manifest.eos_token_ids)
        return replace(
            prompt, response=text, finish_reason=reason, response_token_ids=tuple(token_ids)
        )

    def _compare(self, batch: int, prompts: Sequence[ShiftPrompt], count: Count) -> None:
        missing = self._store.missing_bases(batch)
        responses = [prompt.response_token_ids or () for prompt in prompts]
        texts = [Forced(p.prompt_token_ids, r) for p, r in zip(prompts, responses, strict=True)]
        base_texts = [
            Forced(p.base_prompt_token_ids, r) for p, r in zip(prompts, responses, strict=True)
        ]
        rows = self._rows(self._model, texts)
        named = replace(
            aligned_rows(self._aligned, rows, texts), indices=[prompt.index for prompt in prompts]
        )
        for base in missing:
            model = self._bases[base]
            shares = model is self._model and base_texts == texts
            base_rows = rows if shares else self._rows(model, base_texts)
            shift = compare_rows(named, base_rows, top_k=self._store.manifest.top_k)
            write_shift(self._folder.tokens(base, batch), shift)
            count(len(shift))

    def _rows(self, model: "PreTrainedModel", texts: Sequence[Forced]) -> ResponseRows:
        """The rows of all texts, in one forward pass; rules act on logits."""
        read = response_rows if self._settings.rules is None else response_logits
        (rows,) = read(model, texts, batches=[range(len(texts))])
        return rows
