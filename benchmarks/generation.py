"""Hugging Face `generate` with rules, as a custom loop, beside plain `generate` without them."""

from functools import cache
from typing import Any

import torch
from torch import Tensor

from benchmarks import cases
from benchmarks.cases import Case
from benchmarks.inputs import EOS, rules
from benchmarks.workloads import Peer, Workload
from rnr_kernels import RuleSet

PROMPT_LENGTH = 8
NEW_TOKENS = 32
NEW_TOKENS_OF_MANY = 16
"""For more than eight rows, where a step of plain sampling takes a tenth of a second."""


@cache
def make_llama(vocab_size: int, window: int = 256) -> Any:
    """18 million random float32 parameters: nine layers of width 288, six heads, tied embeddings.

    The weights are large enough for peaked logits. It knows no end of sequence, so both sides
    decode equally many tokens; rules get theirs by argument.
    """
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=288,
        intermediate_size=768,
        num_hidden_layers=9,
        num_attention_heads=6,
        num_key_value_heads=6,
        max_position_embeddings=window,
        initializer_range=0.2,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=None,
        pad_token_id=0,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: Any = LlamaForCausalLM(config)
    model.generation_config.eos_token_id = None
    return model.eval()


def build(case: Case) -> Workload:
    """The workload of one of `cases.GENERATE_CASES`; a step is a new token of every row."""
    from rnr_kernels import RuleLogitsProcessor
    from rnr_kernels.integrations import huggingface

    model = make_llama(case.vocab_size)
    random = torch.Generator().manual_seed(0)
    prompt = torch.randint(3, case.vocab_size, (case.rows, PROMPT_LENGTH), generator=random)
    steps = NEW_TOKENS if case.rows <= 8 else NEW_TOKENS_OF_MANY
    options: dict[str, Any] = {"do_sample": False}
    if "top_p" in case.op:
        options = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 0.9}
    published = rules(case.vocab_size)

    def run(chosen: dict[str, Any], **how: Any) -> Tensor:
        tokens: Tensor = model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            min_new_tokens=None,
            max_new_tokens=steps,
            **chosen,
            **how,
        )
        return tokens

    decoding = huggingface.generate(published, None, eos_token_ids=EOS)  # type: ignore[arg-type]

    def gate() -> None:
        # A sample from one token is no matter of chance.
        certain = options | {"top_k": 1} if options["do_sample"] else options
        bare = huggingface.generate(RuleSet(), None)  # type: ignore[arg-type]
        assert torch.equal(run(certain), run(certain, custom_generate=bare)), (
            "the loops choose different tokens without rules"
        )
        processor = RuleLogitsProcessor(published, None, PROMPT_LENGTH, eos_token_ids=EOS)
        assert torch.equal(
            run(certain, logits_processor=[processor]), run(certain, custom_generate=decoding)
        ), "the loops choose different tokens with rules"

    plain = Peer(lambda: run(options), gate)
    return Workload(
        lambda: run(options, custom_generate=decoding), {cases.PLAIN: plain}, steps=steps
    )
