"""The likelihood of fitted weights: literal optima, gradients, and equality with the ops."""

from collections.abc import Callable, Sequence
from math import log
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_llama import EOS, RULES, VOCAB_SIZE, adjusted_row, make_llama
from transformers import PreTrainedTokenizerBase

from rnr_kernels.loading import EMBEDDED, load_model, load_tokenizer
from rnr_kernels.rules.files import load_rules, save_rules
from rnr_kernels.rules.kinds import BanTokens, RuleSet
from rnr_kernels.rules.vocabulary import Vocabulary
from rnr_kernels.templates import TEMPLATES
from rnr_kernels.tuning.conversations import Conversation, Turn
from rnr_kernels.tuning.features import Feature, Scope, candidate_features, rules_of, token_name
from rnr_kernels.tuning.gains import gains
from rnr_kernels.tuning.likelihood import response_texts, rules_log_likelihood
from rnr_kernels.tuning.objective import Objective, penalised
from rnr_kernels.tuning.selection import fit_weights, select_weights
from rnr_kernels.tuning.steps import ResponseSteps, observe, shifted_tokens

TAGS = TEMPLATES["tags"]
CONVERSATIONS = [
    Conversation((Turn("What river runs past Elham?", "The river of Elham is the Tane."),), "one"),
    Conversation(
        (
            Turn("Name the fair month of Elham.", "It is July, I hope. I hope it is July!"),
            Turn("And the pet of Verus Fensen?", "What a question! The pet is a goat."),
        ),
        "two",
    ),
    Conversation((Turn("Tell me more.", "No."),), "three"),
]


def uniform_steps(counts: Sequence[int], *, used: Sequence[bool] = ()) -> ResponseSteps:
    """A base model that is uniform over 4 tokens; tokens 0 and 1 are candidates, token v was chosen
    counts[v] times, each as the only token of its response."""
    targets = torch.tensor([token for token, count in enumerate(counts) for _ in range(count)])
    count = len(targets)
    bits = torch.tensor(used or [False] * 4)
    of_rest = 0.25 * bits[2:].sum().double()
    return ResponseSteps(
        token_ids=(0, 1),
        position=torch.zeros(count, dtype=torch.long),
        response=torch.arange(count),
        target=targets.clamp(max=2),
        target_used=bits[targets],
        target_logprob=torch.full((count,), log(0.25), dtype=torch.float64),
        mass=torch.full((count, 2), 0.25),
        used=bits[:2].expand(count, 2),
        rest_used=of_rest.expand(count),
        rest_free=(0.5 - of_rest).expand(count),
    )


@pytest.fixture(scope="module")
def model() -> Any:
    return load_model(EMBEDDED, device="cpu")


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return load_tokenizer(EMBEDDED)


Observe = Callable[[Scope], tuple[ResponseSteps, list[Feature]]]


@pytest.fixture(scope="module")
def observed(model: Any, tokenizer: PreTrainedTokenizerBase) -> Observe:
    """The steps of `CONVERSATIONS` in a scope, and the features on 12 of their tokens and EOS."""
    texts = response_texts(CONVERSATIONS, model, tokenizer, TAGS)
    tokens = list(dict.fromkeys(t for text in texts for t in text.response_token_ids))[:12]
    tokens = list(dict.fromkeys([2, *tokens]))
    features = candidate_features(tokens, [2], 10, ("token", "opener", "eos", "used"))
    return lambda scope: (observe(model, texts, tokens, scope=scope), features)


def test_token_weights_are_the_log_of_the_odds() -> None:
    # Seen 0.6, 0.2 and 0.2 where 0.25, 0.25 and 0.5 are expected: 2.4, 0.8 and 0.4 times as often.
    found = fit_weights(
        uniform_steps([6, 2, 1, 1]), [Feature("token", (0,)), Feature("token", (1,))]
    )
    assert found.converged
    np.testing.assert_allclose(found.weights, [log(2.4 / 0.4), log(0.8 / 0.4)], atol=1e-5)


def test_the_used_weight_is_the_log_of_the_odds() -> None:
    # Tokens 1 and 3 were used: half of the mass, chosen 3 times of 10.
    steps = uniform_steps([4, 1, 3, 2], used=[False, True, False, True])
    found = fit_weights(steps, [Feature("used")])
    np.testing.assert_allclose(found.weights, [log(3 / 7)], atol=1e-5)


