"""A decode loop for `model.generate(custom_generate=...)`: one rule and sampling op a step."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import LogitsProcessorList, StoppingCriteriaList, StopStringCriteria
from transformers.generation.logits_process import (
    EpsilonLogitsWarper,
    EtaLogitsWarper,
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopHLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)
from transformers.generation.utils import GenerateDecoderOnlyOutput

from rnr_kernels.automata.automaton import Automaton
from rnr_kernels.automata.masks import Automata, BatchMasks, automata_of
from rnr_kernels.automata.matcher import Matcher
from rnr_kernels.forward import ForwardPass, logits_width
from rnr_kernels.integrations.batch_rules import BatchRules, CompiledRules, Rules
from rnr_kernels.integrations.prompts import Prompts, rows_a_prompt, spread
from rnr_kernels.ops import apply_rules_, sample_
from rnr_kernels.rules.kinds import TokenIds, as_token_ids
from rnr_kernels.sampling import GREEDY, Sampling, check_sampling
from rnr_kernels.state import DecodeState

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase
    from transformers.generation.streamers import BaseStreamer

SAMPLING_WARPERS = {
    TemperatureLogitsWarper: "temperature",
    TopKLogitsWarper: "top_k",
    TopPLogitsWarper: "top_p",
    MinPLogitsWarper: "min_p",
}
"""What `generate` appends for a config's sampling options, and the option of each."""

OTHER_WARPERS = (TopHLogitsWarper, TypicalLogitsWarper, EpsilonLogitsWarper, EtaLogitsWarper)


def generate(
    rules: Rules | Sequence[Rules | None],
    tokenizer: "PreTrainedTokenizerBase",
    *,
    sampling: Sampling | None = None,
    eos_token_ids: TokenIds | None = None,
    used_from: int | Sequence[int] | None = None,
    stop_strings: str | Sequence[str] = (),
    automata: Automata = None,
    streamer: "BaseStreamer | None" = None,
) -> "RuleDecoding":
    """A decode loop for `model.generate(**inputs, custom_generate=generate(rules, tokenizer))`.

    `rules`, `used_from` and `eos_token_ids` (default: the generation config's, else the
    tokenizer's) are those of RuleLogitsProcessor. `sampling` takes the place of the config's
    do_sample, temperature, top_k, top_p and min_p; None follows them. Row r draws with seed + r;
    for `num_return_sequences` Hugging Face wants do_sample=True all the same. Logits processors run
    before the rules. Returned `scores` are the adjusted logits of unfinished rows, before
    temperature and filters.

    `automata`, one or one a prompt, keep responses within a language and end them before the
    config's max_length.

    Hugging Face hands neither its `streamer` nor its `tokenizer` to a custom loop, so the streamer
    and the stop strings (one or several) are given here. Beam search, assisted and contrastive
    decoding are a ValueError; an `assistant_model` is not handed on either and stays unused.
    """
    if sampling is not None:
        check_sampling(sampling)
    stops = [stop_strings] if isinstance(stop_strings, str) else list(stop_strings)
    if "" in stops:
        raise ValueError("a stop string must not be empty; leave it out")
    return RuleDecoding(
        BatchRules(rules, tokenizer),
        sampling,
        None if eos_token_ids is None else as_token_ids(eos_token_ids),
        used_from,
        [StopStringCriteria(tokenizer, stops)] if stops else [],
        automata,
        streamer,
    )


