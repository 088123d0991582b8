"""The rules of Hewitt et al. 2024 on real vocabularies."""

import pytest
from transformers import PreTrainedTokenizerBase

from rnr_kernels.rules.kinds import EosRamp, RuleSet, TokenBias, UsedTokenPenalty
from rnr_kernels.rules.presets import PRESETS, hewitt2024, preset
from rnr_kernels.rules.vocabulary import Vocabulary

LLAMA2_TABLE_8 = {
    29966: -4.0,
    529: -4.0,
    29989: -4.0,
    306: -5.0,
    29902: -5.0,
    1334: -3.0,
    5618: -3.0,
    881: -6.0,
    334: 1.0,
    448: 1.0,
    1678: 1.0,
    396: 1.0,
    444: 1.0,
    13: 1.0,
    29991: 1.0,
}


def uniform(rules: RuleSet) -> TokenBias:
    return next(rule for rule in rules if isinstance(rule, TokenBias))


def resolved(rules: RuleSet, tokenizer: PreTrainedTokenizerBase) -> dict[int, float]:
    vocabulary = Vocabulary.of(tokenizer)
    return {
        vocabulary.resolve(token, vocab_size=vocabulary.size): weight
        for token, weight in uniform(rules).weights.items()
    }


def test_the_paper_variant_is_table_8_on_llama2(llama2_tokenizer: PreTrainedTokenizerBase) -> None:
    assert resolved(hewitt2024(), llama2_tokenizer) == LLAMA2_TABLE_8
    assert Vocabulary.of(llama2_tokenizer).eos_token_ids == (2,)


def test_the_released_variant_on_llama2(llama2_tokenizer: PreTrainedTokenizerBase) -> None:
    assert resolved(hewitt2024("released"), llama2_tokenizer) == {**LLAMA2_TABLE_8, 5618: -5.0}


def test_the_released_scope_starts_at_the_instruction(
    llama2_tokenizer: PreTrainedTokenizerBase,
) -> None:
    used = hewitt2024("released").rules[2]
    assert isinstance(used, UsedTokenPenalty) and used.after is not None
    ids = llama2_tokenizer.encode("<|user|>\nName three fish.\n<|assistant|>\n")
    start = Vocabulary.of(llama2_tokenizer).used_from(ids, used.after)
    # BOS, then the six tokens of the tag and its newline.
    assert start == 7
    assert llama2_tokenizer.decode(ids[start:]) == "Name three fish.\n<|assistant|>\n"


def test_the_other_rules_of_each_variant() -> None:
    paper, released = hewitt2024(), hewitt2024("released")
    assert paper.rules[0] == EosRamp(15.0, 250, label="eos")
    assert paper.rules[2] == UsedTokenPenalty(1.5, "response", label="used")
    assert released.rules[0] == EosRamp(15.0, 250, until=250, label="eos")
    assert released.rules[2] == UsedTokenPenalty(
        1.5, "prompt+response", after="<|user|>\n", label="used"
    )


@pytest.mark.parametrize("name", ["sentencepiece_32k", "tekken_131k"])
def test_other_real_vocabularies_have_every_form(name: str, request: pytest.FixtureRequest) -> None:
    tokenizer = request.getfixturevalue(name)
    weights = resolved(hewitt2024(), tokenizer)
    printed = {Vocabulary.of(tokenizer).text(token_id): w for token_id, w in weights.items()}
    assert printed == dict(uniform(hewitt2024()).weights)


def test_strict_decides_whether_missing_forms_are_skipped() -> None:
    assert uniform(hewitt2024()).skip_missing is True
    assert uniform(hewitt2024(strict=True)).skip_missing is False


def test_the_rules_can_be_left_out_one_by_one() -> None:
    assert [rule.label for rule in hewitt2024()] == ["eos", "uniform", "used"]
    assert [rule.label for rule in hewitt2024().without("uniform")] == ["eos", "used"]


def test_presets_carry_the_name_they_are_found_by() -> None:
    assert {name: preset(name).name for name in PRESETS} == {name: name for name in PRESETS}
    assert preset("hewitt2024:released") == hewitt2024("released")


def test_unknown_names_list_the_known_ones() -> None:
    with pytest.raises(ValueError, match="hewitt2024, hewitt2024:released"):
        preset("hewitt2025")
    with pytest.raises(ValueError, match="'paper' or 'released', got 'code'"):
        hewitt2024("code")  # type: ignore[arg-type]
