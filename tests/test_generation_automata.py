"""Responses kept within languages, by both decode loops."""

import pickle
import re
from typing import Any

import pytest
import torch
from tiny_llama import BATCH, EOS, PROMPTS, VOCAB_SIZE, WIDTH, make_llama, responses
from transformers import PreTrainedTokenizerBase

from rnr_kernels import BanTokens, RuleSet, Sampling, UsedTokenPenalty
from rnr_kernels.automata.automaton import Automaton
from rnr_kernels.automata.counts import Count
from rnr_kernels.automata.languages import (
    EVERYTHING,
    Language,
    characters,
    concatenation,
    is_word,
    literal,
)
from rnr_kernels.automata.masks import BatchMasks
from rnr_kernels.automata.matcher import Matcher
from rnr_kernels.automata.tokens import TokenTree
from rnr_kernels.generation import LogitsError, generate
from rnr_kernels.integrations import huggingface

SAMPLED = Sampling(temperature=1.0, seed=3)
ENDS_WITH_A_STOP = EVERYTHING + literal("sea.")
LETTERS = characters("abcde ").repeated(1)
SEEN_TWICE = RuleSet([UsedTokenPenalty(50.0, scope="prompt+response")])


@pytest.fixture(scope="module")
def model() -> Any:
    return make_llama()


@pytest.fixture(scope="module")
def tree(tiny_bpe: PreTrainedTokenizerBase) -> TokenTree:
    return TokenTree.of(tiny_bpe, VOCAB_SIZE, EOS)


def automaton_of(language: Language, tree: TokenTree, count: Count | None = None) -> Automaton:
    return Automaton.compile(language, tree, count)


def run(model: Any, tokenizer: PreTrainedTokenizerBase, prompts: list[str], **options: Any) -> Any:
    options = {"template": "plain", "max_new_tokens": 16, "sampling": SAMPLED} | options
    return list(generate(model, tokenizer, prompts, **options))


def test_every_response_is_in_its_prompts_language_and_ends_itself(
    model: Any, tiny_bpe: PreTrainedTokenizerBase, tree: TokenTree
) -> None:
    automata = [automaton_of(ENDS_WITH_A_STOP, tree), None, automaton_of(LETTERS, tree)]
    prompts = ["We see", "I think", "What?"]
    got = run(model, tiny_bpe, prompts, automata=automata)
    assert got[0].text.endswith("sea.") and re.fullmatch("[abcde ]+", got[2].text)
    assert got[0].finish_reason == got[2].finish_reason == "eos"
    assert all(len(completion.token_ids) <= 16 for completion in got)
    # A row without an automaton is as in a batch without any.
    assert got[1].token_ids == run(model, tiny_bpe, prompts)[1].token_ids


def test_a_response_does_not_depend_on_its_batch(
    model: Any, tiny_bpe: PreTrainedTokenizerBase, tree: TokenTree
) -> None:
    automaton = automaton_of(EVERYTHING, tree, Count(is_word(), 2, 3))
    prompts = ["We see", "I", "What should I say?", "We"]
    batches = [
        [c.token_ids for c in run(model, tiny_bpe, prompts, automata=automaton, batch_size=size)]
        for size in (1, 3, 4)
    ]
    assert batches[0] == batches[1] == batches[2]
    texts = [c.text for c in run(model, tiny_bpe, prompts, automata=automaton)]
    assert all(2 <= len(re.findall(r"\w+", text)) <= 3 for text in texts)


def test_the_window_is_a_budget_too(
    model: Any, tiny_bpe: PreTrainedTokenizerBase, tree: TokenTree
) -> None:
    automaton = automaton_of(ENDS_WITH_A_STOP, tree)
    room = automaton.tokens_needed
    prompt = "a" * (128 - room)
    (got,) = run(model, tiny_bpe, [prompt], automata=automaton, max_new_tokens=100)
    assert got.text.endswith("sea.") and len(got.token_ids) <= room
    with pytest.raises(ValueError, match=f"prompt 2: a response may need up to {room} tokens"):
        run(model, tiny_bpe, ["We", prompt + "a"], automata=automaton, max_new_tokens=100)


def test_rules_and_details_count_under_the_mask(
    model: Any, tiny_bpe: PreTrainedTokenizerBase, tree: TokenTree
) -> None:
    banned = RuleSet([BanTokens(["a", "b"])])
    automaton = automaton_of(LETTERS, tree)
    (got,) = run(model, tiny_bpe, ["We see"], rules=banned, automata=automaton, details=True)
    assert re.fullmatch("[cde ]+", got.text)
    assert all(-50 < value <= 0 for value in got.logprobs)


def test_tokens_that_are_all_forbidden_are_an_error_that_names_the_automaton(
    model: Any, tiny_bpe: PreTrainedTokenizerBase, tree: TokenTree
) -> None:
    with pytest.raises(LogitsError, match="every token that its automaton allows after 0 tokens"):
        run(
            model, tiny_bpe, ["We"], rules=RuleSet([BanTokens(["a"])]),
            automata=automaton_of(literal("a"), tree),
        )  # fmt: skip
    for error in (LogitsError(1, 2), LogitsError(1, 2, True)):
        assert str(pickle.loads(pickle.dumps(error))) == str(error)
    assert "try another dtype" in str(LogitsError(0, 0))


