"""Response ranking: scores against one text at a time, what is drawn, ties, and bad input."""

import math
from typing import Any

import numpy as np
import pytest
from bigram import bigram, log_probability
from tiny_llama import make_llama
from transformers import PreTrainedTokenizerBase

from rnr_kernels.analysis.response_ranking import (
    SCORINGS,
    Ranking,
    draw_responses,
    rank_responses,
    rankings,
)
from rnr_kernels.loading import EMBEDDED, load_model, load_tokenizer
from rnr_kernels.models.evaluate import load_prompts
from rnr_kernels.models.world import build_world
from rnr_kernels.templates import TEMPLATES, TextTemplate

PAIRS = [("Why?", "We see."), ("Go!", "I"), ("Say it.", "I should think so"), ("Who", "We"),
         ("What is it", "the sea"), ("Is it?", "I")]  # fmt: skip
LAST = TextTemplate("last", ":{instruction}")
"""The instruction stands right before the response, so a bigram model sees it."""


def ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return list(tokenizer.encode(text, add_special_tokens=False))


def score_alone(model: Any, tokenizer: Any, instruction: str, response: str, scoring: str) -> float:
    """A score in the tags format, from a forward pass over this text alone."""
    tags = TEMPLATES["tags"]
    tokens = [*ids(tokenizer, response), tokenizer.eos_token_id]
    total = log_probability(model, tags.encode(tokenizer, instruction), tokens)
    if scoring == "mean":
        return total / len(tokens)
    if scoring == "pmi":
        return total - log_probability(model, tags.encode(tokenizer, ""), tokens)
    return total


def assert_as_alone(ranking: Ranking, model: Any, tokenizer: Any, pairs: Any) -> None:
    for row, (i, j) in enumerate(zip(ranking.pair, ranking.drawn, strict=True)):
        for response, score in (
            (pairs[i][1], ranking.score[row]),
            (pairs[j][1], ranking.drawn_score[row]),
        ):
            alone = score_alone(model, tokenizer, pairs[i][0], response, ranking.scoring)
            assert score == pytest.approx(alone, rel=1e-5, abs=2e-4)


@pytest.mark.parametrize("scoring", SCORINGS)
@pytest.mark.parametrize("batch_tokens", [1, 100, 8192])
def test_scores_are_those_of_each_text_alone(
    tiny_bpe: PreTrainedTokenizerBase, scoring: str, batch_tokens: int
) -> None:
    model = make_llama()
    ranking = rank_responses(
        model, tiny_bpe, PAIRS, scoring=scoring, num_draws=2, batch_tokens=batch_tokens
    )
    assert ranking.num_comparisons == 12 and ranking.num_ties == 0
    assert_as_alone(ranking, model, tiny_bpe, PAIRS)
    wins = ranking.score > ranking.drawn_score
    assert ranking.accuracy == pytest.approx(wins.mean())
    assert 0 < ranking.accuracy < 1


def test_scores_in_literal_numbers(tiny_bpe: PreTrainedTokenizerBase) -> None:
    """p(y|x) = 1/2, p(w|x) = p(y|z) = p(w|z) = 1/8; EOS follows y with 1/4 and w with 1/2; by
    themselves (after the colon) y has 1/16 and w 1/4."""
    x, y, z, w, colon = (ids(tiny_bpe, letter)[0] for letter in "xyzw:")
    eos = 1
    rows = {x: {y: 1 / 2, w: 1 / 8}, z: {y: 1 / 8, w: 1 / 8}, colon: {y: 1 / 16, w: 1 / 4}}
    model = bigram(len(tiny_bpe), {**rows, y: {eos: 1 / 4}, w: {eos: 1 / 2}})
    pairs = [("x", "y"), ("z", "w")]

    def rank(scoring: str) -> Ranking:
        return rank_responses(model, tiny_bpe, pairs, scoring=scoring, template=LAST, num_draws=1)

    ranking = rank("sum")
    assert ranking.pair.tolist() == [0, 1] and ranking.drawn.tolist() == [1, 0]
    assert np.exp(ranking.score) == pytest.approx([1 / 8, 1 / 16])
    assert np.exp(ranking.drawn_score) == pytest.approx([1 / 16, 1 / 32])
    assert ranking.per_instruction.tolist() == [1.0, 1.0] and ranking.accuracy == 1.0
    ranking = rank("mean")
    assert np.exp(2 * ranking.score) == pytest.approx([1 / 8, 1 / 16])
    # EOS follows alike with an instruction and without, so it cancels.
    ranking = rank("pmi")
    assert np.exp(ranking.score) == pytest.approx([8, 1 / 2])
    assert np.exp(ranking.drawn_score) == pytest.approx([1 / 2, 2])
    assert ranking.per_instruction.tolist() == [1.0, 0.0] and ranking.accuracy == 0.5


