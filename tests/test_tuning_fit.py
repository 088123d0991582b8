"""Rules fitted to the embedded model's world: choice of weights, bounds, files, bad input."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedTokenizerBase

from rnr_kernels.cli.tune_rules import set_aside, tune_rules
from rnr_kernels.generation import generate
from rnr_kernels.loading import EMBEDDED, load_model, load_tokenizer
from rnr_kernels.models.world import ASKS, build_world, question
from rnr_kernels.rules.files import load_rules, save_rules
from rnr_kernels.rules.kinds import RuleSet
from rnr_kernels.rules.presets import hewitt2024
from rnr_kernels.tuning.conversations import Conversation, Turn
from rnr_kernels.tuning.fit import FittedRules, fit_rules
from rnr_kernels.tuning.likelihood import rules_log_likelihood

WORLD = build_world()
DATA = [
    Conversation((Turn(question(fact, ASKS[i % len(ASKS)]), fact.sentence),), f"record {i + 1}")
    for i, fact in enumerate(WORLD.asked[:84])
]
UNSEEN = [
    Conversation((Turn(question(fact, ASKS[i % len(ASKS)]), fact.sentence),), f"record {i + 1}")
    for i, fact in enumerate(WORLD.held_out[:7])
]


@pytest.fixture(scope="module")
def model() -> Any:
    return load_model(EMBEDDED, device="cpu")


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return load_tokenizer(EMBEDDED)


@pytest.fixture(scope="module")
def fitted(model: Any, tokenizer: PreTrainedTokenizerBase) -> FittedRules:
    return fit_rules(model, tokenizer, DATA, num_weights=4, held_out=UNSEEN)


def test_a_few_weights_make_the_base_model_answer_what_it_was_never_asked(
    model: Any, tokenizer: PreTrainedTokenizerBase, fitted: FittedRules
) -> None:
    instructions = [conversation.turns[0].instruction for conversation in UNSEEN]
    wanted = [conversation.turns[0].response for conversation in UNSEEN]

    def answers(rules: RuleSet | None) -> list[str]:
        found = generate(model, tokenizer, instructions, rules=rules, max_new_tokens=40)
        return [done.text if done.finish_reason == "eos" else "" for done in found]

    assert answers(fitted.rules) == wanted
    assert set(answers(None)) == {""}


def test_fitted_rules_are_likelier_than_base_and_hand_set_ones(
    model: Any, tokenizer: PreTrainedTokenizerBase, fitted: FittedRules
) -> None:
    assert fitted.converged
    assert 1 <= len(fitted.weights) <= 4
    assert fitted.base_held_out is not None
    assert fitted.fitted_held_out is not None
    by_hand = hewitt2024(strict=True)
    sets = [RuleSet(), fitted.rules, by_hand, by_hand.without("used"), by_hand.without("eos")]
    for data, base, rules in (
        (DATA, fitted.base, fitted.fitted),
        (UNSEEN, fitted.base_held_out, fitted.fitted_held_out),
    ):
        found = rules_log_likelihood(model, tokenizer, sets, data)
        assert found[0].responses == pytest.approx(base.responses, abs=1e-3)
        assert found[1].responses == pytest.approx(rules.responses, abs=1e-3)
        assert found[1].per_token > max(f.per_token for f in found if f is not found[1]) + 0.3


def test_a_rule_file_holds_all_of_the_fit(fitted: FittedRules, tmp_path: Path) -> None:
    for name in ("rules.toml", "rules.json"):
        save_rules(fitted.rules, tmp_path / name)
        assert load_rules(tmp_path / name) == fitted.rules
    assert {rule.label for rule in fitted.rules} == {w.feature.family for w in fitted.weights}


def test_more_weights_never_make_the_data_less_likely(
    model: Any, tokenizer: PreTrainedTokenizerBase
) -> None:
    values = []
    for num_weights in (1, 2, 6):
        found = fit_rules(
            model, tokenizer, DATA[:28], num_weights=num_weights, l2=0.1, least_gain=0.0
        )
        assert len(found.weights) == num_weights
        values.append(found.fitted.per_token)
    assert found.base.per_token < values[0] < values[1] < values[2]


def test_l1_keeps_few_weights(model: Any, tokenizer: PreTrainedTokenizerBase) -> None:
    some = fit_rules(model, tokenizer, DATA[:28], num_weights=30, l2=0.0, l1=2.0, least_gain=0.0)
    few = fit_rules(model, tokenizer, DATA[:28], num_weights=30, l2=0.0, l1=20.0, least_gain=0.0)
    assert some.converged
    assert few.converged
    assert 0 < len(few.weights) < len(some.weights) < 30
    assert 0.0 not in [each.weight for each in some.weights]
    none = fit_rules(model, tokenizer, DATA[:28], l1=1e6)
    assert none.weights == ()
    assert none.fitted.responses == pytest.approx(none.base.responses, abs=1e-5)


def test_families_may_be_left_out(model: Any, tokenizer: PreTrainedTokenizerBase) -> None:
    found = fit_rules(model, tokenizer, DATA[:28], families=["eos", "used"], least_gain=0.0)
    assert {each.feature.family for each in found.weights} == {"eos", "used"}


def test_a_family_may_come_first(model: Any, tokenizer: PreTrainedTokenizerBase) -> None:
    def family(**options: Any) -> str:
        (weight,) = fit_rules(model, tokenizer, DATA[:28], num_weights=1, **options).weights
        return weight.feature.family

    assert family() == "eos"
    assert family(first=["opener"]) == "opener"
    # A family whose gain is too small gets no weight, and the others have their turn.
    assert family(first=["used"]) == "eos"


def test_every_turn_is_fitted_to(model: Any, tokenizer: PreTrainedTokenizerBase) -> None:
    first, second = DATA[0].turns[0], DATA[1].turns[0]
    found = fit_rules(model, tokenizer, [Conversation((first, second), "both")], num_weights=1)
    assert len(found.fitted.responses) == 2
    assert found.fitted.total > found.base.total


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_weights": 0}, "num_weights must be 1 to 255, got 0"),
        ({"num_weights": 256}, "num_weights must be 1 to 255, got 256"),
        ({"num_candidates": 0}, "num_candidates must be at least 1, got 0"),
        ({"l2": -0.1}, "l2 must be 0 or more and finite, got -0.1"),
        ({"l1": float("nan")}, "l1 must be 0 or more and finite, got nan"),
        ({"scope": "prompt"}, "scope must be 'response' or 'prompt\\+response', got 'prompt'"),
        ({"families": ["eos", "length"]}, "families must be some of token, .*, got 'length'"),
        ({"families": []}, "families must be some of .*, got none"),
        ({"families": ["eos"], "first": ["used"]}, "first must be some of eos, got 'used'"),
        ({"conversations": []}, "there are no conversations"),
        (
            {"conversations": [Conversation((Turn("What?", " "),), "line 7")]},
            "line 7: a response is empty",
        ),
        (
            {"conversations": [Conversation((Turn("What?", "very " * 2048),), "line 8")]},
            "line 8: .* tokens, more than the model's window of 2048",
        ),
        ({"held_out": [Conversation((Turn("What?", ""),), "line 9")]}, "line 9: a response is"),
    ],
)
def test_bad_input_is_refused_before_any_forward_pass(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Any],
    message: str,
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("the model was run")

    monkeypatch.setattr(model, "forward", never)
    with pytest.raises(ValueError, match=message):
        fit_rules(model, tokenizer, **{"conversations": DATA[:2], **options})


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (float("nan"), "response 1 are NaN, .inf, or all -inf after 0 tokens"),
        (-float("inf"), "gives its next token the probability 0"),
    ],
)
def test_logits_that_nothing_can_be_fitted_to(
    tokenizer: PreTrainedTokenizerBase, value: float, message: str
) -> None:
    model: Any = load_model(EMBEDDED, device="cpu")
    the = DATA[0].turns[0].response[:3]
    bias = torch.zeros(model.config.vocab_size)
    bias[tokenizer.encode(the)[-1]] = value
    head = model.get_output_embeddings()
    head.register_forward_hook(lambda module, inputs, output: output + bias)
    with pytest.raises(ValueError, match=message):
        fit_rules(model, tokenizer, DATA[:2])


def test_the_command_writes_a_file_and_shows_what_it_fitted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.toml"
    fitted = tune_rules(DATA[:20], out, num_weights=2)
    assert load_rules(out) == fitted.rules
    assert fitted.rules.name == "out"
    assert len(fitted.fitted.responses) == 18
    printed = capsys.readouterr().out
    assert "</s>" in printed
    assert "base x fitted rules, held out" in printed
    assert f"{len(fitted.weights)} weights in" in printed
    with pytest.raises(ValueError, match="exists; pass --force to replace it"):
        tune_rules(DATA[:20], out)
    with pytest.raises(ValueError, match="a rule file's name ends in"):
        tune_rules(DATA[:20], tmp_path / "out.yaml")
    with pytest.raises(ValueError, match="the share to set aside must be 0 or more and below 1"):
        set_aside(DATA, 1.0, seed=0)