def test_automata_that_do_not_fit_the_model_are_refused(
    model: Any, tiny_bpe: PreTrainedTokenizerBase
) -> None:
    wide = automaton_of(EVERYTHING, TokenTree.of(tiny_bpe, VOCAB_SIZE + 1))
    with pytest.raises(ValueError, match=f"has {VOCAB_SIZE + 1} tokens, the model {VOCAB_SIZE}"):
        run(model, tiny_bpe, ["We"], automata=wide)
    other_end = automaton_of(EVERYTHING, TokenTree.of(tiny_bpe, eos_token_ids=2))
    with pytest.raises(ValueError, match=r"ends responses with tokens \[2\], the model with \[1\]"):
        run(model, tiny_bpe, ["We"], automata=[other_end])
    fits = automaton_of(EVERYTHING, TokenTree.of(tiny_bpe))
    with pytest.raises(ValueError, match="one for each of 2 rows, got 1"):
        run(model, tiny_bpe, ["We", "I"], automata=[fits])


def test_hugging_faces_generate_keeps_rows_within_their_languages(
    model: Any, tiny_bpe: PreTrainedTokenizerBase, tree: TokenTree
) -> None:
    automata = [automaton_of(ENDS_WITH_A_STOP, tree), automaton_of(LETTERS, tree)]
    decoding = huggingface.generate(RuleSet(), tiny_bpe, sampling=SAMPLED, automata=automata)
    sequences = model.generate(**BATCH, max_new_tokens=14, custom_generate=decoding)
    first, second = responses(sequences, WIDTH)
    assert first[-1] == second[-1] == EOS
    assert tiny_bpe.decode(first[:-1]).endswith("sea.")
    assert re.fullmatch("[abcde ]+", tiny_bpe.decode(second[:-1]))
    with pytest.raises(ValueError, match="a response may need up to"):
        model.generate(**BATCH, max_new_tokens=1, custom_generate=decoding)


def test_hugging_faces_scores_are_those_under_the_mask(
    model: Any, tiny_bpe: PreTrainedTokenizerBase, tree: TokenTree
) -> None:
    word = concatenation(literal("a"), characters("bc"))
    decoding = huggingface.generate(RuleSet(), tiny_bpe, automata=automaton_of(word, tree))
    found = model.generate(
        **BATCH, max_new_tokens=8, custom_generate=decoding, do_sample=True,
        num_return_sequences=2, return_dict_in_generate=True, output_scores=True,
    )  # fmt: skip
    assert len(responses(found.sequences, WIDTH)) == 2 * len(PROMPTS)
    a, b, c = (tiny_bpe.convert_tokens_to_ids(each) for each in "abc")
    assert (found.scores[0][0] > -torch.inf).nonzero().ravel().tolist() == [a]
    assert (found.scores[1][0] > -torch.inf).nonzero().ravel().tolist() == sorted((b, c))


def test_one_tensor_of_masks_serves_all_steps(tree: TokenTree) -> None:
    masks = BatchMasks(2, VOCAB_SIZE, torch.device("cpu"))
    matcher = Matcher(automaton_of(literal("a"), tree))
    first = masks.fill([matcher, None])
    assert (first[1] == -1).all() and not (first[0] == -1).any()
    second = masks.fill([None, matcher])
    assert second.data_ptr() == first.data_ptr() and (second[0] == -1).all()
    assert masks.fill([matcher]).shape == (1, -(-VOCAB_SIZE // 32))


def test_each_prompt_has_rules_and_an_automaton_of_its_own(
    model: Any, tiny_bpe: PreTrainedTokenizerBase, tree: TokenTree
) -> None:
    """Each row of a batch equals the row generated alone; equal rule sets may share a program."""
    prompts = ["We see", "I", "What should I say?", "We"]
    rules = [RuleSet([BanTokens(["a"])]), None, RuleSet([BanTokens(["a"])]), SEEN_TWICE]
    letters, sea = automaton_of(LETTERS, tree), automaton_of(ENDS_WITH_A_STOP, tree)
    automata = [letters, letters, sea, None]
    seeds = [7, 7, -1, 0]
    got = run(model, tiny_bpe, prompts, rules=rules, automata=automata, seeds=seeds)
    for index, completion in enumerate(got):
        (alone,) = run(
            model, tiny_bpe, [prompts[index]], rules=rules[index], automata=automata[index],
            seeds=[seeds[index]],
        )  # fmt: skip
        assert alone.token_ids == completion.token_ids
    assert "a" not in got[0].text
    unruled = run(model, tiny_bpe, prompts, automata=automata, seeds=seeds)
    assert got[1].token_ids == unruled[1].token_ids
    assert got[3].token_ids != unruled[3].token_ids


def test_rules_and_seeds_are_one_or_one_a_prompt(
    model: Any, tiny_bpe: PreTrainedTokenizerBase
) -> None:
    with pytest.raises(ValueError, match="one set for each of 2 prompts, got 1"):
        run(model, tiny_bpe, ["We", "I"], rules=[RuleSet()])
    with pytest.raises(ValueError, match="seeds must be one for each of 2 prompts, got 3"):
        run(model, tiny_bpe, ["We", "I"], seeds=[1, 2, 3])
    with pytest.raises(ValueError, match=r"a seed must be in"):
        run(model, tiny_bpe, ["We", "I"], seeds=[1, 2**63])
    one = run(model, tiny_bpe, ["We", "I"], seeds=[3, 4], sampling=Sampling(temperature=1.0))
    other = run(model, tiny_bpe, ["We", "I"])
    assert [each.token_ids for each in one] == [each.token_ids for each in other]