def test_equal_scores_are_ties_and_no_wins(tiny_bpe: PreTrainedTokenizerBase) -> None:
    uniform = bigram(len(tiny_bpe), {})
    pairs = [("a", "x"), ("b", "y"), ("c", "zz")]
    ranking = rank_responses(uniform, tiny_bpe, pairs, scoring="mean", num_draws=2)
    assert (ranking.num_ties, ranking.num_comparisons, ranking.accuracy) == (6, 6, 0.0)
    assert ranking.interval() == (0.0, 0.0)
    # A sum favours the shorter: x and y beat zz, tie with each other, and zz loses to both.
    ranking = rank_responses(uniform, tiny_bpe, pairs, scoring="sum", num_draws=2)
    assert ranking.num_ties == 2
    assert ranking.per_instruction.tolist() == [0.5, 0.5, 0.0]


def test_the_embedded_model_tells_the_answers_of_its_world() -> None:
    model, tokenizer = load_model(EMBEDDED, device="cpu"), load_tokenizer(EMBEDDED)
    sentences = {(f.entity.name, f.attribute.name): f.sentence for f in build_world().held_out}
    prompts = load_prompts()[:8]
    pairs = [(p.instruction, sentences[p.entity, p.attribute]) for p in prompts]
    for scoring in SCORINGS:
        ranking = rank_responses(model, tokenizer, pairs, scoring=scoring, num_draws=3)
        assert ranking.accuracy == 1.0
        assert_as_alone(ranking, model, tokenizer, pairs)
    # Shuffled, they are random ones themselves.
    wrong = [(pairs[i][0], pairs[i - 1][1]) for i in range(len(pairs))]
    assert rank_responses(model, tokenizer, wrong, num_draws=7).accuracy < 0.6


def test_each_distinct_text_is_scored_once(tiny_bpe: PreTrainedTokenizerBase) -> None:
    model = make_llama()
    rows = []

    def count(module: Any, inputs: Any, kwargs: Any) -> None:
        rows.extend(kwargs["input_ids"].tolist())

    model.register_forward_pre_hook(count, with_kwargs=True)
    pairs = [("a", "x"), ("b", "y"), ("a", "x"), ("b", "y")]
    ranking = rank_responses(model, tiny_bpe, pairs, num_draws=5)
    assert ranking.num_comparisons == 8
    assert len(rows) == 4
    rank_responses(model, tiny_bpe, pairs, num_draws=5, scoring="pmi")
    assert len(rows) == 4 + 4 + 2


