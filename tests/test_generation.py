"""The decode loop, against a loop that recomputes everything at every step."""

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoConfig,
    GPTNeoForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    RecurrentGemmaConfig,
    RecurrentGemmaForCausalLM,
)

from rnr_kernels import (
    BanTokens,
    EosRamp,
    OnlyTokens,
    RuleSet,
    Sampling,
    UsedTokenPenalty,
    apply_rules_,
    compile_rules,
    sample_,
)
from rnr_kernels.generation import Completion, end_token_ids, generate
from rnr_kernels.state import DecodeState

PROMPTS = ["We see the sea.", "I", "What should I say? What?"]
RULES = RuleSet([EosRamp(60.0, over=10), UsedTokenPenalty(50.0)], name="test")
PADDED_ROWS = 5


@pytest.fixture(scope="module")
def model(tiny_bpe: PreTrainedTokenizerBase) -> PreTrainedModel:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tiny_bpe) + PADDED_ROWS, hidden_size=32, intermediate_size=64,
        num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=64,
        bos_token_id=0, eos_token_id=1, pad_token_id=2,
        initializer_range=0.3,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def run(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *args: object, **options: object
        ) -> list[Completion]:  # fmt: skip
    options = {"template": "plain", "max_new_tokens": 12, **options}
    return list(generate(model, tokenizer, *args, **options))  # type: ignore[arg-type]


def oracle(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompt: str,
    rules: RuleSet,
    length: int,
    sampling: Sampling | None = None,
) -> list[int]:
    """One prompt, no cache, no padding, the state rebuilt from the tokens at every step."""
    prompt_ids = tokenizer.encode(prompt, add_special_tokens=False)
    program = compile_rules(rules, tokenizer, model.config.vocab_size, eos_token_ids=[1])
    tokens: list[int] = []
    while len(tokens) < length and tokens[-1:] != [1]:
        with torch.no_grad():
            logits = model(torch.tensor([prompt_ids + tokens])).logits[:, -1]
        state = DecodeState.from_token_ids(
            program, [tokens], prompt_token_ids=[prompt_ids],
            sampling=None if sampling is None else [sampling],
        )  # fmt: skip
        tokens.append(int(sample_(logits, program, state).token_ids))
    return tokens


@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_greedy_batches_with_padding_and_cache_equal_the_oracle(
    model: PreTrainedModel, tiny_bpe: PreTrainedTokenizerBase, batch_size: int
) -> None:
    got = run(model, tiny_bpe, PROMPTS, rules=RULES, batch_size=batch_size)
    assert [c.index for c in got] == [0, 1, 2] and [c.instruction for c in got] == PROMPTS
    for completion, prompt in zip(got, PROMPTS, strict=True):
        assert completion.token_ids == oracle(model, tiny_bpe, prompt, RULES, 12)
        assert completion.finish_reason == "eos" and completion.token_ids[-1] == 1
        assert completion.text == tiny_bpe.decode(completion.token_ids[:-1])


def test_padding_does_not_shift_learned_positions(tiny_bpe: PreTrainedTokenizerBase) -> None:
    """Rotary positions are relative and would hide it."""
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(tiny_bpe), n_embd=32, n_layer=2, n_head=2, n_positions=64,
        bos_token_id=0, eos_token_id=1, pad_token_id=2, initializer_range=0.3,
    )  # fmt: skip
    gpt2 = GPT2LMHeadModel(config).eval()
    got = run(gpt2, tiny_bpe, PROMPTS, rules=RULES, batch_size=3)
    for completion, prompt in zip(got, PROMPTS, strict=True):
        assert completion.token_ids == oracle(gpt2, tiny_bpe, prompt, RULES, 12)


