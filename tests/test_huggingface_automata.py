"""Responses kept within languages by the logits processor, in Hugging Face's own loops."""

import re
from typing import Any

import pytest
import torch
from tiny_llama import BATCH, EOS, PROMPTS, VOCAB_SIZE, WIDTH, make_llama, responses
from transformers import PreTrainedTokenizerBase

from rnr_kernels import BanTokens, RuleSet
from rnr_kernels.automata.automaton import Automaton
from rnr_kernels.automata.languages import EVERYTHING, characters, literal
from rnr_kernels.automata.tokens import TokenTree
from rnr_kernels.integrations.huggingface import RuleLogitsProcessor, generate

MOST = 14
SEA = EVERYTHING + literal("sea.")
LETTERS = characters("abcde ").repeated(1)


@pytest.fixture(scope="module")
def model() -> Any:
    return make_llama()


@pytest.fixture(scope="module")
def automata(tiny_bpe: PreTrainedTokenizerBase) -> list[Automaton]:
    """One for each of the two prompts."""
    tree = TokenTree.of(tiny_bpe, VOCAB_SIZE, EOS)
    return [Automaton.compile(language, tree) for language in (SEA, LETTERS)]


def processor(
    model: Any, tokenizer: PreTrainedTokenizerBase, automata: Any, **options: Any
) -> RuleLogitsProcessor:
    options = {"rules": RuleSet(), "max_new_tokens": MOST} | options
    return RuleLogitsProcessor.for_generate(
        options.pop("rules"), tokenizer, model, BATCH, automata=automata, **options
    )


def texts(tokenizer: PreTrainedTokenizerBase, sequences: Any) -> list[str]:
    """Of responses, each of which ends itself."""
    found = responses(sequences, WIDTH)
    assert all(each[-1] == EOS and len(each) <= MOST for each in found)
    return [tokenizer.decode(each[:-1]) for each in found]


def test_rules_and_masks_act_in_one_op_as_in_the_custom_loop(
    model: Any, tiny_bpe: PreTrainedTokenizerBase, automata: list[Automaton]
) -> None:
    rules = RuleSet([BanTokens(["a", "b"])])
    ours = processor(model, tiny_bpe, automata, rules=rules)
    got = model.generate(**BATCH, max_new_tokens=MOST, do_sample=False, logits_processor=[ours])
    loop = generate(rules, tiny_bpe, automata=automata)
    expected = model.generate(**BATCH, max_new_tokens=MOST, custom_generate=loop)
    assert torch.equal(got, expected)
    first, second = texts(tiny_bpe, got)
    assert first.endswith("sea.") and re.fullmatch("[cde ]+", second)


def test_all_samples_of_a_prompt_are_in_its_language(
    model: Any, tiny_bpe: PreTrainedTokenizerBase, automata: list[Automaton]
) -> None:
    torch.manual_seed(0)
    sequences = model.generate(
        **BATCH, max_new_tokens=MOST, do_sample=True, num_return_sequences=3,
        logits_processor=[processor(model, tiny_bpe, automata)],
    )  # fmt: skip
    found = texts(tiny_bpe, sequences)
    assert len(set(found)) > 2
    assert all(text.endswith("sea.") for text in found[:3])
    assert all(re.fullmatch("[abcde ]+", text) for text in found[3:])


def test_beams_stay_in_their_languages_although_rows_are_permuted(
    model: Any, tiny_bpe: PreTrainedTokenizerBase, automata: list[Automaton]
) -> None:
    sequences = model.generate(
        **BATCH, max_new_tokens=MOST, do_sample=False, num_beams=3, num_return_sequences=2,
        logits_processor=[processor(model, tiny_bpe, automata)],
    )  # fmt: skip
    found = texts(tiny_bpe, sequences)
    assert all(text.endswith("sea.") for text in found[:2])
    assert all(re.fullmatch("[abcde ]+", text) for text in found[2:])


def test_a_call_sees_nothing_but_its_arguments(
    model: Any, tiny_bpe: PreTrainedTokenizerBase, automata: list[Automaton]
) -> None:
    """After any other call, shorter responses or unrelated ones get the scores of a first call."""
    used = processor(model, tiny_bpe, automata)
    sequences = model.generate(
        **BATCH, max_new_tokens=MOST, do_sample=False, logits_processor=[used]
    )
    scores = torch.randn(len(PROMPTS), VOCAB_SIZE, generator=torch.Generator().manual_seed(0))
    for width in (WIDTH + 3, WIDTH, WIDTH + 4, WIDTH + 2):
        new = processor(model, tiny_bpe, automata)
        assert torch.equal(used(sequences[:, :width], scores), new(sequences[:, :width], scores))


def test_a_response_that_left_its_language_or_ended_is_not_masked(
    model: Any, tiny_bpe: PreTrainedTokenizerBase, automata: list[Automaton]
) -> None:
    z, a = (tiny_bpe.convert_tokens_to_ids(each) for each in "za")
    prompts = BATCH["input_ids"]
    ours = processor(model, tiny_bpe, [automata[1], automata[1]])
    scores = torch.zeros(2, VOCAB_SIZE)
    left = torch.cat([prompts, torch.tensor([[z, a], [a, EOS]])], dim=1)
    assert torch.equal(ours(left, scores), scores)
    kept = torch.cat([prompts, torch.tensor([[a, a], [a, a]])], dim=1)
    assert bool((ours(kept, scores)[:, z] == -torch.inf).all())


def test_automata_that_do_not_fit_are_refused_before_generation(
    model: Any, tiny_bpe: PreTrainedTokenizerBase, automata: list[Automaton]
) -> None:
    with pytest.raises(ValueError, match="a response may need up to"):
        processor(model, tiny_bpe, automata, max_new_tokens=2)
    with pytest.raises(ValueError, match=r"equally long, got attention_mask 2, automata 3"):
        processor(model, tiny_bpe, [*automata, None])
    with pytest.raises(ValueError, match="one for each prompt, got an empty list"):
        processor(model, tiny_bpe, [])
    endless = make_llama()
    endless.generation_config.eos_token_id = None
    with pytest.raises(ValueError, match=r"nothing ends a row.*pass them as eos_token_ids"):
        endless.generate(
            **BATCH, max_new_tokens=MOST,
            custom_generate=generate(RuleSet(), tiny_bpe, automata=automata),
        )  # fmt: skip
    other = Automaton.compile(LETTERS, TokenTree.of(tiny_bpe, eos_token_ids=2))
    with pytest.raises(ValueError, match=r"ends responses with tokens \[2\], the model with \[1\]"):
        processor(model, tiny_bpe, other)