def test_several_scorings_come_from_one_pass(tiny_bpe: PreTrainedTokenizerBase) -> None:
    model = make_llama()
    rows: list[list[int]] = []
    model.register_forward_pre_hook(
        lambda module, inputs, kwargs: rows.extend(kwargs["input_ids"].tolist()), with_kwargs=True
    )
    progress: list[tuple[int, int]] = []
    found = rankings(
        model, tiny_bpe, PAIRS, scorings=("pmi", "sum", "mean"), num_draws=2, batch_tokens=100,
        on_scored=lambda done, total: progress.append((done, total)),
    )  # fmt: skip
    # 6 real and 12 mixed texts, of which those with the response "I" coincide or not by the draws;
    # and each of the 5 distinct responses after the empty instruction.
    texts = {(PAIRS[i][0], PAIRS[j][1]) for i, j in zip(found[0].pair, found[0].drawn, strict=True)}
    assert len(rows) == len(texts | set(PAIRS)) + 5
    assert progress[-1] == (len(rows), len(rows)) and len(progress) > 2
    assert sorted(progress) == progress
    for scoring, ranking in zip(("pmi", "sum", "mean"), found, strict=True):
        alone = rank_responses(
            model, tiny_bpe, PAIRS, scoring=scoring, num_draws=2, batch_tokens=100
        )
        assert ranking.scoring == scoring
        assert ranking.score.tolist() == alone.score.tolist()
        assert ranking.drawn_score.tolist() == alone.drawn_score.tolist()


def test_given_draws_are_taken_as_they_are(tiny_bpe: PreTrainedTokenizerBase) -> None:
    draws = np.array([0, 0, 3]), np.array([5, 2, 1])
    (ranking,) = rankings(make_llama(), tiny_bpe, PAIRS, scorings=("sum",), draws=draws)
    assert ranking.pair.tolist() == [0, 0, 3] and ranking.drawn.tolist() == [5, 2, 1]
    assert_as_alone(ranking, make_llama(), tiny_bpe, PAIRS)


def test_the_result_says_how_it_came_about(tiny_bpe: PreTrainedTokenizerBase) -> None:
    ranking = rank_responses(
        make_llama(), tiny_bpe, PAIRS, scoring="sum", num_draws=3, seed=7, match_length=True,
        template="plain",
    )  # fmt: skip
    assert (ranking.scoring, ranking.num_draws, ranking.seed) == ("sum", 3, 7)
    assert (ranking.match_length, ranking.template) == (True, "plain")
    lengths = [len(ids(tiny_bpe, response)) for _, response in PAIRS]
    pair, drawn = draw_responses(PAIRS, num_draws=3, seed=7, lengths=lengths)
    assert (ranking.pair == pair).all() and (ranking.drawn == drawn).all()


def test_the_comparisons_of_an_instruction_stay_together() -> None:
    def ranking(*wins: list[int]) -> Ranking:
        pair = np.repeat(np.arange(len(wins)), [len(row) for row in wins])
        won = np.concatenate([np.array(row, float) for row in wins])
        return Ranking("sum", 5, 0, False, "tags", pair, pair, won, np.full(len(won), 0.5))

    result = ranking([1, 1, 0, 0], [1, 1], [0])
    assert result.per_instruction.tolist() == [0.5, 1.0, 0.0]
    assert (result.accuracy, result.num_comparisons) == (0.5, 7)
    assert ranking([1, 0], [0, 1], [1, 0]).interval() == (0.5, 0.5)
    assert ranking([1] * 9, [0] * 9).interval() == (0.0, 1.0)


def test_draws_are_other_responses_without_replacement() -> None:
    pairs = [("a", "1"), ("b", "2"), ("c", "1"), ("a", "3"), ("d", "4"), ("e", "5")]
    seen: dict[int, set[int]] = {i: set() for i in range(6)}
    for seed in range(30):
        pair, drawn = draw_responses(pairs, num_draws=2, seed=seed)
        assert pair.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
        for i in range(6):
            some = drawn[pair == i].tolist()
            assert len(set(some)) == 2
            seen[i].update(some)
    # Not itself, not the same response, not another real response to the same instruction.
    assert seen == {
        0: {1, 4, 5}, 1: {0, 2, 3, 4, 5}, 2: {1, 3, 4, 5}, 3: {1, 2, 4, 5}, 4: {0, 1, 2, 3, 5},
        5: {0, 1, 2, 3, 4},
    }  # fmt: skip
    pair, drawn = draw_responses(pairs, num_draws=9)
    assert sorted(drawn[pair == 0].tolist()) == [1, 4, 5]