@pytest.mark.parametrize("kind", ["gpt2", "gpt_neo"])
def test_a_batch_of_unequal_prompts_goes_on_up_to_the_window(
    tiny_bpe: PreTrainedTokenizerBase, kind: str
) -> None:
    """GPT-2 has a table of positions, GPT-Neo one of masks: padding must not use them up."""
    torch.manual_seed(0)
    ends = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
    tiny: PreTrainedModel
    if kind == "gpt2":
        tiny = GPT2LMHeadModel(
            GPT2Config(
                vocab_size=len(tiny_bpe), n_embd=32, n_layer=1, n_head=2, n_positions=24, **ends
            )
        )
    else:
        tiny = GPTNeoForCausalLM(
            GPTNeoConfig(
                vocab_size=len(tiny_bpe), hidden_size=32, num_layers=1, num_heads=2,
                attention_types=[[["global"], 1]], max_position_embeddings=24, **ends,
            )
        )  # fmt: skip
    prompts = ["I", "We see the sea and we see the sea.", "What should I"]
    rules = RuleSet([BanTokens([1]), UsedTokenPenalty(1.0)])
    got = run(tiny.eval(), tiny_bpe, prompts, rules=rules, batch_size=3, max_new_tokens=100)
    for completion in got:
        assert len(completion.prompt_token_ids) + len(completion.token_ids) == 24
        alone = oracle(tiny, tiny_bpe, completion.instruction, rules, len(completion.token_ids))
        assert completion.token_ids == alone


def test_a_model_that_hands_out_no_cache_is_run_on_all_tokens(
    tiny_bpe: PreTrainedTokenizerBase,
) -> None:
    torch.manual_seed(0)
    config = RecurrentGemmaConfig(
        vocab_size=len(tiny_bpe), hidden_size=32, intermediate_size=64, num_hidden_layers=3,
        num_attention_heads=2, head_dim=16, lru_width=32, attention_window_size=32,
        bos_token_id=0, eos_token_id=1, pad_token_id=2,
    )  # fmt: skip
    model = RecurrentGemmaForCausalLM(config).eval()
    rules = RuleSet([BanTokens([1])])
    (completion,) = run(model, tiny_bpe, PROMPTS[:1], rules=rules, max_new_tokens=8)
    assert completion.token_ids == oracle(model, tiny_bpe, PROMPTS[0], rules, 8)


def test_logits_of_the_prompt_are_not_computed(
    model: PreTrainedModel, tiny_bpe: PreTrainedTokenizerBase
) -> None:
    shapes = []
    handle = model.lm_head.register_forward_hook(
        lambda module, inputs, output: shapes.append(tuple(output.shape))
    )
    try:
        run(model, tiny_bpe, PROMPTS, rules=RULES, batch_size=3)
    finally:
        handle.remove()
    assert {shape[1] for shape in shapes} == {1}


def test_seeded_sampling_equals_the_oracle_whatever_the_batch(
    model: PreTrainedModel, tiny_bpe: PreTrainedTokenizerBase
) -> None:
    sampling = Sampling(temperature=1.5, top_p=0.95, seed=7)
    rules = RuleSet([UsedTokenPenalty(2.0)])
    got = run(model, tiny_bpe, PROMPTS, rules=rules, sampling=sampling, batch_size=3)
    for completion, prompt in zip(got, PROMPTS, strict=True):
        own = Sampling(temperature=1.5, top_p=0.95, seed=7 + completion.index)
        assert completion.token_ids == oracle(model, tiny_bpe, prompt, rules, 12, own)
    assert len({tuple(c.token_ids) for c in got}) == 3


def test_without_rules_it_is_the_bare_argmax(
    model: PreTrainedModel, tiny_bpe: PreTrainedTokenizerBase
) -> None:
    (completion,) = run(model, tiny_bpe, PROMPTS[:1], rules=None)
    assert completion.token_ids == oracle(model, tiny_bpe, PROMPTS[0], RuleSet(), 12)