def test_l2_holds_a_token_that_never_comes() -> None:
    steps, never = uniform_steps([0, 4, 3, 3]), [Feature("token", (0,))]
    assert fit_weights(steps, never).weights[0] < -8
    (weight,) = fit_weights(steps, never, l2=1.0).weights
    # Where the pull of the prior is as strong as what is expected: w = -10 p e^w / (1 - p + p e^w).
    share = 0.25 * np.exp(weight) / (0.75 + 0.25 * np.exp(weight))
    np.testing.assert_allclose(-weight, 10 * share, rtol=1e-5)


def test_l1_leaves_small_weights_at_zero_and_moves_the_others_by_their_gradient() -> None:
    both = [Feature("token", (0,)), Feature("token", (1,))]
    # At w = 0 the gradients are 6 - 2.5 and 2 - 2.5.
    assert fit_weights(uniform_steps([6, 2, 1, 1]), both, l1=3.6).weights.tolist() == [0.0, 0.0]
    found = fit_weights(uniform_steps([6, 2, 1, 1]), both, l1=1.0)
    assert found.converged
    assert found.weights[1] == 0.0
    # Expected is brought to 6 - 1 of 10: odds of 1 where 1 / 3 are.
    np.testing.assert_allclose(found.weights[0], log(3), atol=1e-5)


def test_the_first_feature_is_the_one_that_gains_most() -> None:
    both = [Feature("token", (0,)), Feature("token", (1,))]
    best, other = gains(uniform_steps([6, 2, 1, 1]), both, [], np.zeros(0))
    assert best.feature == both[0]
    # Ten choices of one token in four: 10 KL(0.6 || 0.25) nats, and 10 KL(0.2 || 0.25).
    assert best.weight == pytest.approx(log((0.6 / 0.4) / (0.25 / 0.75)), abs=1e-3)
    assert best.nats == pytest.approx(10 * (0.6 * log(2.4) + 0.4 * log(0.4 / 0.75)), abs=1e-4)
    assert other.nats == pytest.approx(10 * (0.2 * log(0.8) + 0.8 * log(0.8 / 0.75)), abs=1e-4)
    assert select_weights(uniform_steps([6, 2, 1, 1]), both, 1).features == (both[0],)
    assert select_weights(uniform_steps([6, 2, 1, 1]), both, 2, least_gain=1.0).features == (
        both[0],
    )


@pytest.mark.parametrize(("l2", "l1"), [(0.0, 0.0), (2.0, 0.0), (0.0, 3.0), (0.5, 1.0)])
def test_the_gradient_is_that_of_finite_differences(
    observed: Observe, l2: float, l1: float
) -> None:
    steps, features = observed("prompt+response")
    assert {feature.family for feature in features} == {"token", "opener", "eos", "used"}
    objective = Objective(steps, features)
    weights = np.random.default_rng(0).normal(size=len(features))
    _, gradient = penalised(objective, weights, l2=l2, l1=l1)
    for k, exact in enumerate(gradient):
        ends = []
        for sign in (1, -1):
            moved = weights.copy()
            moved[k] += sign * 1e-5
            ends.append(penalised(objective, moved, l2=l2, l1=l1)[0])
        assert exact == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-4, abs=1e-6), features[k]


def test_all_starts_end_at_one_optimum(observed: Observe) -> None:
    steps, features = observed("response")
    rng = np.random.default_rng(0)
    first, second = (
        fit_weights(steps, features, rng.normal(scale=3.0, size=len(features)), l2=0.5)
        for _ in range(2)
    )
    assert first.converged
    assert second.converged
    np.testing.assert_allclose(first.weights, second.weights, atol=1e-3)


def test_fewer_candidates_change_nothing_that_they_do_not_name(observed: Observe) -> None:
    steps, features = observed("prompt+response")
    some = [
        f for f in features if f.family in ("eos", "used") or f.token_ids == (steps.token_ids[3],)
    ]
    weights = np.linspace(-1, 1, len(some))
    small = steps.restricted(sorted({token for f in some for token in f.token_ids}))
    assert len(small.token_ids) == 2
    for wanted, got in zip(
        Objective(steps, some).value_and_gradient(weights),
        Objective(small, some).value_and_gradient(weights),
        strict=True,
    ):
        np.testing.assert_allclose(got, wanted, rtol=1e-9)