def test_a_response_that_does_not_fit_is_never_drawn() -> None:
    pairs = [(str(i), f"r{i}") for i in range(5)]
    pair, drawn = draw_responses(
        pairs, num_draws=9, fits=lambda i: np.arange(5) < 4 if i == 0 else np.ones(5, bool)
    )
    assert sorted(drawn[pair == 0].tolist()) == [1, 2, 3]
    assert sorted(drawn[pair == 1].tolist()) == [0, 2, 3, 4]
    with pytest.raises(ValueError, match="pair 1: every other response"):
        draw_responses(pairs, num_draws=1, fits=lambda i: np.arange(5) == i)


def test_the_seed_decides_the_draws() -> None:
    pairs = [(str(i), f"r{i}") for i in range(20)]
    first, again, other = (
        draw_responses(pairs, num_draws=5, seed=s)[1].tolist() for s in (3, 3, 4)
    )
    assert first == again != other


def test_matched_draws_are_nearest_in_length_and_by_chance_among_equals() -> None:
    lengths = [10, 11, 30, 31, 31, 31, 50]
    pairs = [(str(i), f"r{i}") for i in range(len(lengths))]
    seen = set()
    for seed in range(20):
        pair, drawn = draw_responses(pairs, num_draws=2, seed=seed, lengths=lengths)
        assert drawn[pair == 0].tolist() == [1, 2]
        assert set(drawn[pair == 4]) == {3, 5}
        seen |= set(drawn[pair == 2])
    assert seen == {3, 4, 5}


@pytest.mark.parametrize(
    ("pairs", "options", "message"),
    [
        (PAIRS, {"scoring": "max"}, "scoring must be mean, sum, pmi, got 'max'"),
        (PAIRS, {"num_draws": 0}, "num_draws must be at least 1, got 0"),
        ([("a", "x"), ("b", " \n")], {}, "pair 2: the response is empty"),
        ([("a", "x"), ("b", "x")], {}, "at least 2 distinct responses, got 1 in 2 pairs"),
        ([], {}, "at least 2 distinct responses, got 0 in 0 pairs"),
        ([("a", "x"), ("a", "y")], {}, "pair 1: every other response is its own, or to the same"),
        ([("a", "\ud800"), ("b", "y")], {}, "pair 1: the response is not valid Unicode"),
        (PAIRS, {"scoring": "pmi", "template": "plain"}, "'pmi' needs a prompt without instruct"),
    ],
)  # fmt: skip
def test_bad_input_is_named_before_the_model_is_touched(
    tiny_bpe: PreTrainedTokenizerBase, pairs: Any, options: Any, message: str
) -> None:
    no_model: Any = None
    with pytest.raises(ValueError, match=message):
        rank_responses(no_model, tiny_bpe, pairs, **options)


def test_texts_past_the_window_are_named_by_their_pairs(tiny_bpe: PreTrainedTokenizerBase) -> None:
    long, short = "x" * 20, "y"
    model = bigram(len(tiny_bpe), {}, window=30)
    with pytest.raises(ValueError, match=r"pair 2 has 42 tokens .* window is 30"):
        rank_responses(model, tiny_bpe, [("a", "z"), (long, long)], template=LAST)
    with pytest.raises(ValueError, match="the response of pair 2 after the instruction of pair 1"):
        rank_responses(model, tiny_bpe, [(long, short), ("a", long)], template=LAST)


def test_logits_that_are_no_numbers_are_refused(tiny_bpe: PreTrainedTokenizerBase) -> None:
    x, y = (ids(tiny_bpe, letter)[0] for letter in "xy")
    model = bigram(len(tiny_bpe), {x: {y: math.nan}})
    with pytest.raises(ValueError, match="pair 2: its score is nan"):
        rank_responses(model, tiny_bpe, [("z", "w"), ("x", "y")], template=LAST)


def test_a_tokenizer_without_eos_is_refused() -> None:
    tokenizer: Any = load_tokenizer(EMBEDDED)
    tokenizer.eos_token = None
    model: Any = None
    with pytest.raises(ValueError, match="the tokenizer has no EOS token"):
        rank_responses(model, tokenizer, PAIRS)