@dataclass(frozen=True, eq=False)
class RuleDecoding:
    """What `generate` returns; Hugging Face calls it as a decoding method."""

    rules: BatchRules
    sampling: Sampling | None
    eos_token_ids: tuple[int, ...] | None
    used_from: int | Sequence[int] | None
    stops: list[StopStringCriteria]
    automata: Automata
    streamer: "BaseStreamer | None"

    def __call__(
        self,
        model: "PreTrainedModel",
        input_ids: Tensor,
        logits_processor: LogitsProcessorList,
        stopping_criteria: StoppingCriteriaList,
        generation_config: "GenerationConfig",
        synced_gpus: bool = False,
        streamer: "BaseStreamer | None" = None,
        **model_kwargs: Any,
    ) -> GenerateDecoderOnlyOutput | Tensor:
        """int64 [B, T + new], or a GenerateDecoderOnlyOutput with return_dict_in_generate."""
        _check_supported(model, generation_config, logits_processor, synced_gpus)
        if streamer is None and self.streamer is not None:
            streamer = self.streamer
            streamer.put(input_ids.cpu())
        compiled = self.rules.compiled(
            logits_width(model), self._end_token_ids(generation_config), input_ids.device
        )
        sampling = self.sampling
        if sampling is None:
            sampling = configured_sampling(generation_config)
        mask = model_kwargs.get("attention_mask")
        state = self._admit(compiled, input_ids, mask, sampling)
        processors = without_warpers(logits_processor, generation_config)
        criteria = StoppingCriteriaList([*stopping_criteria, *self.stops])
        pad = None
        if any(hasattr(criterion, "eos_token_id") for criterion in criteria):
            pad = generation_config._pad_token_tensor
        asks = generation_config if generation_config.return_dict_in_generate else None
        recorder = _Recorder(bool(asks and asks.output_logits), bool(asks and asks.output_scores))
        mask_length = getattr(generation_config, "_mask_length", None)
        forward = ForwardPass(model, input_ids, mask_length=mask_length, **model_kwargs)

        slots = torch.arange(len(input_ids), device=input_ids.device)
        matchers = self._matchers(compiled, input_ids, generation_config)
        masks = BatchMasks(len(slots), logits_width(model), slots.device) if matchers else None
        is_finished = torch.zeros_like(slots, dtype=torch.bool)
        finished = [False] * len(slots)
        while not all(finished):
            logits = forward.next_logits().to(input_ids.device)
            recorder.keep_logits(logits)
            if processors:
                ids: Any = forward.input_ids
                logits = processors(ids, logits.to(torch.float32, copy=True))
            # Without an end of sequence no row is finished before the others.
            rows = None if pad is None else torch.where(is_finished, -1, slots)
            allowed = None
            if masks is not None:
                rows_left = zip(finished, matchers, strict=True)
                allowed = masks.fill([None if ended else each for ended, each in rows_left])
            recorder.keep_scores(logits, compiled, state, rows, allowed)
            token_ids = sample_(
                logits, compiled.program, state, state_indices=rows, allowed_bitmask=allowed
            ).token_ids
            is_invalid = token_ids < 0
            if pad is not None:
                is_invalid &= ~is_finished
                token_ids = torch.where(is_finished, pad.to(token_ids.device), token_ids)
            forward.append(token_ids)
            is_finished |= criteria(forward.input_ids, recorder.scores)
            # The one synchronisation of a step, as in any loop that stops at EOS.
            finished, invalid, chosen = torch.stack([is_finished, is_invalid, token_ids]).tolist()
            if any(invalid):
                raise ValueError(
                    f"row {invalid.index(True)} has no token to choose: its logits hold NaN or "
                    "+inf, or logits processors, rules and automata together ban every token"
                )
            if masks is not None:
                for matcher, token_id in zip(matchers, chosen, strict=True):
                    if matcher is not None:
                        matcher.accept_token(token_id)
            if streamer is not None:
                streamer.put(token_ids.cpu())
        if streamer is not None:
            streamer.end()
        return recorder.output(forward) if asks else forward.input_ids

    def _admit(
        self,
        compiled: CompiledRules,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        sampling: Sampling,
    ) -> DecodeState:
        """One slot a row."""
        num_rows, length = input_ids.shape
        if attention_mask is not None:
            # It may also cover a cache, or embeddings, which have no ids.
            attention_mask = attention_mask[:, attention_mask.shape[1] - length :]
        prompts = Prompts.of(length, attention_mask, self.used_from)
        prompts = prompts.to(input_ids.device).spread(num_rows)
        token_ids = prompts.token_ids(input_ids)
        if prompts.used_from is None:
            used_from = self.rules.locate(token_ids)
        else:
            used_from = prompts.used_from.tolist()
        program_ids = spread(compiled.program_ids, num_rows).tolist()
        state = DecodeState.allocate(compiled.program, num_rows)
        for row, program_id in enumerate(program_ids):
            seed = None if sampling.seed is None else sampling.seed + row
            state.admit(
                row,
                program_id,
                prompt_token_ids=token_ids[row],
                used_from=used_from[row],
                sampling=replace(sampling, seed=seed),
            )
        return state

    def _matchers(
        self, compiled: CompiledRules, input_ids: Tensor, config: "GenerationConfig"
    ) -> list[Matcher | None]:
        """One a row; empty where there are no automata at all."""
        if self.automata is None:
            return []
        num_rows, length = input_ids.shape
        given = self.automata
        if not isinstance(given, Automaton):
            copies = rows_a_prompt(num_rows, len(given) or 1)
            given = [each for each in given for _ in range(copies)]
        ends = self._end_token_ids(config) or ()
        rows = automata_of(given, num_rows, compiled.program.vocab_size, ends)
        room = None if config.max_length is None else config.max_length - length
        return [None if each is None else Matcher(each, room) for each in rows]

    def _end_token_ids(self, config: "GenerationConfig") -> tuple[int, ...] | None:
        if self.eos_token_ids is not None:
            return self.eos_token_ids
        eos = config.eos_token_id
        return None if eos is None else as_token_ids(eos)


