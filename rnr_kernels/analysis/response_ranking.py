"""Response ranking: is an instruction's own response likelier to a model than a random one?

P(response | instruction) > P(random response | instruction), the rate at which that holds (Hewitt
et al. 2024, section 4).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rnr_kernels.forward import context_window
from rnr_kernels.intervals import bootstrap_interval
from rnr_kernels.teacher_forcing import (
    BATCH_TOKENS,
    Forced,
    force,
    response_rows,
    row_stats,
)
from rnr_kernels.templates import PromptTemplate, check_text, prompt_template

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

SCORINGS: Mapping[str, str] = {
    "mean": "log-probability per token of response + EOS, as in the published figures",
    "sum": "log-probability of response + EOS, as the definition is written",
    "pmi": "log p(response | instruction) - log p(response | empty instruction)",
}
"""What a response's score is, in nats."""


@dataclass(frozen=True, eq=False)
class Ranking:
    """Comparisons of real responses with random ones: C rows, those of an instruction together."""

    scoring: str
    num_draws: int
    seed: int
    match_length: bool
    template: str
    pair: Ints
    """[C], ascending: position of the pair with the instruction and its real response."""
    drawn: Ints
    """[C]: position of the pair whose response was drawn."""
    score: Floats
    """[C]: the real response's score, in nats (per token with "mean")."""
    drawn_score: Floats
    """[C]: the drawn response's score after the same instruction."""

    @property
    def num_comparisons(self) -> int:
        return len(self.pair)

    @property
    def num_ties(self) -> int:
        """Comparisons of equal scores; they are no wins."""
        return int((self.score == self.drawn_score).sum())

    @property
    def per_instruction(self) -> Floats:
        """[pairs]: share of an instruction's comparisons that its real response wins."""
        wins = np.bincount(self.pair, self.score > self.drawn_score)
        return np.asarray(wins / np.bincount(self.pair))

    @property
    def accuracy(self) -> float:
        """Mean of `per_instruction`: each instruction counts once."""
        return float(self.per_instruction.mean())

    def interval(self) -> tuple[float, float]:
        """95 % interval of the accuracy, by bootstrap over instructions."""
        return bootstrap_interval(self.per_instruction)


def rank_responses(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    pairs: Sequence[tuple[str, str]],
    *,
    scoring: str = "mean",
    num_draws: int = 5,
    seed: int = 0,
    match_length: bool = False,
    template: str | PromptTemplate = "tags",
    batch_tokens: int = BATCH_TOKENS,
) -> Ranking:
    """Compares each real response with `num_draws` random ones after the same instruction.

    `pairs` are (instruction, response); `draw_responses` says what is drawn, and SCORINGS what a
    score is. "sum" favours short responses; `match_length` compares responses of like length, "pmi"
    leaves out how likely a response is by itself. Each distinct text is scored once.

    Everything is checked before the first forward pass: ValueError for fewer than two distinct
    responses, an empty response, an unknown scoring, no draws, a tokenizer without EOS, a text
    longer than the model's window. ValueError afterwards if a score is not finite.
    """
    (ranking,) = rankings(
        model, tokenizer, pairs, scorings=(scoring,), num_draws=num_draws, seed=seed,
        match_length=match_length, template=template, batch_tokens=batch_tokens,
    )  # fmt: skip
    return ranking


def rankings(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    pairs: Sequence[tuple[str, str]],
    *,
    scorings: Sequence[str] = tuple(SCORINGS),
    num_draws: int = 5,
    seed: int = 0,
    match_length: bool = False,
    draws: tuple[Ints, Ints] | None = None,
    template: str | PromptTemplate = "tags",
    batch_tokens: int = BATCH_TOKENS,
    on_scored: Callable[[int, int], None] | None = None,
) -> list[Ranking]:
    """`rank_responses` by several scorings, of the same comparisons, from one pass a text.

    "pmi" adds a pass for each distinct response after the empty instruction. `draws` takes the
    place of `draw_responses` with the other arguments, so that several models are compared in the
    same way. `on_scored` gets the number of texts scored so far, and that of all.
    """
    pairs = [(instruction, response) for instruction, response in pairs]
    for scoring in scorings:
        if scoring not in SCORINGS:
            raise ValueError(f"scoring must be {', '.join(SCORINGS)}, got {scoring!r}")
    end = tokenizer.eos_token_id
    if end is None:
        raise ValueError(
            "the tokenizer has no EOS token to end a response with; set tokenizer.eos_token"
        )
    if isinstance(template, str):
        template = prompt_template(template)
    _check_pairs(pairs)
    prompt = tuple(template.encode(tokenizer, "")) if "pmi" in scorings else ()
    if "pmi" in scorings and not prompt:
        raise ValueError(
            f"scoring 'pmi' needs a prompt without instruction, and template {template.name!r} "
            "has no tokens then; use template 'tags'"
        )
    real = [force(tokenizer, template, *pair, end=end) for pair in pairs]
    if draws is None:
        lengths = [len(text.response_token_ids) for text in real] if match_length else None
        draws = draw_responses(pairs, num_draws=num_draws, seed=seed, lengths=lengths)
    pair, drawn = draws

    texts = dict(zip(pairs, real, strict=True))
    origins = {own: (i, i) for i, own in enumerate(pairs)}
    for i, j in zip(pair.tolist(), drawn.tolist(), strict=True):
        key = pairs[i][0], pairs[j][1]
        if key not in texts:
            texts[key], origins[key] = force(tokenizer, template, *key, end=end), (i, j)
    _check_window(model, texts, origins)

    scores = _scores(model, list(texts.values()), scorings, prompt, batch_tokens, on_scored)
    places = {key: place for place, key in enumerate(texts)}
    own = np.array([places[pairs[i]] for i in pair])
    mixed = np.array([places[pairs[i][0], pairs[j][1]] for i, j in zip(pair, drawn, strict=True)])
    found = []
    for scoring, values in zip(scorings, scores, strict=True):
        for key, score in zip(texts, values.tolist(), strict=True):
            if not np.isfinite(score):
                raise ValueError(
                    f"{_named(*origins[key])}: its score is {score}: the model's logits are NaN, "
                    "or give a token probability 0; try another dtype, or leave the pair out"
                )
        ranking = Ranking(
            scoring, num_draws, seed, match_length, template.name, pair, drawn,
            values[own], values[mixed],
        )  # fmt: skip
        found.append(ranking)
    return found