def test_details_are_the_products_log_probability_and_normaliser(
    model: PreTrainedModel, tiny_bpe: PreTrainedTokenizerBase
) -> None:
    (completion,) = run(model, tiny_bpe, PROMPTS[:1], rules=RULES, details=True)
    program = compile_rules(RULES, tiny_bpe, model.config.vocab_size, eos_token_ids=[1])
    prompt_ids = completion.prompt_token_ids
    for step, token in enumerate(completion.token_ids):
        before = completion.token_ids[:step]
        with torch.no_grad():
            logits = model(torch.tensor([prompt_ids + before])).logits[:, -1]
        state = DecodeState.from_token_ids(program, [before])
        score = apply_rules_(torch.zeros_like(logits), program, state)
        product = logits.double().softmax(-1) * score.double().softmax(-1)
        log_z = product.sum().log()
        assert math.isclose(completion.log_z[step], float(log_z), rel_tol=1e-5, abs_tol=1e-5)
        expected = float(product[0, token].log() - log_z)
        assert math.isclose(completion.logprobs[step], expected, rel_tol=1e-4, abs_tol=1e-5)
    assert len(completion.log_z) == len(completion.logprobs) == len(completion.token_ids)


def test_a_response_stops_at_the_limit(
    model: PreTrainedModel, tiny_bpe: PreTrainedTokenizerBase
) -> None:
    rules = RuleSet([BanTokens([1])])
    (completion,) = run(model, tiny_bpe, ["I"], rules=rules, max_new_tokens=5)
    assert (len(completion.token_ids), completion.finish_reason) == (5, "length")


def test_a_response_stops_at_the_window(
    model: PreTrainedModel, tiny_bpe: PreTrainedTokenizerBase
) -> None:
    (completion,) = run(model, tiny_bpe, ["I"], rules=RuleSet([BanTokens([1])]), max_new_tokens=500)
    assert len(completion.prompt_token_ids) + len(completion.token_ids) == 64
    assert completion.finish_reason == "length"


def test_a_stop_string_across_tokens_ends_the_response_before_it(
    model: PreTrainedModel, tiny_bpe: PreTrainedTokenizerBase
) -> None:
    only = RuleSet([OnlyTokens(["a"], steps=(0, 3)), OnlyTokens(["b"], steps=(3, 4)),
                    OnlyTokens(["c"], steps=(4, None))])  # fmt: skip
    (completion,) = run(model, tiny_bpe, ["I"], rules=only, stop=["zz", "abc"])
    assert (completion.text, completion.finish_reason) == ("aa", "stop")
    assert completion.token_ids == tiny_bpe.convert_tokens_to_ids(["a", "a", "a", "b", "c"])
    (alone,) = run(model, tiny_bpe, ["I"], rules=only, stop="abc")
    assert (alone.text, alone.finish_reason) == ("aa", "stop")


def test_streaming_sees_every_token_as_it_comes(
    model: PreTrainedModel, tiny_bpe: PreTrainedTokenizerBase
) -> None:
    seen: list[list[int]] = []

    def on_step(batch: Sequence[Completion]) -> None:
        seen.append([len(completion.token_ids) for completion in batch])

    got = run(model, tiny_bpe, PROMPTS, rules=RULES, batch_size=3, on_step=on_step)
    assert seen[0] == [1, 1, 1]
    assert seen[-1] == [len(completion.token_ids) for completion in got]
    assert len(seen) == max(seen[-1])


def test_an_interrupt_hands_out_the_batchs_finished_responses_first(
    model: PreTrainedModel, tiny_bpe: PreTrainedTokenizerBase
) -> None:
    rules = RuleSet([EosRamp(20.0, over=10), UsedTokenPenalty(50.0)])
    whole = run(model, tiny_bpe, PROMPTS, rules=rules, batch_size=3)
    lengths = [len(completion.token_ids) for completion in whole]
    assert min(lengths) < max(lengths)

    def on_step(batch: Sequence[Completion]) -> None:
        if max(len(completion.token_ids) for completion in batch) == min(lengths):
            raise KeyboardInterrupt

    completions = generate(
        model, tiny_bpe, PROMPTS, rules=rules, template="plain", batch_size=3, on_step=on_step
    )
    kept = []
    with pytest.raises(KeyboardInterrupt):
        for completion in completions:
            kept.append(completion.index)
    assert kept == [i for i, length in enumerate(lengths) if length == min(lengths)]