class _Recorder:
    """Keeps what `return_dict_in_generate` asks for."""

    def __init__(self, keeps_logits: bool, keeps_scores: bool) -> None:
        self.logits: tuple[Tensor, ...] | None = () if keeps_logits else None
        self.scores: tuple[Tensor, ...] | None = () if keeps_scores else None

    def keep_logits(self, logits: Tensor) -> None:
        if self.logits is not None:
            self.logits += (logits.to(torch.float32, copy=True),)

    def keep_scores(
        self,
        logits: Tensor,
        compiled: CompiledRules,
        state: DecodeState,
        rows: Tensor | None,
        allowed: Tensor | None,
    ) -> None:
        if self.scores is not None:
            scores = logits.to(torch.float32, copy=True)
            apply_rules_(
                scores, compiled.program, state, state_indices=rows, allowed_bitmask=allowed
            )
            self.scores += (scores,)

    def output(self, forward: ForwardPass) -> GenerateDecoderOnlyOutput:
        fields: dict[str, Any] = {
            "sequences": forward.input_ids,
            "scores": self.scores,
            "logits": self.logits,
            "past_key_values": forward.past_key_values,
        }
        return GenerateDecoderOnlyOutput(**fields)


def configured_sampling(config: "GenerationConfig") -> Sampling:
    """What a generation config asks for: greedy unless do_sample is set."""
    if not config.do_sample:
        return GREEDY
    return Sampling(
        temperature=1.0 if config.temperature is None else float(config.temperature),
        top_k=config.top_k or 0,
        top_p=1.0 if config.top_p is None else config.top_p,
        min_p=config.min_p or 0.0,
    )


def without_warpers(
    processors: LogitsProcessorList, config: "GenerationConfig"
) -> LogitsProcessorList:
    """The processors without those that stand for a config's sampling options.

    `generate` appends these behind the user's own, so of each type the last one with the config's
    value goes: `sample_` does their work.
    """
    kept = list(processors)
    if config.do_sample:
        for kind, option in SAMPLING_WARPERS.items():
            for index in reversed(range(len(kept))):
                found = type(kept[index]) is kind
                if found and getattr(kept[index], option) == getattr(config, option):
                    del kept[index]
                    break
    return LogitsProcessorList(kept)


def _check_supported(
    model: "PreTrainedModel",
    config: "GenerationConfig",
    processors: LogitsProcessorList,
    synced_gpus: bool,
) -> None:
    mode = config.get_generation_mode().value
    unsupported = {
        f"{mode.replace('_', ' ')}": mode not in ("greedy_search", "sample"),
        "an encoder-decoder model": model.config.is_encoder_decoder,
        "synced_gpus": synced_gpus,
        "watermarking_config": config.watermarking_config is not None,
        "output_attentions": config.output_attentions,
        "output_hidden_states": config.output_hidden_states,
        "typical_p, top_h, epsilon_cutoff or eta_cutoff": config.do_sample
        and any(isinstance(processor, OTHER_WARPERS) for processor in processors),
    }
    found = [name for name, is_asked in unsupported.items() if is_asked]
    if found:
        raise ValueError(
            f"custom_generate with rules does not do {found[0]}; leave it out, or pass "
            "logits_processor=[RuleLogitsProcessor...] in place of custom_generate"
        )