def draw_responses(
    pairs: Sequence[tuple[str, str]],
    *,
    num_draws: int,
    seed: int = 0,
    lengths: Sequence[int] | None = None,
    fits: Callable[[int], NDArray[np.bool_]] | None = None,
) -> tuple[Ints, Ints]:
    """Random pairs for every pair: int64 [C] and [C], whose instruction and whose response.

    A pair is drawn without replacement, all there are where they are fewer than `num_draws`; never
    one with the same response, or with the same instruction, to which its response would be a real
    one too. With `lengths` (of each response, in tokens) the nearest in length are taken, by chance
    among equals. `fits(i)`, bool [pairs], says which responses may follow the instruction of pair
    i. The same seed gives the same draws.
    """
    if num_draws < 1:
        raise ValueError(f"num_draws must be at least 1, got {num_draws}")
    rng = np.random.default_rng(seed)
    others = rivals(pairs)
    sizes = None if lengths is None else np.asarray(lengths)
    chosen = []
    for i in range(len(pairs)):
        among = others(i) if fits is None else others(i) & fits(i)
        order = rng.permutation(np.flatnonzero(among))
        if not len(order):
            raise ValueError(
                f"pair {i + 1}: every other response is its own, or to the same instruction; add "
                "pairs with others"
            )
        if sizes is not None:
            order = order[np.argsort(np.abs(sizes[order] - sizes[i]), kind="stable")]
        chosen.append(order[:num_draws])
    pair = np.repeat(np.arange(len(pairs)), [len(some) for some in chosen])
    return pair, np.concatenate(chosen)


def rivals(pairs: Sequence[tuple[str, str]]) -> Callable[[int], NDArray[np.bool_]]:
    """Which pairs have a random response for pair i, bool [pairs]: see `draw_responses`."""
    instructions, responses = (_numbered([pair[side] for pair in pairs]) for side in (0, 1))
    return lambda i: (instructions != instructions[i]) & (responses != responses[i])


def _numbered(texts: Sequence[str]) -> Ints:
    """Equal numbers for equal texts."""
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(text, len(numbers)) for text in texts])


def _check_pairs(pairs: Sequence[tuple[str, str]]) -> None:
    for number, (instruction, response) in enumerate(pairs, start=1):
        check_text(instruction, f"pair {number}: the instruction")
        check_text(response, f"pair {number}: the response")
        if not response.strip():
            raise ValueError(f"pair {number}: the response is empty; leave the pair out")
    distinct = len({response for _, response in pairs})
    if distinct < 2:
        raise ValueError(
            f"ranking needs at least 2 distinct responses, got {distinct} in {len(pairs)} pairs"
        )


def _check_window(
    model: "PreTrainedModel",
    texts: Mapping[tuple[str, str], Forced],
    origins: Mapping[tuple[str, str], tuple[int, int]],
) -> None:
    window = context_window(model)
    for key, text in texts.items():
        if window is not None and len(text) > window:
            raise ValueError(
                f"{_named(*origins[key])} has {len(text)} tokens with its prompt, the model's "
                f"window is {window}; leave the pair out"
            )


def _named(instruction: int, response: int) -> str:
    if instruction == response:
        return f"pair {instruction + 1}"
    return f"the response of pair {response + 1} after the instruction of pair {instruction + 1}"


def _scores(
    model: "PreTrainedModel",
    texts: Sequence[Forced],
    scorings: Sequence[str],
    prompt: tuple[int, ...],
    batch_tokens: int,
    on_scored: Callable[[int, int], None] | None,
) -> list[Floats]:
    """Of each scoring, the score of each text, in nats; `prompt` is that without instruction."""
    responses = [text.response_token_ids for text in texts]
    places: dict[tuple[int, ...], int] = {}
    order: list[int] = []
    if "pmi" in scorings:
        order = [places.setdefault(response, len(places)) for response in responses]
    num_texts = len(texts) + len(places)
    num_scored = 0

    def advance(more: int) -> None:
        nonlocal num_scored
        num_scored += more
        if on_scored is not None:
            on_scored(num_scored, num_texts)

    sums = _log_probabilities(model, texts, batch_tokens, advance)
    found: dict[str, Floats] = {"sum": sums, "mean": sums / [len(each) for each in responses]}
    if places:
        alone = [Forced(prompt, response) for response in places]
        found["pmi"] = sums - _log_probabilities(model, alone, batch_tokens, advance)[order]
    return [found[scoring] for scoring in scorings]


def _log_probabilities(
    model: "PreTrainedModel",
    texts: Sequence[Forced],
    batch_tokens: int,
    advance: Callable[[int], None],
) -> Floats:
    """log p(response | prompt) of each text, in nats: float32 terms, summed in float64."""
    totals = np.empty(len(texts))

    for rows in response_rows(model, texts, batch_tokens=batch_tokens):
        logprobs = row_stats(rows).logprob.double().split(rows.lengths)
        totals[rows.indices] = [float(some.sum()) for some in logprobs]
        advance(len(rows.indices))
        del rows  # before the next are computed
    return totals