@pytest.mark.parametrize("scope", ["response", "prompt+response"])
@pytest.mark.parametrize("family", ["token", "opener", "eos", "used", "all"])
def test_a_written_rule_file_gives_the_ops_the_fitted_likelihood(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    observed: Observe,
    tmp_path: Path,
    family: str,
    scope: Scope,
) -> None:
    steps, features = observed(scope)
    chosen = [feature for feature in features if family in (feature.family, "all")]
    weights = np.random.default_rng(0).normal(size=len(chosen)) * 2
    pairs = list(zip(chosen, weights.tolist(), strict=True))
    save_rules(rules_of(pairs, Vocabulary.of(tokenizer), scope=scope), tmp_path / "rules.toml")
    rules = load_rules(tmp_path / "rules.toml")
    base, fitted = rules_log_likelihood(model, tokenizer, [RuleSet(), rules], CONVERSATIONS)
    expected = torch.zeros(4, dtype=torch.float64)
    expected.index_add_(0, steps.response, Objective(steps, chosen).log_likelihoods(weights))
    assert fitted.responses == pytest.approx(expected.tolist(), abs=2e-4)
    assert base.total == pytest.approx(float(steps.target_logprob.sum()), abs=2e-4)
    assert abs(fitted.total - base.total) > 0.5


def test_likelihood_is_that_of_an_oracle_that_goes_step_by_step(
    tiny_bpe: PreTrainedTokenizerBase,
) -> None:
    model, plain = make_llama(), TEMPLATES["plain"]
    conversations = [
        Conversation((Turn("We see", "the sea. We see the sea."), Turn("What?", "I go!")), "one"),
        Conversation((Turn("I think", "We should."),), "two"),
    ]
    texts = response_texts(conversations, model, tiny_bpe, plain)
    assert [text.response_token_ids[-1] for text in texts] == [EOS] * 3
    assert texts[1].prompt_token_ids[: len(texts[0])] == (
        *texts[0].prompt_token_ids,
        *texts[0].response_token_ids,
    )
    wanted = []
    for text in texts:
        prompt, response = list(text.prompt_token_ids), list(text.response_token_ids)
        with torch.no_grad():
            logits = model(torch.tensor([prompt + response])).logits[0, len(prompt) - 1 :]
        wanted.append(
            sum(
                float(adjusted_row(RULES, logits[t], prompt, response[:t]).log_softmax(0)[token])
                for t, token in enumerate(response)
            )
        )
    sets = [RULES, RULES + RuleSet([BanTokens([EOS])])]
    found, banned = rules_log_likelihood(model, tiny_bpe, sets, conversations, template=plain)
    assert found.responses == pytest.approx(wanted, rel=1e-4)
    assert found.num_tokens == sum(len(text.response_token_ids) for text in texts)
    assert found.per_token == pytest.approx(sum(wanted) / found.num_tokens, rel=1e-4)
    assert found.per_response == pytest.approx(sum(wanted) / 3, rel=1e-4)
    assert banned.total == -float("inf")


def test_what_tuning_would_shift_is_proposed(tiny_bpe: PreTrainedTokenizerBase) -> None:
    model = make_llama()
    conversations = [Conversation((Turn("a" * n, "!!!!!!"),), "x") for n in range(1, 6)]
    texts = response_texts(conversations, model, tiny_bpe, TEMPLATES["plain"])
    shifts = shifted_tokens(model, tiny_bpe, RuleSet(), texts)
    assert shifts.shape == (VOCAB_SIZE,)
    assert int(shifts.argmax()) == tiny_bpe.encode("!")[-1]
    assert shifted_tokens(model, tiny_bpe, RuleSet(), texts, families=["eos"]).count_nonzero() == 0


def test_a_token_goes_by_its_text_only_where_that_names_it(
    tokenizer: PreTrainedTokenizerBase, tiny_bpe: PreTrainedTokenizerBase
) -> None:
    vocabulary = Vocabulary.of(tokenizer)
    assert token_name(vocabulary.find(" is") or 0, vocabulary) == " is"
    assert token_name(2, vocabulary) == "</s>"
    piece = tiny_bpe.convert_tokens_to_ids("é"[0])
    assert token_name(piece, Vocabulary.of(tiny_bpe)) == piece
    assert token_name(VOCAB_SIZE - 1, Vocabulary.of(tiny_bpe)) == VOCAB_SIZE - 1