def test_several_end_tokens_of_the_model_all_end_and_all_get_the_ramp(
    model: PreTrainedModel, tiny_bpe: PreTrainedTokenizerBase
) -> None:
    extra = int(tiny_bpe.convert_tokens_to_ids("z"))
    model.generation_config.eos_token_id = [1, extra]
    try:
        assert end_token_ids(model, tiny_bpe) == [1, extra]
        rules = RuleSet([EosRamp(1000.0, over=1, force_at=4), BanTokens([1])])
        (completion,) = run(model, tiny_bpe, ["I"], rules=rules)
        assert completion.token_ids[-1] == extra and len(completion.token_ids) == 2
        assert completion.finish_reason == "eos"
    finally:
        model.generation_config.eos_token_id = 1


def test_the_released_scope_counts_the_instruction_and_needs_its_tag(
    model: PreTrainedModel, tiny_bpe: PreTrainedTokenizerBase
) -> None:
    scoped = RuleSet([UsedTokenPenalty(50.0, "prompt+response", after="<|user|>\n")])
    (completion,) = run(model, tiny_bpe, ["We see"], rules=scoped, template="tags")
    prompt = tiny_bpe.encode("<|user|>\nWe see\n<|assistant|>\n")
    assert completion.prompt_token_ids == prompt
    program = compile_rules(scoped, tiny_bpe, model.config.vocab_size)
    tag = len(tiny_bpe.encode("<|user|>\n"))
    state = DecodeState.from_token_ids(program, [[]], prompt_token_ids=[prompt], used_from=[tag])
    with torch.no_grad():
        logits = model(torch.tensor([prompt])).logits[:, -1]
    assert completion.token_ids[0] == int(sample_(logits, program, state).token_ids)
    with pytest.raises(ValueError, match="does not contain"):
        run(model, tiny_bpe, ["We see"], rules=scoped, template="plain")


def test_nan_logits_are_an_error_not_a_token(
    model: PreTrainedModel, tiny_bpe: PreTrainedTokenizerBase
) -> None:
    class Broken(LlamaForCausalLM):
        def forward(self, *args: object, **names: object) -> object:
            outputs = super().forward(*args, **names)
            outputs.logits = outputs.logits * math.nan
            return outputs

    broken = Broken(model.config).eval()
    with pytest.raises(ValueError, match="prompt 1 are NaN"):
        run(broken, tiny_bpe, ["I"])


@pytest.mark.parametrize(
    ("prompts", "options", "message"),
    [
        ([], {}, "at least one"),
        ("one string", {}, "must be a list"),
        ([""], {}, "prompt 1 is empty"),
        (["I", "I " * 80], {}, "prompt 2 has .* tokens, the model's window is 64"),
        (["I"], {"max_new_tokens": 0}, "at least 1"),
        (["I"], {"batch_size": 0}, "at least 1"),
        (["I"], {"stop": [""]}, "must not be empty"),
        (["I"], {"template": "none"}, "template must be"),
        (["I", "\ud83d"], {}, "prompt 2 is not valid Unicode"),
        (["I", "I"], {"sampling": Sampling(seed=2**63 - 1)}, "seed must"),
        (["I"], {"rules": None, "model": "smaller"}, "prompt 1 has token .* the model knows 40"),
    ],
)
def test_bad_input_is_found_before_any_forward_pass(
    model: PreTrainedModel,
    tiny_bpe: PreTrainedTokenizerBase,
    prompts: list[str],
    options: dict[str, object],
    message: str,
) -> None:
    def never(*args: object) -> Tensor:
        raise AssertionError("the model ran")

    if options.pop("model", None) == "smaller":
        config = LlamaConfig(
            vocab_size=40, hidden_size=8, intermediate_size=8, num_hidden_layers=1,
            num_attention_heads=1, bos_token_id=0, eos_token_id=1, pad_token_id=2,
        )  # fmt: skip
        model = LlamaForCausalLM(config)
    handle = model.register_forward_pre_hook(never)
    try:
        with pytest.raises(ValueError, match=message):
            generate(model, tiny_bpe, prompts, **{"template": "plain", **options})  # type: ignore[arg-type]
    finally:
        handle.remove()
